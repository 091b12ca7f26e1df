"""`anydraft train` from prompts to a drafter that decodes, in one command; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_pair import run, write_pair

import anydraft


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_pair(tmp_path_factory.mktemp("pair"))[0]


def test_one_command_from_prompts_to_a_drafter(target: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"def f{i}(x):\n"}) + "\n" for i in range(6)))
    out = tmp_path / "drafter"
    told = run("train", "redrafter", target, "--prompts", prompts, "--out", out, "--steps", 2, "--json")
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout)["step"] == 2
    answers = json.loads((out / "answers" / "provenance.json").read_text())
    assert answers["complete"] is True
    assert answers["counts"]["answers"] == 6
    drafted = anydraft.load(target, drafter=out)
    assert drafted.drafter is not None
    assert drafted.drafter.name == "redrafter"
    plain = anydraft.load(target, drafter=None)
    for temperature in (0.0, 1.0):
        options = {"max_new_tokens": 16, "temperature": temperature, "seed": 3}
        assert drafted.generate("def g(", **options).tokens == plain.generate("def g(", **options).tokens


def test_data_or_prompts(target: str, tmp_path: Path) -> None:
    for given in ((), ("--data", tmp_path, "--prompts", tmp_path)):
        result = run("train", "redrafter", target, "--out", tmp_path / "out", "--steps", 1, *given)
        assert result.exit_code == 2
        assert "--data" in result.stderr
        assert "--prompts" in result.stderr
    assert not (tmp_path / "out").exists()
