"""The benchmark page as text: escaping, words that the figures allow, contenders without figures."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bench_summary import NASTY, example, failed, row, summary

from anydraft.bench.page import page, write_page
from anydraft.bench.pages.drawing import Scale, cut, log_ticks, room, shorten, ticks
from anydraft.bench.pages.markup import Markup, escape, tag

VOID = {"meta", "link", "input", "br"}
PLAIN = row("anydraft", "anydraft", None, 1.0, 0.0, 1)


class Elements(HTMLParser):
    """All elements, their attributes and texts; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == name]

    def text_of(self, name: str) -> str:
        return "\n".join(text for found, text in self.texts if found == name)


def test_the_page_is_well_formed_and_asks_for_nothing(tmp_path: Path):
    write_page(summary(), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    elements = Elements(text)
    for _, attributes in elements.found:
        assert "src" not in attributes
        assert attributes.get("href", "data:,") == "data:,"
        assert not any(name.startswith("on") for name in attributes)
    assert not re.findall(r"url\(|@import|https?:", text)
    policies = [attributes["content"] or "" for attributes in elements.all("meta") if "http-equiv" in attributes]
    assert [policy.startswith("default-src 'none'") for policy in policies] == [True]


def test_every_drawing_is_described():
    text = page(summary())
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    charts = [drawing for drawing in drawings if 'role="img"' in drawing]
    assert len(charts) == 2 * 4 * 5  # widths, settings, drawings (two of speed)
    for drawing in charts:
        assert re.search(r"<title>[^<]+</title><desc>[^<]+</desc>", drawing)
    assert all('aria-hidden="true"' in drawing for drawing in drawings if drawing not in charts)


@pytest.mark.parametrize(
    "place",
    [
        "title",
        "provenance",
        "contender",
        "engine",
        "error",
        "failure",
        "prompt",
        "piece",
        "proposer",
        "rejected",
        "difference",
    ],
)
def test_text_from_outside_never_becomes_markup(place: str):
    made = summary()
    one, text = made["rows"][1], made["examples"][0]
    match place:
        case "title":
            made["title"] = NASTY
        case "provenance":
            made["provenance"] = {NASTY: {NASTY: [NASTY]}, "command": f"run --{NASTY}", "enlarged": NASTY}
        case "contender" | "engine":
            one[place] = NASTY
        case "error" | "failure":
            one[f"{place}s"] = [NASTY]
        case "difference":
            one["first_difference"] = {NASTY: NASTY}
        case "prompt":
            text["prompt"] = NASTY
        case "piece":
            text["steps"][0]["pieces"].append({"text": NASTY, "proposer": "target"})
        case "proposer":
            text["steps"][0]["pieces"].append({"text": "x", "proposer": NASTY})
        case "rejected":
            text["steps"][0]["rejected"] = [NASTY]
    written = page(made)
    elements = Elements(written)
    assert len(elements.all("script")) == 1
    assert "window.hacked" not in elements.text_of("script")
    assert "window.hacked" in written
    assert not elements.all("b") or "hacked" not in elements.text_of("style")
    written.encode("utf-8")
    assert not set(written) & {"\x00", "\x1b", "\u202e", "\ud800"}


def test_escaping_is_by_kind_not_by_care():
    assert tag("p", "<b>", Markup("<i></i>"), None) == "<p>&lt;b&gt;<i></i></p>"
    assert tag("p", title='"', data_at=1.25, hidden=True, id=None) == '<p title="&quot;" data-at="1.2" hidden></p>'
    assert escape("a\x00\n\t\u202eb\x85") == "a␀\n\t[U+202E]b�"


def test_nothing_at_all_is_said_so():
    for nothing in ({}, {"rows": [], "examples": []}, {"rows": None, "provenance": None, "title": None}):
        text = page(nothing)
        Elements(text)
        assert "Nothing was measured" in text


def test_rows_without_any_figure_are_named_as_failed():
    rows = [failed(0.0, 1), {"contender": "bare"}]
    text = page({"rows": rows, "examples": [{"contender": "bare"}, example("eagle", 0.0, ("eagle",))]})
    Elements(text)
    assert "Nothing could be measured here" in text
    assert "BrokenCheckpoint: my-eagle/model.safetensors holds no tensor" in text
    assert "bare</b>: could not be measured: no reason given" in text
    assert "This text is empty." in text


@pytest.mark.parametrize(
    "value", [None, math.nan, math.inf, "fast", [], {}, {"value": None}, {"value": math.nan}, True]
)
def test_any_figure_may_be_missing(value: Any):
    made = summary()
    names = [name for name in made["rows"][1] if name not in ("contender", "temperature", "batch")]
    for name, one in zip(names * 3, made["rows"], strict=False):
        one[name] = value
    made["examples"][0]["steps"] = value
    made["examples"][1]["steps"] = [value, {"pieces": value, "rejected": value}]
    text = page(json.loads(json.dumps(made)))
    Elements(text)
    assert "nan" not in re.sub("nan in scores", "", text).lower().split()


def test_the_command_breaks_before_options_only():
    text = page(summary() | {"provenance": {"command": "anydraft bench a -d 'b c' --limit 4"}})
    assert "<span>anydraft bench a</span> <span>-d &#x27;b c&#x27;</span> <span>--limit 4</span>" in text


def test_the_fastest_contender_s_text_comes_first():
    text = page(summary())
    names = re.findall(r'data-key="example" data-value="\d"[^>]*>([^<]+)<', text)
    assert names == ["lookup+redrafter", "redrafter", "uag pycode-2m"]
    plain = page({"rows": [PLAIN], "examples": [example("anydraft", 0.0, ("target",))]})
    assert "all the target’s own" in plain


def test_colours_of_proposers_are_those_of_their_contenders():
    text = page(summary())
    line = re.search(r'<rect[^>]*class="bar (c\d) faster"', text[text.index("redrafter") :])
    written = re.search(r'Text by redrafter.*?<span class="by (c\d)">', text, re.DOTALL)
    contenders = re.findall(r'<i class="chip (c\d|plain)"></i>([^<]+)<small>', text)
    assert {name: kind for kind, name in contenders}["redrafter"] == written[1]
    assert line
    assert len({kind for kind, _ in contenders if kind != "plain"}) == 7
    assert {name for kind, name in contenders if kind == "plain"} == {"plain decoding", "transformers"}


def test_all_text_of_an_example_is_there_in_order():
    made = example("lookup", 0.0, ("lookup",))
    text = page({"rows": [PLAIN], "examples": [made]})
    spans = re.findall(r'<span class="by [^"]+">([^<]*)</span>', text)
    wanted = "".join(piece["text"] for step in made["steps"] for piece in step["pieces"])
    assert "".join(spans) == escape(wanted)
    assert '<del class="refused">return n⏎⇥</del>' in text


def test_a_setting_that_was_not_measured_with_all_batches_is_said_so():
    rows = [PLAIN, row("anydraft", "anydraft", None, 1.0, 1.0, 4)]
    text = page({"rows": rows})
    assert "Nothing was measured at temperature 0, batch 4." in text


@pytest.mark.parametrize("high", [0.0, 1e-4, 0.9, 1.2, 2.4, 7.0, 99.0, 12345.0])
def test_ticks_are_few_round_and_within(high: float):
    found = ticks(high, 6)
    assert found[0] == 0
    assert len(found) <= 7
    assert all(value <= high * 1.001 for value in found)
    assert high == 0 or found[-1] >= high / 2


def test_log_ticks_hold_one():
    for low, high in ((0.8, 2.0), (0.9, 5.0), (0.5, 40.0), (0.01, 1000.0)):
        found = log_ticks(low, high, 9)
        assert 1.0 in found
        assert len(found) <= 9


def test_scales_stay_within_their_ends():
    scale = Scale(0.5, 8, 10, 110, logarithmic=True)
    assert scale(0.5) == 10
    assert scale(2) == pytest.approx(60)
    assert scale(0) == 10
    assert scale(100) == 110


def test_long_names_keep_both_ends():
    name = "universal double7/vicuna-68m with a very long name indeed"
    short = shorten(name, 120)
    assert room(short) <= 120
    assert short.startswith("univ")
    assert short.endswith("deed")
    assert shorten("lookup", 120) == "lookup"
    assert cut(name, 120).startswith("universal")
