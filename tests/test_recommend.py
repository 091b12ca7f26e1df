"""`anydraft recommend`: a drafter is recommended when its gain is certain, and none when none's is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_pair import run, write_pair

from anydraft.bench.figures import figures
from anydraft.bench.measure import Record, Run, Task
from anydraft.bench.recommend import Recommendation, recommend
from anydraft.drafters.lookup import LookupDrafter
from anydraft.onednn import half_precision_hint

PROMPTS = 8
Speeds = Mapping[float, Callable[[int], float]]
"""By temperature, seconds of a prompt."""


def records(contender: str, speeds: Speeds, **options: Any) -> list[Record]:
    return [
        Record(
            prompt_id=f"p{number}",
            contender=contender,
            task=Task(temperature=temperature, max_new_tokens=4, seed=number),
            run=Run(tokens=[1, 2, 3, 4], seconds=seconds(number), passes=4, peak_memory=1 << 20, **options),
        )
        for temperature, seconds in speeds.items()
        for number in range(PROMPTS)
    ]


def steadily(factor: float) -> Callable[[int], float]:
    """So many times as fast as plain decoding on every prompt."""
    return lambda number: (1 + number) / factor


PLAIN = records("anydraft", {0.0: steadily(1), 1.0: steadily(1)})


def advised(
    *candidates: tuple[str, list[Record]], drafters: Sequence[str] | None = None, **options: Any
) -> Recommendation:
    made = [*PLAIN, *(record for _, mine in candidates for record in mine)]
    names = [name for name, _ in candidates]
    pairs = list(zip(names, drafters or names, strict=True))
    return recommend("some/target", pairs, made, figures(made), **options)


def candidate(name: str, *factors: float, **options: Any) -> tuple[str, list[Record]]:
    speeds = dict(zip((0.0, 1.0), map(steadily, factors), strict=False))
    return name, records(f"anydraft-{name}", speeds, **options)


def test_the_surest_gain_is_recommended() -> None:
    found = advised(candidate("good", 1.5, 1.2), candidate("best", 2.0, 1.8), candidate("slow", 0.8, 0.9))
    assert found.drafter == "best"
    assert found.command == "anydraft generate some/target --drafter best"
    assert found.python == "anydraft.load('some/target', drafter='best')"
    assert [(advice.name, advice.verdict) for advice in found.candidates] == [
        ("best", "recommended"),
        ("good", "helps"),
        ("slow", "slower"),
    ]
    assert found.chosen is not None
    assert found.chosen.speedup is not None
    assert 1.8 < found.chosen.speedup.low < found.chosen.speedup.value < 2.0
    assert found.chosen.by_temperature[1.0].value == pytest.approx(1.8)
    assert found.plain_tokens_per_second == pytest.approx(4 * PROMPTS / sum(range(1, PROMPTS + 1)))
    assert (found.chosen.memory, found.plain_memory) == (1 << 20, 1 << 20)
    assert found.best_at == {0.0: "best", 1.0: "best"}
    assert "best is 1.8" in found.reason
    json.dumps(found.to_dict())


def test_what_the_pacing_said_is_passed_on() -> None:
    found = advised(candidate("good", 1.5, 1.5, pacing="drafts 4 tokens"))
    assert found.chosen is not None
    assert found.chosen.pacing == {0.0: "drafts 4 tokens", 1.0: "drafts 4 tokens"}
    assert found.to_dict()["candidates"][0]["pacing"]["0"] == "drafts 4 tokens"


def test_none_when_none_is_certain_to_help() -> None:
    def erratically(number: int) -> float:
        return (1 + number) * (0.5 if number % 2 else 1.6)

    wild = "wild", records("anydraft-wild", {0.0: erratically, 1.0: erratically})
    found = advised(candidate("same", 1.01, 1.01), wild, candidate("slow", 0.9, 0.9))
    assert found.drafter == "none"
    assert found.chosen is None
    assert found.command == "anydraft generate some/target --drafter none"
    assert found.python.endswith("drafter=None)")
    assert {advice.name: advice.verdict for advice in found.candidates} == {
        "same": "uncertain",
        "wild": "uncertain",
        "slow": "slower",
    }
    assert found.best_at == {0.0: "none", 1.0: "none"}
    assert found.reason.startswith("none of the candidates is certain to help: the best, same, runs at 1.01")


def test_what_broke_is_not_recommended() -> None:
    failing = candidate("failing", 3.0, 3.0, failures=["it broke"])
    task = PLAIN[0].task
    absent = "absent", [Record(prompt_id="p0", contender="anydraft-absent", task=task, error="NotLoaded: no such file")]
    found = advised(failing, absent)
    assert found.drafter == "none"
    assert found.reason == "no candidate worked; see what broke"
    assert [advice.verdict for advice in found.candidates] == ["broken", "broken"]
    assert found.candidates[1].problems == ["NotLoaded: no such file (1 of 1 runs)"]
    assert advised(failing, absent, candidate("fine", 1.3, 1.3)).drafter == "fine"


def test_another_one_may_be_better_at_one_temperature() -> None:
    found = advised(candidate("steady", 1.6, 1.6), candidate("greedy", 2.4, 0.7))
    assert found.drafter == "steady"
    assert found.best_at == {0.0: "greedy", 1.0: "steady"}


def test_the_call_to_copy_has_what_was_measured() -> None:
    drafters = ["embedded-redrafter,embedded,lookup"]
    found = advised(
        candidate("mix", 2.0, 2.0), drafters=drafters, options=["--dtype", "float32"], keywords=", dtype='float32'"
    )
    assert found.command == (
        "anydraft generate some/target --drafter embedded-redrafter,embedded,lookup --dtype float32"
    )
    assert found.python == (
        "from anydraft import models; anydraft.load('some/target', drafter=[models.path(\"redrafter\"), "
        "models.path(\"assistant\"), 'lookup'], dtype='float32')"
    )


# The command. ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "some.jsonl"
    path.write_text("".join(json.dumps({"id": text, "turns": [text]}) + "\n" for text in ("She", "The bear", "It")))
    return path


def test_as_a_command(pair: tuple[str, str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--prompts", prompts, "--limit", 3, "-m", 6)
    result = run("recommend", pair[0], "-c", pair[1], "-c", "lookup", *options, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert {advice["name"] for advice in found["candidates"]} == {"assistant", "lookup"}
    assert {advice["drafter"] for advice in found["candidates"]} == {pair[1], "lookup"}
    assert found["drafter"] in (pair[1], "lookup", "none")
    assert found["command"] == f"anydraft generate {pair[0]} --drafter {found['drafter']}"
    assert set(found["best_at"]) == {"0", "1"}
    for advice in found["candidates"]:
        assert advice["speedup"]["low"] <= advice["speedup"]["value"] <= advice["speedup"]["high"]
        assert (advice["verdict"] == "recommended") is (found["drafter"] == advice["drafter"])
    assert found["provenance"]["num_prompts"] == 3
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_in_words_with_a_broken_candidate(
    pair: tuple[str, str], prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(self: LookupDrafter, rows: Any, bounds: Any) -> Any:
        raise RuntimeError("no such head")

    monkeypatch.setattr(LookupDrafter, "propose", raises)
    result = run("recommend", pair[0], "--prompts", prompts, "--limit", 2, "-m", 4, "-t", 0)
    assert result.exit_code == 0, result.stderr
    assert "Use no drafter: no candidate worked" in result.stdout
    assert f"anydraft generate {pair[0]} --drafter none" in result.stdout.replace("\n", "")
    assert "lookup broke: " in result.stdout
    assert "no such head" in result.stdout


@pytest.mark.parametrize("slow", [True, False])
def test_half_precision_that_the_cpu_lacks(
    slow: bool, pair: tuple[str, str], prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anydraft.onednn.makes_kernels", lambda dtype: not slow)
    options = ("-c", "lookup", "--prompts", prompts, "--limit", 2, "-m", 4, "-t", 0)
    for dtype, hinted in (("bfloat16", slow), ("float32", False)):
        result = run("recommend", pair[0], *options, "--dtype", dtype)
        assert result.exit_code == 0, result.stderr
        assert ("products in bfloat16 are made up" in " ".join(result.stdout.split())) is hinted, dtype


def test_what_to_take_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anydraft.onednn.makes_kernels", lambda dtype: dtype == torch.bfloat16)
    assert "in bfloat16 drafts may gain" in str(half_precision_hint(torch.float16, "cpu"))
    assert half_precision_hint(torch.float16, "cuda:0") is None
    monkeypatch.setattr("anydraft.onednn.makes_kernels", lambda dtype: False)
    assert "in float32, at twice the memory" in str(half_precision_hint(torch.float16, "cpu"))
    assert half_precision_hint(torch.float32, "cpu") is None


@pytest.mark.parametrize(
    ("options", "words"),
    [(("-c", "./nowhere"), "there is no folder './nowhere'"), (("-c", "none"), "plain decoding is always measured")],
)
def test_bad_input_is_told(options: tuple[str, ...], words: str, pair: tuple[str, str], prompts: Path) -> None:
    result = run("recommend", pair[0], "--prompts", prompts, *options)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
