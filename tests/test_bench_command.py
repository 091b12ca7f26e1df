"""`anydraft bench`: all contenders side by side, nothing measured is lost, and what is broken is said to be."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from cli_pair import run, write_pair
from rich.console import Console
from tiny_networks import random_network

from anydraft.bench import prompt_sets
from anydraft.bench.bench_table import remarks, speed_table
from anydraft.bench.compare import compare
from anydraft.bench.contenders import AnydraftContender
from anydraft.bench.differences import first_differences
from anydraft.bench.examples import Examples, example
from anydraft.bench.figures import PARTS, Figures, figures, finite
from anydraft.bench.measure import Plan, Record, Run, Task, measure
from anydraft.bench.memory import added_bytes, weight_bytes
from anydraft.bench.progress import TimeLeft, told
from anydraft.bench.running import Texts
from anydraft.bench.settings import Settings
from anydraft.bench.store import RunStore, complete, read_runs
from anydraft.decoder import Decoder
from anydraft.drafters.lookup import LookupDrafter
from anydraft.errors import OptionConflict
from anydraft.int8 import Int8Weight
from anydraft.onednn import LaidOut
from anydraft.tree import DraftTree

SMALL = ("--limit", 4, "-m", 6)
TEXTS = ("She went to the", "The bear and the", "one two one two one two", "Hello there", "It was", "and so", "He")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "some.jsonl"
    lines = (json.dumps({"id": f"p{number}", "turns": [text]}) for number, text in enumerate(TEXTS))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def measured(pair: tuple[str, str], prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A whole measurement: its folder, and what was printed as JSON."""
    out = tmp_path_factory.mktemp("bench") / "out"
    drafters = ("-d", pair[1], "-d", "lookup")
    batches = ("--batch", 1, "--batch", 2)
    result = run("bench", pair[0], *drafters, "--prompts", prompts, *SMALL, *batches, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    return out, json.loads(result.stdout)


def rows_of(summary: Any) -> dict[tuple[str, float, int], Any]:
    return {(row["contender"], row["temperature"], row["batch"]): row for row in summary["rows"]}


def lines_of(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def test_everyone_is_measured(measured: tuple[Path, Any]) -> None:
    _out, summary = measured
    rows = rows_of(summary)
    single = {"anydraft", "anydraft-assistant", "anydraft-lookup", "transformers", "transformers-assistant"}
    assert {key[0] for key in rows if key[2] == 1} == single
    # transformers' assisted generation takes one prompt at a time
    assert {key[0] for key in rows if key[2] == 2} == single - {"transformers-assistant"}
    assert {key[1] for key in rows} == {0.0, 1.0}
    for (name, temperature, batch), row in rows.items():
        assert (row["errors"], row["failures"], row["prompts"]) == ([], [], 4), name
        assert row["engine"] == name.partition("-")[0]
        assert row["tokens_per_second"]["low"] <= row["tokens_per_second"]["value"] <= row["tokens_per_second"]["high"]
        plain = name == row["engine"]
        assert (row["speedup"] is None) is plain
        assert (row["cost"] is None) is plain
        assert (row["speedup_transformers"] is None) is (name == "transformers")
        assert row["tau"]["value"] >= 1
        if not plain:
            assert row["cost"]["value"] == pytest.approx(row["tau"]["value"] / row["speedup"]["value"])
        assert len(row["acceptance"]) == len(row["reached"])
        assert set(row["seconds_per_token"]) == set(PARTS)
        spent = sum(row["seconds_per_token"].values())
        assert spent == pytest.approx(1 / row["tokens_per_second"]["value"], rel=1e-6)
        assert row["first_token"] > 0
        assert row["peak_memory"] > 100_000
        if name.startswith("anydraft-") or (temperature == 0 and name != "anydraft"):
            assert row["equal"] == [4, 4], (name, temperature, batch)
            assert row["first_difference"] is None
        else:
            assert row["equal"] is None
    assert rows["anydraft-lookup", 0.0, 1]["peak_memory"] >= rows["anydraft", 0.0, 1]["peak_memory"]
    assert rows["anydraft-assistant", 0.0, 1]["peak_memory"] > rows["anydraft", 0.0, 1]["peak_memory"]
    assert summary["measured"] == [56, 56]


def test_what_is_in_the_folder(measured: tuple[Path, Any], prompts: Path) -> None:
    out, summary = measured
    assert {path.name for path in out.iterdir()} == {
        "runs.jsonl", "settings.json", "summary.json", "provenance.json", "example.json", "report.html"
    }  # fmt: skip
    assert json.loads((out / "summary.json").read_text()) == summary
    taken = json.loads((out / "provenance.json").read_text())
    assert taken == summary["provenance"]
    assert (taken["target"], taken["drafters"]) == ("target", ["assistant", "lookup"])  # no folder of this machine
    assert (taken["prompts"], taken["num_prompts"], taken["prompt_form"]) == ("some.jsonl", 4, "text to continue")
    assert summary["title"] in (out / "report.html").read_text()
    lines = lines_of(out)
    assert len(lines) == 56
    assert {line["prompt_id"] for line in lines if line["batch"] == 2} == {"p0 +1", "p2 +1"}
    assert all(len(line["tokens"]) == 6 * line["batch"] for line in lines)


def test_examples_tell_every_tokens_fate(measured: tuple[Path, Any]) -> None:
    _out, summary = measured
    told_by = {(e["contender"], e["temperature"]): e for e in summary["examples"]}
    names = ("anydraft", "anydraft-assistant", "anydraft-lookup")
    assert set(told_by) == {(name, temperature) for name in names for temperature in (0.0, 1.0)}
    plain = told_by["anydraft", 0.0]
    assert plain["prompt"] == TEXTS[0]
    assert all(step["rejected"] == [] and len(step["pieces"]) == 1 for step in plain["steps"])
    for (_, temperature), told_one in told_by.items():
        text = "".join(piece["text"] for step in told_one["steps"] for piece in step["pieces"])
        base = told_by["anydraft", temperature]
        assert text == "".join(piece["text"] for step in base["steps"] for piece in step["pieces"])
    drafted = [step["rejected"] for step in told_by["anydraft-assistant", 1.0]["steps"]]
    assert any(drafted)


def test_the_same_command_again_measures_nothing(
    measured: tuple[Path, Any], pair: tuple[str, str], prompts: Path
) -> None:
    out, _ = measured
    before = (out / "runs.jsonl").read_bytes()
    drafters, batches = ("-d", pair[1], "-d", "lookup"), ("--batch", 1, "--batch", 2)
    result = run("bench", pair[0], *drafters, "--prompts", prompts, *SMALL, *batches, "--out", out)
    assert result.exit_code == 0
    assert "56 of 56 runs were there already" in result.stderr
    assert "anydraft-lookup" in result.stdout
    assert (out / "runs.jsonl").read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused(
    measured: tuple[Path, Any], pair: tuple[str, str], prompts: Path
) -> None:
    out, _ = measured
    before = (out / "runs.jsonl").read_bytes()
    result = run("bench", pair[0], "-d", "lookup", "--prompts", prompts, *SMALL, "--batch", 1, "--out", out)
    assert result.exit_code == 2
    assert "has runs of another measurement (drafters: " in result.stderr
    assert "--fresh" in result.stderr
    assert (out / "runs.jsonl").read_bytes() == before


@pytest.mark.parametrize("call", [2, 6])
def test_ctrl_c_before_anything_is_complete(
    pair: tuple[str, str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """While warming up, and in the first prompt."""
    original, calls = AnydraftContender.run, []

    def interrupted(self: AnydraftContender, prompt: Any, task: Task) -> Run:
        calls.append(self.name)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(self, prompt, task)

    monkeypatch.setattr(AnydraftContender, "run", interrupted)
    small = ("--prompts", prompts, *SMALL, "--batch", 1, "--no-peers", "-t", 0, "--out", tmp_path / "out")
    result = run("bench", pair[0], "-d", "lookup", *small)
    assert result.exit_code == 130
    assert "stopped: 0 of 8 runs are complete" in result.stderr
    assert "error" not in result.stderr


def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(
    pair: tuple[str, str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ("bench", pair[0], "-d", "lookup", "--prompts", prompts, *SMALL, "--batch", 1, "--no-peers", "-t", 0)
    original = AnydraftContender.run
    calls: list[str] = []

    def interrupted(self: AnydraftContender, prompt: Any, task: Task) -> Run:
        calls.append(self.name)
        if len(calls) == 4 + 2 + 5:  # memory and warm-up come first; then in the middle of the third prompt
            raise KeyboardInterrupt
        return original(self, prompt, task)

    monkeypatch.setattr(AnydraftContender, "run", interrupted)
    result = run(*command, "--out", out)
    assert result.exit_code == 130
    assert "stopped: 4 of 8 runs are complete" in result.stderr
    assert "goes on from there" in result.stderr
    assert "anydraft-lookup" in result.stdout  # the table of what is there
    summary = json.loads((out / "summary.json").read_text())
    assert {row["prompts"] for row in summary["rows"]} == {2}
    assert summary["measured"] == [4, 8]
    kept = {(line["prompt_id"], line["contender"]): line["seconds"] for line in lines_of(out)}
    assert len(kept) == 4
    with (out / "runs.jsonl").open("a") as file:  # a run whose neighbours are missing, and one that was torn off
        stray = {**lines_of(out)[0], "prompt_id": "p2", "seconds": 1e6}
        file.write(json.dumps(stray) + "\n" + json.dumps(stray)[:40])

    monkeypatch.setattr(AnydraftContender, "run", original)
    result = run(*command, "--out", out)
    assert result.exit_code == 0, result.stderr
    lines = lines_of(out)
    again = {(line["prompt_id"], line["contender"]): line["seconds"] for line in lines}
    assert len(lines) == len(again) == 8
    assert {key: again[key] for key in kept} == kept  # not measured again
    assert max(again.values()) < 1e5  # the stray one was
    assert len(json.loads((out / "provenance.json").read_text())["resumed"]) == 1
    whole = run(*command, "--out", tmp_path / "whole")
    assert whole.exit_code == 0
    tokens = [
        {(line["prompt_id"], line["contender"]): line["tokens"] for line in lines_of(tmp_path / name)}
        for name in ("out", "whole")
    ]
    assert tokens[0] == tokens[1]  # the seed of a prompt is its own


def broken_in(what: str) -> Callable[..., list[DraftTree]]:
    def propose(self: LookupDrafter, rows: Sequence[Any], bounds: Sequence[Any]) -> list[DraftTree]:
        if what == "raises":
            raise RuntimeError("no such head")
        if what == "garbage":
            return [DraftTree((10**9,), (-1,), (0.0,)) for _ in rows]
        return [DraftTree((5,), (-1,), (math.nan,)) for _ in rows]

    return propose


@pytest.mark.parametrize("what", ["raises", "garbage"])
def test_a_broken_drafter_is_reported_and_the_others_go_on(
    what: str, pair: tuple[str, str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LookupDrafter, "propose", broken_in(what))
    options = ("--prompts", prompts, *SMALL, "--batch", 1, "--no-peers", "-t", 0, "--out", tmp_path / "out")
    result = run("bench", pair[0], "-d", "lookup", "-d", pair[1], *options)
    assert result.exit_code == 0, result.stderr
    assert "broken" in result.stdout
    assert ("no such head" if what == "raises" else "vocabulary") in result.stdout
    rows = rows_of(json.loads((tmp_path / "out" / "summary.json").read_text()))
    row = rows["anydraft-lookup", 0.0, 1]
    assert row["errors"] == []
    assert row["failures"]
    assert row["equal"] == [4, 4]  # generation went on without the drafter, and said the same
    good = rows["anydraft-assistant", 0.0, 1]
    assert (good["errors"], good["failures"], good["equal"]) == ([], [], [4, 4])


def test_scores_that_are_no_numbers_are_reported_and_change_no_token(
    pair: tuple[str, str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LookupDrafter, "propose", broken_in("nan"))
    options = ("--prompts", prompts, *SMALL, "--batch", 1, "--no-peers", "-t", 0, "--out", tmp_path / "out", "--json")
    result = run("bench", pair[0], "-d", "lookup", *options)
    assert result.exit_code == 0, result.stderr
    row = rows_of(json.loads(result.stdout))["anydraft-lookup", 0.0, 1]
    assert any("not numbers" in failure for failure in row["failures"])
    assert row["equal"] == [4, 4]


def test_a_drafter_that_cannot_be_loaded_is_reported(pair: tuple[str, str], prompts: Path, tmp_path: Path) -> None:
    random_network("redrafter", tiny.model("llama")).save_pretrained(tmp_path / "of-another")
    options = ("--prompts", prompts, *SMALL, "--batch", 1, "--no-peers", "-t", 0, "--out", tmp_path / "out")
    result = run("bench", pair[0], "-d", tmp_path / "of-another", "-d", "lookup", *options)
    assert result.exit_code == 0, result.stderr
    assert "anydraft-of-another failed: NotLoaded: WrongTarget" in result.stdout
    rows = rows_of(json.loads((tmp_path / "out" / "summary.json").read_text()))
    assert rows["anydraft-of-another", 0.0, 1]["prompts"] == 0
    assert rows["anydraft-lookup", 0.0, 1]["prompts"] == 4


def test_names_with_commas_are_one_contender(pair: tuple[str, str], prompts: Path, tmp_path: Path) -> None:
    options = ("--prompts", prompts, *SMALL, "--batch", 1, "--no-peers", "-t", 0, "--out", tmp_path / "out", "--json")
    result = run("bench", pair[0], "-d", f"lookup,{pair[1]}", *options)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    row = rows_of(found)["anydraft-mix", 0.0, 1]
    assert (row["errors"], row["failures"], row["equal"]) == ([], [], [4, 4])
    assert found["provenance"]["drafters"] == ["lookup,assistant"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-d", "./nowhere"), "there is no folder './nowhere'"),
        (("-d", "none"), "plain decoding is always measured"),
        (("-d", ","), "names no drafter"),
        (("--prompts", "nothing.jsonl"), "there is no file 'nothing.jsonl'"),
        (("--batch", 0), "--batch must be 1 or more, got 0"),
        (("--batch", 8, "--limit", 4), "--batch 8 needs at least as many prompts"),
        (("--temperature", -1), "--temperature must be a number of 0 or more, got -1"),
        (("-m", 300), "fit the target's context of 256 tokens"),
        (("--compare", "nowhere", "nowhere"), "has no runs to compare"),
    ],
)
def test_bad_input_is_told(
    options: tuple[Any, ...], words: str, pair: tuple[str, str], prompts: Path, tmp_path: Path
) -> None:
    given = (
        ("-d", "lookup", "--prompts", prompts, *options) if "-d" not in options else ("--prompts", prompts, *options)
    )
    result = run("bench", pair[0], *given, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


# Comparing. -----------------------------------------------------------------------------------


def record(name: str, prompt: str, seconds: float, tokens: Sequence[int] = (1, 2, 3, 4), **options: Any) -> Record:
    task = Task(
        temperature=0.0, max_new_tokens=len(tokens) // options.get("batch", 1), seed=0, batch=options.get("batch", 1)
    )
    return Record(
        prompt_id=prompt,
        contender=name,
        task=task,
        run=Run(tokens=list(tokens), seconds=seconds, passes=options.get("passes", len(tokens))),
    )


def written(folder: Path, records: Sequence[Record]) -> Path:
    folder.mkdir()
    (folder / "runs.jsonl").write_text("".join(json.dumps(record.to_dict()) + "\n" for record in records))
    return folder


def test_compare_takes_speed_over_shared_prompts_and_cancels_drift(tmp_path: Path) -> None:
    before = [record("anydraft", "a", 2.0), record("anydraft", "b", 4.0), record("anydraft", "only", 9.0)]
    before += [record("anydraft-x", "a", 2.0), record("anydraft-x", "b", 4.0)]
    # The machine is twice as fast now, and the drafter itself twice as good on top of that.
    after = [record("anydraft", "a", 1.0), record("anydraft", "b", 2.0)]
    after += [record("anydraft-x", "a", 0.5, passes=2), record("anydraft-x", "b", 1.0, (1, 2, 3, 9), passes=2)]
    after += [record("anydraft-y", "a", 1.0)]
    found = compare(written(tmp_path / "old", before), written(tmp_path / "new", after) / "runs.jsonl")
    plain, drafted = found.changes
    assert (plain.contender, plain.prompts, plain.speedup) == ("anydraft", 2, None)
    assert plain.speed.value == pytest.approx(2.0)
    assert drafted.speed.value == pytest.approx(4.0)
    assert drafted.speedup is not None
    assert [drafted.speedup.value, drafted.speedup.low, drafted.speedup.high] == pytest.approx([2.0] * 3)
    assert drafted.tau == (1.0, 2.0)
    assert drafted.cost == pytest.approx((1.0, 1.0))
    assert drafted.same == (1, 2)
    assert drafted.equal == ((2, 2), (1, 2))
    assert found.only_after == ["anydraft-y at T=0, batch 1, 4 tokens"]
    json.dumps(found.to_dict())


def test_compare_refuses_what_has_nothing_in_common(tmp_path: Path) -> None:
    one = written(tmp_path / "one", [record("anydraft", "a", 1.0)])
    other = written(tmp_path / "other", [record("anydraft", "a", 1.0, (1, 2))])
    with pytest.raises(OptionConflict, match="number of new tokens in common"):
        compare(one, other)
    (other / "runs.jsonl").write_text('{"no": "run"}\n{"no": "run"}\n')
    with pytest.raises(OptionConflict, match="line 1 is no run"):
        compare(one, other)


def test_compare_as_a_command(measured: tuple[Path, Any]) -> None:
    out, _ = measured
    result = run("bench", "--compare", out, out / "runs.jsonl")
    assert result.exit_code == 0
    assert "1.000 [1.000, 1.000]" in result.stdout
    found = json.loads(run("bench", "--compare", out, out, "--json").stdout)
    assert len(found["changes"]) == 18
    assert all(change["same"][0] == change["same"][1] for change in found["changes"])


# Parts. ---------------------------------------------------------------------------------------


def some_settings(**changes: Any) -> Settings:
    known: dict[str, Any] = {
        "target": "t", "drafters": ("a",), "models": {}, "prompts": "p", "prompts_digest": "d", "num_prompts": 2,
        "prompt_form": "text to continue", "temperatures": (0.0,), "batches": (1,), "max_new_tokens": 4, "seed": 0,
        "peers": False, "dtype": "float32", "device": "cpu", "threads": 1, "exact": False, "draft_tokens": None,
        "any_target": False, "versions": {},
    }  # fmt: skip
    return Settings(**{**known, **changes})


def test_a_prompt_counts_when_all_contenders_finished_it(tmp_path: Path) -> None:
    names = {1: ["a", "b"]}
    store = RunStore(tmp_path, some_settings(), names)
    for name, prompt in (("a", "x"), ("b", "x"), ("b", "y")):
        store.append(record(name, prompt, 1.0))
    assert store.done(1) == {(0.0, "x")}
    store.close()
    again = RunStore(tmp_path, some_settings(), names)
    with pytest.raises(OptionConflict, match="another process is writing"):
        RunStore(tmp_path, some_settings(), names)
    assert again.resumed == 2
    assert [r.prompt_id for r in read_runs(tmp_path / "runs.jsonl")] == ["x", "x"]
    again.close()
    assert complete([record("a", "x", 1.0)], {1: ["a"]})
    with pytest.raises(OptionConflict, match="seed: 0 there, 1 now"):
        RunStore(tmp_path, some_settings(seed=1), names)
    RunStore(tmp_path, some_settings(seed=1), names, fresh=True).close()
    assert read_runs(tmp_path / "runs.jsonl") == []
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(OptionConflict, match=r"no settings\.json that can be read"):
        RunStore(tmp_path, some_settings(seed=1), names)


def test_settings_with_one_digest_are_one_measurement() -> None:
    assert some_settings().digest == some_settings().digest != some_settings(threads=2).digest
    assert some_settings().differences(some_settings().to_dict()) == []


def test_prompts_are_grouped_into_whole_batches() -> None:
    texts = Texts([(f"p{i}", "", [i]) for i in range(5)], [[90], [91]])
    assert texts.groups(2) == [("p0 +1", [[0], [1]]), ("p2 +1", [[2], [3]])]
    assert [name for name, _ in texts.groups(1)] == ["p0", "p1", "p2", "p3", "p4"]
    assert texts.warm_up(1) == [90]
    assert texts.warm_up(3) == [[90], [91], [4]]


def test_the_first_difference_and_its_margin() -> None:
    target = tiny.target("llama")
    decoder = tiny.decoder(target)
    said = decoder.generate([5, 6, 7], max_new_tokens=6, ignore_eos=True).tokens
    wrong = [*said[:3], (said[3] + 1) % tiny.VOCAB, *said[4:]]
    records = [record(name, "p", 1.0, tokens) for name, tokens in (("anydraft", said), ("anydraft-x", wrong))]
    found = first_differences(records, {"p": [5, 6, 7]}, target)
    assert set(found) == {("anydraft-x", 0.0, 1)}
    difference = found["anydraft-x", 0.0, 1]
    assert (difference["position"], difference["plain"], difference["drafted"]) == (3, said[3], wrong[3])
    assert difference["margin"]["best"] == said[3]
    assert difference["margin"]["gap"] > 0
    row = figures(records, found)[1]
    assert row.equal == (0, 1)
    assert row.first_difference == difference
    batch = [record(name, "p", 1.0, tokens, batch=2) for name, tokens in (("anydraft", said), ("anydraft-x", wrong))]
    assert figures(batch)[1].equal == (1, 2)  # of two texts of three tokens, one differs


def test_figures_of_errors_and_failures() -> None:
    broken = Record(
        prompt_id="q", contender="anydraft-x", task=record("anydraft", "q", 1.0).task, error="ValueError: no"
    )
    failing = record("anydraft-x", "p", 1.0)
    assert failing.run is not None
    failing.run.failures.append("it broke")
    row = figures([record("anydraft", "p", 2.0), record("anydraft", "q", 2.0), failing, broken])[1]
    assert row.errors == ["ValueError: no (1 of 2 runs)"]
    assert row.failures == ["it broke (1 of 2 runs)"]
    assert row.broken
    assert row.speedup is not None
    assert row.speedup.value == pytest.approx(2.0)
    assert finite({"a": [math.nan, 1.0], "b": (math.inf,)}) == {"a": [None, 1.0], "b": [None]}


def test_one_prompt_has_no_interval() -> None:
    rows = figures([record("anydraft", "p", 2.0), record("anydraft-x", "p", 1.0)])
    speedup = rows[1].speedup
    assert speedup is not None
    assert speedup.value == pytest.approx(2.0)
    assert math.isnan(speedup.low)
    table = Console(width=200, record=True)
    table.print(speed_table(rows))
    assert "nan" not in table.export_text()


def test_texts_of_another_are_named() -> None:
    row = figures([record("anydraft", "p", 2.0)])[0]
    known = {name: getattr(row, name) for name in row.__dataclass_fields__}
    said = [str(line) for z in (0.5, -2.0, 7.0, -9.0) for line in remarks([Figures(**{**known, "excess_z": z})])]
    assert len(said) == 2
    assert "7.0 standard deviations above chance" in said[0]
    assert "9.0 standard deviations below chance" in said[1]


def test_drafters_read_a_chat_in_their_own_template(
    pair: tuple[str, str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    original = Decoder.stream

    def noting(self: Decoder, prompt: Any, *args: Any, **options: Any) -> Any:
        if self.drafter is not None:
            seen.append(options.get("draft_prompt"))
        return original(self, prompt, *args, **options)

    monkeypatch.setattr(Decoder, "stream", noting)
    options = ("--prompts", prompts, *SMALL, "--batch", 1, "--batch", 2, "--no-peers", "-t", 0, "--json")
    result = run("bench", pair[0], "-d", pair[1], *options, "--chat", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert all(row["equal"] in (None, [4, 4]) for row in json.loads(result.stdout)["rows"])
    assert f"<user: {TEXTS[0]}><assistant: " in seen
    assert [f"<user: {text}><assistant: " for text in TEXTS[:2]] in seen


def test_a_chat_template_that_is_not_there_is_asked_for(pair: tuple[str, str], prompts: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(pair[0], bare, ignore=shutil.ignore_patterns("chat_template*"))
    result = run("bench", bare, "-d", "lookup", "--prompts", prompts, "--chat", *SMALL, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--chat needs a chat template" in result.stderr


def test_prompts_and_drafters_of_one_name_are_told_apart(pair: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "same.jsonl"
    path.write_text('{"id": 1, "turns": ["She"]}\n{"id": 1, "turns": ["The bear"]}\n')
    options = ("--batch", 1, "--limit", 2, "-m", 4, "--no-peers", "-t", 0, "--out", tmp_path / "out", "--json")
    result = run("bench", pair[0], "-d", "lookup", "-d", "lookup", "--prompts", path, *options)
    assert result.exit_code == 0, result.stderr
    rows = rows_of(json.loads(result.stdout))
    assert {name for name, *_ in rows} == {"anydraft", "anydraft-lookup", "anydraft-lookup-2"}
    assert {line["prompt_id"] for line in lines_of(tmp_path / "out")} == {"1", "1-2"}
    assert {row["prompts"] for row in rows.values()} == {2}


def test_who_cannot_prepare_does_not_stop_the_others() -> None:
    class Unready:
        name = "unready"

        def prepare(self, temperature: float) -> None:
            raise RuntimeError("no memory")

        def run(self, prompt: Any, task: Task) -> Run:
            raise RuntimeError("never made")

    plain = AnydraftContender("anydraft", tiny.decoder("llama"))
    plan = Plan(prompts=[("p", [5, 6, 7])], temperatures=[0.0], max_new_tokens=3, warm_up=[4])
    got = {made.contender: made.error for made in measure([Unready(), plain], plan)}
    assert got == {"unready": "RuntimeError: never made", "anydraft": None}


def test_time_left_is_by_contender() -> None:
    left = TimeLeft({("fast", 1): 3, ("slow", 1): 3, ("fast", 4): 2})
    assert left.seconds is None
    left.done(("fast", 1), 1.0)
    assert left.seconds == pytest.approx(2 + 3 + 2)  # the others count like what is known
    left.done(("slow", 1), 10.0)
    assert left.seconds == pytest.approx(2 * 1 + 2 * 10 + 2 * 5.5)
    assert told(left.seconds) == "33 s left"
    assert told(600.0) == "10 min left"


def test_memory_is_counted_once_and_at_its_highest() -> None:
    model = tiny.model("llama")
    assert weight_bytes(model, model) == weight_bytes(model)
    assert weight_bytes(tiny.decoder("llama")) == pytest.approx(weight_bytes(model), rel=0.05)  # a mask, perhaps
    parameters = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    assert weight_bytes(model) >= sum(parameters.values())

    layer = torch.nn.Linear(4, 4)
    plain = weight_bytes(layer)
    assert plain == 4 * (16 + 4)
    layer.__dict__["laid"] = LaidOut(torch.zeros(100))  # as packed weights are held
    assert weight_bytes([layer], {"again": layer}) == plain + 400
    small = Int8Weight(torch.ones(4, 32))
    assert weight_bytes(small) == small.nbytes == 4 * 32 + 2 * 4

    def work() -> None:
        large = torch.zeros(8 << 20, dtype=torch.uint8)
        del large
        torch.zeros(2 << 20, dtype=torch.uint8)

    assert added_bytes(work, torch.device("cpu")) == pytest.approx(8 << 20, rel=0.01)


def test_torn_examples_are_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "example.json"
    path.write_text('[{"contender"')
    kept = Examples(path)
    decoder = tiny.decoder("llama")
    steps = list(decoder.stream([5, 6], max_new_tokens=3, ignore_eos=True))
    kept.add(example("anydraft", 0.0, "p", steps, lambda token: b"\xe2\x82\xac"[token % 3 : token % 3 + 1]))
    assert Examples(path).to_list() == kept.to_list()
    assert len(kept.to_list()[0]["steps"]) == 3


# Prompts by name. -----------------------------------------------------------------------------


def download_of(path: Path) -> Callable[[str], Path]:
    return lambda name: path


def test_public_sets_take_the_right_part_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {
        "mt_bench": (
            "q.jsonl",
            '{"question_id": 81, "category": "w", "prompt": ["one", "two"]}\n',
            "mt_bench/81",
            "one",
        ),
        "alpaca_eval": ("a.json", '[{"instruction": "ask", "output": "no"}]', "alpaca_eval/0", "ask"),
        "spec_bench": ("s.jsonl", '{"question_id": 1, "category": "c", "turns": ["x", "y"]}\n', "spec_bench/1", "x"),
    }
    for name, (file, content, prompt_id, text) in contents.items():
        (tmp_path / file).write_text(content)
        monkeypatch.setattr(prompt_sets, "download", download_of(tmp_path / file))
        found, chat = prompt_sets.prompt_set(name, 5)
        assert chat
        assert [(prompt.id, prompt.text) for prompt in found.prompts] == [(prompt_id, text)]
        assert name in found.source


@pytest.mark.parametrize(
    ("name", "row", "prompt_id", "chat"),
    [
        ("humaneval", {"task_id": "HumanEval/0", "prompt": "def f():\n"}, "HumanEval/0", False),
        ("gsm8k", {"question": "How many?", "answer": "2"}, "gsm8k/0", True),
    ],
)
def test_parquet_sets(
    name: str, row: dict[str, str], prompt_id: str, chat: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([row, row]), tmp_path / "test.parquet")
    monkeypatch.setattr(prompt_sets, "download", download_of(tmp_path / "test.parquet"))
    found, is_chat = prompt_sets.prompt_set(name, 1)
    assert [(prompt.id, prompt.text) for prompt in found.prompts] == [
        (prompt_id, next(iter(row.values())) if chat else row["prompt"])
    ]
    assert is_chat is chat
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(OptionConflict, match=r"pip install 'anydraft\[bench\]'"):
        prompt_sets.prompt_set(name, 1)


def test_without_a_network_a_file_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(name: str) -> Path:
        raise OSError("no connection")

    monkeypatch.setattr(prompt_sets, "download", offline)
    with pytest.raises(OptionConflict, match=r"cannot download the prompts 'humaneval' .*no connection.*give a file"):
        prompt_sets.prompt_set("humaneval")
    (tmp_path / "odd.jsonl").write_text('{"other": 1}\n')
    monkeypatch.setattr(prompt_sets, "download", download_of(tmp_path / "odd.jsonl"))
    with pytest.raises(OptionConflict, match="not of the form that was expected"):
        prompt_sets.prompt_set("mt_bench")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(OptionConflict, match="has no prompts"):
        prompt_sets.prompt_set(str(tmp_path / "empty.jsonl"))


def test_chat_prompts_go_through_the_targets_template(pair: tuple[str, str], prompts: Path, tmp_path: Path) -> None:
    options = ("--prompts", prompts, *SMALL, "--batch", 1, "--no-peers", "-t", 0, "-d", "lookup", "--json")
    plain = json.loads(run("bench", pair[0], *options, "--out", tmp_path / "plain").stdout)
    chat = json.loads(run("bench", pair[0], *options, "--chat", "--out", tmp_path / "chat").stdout)
    assert plain["provenance"]["prompt_form"] == "text to continue"
    assert chat["provenance"]["prompt_form"] == "chat template"
    assert [line["tokens"] for line in lines_of(tmp_path / "plain")] != [
        line["tokens"] for line in lines_of(tmp_path / "chat")
    ]
