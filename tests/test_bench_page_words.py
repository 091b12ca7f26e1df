"""What the benchmark page says in words: no more than the figures and their intervals allow."""

from typing import Any

from bench_summary import failed, row, summary

from anydraft.bench.page import page
from anydraft.bench.pages.results import read
from anydraft.bench.pages.words import finding, remarks, verdict
from anydraft.bench.statistics import Interval

PLAIN = row("anydraft", "anydraft", None, 1.0, 0.0, 1)


def contender(name: str, value: float, low: float, high: float, **changes: Any) -> dict[str, Any]:
    made = row(f"anydraft-{name}", "anydraft", value, 2.0, 0.0, 1)
    return made | {"speedup": {"value": value, "low": low, "high": high}} | changes


def said(*rows: dict[str, Any]) -> str:
    return finding(read({"rows": [PLAIN, *rows]}))


def test_a_gain_is_called_one_where_the_whole_interval_lies_above_one():
    assert said(contender("lookup", 2.41, 2.2, 2.6)) == "lookup: 2.4 times as fast as plain decoding, the same tokens"
    assert said(contender("lookup", 1.04, 1.01, 1.07, equal=None)) == "lookup: 1.04 times as fast as plain decoding"
    unclear = said(contender("lookup", 1.04, 0.98, 1.1, equal=None))
    assert unclear == "lookup is not clearly faster than plain decoding (1.04 times, 0.98 to 1.10)"
    assert said(contender("a", 0.9, 0.8, 0.95, equal=None)) == "a is slower than plain decoding: 0.90 of its speed"
    lost = said(contender("a", 0.9, 0.8, 0.95, equal=None), contender("b", 0.7, 0.6, 0.8))
    assert lost == "Nothing here beats plain decoding: the best, a, runs at 0.90 of its speed"
    assert [verdict(Interval(1.1, *ends)) for ends in ((1.0, 1.2), (1.01, 1.2), (0.8, 0.99))] == [
        "unclear",
        "faster",
        "slower",
    ]


def test_a_clear_gain_goes_before_a_larger_one_that_is_not():
    assert said(contender("a", 1.4, 0.9, 2.7), contender("b", 1.2, 1.05, 1.4)).startswith("b: 1.20 times as fast")


def test_headings_of_the_bars_count_over_their_own_base():
    made = {"rows": [PLAIN, contender("a", 1.4, 1.2, 1.7), contender("b", 0.8, 0.7, 0.9)]}
    made["rows"][1]["speedup_transformers"] = {"value": 0.9, "low": 0.8, "high": 1.1}
    text = page(made)
    assert "Of 2 contenders 1 faster, 1 slower</h2>" in text
    assert "Of 3 contenders 2 faster, 1 without a clear difference</h2>" in text


def test_texts_that_differ_are_in_the_headline():
    assert said(contender("a", 2.0, 1.9, 2.1, equal=[11, 12])).endswith("plain decoding, but 1 of 12 texts differs")
    assert said(contender("a", 2.0, 1.9, 2.1, equal=[9, 12])).endswith("but 3 of 12 texts differ")


def test_the_headline_is_about_this_engine_and_peers_are_remarked():
    peer = row("transformers-assisted", "transformers", 3.0, 2.0, 0.0, 1)
    rows = read({"rows": [PLAIN, contender("lookup", 1.3, 1.2, 1.4), contender("medusa", 0.8, 0.7, 0.9), peer]})
    assert finding(rows).startswith("lookup: 1.3 times")
    found = dict(remarks(rows))
    assert found["also faster"] == "transformers + assisted 2.9 times (of transformers)"
    assert found["medusa"] == "slower than plain decoding, 0.80 (0.70 to 0.90) of its speed"


def test_an_enlarged_target_is_announced_before_any_figure():
    text = page(summary() | {"provenance": {"enlarged": "400 M"}})
    assert 0 < text.index("The target is an enlarged one (400 M)") < text.index("<h1>")
    assert "enlarged" not in page(summary())


def test_a_busy_machine_and_an_unfinished_run_are_announced():
    busy = {"load_average": 7.6, "cores": 2}
    text = page(summary() | {"provenance": busy, "measured": [40, 60]})
    assert "The machine was busy: a load of 7.6 on 2 cores when this began." in text
    assert "Not finished: 40 of 60 runs were measured." in text
    assert "caveat" not in page(summary() | {"provenance": {"load_average": 0.3, "cores": 2}}).split("</style>")[1]


def test_a_failure_of_plain_decoding_leaves_no_bar():
    text = page({"rows": [failed(0.0, 1) | {"contender": "anydraft"}, failed(0.0, 1)]})
    assert 'class="bar' not in text
    assert "plain decoding, eagle</b>: could not be measured" in text


def test_texts_that_differ_are_added_to_a_loss():
    lost = said(contender("a", 0.9, 0.8, 0.95, equal=[11, 12]))
    assert lost == "a is slower than plain decoding: 0.90 of its speed, and 1 of 12 texts differs"
