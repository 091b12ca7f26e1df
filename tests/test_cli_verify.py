"""`anydraft verify`: a kept promise is exit status 0, a broken one is found, named and exit status 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cli_pair import run, write_pair

from anydraft.noise import Noise
from anydraft.verify import Verdict

SMALL = ("--limit", 2, "-m", 8, "--samples", 100)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_pair(tmp_path_factory.mktemp("pair"))


def test_kept(pair: tuple[str, str]) -> None:
    result = run("verify", pair[0], "-d", pair[1], *SMALL, "--json")
    assert result.exit_code == 0, result.stdout
    found = json.loads(result.stdout)
    assert found["kept"] is True
    assert [outcome["mode"] for outcome in found["equality"]] == [
        "greedy",
        "temperature 1",
        "temperature 0.7, top-p 0.9",
    ]
    assert all(outcome["identical"] == outcome["compared"] == 2 for outcome in found["equality"])
    assert found["law"]["p"] > 1e-4
    assert found["law"]["samples"] == 100


def test_own_parameters_and_prompts(pair: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "She went"}\n{"turns": ["The bear"]}\n"Hello"\n')
    options = ("--prompts", tmp_path / "prompts.jsonl", "-t", 0.5, "--top-k", 5, "--samples", 0, "-m", 6)
    result = run("verify", pair[0], "-d", "lookup", *options)
    assert result.exit_code == 0
    assert "temperature 0.5, top-k 5" in result.stdout
    assert "3 of 3" in result.stdout
    assert "promise: kept" in result.stdout


def test_a_wrong_verifier_is_found(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def gullible(choice, tree):  # type: ignore[no-untyped-def]
        return Verdict((0,), choice(0)) if len(tree) else Verdict((), choice(-1))

    monkeypatch.setattr("anydraft.session.walk", gullible)
    result = run("verify", pair[0], "-d", pair[1], *SMALL, "--draft-tokens", 3, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["kept"] is False
    first = found["equality"][0]["first_difference"]
    assert first["prompt"] == 0
    assert first["plain"] != first["drafted"]
    assert first["margin"]["best"] == first["plain"]
    assert first["margin"]["gap"] > 0
    assert found["law"]["p"] < 1e-4
    shown = run("verify", pair[0], "-d", pair[1], *SMALL, "--samples", 0, "-t", 0, "--draft-tokens", 3)
    assert shown.exit_code == 1
    for words in ("first difference", "prompt 0", "differ by", "promise: broken"):
        assert words in " ".join(shown.stdout.split())


def test_wrong_noise_breaks_the_law_only(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "at", lambda self, position: torch.zeros(self.vocab_size))
    found = json.loads(run("verify", pair[0], "-d", pair[1], *SMALL, "--json").stdout)
    assert all(outcome["identical"] == outcome["compared"] for outcome in found["equality"])
    assert found["law"]["kept"] is False
    assert found["kept"] is False


def test_rejection_promises_the_law(pair: tuple[str, str]) -> None:
    result = run("verify", pair[0], "-d", pair[1], *SMALL, "--verification", "rejection", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0, found
    assert [outcome["mode"] for outcome in found["equality"]] == ["greedy"]
