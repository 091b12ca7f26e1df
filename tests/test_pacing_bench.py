"""Slices in turn, and what a benchmark of pacing concludes. Nothing here is timed."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripts import loaded

from anydraft.bench import contenders, pacing_series
from anydraft.bench.contenders import AnydraftContender
from anydraft.bench.fixed_settings import fixed_setting
from anydraft.bench.measure import Plan, Record, Run, Task, measure
from anydraft.bench.pacing_groups import Part, groups_of, settings_of
from anydraft.bench.pacing_report import (
    AGAIN,
    FINAL,
    PLAIN,
    best_settings,
    pacing_table,
    reached,
    summarise_pacing,
)
from anydraft.bench.pacing_series import Series, runs_of
from anydraft.bench.prompts import Prompt, PromptSet
from anydraft.bench.slices import InSlices
from anydraft.pacing import Fixed, Steady
from anydraft.stats import Stats

TASK = Task(temperature=0.0, max_new_tokens=8, seed=0)


def ran(seconds: float, tokens: Sequence[int] = tuple(range(8)), passes: int = 8) -> Run:
    return Run(tokens=list(tokens), seconds=seconds, passes=passes)


class Stepping:
    """A contender that commits a number of tokens at every step, and may break at a place."""

    def __init__(self, name: str, log: list[tuple[str, int]], tokens: int, breaks_at: int = 99) -> None:
        self.name, self.log, self.tokens, self.breaks_at = name, log, tokens, breaks_at

    def prepare(self, temperature: float) -> None:
        self.log.append((self.name, -1))

    def run(self, prompt: Any, task: Task) -> Run:
        return ran(1.0)

    def steps(self, prompt: Any, task: Task) -> Generator[int, None, Run]:
        for count in range(self.tokens, task.num_tokens + 1, self.tokens):
            if count >= self.breaks_at:
                raise RuntimeError("it broke")
            self.log.append((self.name, count))
            yield count
        return ran(1.0, range(task.num_tokens))


def plan(batch: int = 1) -> Plan:
    prompts = [("p", [1]), ("q", [2])]
    return Plan(prompts=prompts, temperatures=[0.0], max_new_tokens=8, warm_up=[9], batch=batch)


def test_contenders_meet_at_the_same_places_of_the_text() -> None:
    log: list[tuple[str, int]] = []
    records = list(measure([Stepping("a", log, 2), Stepping("b", log, 4)], plan(), InSlices(4)))
    assert [(record.prompt_id, record.contender) for record in records] == [
        ("p", "a"), ("p", "b"), ("q", "b"), ("q", "a")
    ]  # fmt: skip
    steps = log[2:]  # after getting ready
    assert steps[:6] == [("a", 2), ("a", 4), ("b", 4), ("b", 8), ("a", 6), ("a", 8)]  # b begins the second slice
    assert steps[6:] == [("b", 4), ("a", 2), ("a", 4), ("a", 6), ("a", 8), ("b", 8)]  # b begins the second prompt
    assert all(record.run is not None for record in records)


def test_prompts_meet_the_same_in_any_share_of_a_plan() -> None:
    whole = Plan(
        prompts=[(name, [1]) for name in "pqrst"],
        temperatures=[0.0, 1.0],
        max_new_tokens=8,
        warm_up=[9],
        seed=5,
    )

    def taken(some: Plan) -> list[Any]:
        found = []
        for record in measure([Stepping("a", [], 2), Stepping("b", [], 4)], some, InSlices(4)):
            found.append((record.task.temperature, record.prompt_id, record.contender, record.task.seed))
        return found

    first, second = taken(whole.without({*"rst"})), taken(whole.without({*"pq"}))
    assert len(first) == 8
    assert [whole.without({*names}).runs_left for names in ("", "pq", "pqrstu")] == [10, 6, 0]
    assert sorted(first + second) == sorted(taken(whole))
    assert [place for place in taken(whole) if place[1] in "rst"] == second  # who begins, too


def test_slices_of_a_batch_are_of_all_its_rows() -> None:
    log: list[tuple[str, int]] = []
    list(measure([Stepping("a", log, 4), Stepping("b", log, 4)], plan(batch=2), InSlices(4)))
    assert log[2:6] == [("a", 4), ("a", 8), ("b", 4), ("b", 8)]


def test_one_that_breaks_in_a_slice_is_a_record_and_the_others_go_on() -> None:
    log: list[tuple[str, int]] = []
    records = list(measure([Stepping("a", log, 2, breaks_at=6), Stepping("b", log, 2)], plan(), InSlices(2)))
    errors = {(record.prompt_id, record.contender): record.error for record in records}
    assert errors == {("p", "a"): "RuntimeError: it broke", ("q", "a"): "RuntimeError: it broke", ("p", "b"): None,
                      ("q", "b"): None}  # fmt: skip
    assert log.count(("a", -1)) == 3  # it is made ready again after each
    with pytest.raises(ValueError, match="at least 1 token"):
        InSlices(0)


def test_time_between_the_steps_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(contenders, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    class Decoder:
        def stream(self, prompt: list[int], *, max_new_tokens: int, **options: Any) -> Iterator[Any]:
            for count in range(max_new_tokens):
                clock.now += 1.0
                done = SimpleNamespace(tokens=[0] * max_new_tokens, stats=Stats()) if count == 7 else None
                yield SimpleNamespace(row=0, tokens=[0], generation=done)

    steps = AnydraftContender("anydraft", Decoder()).steps([1], TASK)
    counts = []
    while True:
        try:
            counts.append(next(steps))
        except StopIteration as done:
            run = done.value
            break
        clock.now += 100.0
    assert counts == list(range(1, 9))
    assert (run.seconds, run.seconds_first_token) == (8.0, 1.0)


def records(part: dict[str, list[float]], temperature: float = 0.0, batch: int = 1) -> list[Record]:
    task = Task(temperature=temperature, max_new_tokens=8, seed=0, batch=batch)
    return [
        Record(prompt_id=str(i), contender=name, task=task, run=ran(seconds))
        for name, times in part.items()
        for i, seconds in enumerate(times)
    ]


def found(part: str, times: dict[str, list[float]], **options: Any) -> dict[str, bool]:
    return {aim.aim.partition(": ")[2]: aim.holds for aim in reached(summarise_pacing(part, records(times, **options)))}


def test_speeds_are_medians_over_prompts_of_ratios_to_plain_decoding() -> None:
    rows = summarise_pacing("bad", records({PLAIN: [2.0, 4.0, 3.0], f"{PLAIN}-wrong": [2.0, 8.0, 2.0]}))
    (row,) = rows
    assert row.speedup.value == pytest.approx(1.0)
    assert row.overall == pytest.approx(9 / 12)
    assert row.slowest == pytest.approx(0.5)
    assert row.identical == 3


def test_never_slower_is_judged_of_measured_pacing_alone() -> None:
    times = {PLAIN: [1.0] * 3, f"{PLAIN}-a": [1.05] * 3, f"{PLAIN}-b": [1.01] * 3, f"{PLAIN}-b@chain4": [2.0] * 3,
             AGAIN: [1.1] * 3}  # fmt: skip
    aims = found("bad", times)
    never = {aim: holds for aim, holds in aims.items() if "0.97x" in aim}
    assert list(never.values()) == [False, True]
    assert any(name.startswith("b at least 95%") for name in aims)
    assert "plain, again" in pacing_table(summarise_pacing("bad", records(times)), [], "title")


def test_the_best_fixed_setting_counts_only_above_plain_decoding() -> None:
    fixed = {f"{PLAIN}-a@chain4": [0.5] * 3, f"{PLAIN}-a@tree4": [2.0] * 3}
    assert not found("good", {PLAIN: [1.0] * 3, f"{PLAIN}-a": [0.6] * 3, **fixed})[
        "a at least 95% of the best of plain decoding and 2 fixed settings (3 prompts)"
    ]
    slow = {f"{PLAIN}-a@chain4": [2.0] * 3}
    assert found("good", {PLAIN: [1.0] * 3, f"{PLAIN}-a": [1.02] * 3, **slow})[
        "a at least 95% of the best of plain decoding and 1 fixed settings (3 prompts)"
    ]


def test_the_best_setting_by_all_prompts_together_may_be_another_one() -> None:
    times = {PLAIN: [1.0, 1.0, 4.0], f"{PLAIN}-a": [0.5, 0.5, 2.0], f"{PLAIN}-a@chain4": [0.4, 0.4, 4.0],
             f"{PLAIN}-a@tree4": [1.0, 1.0, 1.0]}  # fmt: skip
    (aim,) = [aim for aim in reached(summarise_pacing("good", records(times))) if "fixed" in aim.aim]
    assert aim.found == "80% [50%, 80%] of chain4 (2.50x); 100% of the best by all prompts together"
    assert not aim.holds  # the medians decide


def final(times: dict[str, list[float]], others: dict[str, list[float]]) -> list[str]:
    """Aims with fixed settings of a sweep and its final, and what was found."""
    rows = [*summarise_pacing("good", records(times)), *summarise_pacing(FINAL, records(others))]
    return [f"{aim.aim}: {aim.found}" for aim in reached(rows) if "fixed" in aim.aim]


def test_the_aim_is_judged_where_the_best_of_a_sweep_meet_pacing_on_other_prompts() -> None:
    sweep = {PLAIN: [1.0] * 3, f"{PLAIN}-a": [0.6] * 3, f"{PLAIN}-a@chain4": [0.4] * 3, f"{PLAIN}-a@tree4": [0.5] * 3}
    late = {PLAIN: [1.0] * 4, f"{PLAIN}-a": [0.5] * 4, f"{PLAIN}-a@chain4": [0.5] * 4, f"{PLAIN}-a@tree4": [0.45] * 4}
    assert [aim[:4] for aim in final(sweep, {})] == ["good"]
    (aim,) = final(sweep, late)
    assert aim.startswith("final, T=0: a at least 95% of the best of plain decoding and the sweep's 2 best fixed ")
    assert aim.partition("settings (4 prompts): ")[2] == (
        "90% [90%, 90%] of tree4 (2.22x); 90% of the best by all prompts together"
    )


def test_the_best_of_a_sweep_are_those_of_a_drafter_at_a_temperature() -> None:
    rows = []
    for temperature, times in ((0.0, [0.4, 0.5, 0.3]), (1.0, [0.9, 0.8, 1.2])):
        settings = {f"{PLAIN}-a@{name}": [t] * 3 for name, t in zip(("chain4", "tree4", "tree8"), times, strict=True)}
        others = {PLAIN: [1.0] * 3, f"{PLAIN}-a": [0.1] * 3, f"{PLAIN}-b@chain1": [0.2] * 3}
        rows += summarise_pacing("good", records(others | settings, temperature))
        rows += summarise_pacing(FINAL, records({PLAIN: [1.0], f"{PLAIN}-a@chain16": [0.1]}, temperature))
    assert best_settings(rows, "a", 0.0, 2) == ["tree8", "chain4"]
    assert best_settings(rows, "a", 1.0, 2) == ["tree4", "chain4"]
    assert best_settings(rows, "c", 1.0, 2) == []


def test_finals_are_on_prompts_of_their_own() -> None:
    pacing: Any = loaded("benchmarks/pacing.py")
    (sweep, _), asked = groups_of(Part.GOOD, (1,), 6, [0.0, 1.0]), []
    times = {PLAIN: [1.0] * 6, f"{PLAIN}-uag": [0.9] * 6}
    times |= {f"{PLAIN}-uag@{name}": [0.1 * i] * 6 for i, name in enumerate(sweep.settings, start=1)}

    def ran_so(group: Any) -> list[Record]:
        asked.append(group)
        return records(times, 1.0)  # the sweep was broken off after the first of two temperatures

    pacing._rows([sweep], ran_so, 24, 0)
    (_, late) = asked
    assert late.temperatures == [1.0]
    assert late.settings == sweep.settings[:2] == ("chain1", "chain2")
    assert (sweep.prompts, late.prompts) == (range(6), range(7, 31))  # one warms up
    assert late.name == "good-uag-final-1"
    assert [name for name, _ in settings_of(late)] == ["uag", "uag@chain1", "uag@chain2"]
    asked.clear()
    pacing._rows([sweep], ran_so, 0, 0)
    assert len(asked) == 1


def series_of(prompts: PromptSet) -> Series:
    return Series(prompts=prompts, dtype="float32", threads=1, enlarge=0.0, mismatched=None, seed=0, max_new_tokens=8,
                  slice_tokens=4)  # fmt: skip


def test_prompts_of_one_id_are_refused_for_runs_are_told_apart_by_it() -> None:
    prompts = tuple(Prompt(name, name) for name in ("p", "q", "p"))
    with pytest.raises(ValueError, match="prompt id 'p' of few comes 2 times"):
        series_of(PromptSet("few", prompts))
    series_of(PromptSet("none", ()))  # whoever asks for some will say so


class Untaken:
    """Models of which nothing is asked."""


def test_a_group_is_measured_in_shares_and_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the processes' work done here; new measurements drop what those before them left."""
    prompts = PromptSet("few", tuple(Prompt(name, name) for name in "pqrst"))
    whole = Plan(prompts=[(name, [1]) for name in "pqrs"], temperatures=[0.0], max_new_tokens=8, warm_up=[9])
    monkeypatch.setattr(pacing_series, "contenders_of", lambda bench, group: [Stepping("a", [], 2)])
    monkeypatch.setattr(pacing_series, "plan_of", lambda *arguments: whole)
    monkeypatch.setattr(Series, "bench", lambda series: Untaken())
    monkeypatch.setattr(pacing_series, "one_after_another", lambda work, calls: [work(*call) for call in calls])
    series = series_of(prompts)
    (group,) = groups_of(Part.MIXED, (1,), 4, [0.0])
    folder = tmp_path / "mixed"

    def found() -> list[str]:
        return [record.prompt_id for record in runs_of(group, tmp_path)]

    assert found() == []
    for processes, folders in ((3, ["0", "1", "2"]), (1, ["0"]), (2, ["0", "1"])):
        series.measure(group, tmp_path, {"run": processes}, processes=processes)
        assert found() == [*"pqrs"]
        assert sorted(path.parent.name for path in folder.glob("*/runs.jsonl")) == folders
    (folder / "1" / "runs.jsonl").rename(folder / "runs.jsonl")  # as of measurements in one process, formerly
    assert sorted(found()) == [*"pqrs"]
    for path in folder.rglob("runs.jsonl"):
        path.unlink()
    for number in range(12):
        (folder / f"{number}").mkdir(exist_ok=True)
        record = Record(prompt_id=str(number), contender="a", task=TASK, run=ran(1.0))
        (folder / f"{number}" / "runs.jsonl").write_text(json.dumps(record.to_dict()) + "\n", "utf-8")
    assert found() == [str(number) for number in range(12)]


