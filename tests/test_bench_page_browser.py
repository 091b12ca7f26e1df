"""The benchmark page in a real browser: drawings are there, whole and quiet; switches work; it fits a phone."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser as chromium
import pytest
from bench_summary import NASTY, failed, summary
from browser import Browser
from page_looks import BOXES, CONTRAST, SHOWN, crowded

from anydraft.bench.page import write_page

PROGRAM = chromium.find()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"no browser on the path ({', '.join(chromium.NAMES)})")
REAL = Path(__file__).parent / "data" / "bench_summary.json"
DRAWINGS = ("speed", "cost", "acceptance", "times")
WIDTHS = (1200, 768, 390, 320)


def long_names() -> dict[str, Any]:
    made = summary()
    for one in [*made["rows"], *made["examples"]]:
        if "redrafter" in one["contender"]:
            one["contender"] += " with/a-name-of-more-than-thirty-letters"
        elif one["contender"] == "anydraft-lookup":
            one["speedup"] = {"value": 1.04, "low": 0.3, "high": 40.0}
    made["title"] = "x" * 300
    return made


def broken() -> dict[str, Any]:
    made = summary()
    for piece in (made["examples"][0]["steps"][0]["pieces"][0], made["rows"][2]):
        piece.update({"text": NASTY, "proposer": NASTY, "contender": NASTY})
    made["title"] = made["examples"][0]["prompt"] = NASTY
    made["rows"] = [one for one in made["rows"] if (one["temperature"], one["batch"]) != (1.0, 4)]
    for one in made["rows"]:
        if one["batch"] == 4:
            one.update(failed(one["temperature"], 4) | {"contender": one["contender"]})
    return made


SUMMARIES = {
    "made up": summary,
    "long names": long_names,
    "broken": broken,
    "empty": dict,
    **({"real": lambda: json.loads(REAL.read_text(encoding="utf-8"))} if REAL.exists() else {}),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module", params=SUMMARIES)
def case(request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory):
    """A page that is open, with the summary it was written from."""
    made = SUMMARIES[request.param]()
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(copy.deepcopy(made), path)
    return path, made


def fresh(browser: Browser, path: Path, width: int = 1200) -> None:
    browser.problems.clear()
    browser.requests.clear()
    browser.scheme("light")
    browser.size(width, 900, phone=width < 600)
    browser.open(path)


def settings(browser: Browser) -> Iterator[None]:
    """Every temperature with every batch."""
    for temperature in browser.evaluate(VALUES % "temperature") or [None]:
        for batch in browser.evaluate(VALUES % "batch") or [None]:
            for key, value in (("temperature", temperature), ("batch", batch)):
                if value is not None:
                    button = f'button[data-key="{key}"][data-value="{value}"]'
                    browser.evaluate(f"document.querySelector('{button}').click()")
            yield


VALUES = """[...document.querySelectorAll('button[data-key="%s"]')].map((button) => button.dataset.value)"""


def test_no_errors_and_no_requests(browser: Browser, case):
    path, _ = case
    fresh(browser, path)
    for _ in settings(browser):
        assert browser.evaluate("typeof window.hacked") == "undefined"
    assert browser.problems == []
    assert browser.requests == [path.resolve().as_uri()]


def test_each_drawing_has_its_contenders(browser: Browser, case):
    path, made = case
    fresh(browser, path)
    rows = made.get("rows", [])
    if not rows:
        assert "Nothing was measured" in browser.evaluate("document.body.innerText")
        return
    first = min((one["temperature"], one["batch"]) for one in rows)
    mine = [one for one in rows if (one["temperature"], one["batch"]) == first]
    drawn = {found["name"]: found for found in browser.evaluate(BOXES)}
    assert set(drawn) == set(DRAWINGS)
    assert drawn["speed"]["marks"] == len(mine)
    assert drawn["cost"]["marks"] == sum(bool(one["tau"] and one["cost"]) for one in mine)
    bars = browser.evaluate(
        f"""(() => {{ {SHOWN}
            return shown("#speed rect.bar")
                .map((e) => e.getBoundingClientRect())
                .map((b) => [b.width, b.height]); }})()"""
    )
    shown = [one["speedup"] or (one["tau"] and one["contender"] == one["engine"]) for one in mine]
    assert len(bars) == sum(map(bool, shown))
    assert all(width > 1 and height > 1 for width, height in bars)
    lines = browser.evaluate(f'(() => {{ {SHOWN} return shown("#acceptance .point").length; }})()')
    assert lines >= sum(bool(one["acceptance"]) for one in mine)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_is_clipped_or_covered_and_nothing_scrolls_sideways(browser: Browser, case, width: int):
    path, _ = case
    fresh(browser, path, width)
    for _ in settings(browser):
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate("document.body.scrollWidth") <= width
        assert crowded(browser) == []


def test_the_widest_letters_fit(browser: Browser, tmp_path: Path):
    write_page(long_names(), tmp_path / "page.html")
    for width in (1200, 390):
        fresh(browser, tmp_path / "page.html", width)
        browser.evaluate("""document.body.style.fontFamily = '"DejaVu Sans"'""")
        assert crowded(browser) == []


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Browser:
    write_page(summary(), tmp_path / "page.html")
    fresh(browser, tmp_path / "page.html")
    return browser


def headline(browser: Browser) -> str:
    found: str = browser.evaluate(f'(() => {{ {SHOWN} return shown("h1").map((e) => e.innerText).join("|"); }})()')
    return found


def test_buttons_choose_the_setting(opened: Browser):
    assert headline(opened).startswith("lookup+redrafter: 2.3 times as fast")
    opened.click('button[data-key="temperature"][data-value="1"]')
    assert headline(opened).startswith("lookup+redrafter: 2.1 times as fast")
    opened.click('button[data-key="batch"][data-value="4"]')
    assert headline(opened).startswith("lookup+redrafter: 1.9 times as fast")
    pressed = opened.evaluate(
        """[...document.querySelectorAll('nav button[aria-pressed="true"]')].map((e) => e.innerText)"""
    )
    assert pressed == ["1", "4"]
    text = "document.querySelector('#example').innerText"
    assert "No text of lookup+redrafter was kept at temperature 1" in opened.evaluate(text)
    opened.click('button[data-key="example"][data-value="1"]')
    assert "No text of" not in opened.evaluate(text)
    assert "drafted, the rest is the target’s own" in opened.evaluate(text)


def test_the_base_can_be_chosen(opened: Browser):
    name = f'(() => {{ {SHOWN} return shown("#speed svg").map((e) => e.getAttribute("aria-label")); }})()'
    assert opened.evaluate(name) == ["Speedup over plain decoding, same engine"]
    opened.click('button[data-value="transformers"]')
    assert opened.evaluate(name) == ["Speedup over transformers’ own generate"]


def test_refused_drafts_are_struck_through_when_asked_for(opened: Browser):
    count = f'(() => {{ {SHOWN} return shown("del").length; }})()'
    assert opened.evaluate(count) == 0
    opened.click(".refusals")
    assert opened.evaluate(count) > 5


def test_pointing_at_a_bar_and_at_a_pass_tells_its_figures(opened: Browser):
    tip = "document.querySelector('.tip:not([hidden])')?.textContent"
    opened.point("#speed rect.bar.c3")
    assert "2.34 times, 95 % interval 2.15 to 2.52" in opened.evaluate(tip)
    opened.point("#acceptance .point.c3")
    assert opened.evaluate(tip) == "lookup+redrafter\ndepth 1: 72% kept, 900 drafts"
    opened.point(".step .by")
    assert opened.evaluate(tip).startswith("pass 1: ")
    opened.point("h1")
    assert opened.evaluate(tip) is None
    assert opened.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(opened: Browser, scheme: str):
    opened.scheme(scheme)
    paper, found = opened.evaluate(CONTRAST)
    assert paper < 0.05 if scheme == "dark" else paper > 0.9
    assert len(found) > 100
    assert [(text, ratio) for text, ratio in found if ratio < 4.5] == []


def test_without_scripts_everything_is_shown(browser: Browser, tmp_path: Path):
    write_page(summary(), tmp_path / "page.html")
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        fresh(browser, tmp_path / "page.html")
        tree = browser.send("DOM.getDocument", depth=-1)
        root = tree["root"]["nodeId"]
        charts = browser.send("DOM.querySelectorAll", nodeId=root, selector="#cost svg.wide")["nodeIds"]
        assert len(charts) == 4
        for node in charts:
            assert browser.send("DOM.getBoxModel", nodeId=node)["model"]["height"] > 100
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_a_picture_of_it_has_the_colours(opened: Browser, tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    opened.screenshot(tmp_path / "page.png")
    picture = image.open(tmp_path / "page.png").convert("RGB")
    assert picture.width == 1200
    assert picture.height > 2500
    colours = {colour: count for count, colour in picture.getcolors(1 << 24)}
    for wanted in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)):
        assert colours.get(wanted, 0) > 50