def test_fixed_settings_by_name() -> None:
    chain, tree = fixed_setting("chain12"), fixed_setting("tree8")
    assert isinstance(chain, Fixed)
    assert (chain.bounds.depth, chain.bounds.nodes, chain.bounds.branch) == (12, 12, 1)
    assert isinstance(tree, Steady)
    assert tree.nodes == 7  # beside the root
    for name in ("tree", "chain0", "8", "Tree8", "tree8 "):
        with pytest.raises(ValueError, match="chainN or treeN"):
            fixed_setting(name)


def test_a_mixture_is_held_against_its_better_half() -> None:
    times = {PLAIN: [1.0] * 3, f"{PLAIN}-lookup": [0.5] * 3, f"{PLAIN}-redrafter": [0.8] * 3}
    for seconds, holds in ((0.45, True), (0.6, False)):
        aims = found("mixed", times | {f"{PLAIN}-lookup+redrafter": [seconds] * 3})
        assert aims["lookup+redrafter at least as fast as the better of the two"] is holds


def test_a_mixture_is_held_against_its_better_half_by_prompt_too() -> None:
    times = {PLAIN: [1.0] * 3, f"{PLAIN}-lookup": [0.5, 0.4, 0.25], f"{PLAIN}-lookup+redrafter": [0.4, 0.5, 0.2]}
    (aim,) = [aim for aim in reached(summarise_pacing("mixed", records(times))) if "better" in aim.aim]
    assert aim.found == "2.50x against 2.50x (lookup); by prompt 1.25 [0.80, 1.25]"
