"""`--any-target`: a drafter of a model serves a fine-tune of it, but only when asked to, and changes no token."""

from __future__ import annotations

import json

import pytest
import torch
from cli_pair import run, write_pair
from tiny_networks import random_network
from transformers import AutoModelForCausalLM, AutoTokenizer

SHORT = ("-m", 12, "--temperature", 0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A target's fine-tune, whose every matrix is a little off, and a drafter of the target itself."""
    folder = tmp_path_factory.mktemp("pair")
    place, _ = write_pair(folder)
    model = AutoModelForCausalLM.from_pretrained(place)
    random_network("lean", model).save_pretrained(folder / "drafter")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for matrix in model.parameters():
            matrix += 0.02 * torch.randn(matrix.shape, generator=generator)
    model.save_pretrained(folder / "tuned")
    AutoTokenizer.from_pretrained(place).save_pretrained(folder / "tuned")
    return str(folder / "tuned"), str(folder / "drafter")


def test_refused_without_it(folders: tuple[str, str]) -> None:
    target, drafter = folders
    for command in (("generate", target, "She"), ("verify", target, "--limit", 1), ("chat", target)):
        result = run(*command, "-d", drafter, *SHORT, input="hi\n")
        assert result.exit_code == 2, command
        assert "other weights" in result.stderr
        assert "--any-target" in result.stderr


@pytest.mark.parametrize("temperature", [0, 1])
def test_with_it_the_tokens_are_the_targets(folders: tuple[str, str], temperature: int) -> None:
    target, drafter = folders
    options = ("-m", 24, "-t", temperature, "--seed", 3, "--json")
    plain = json.loads(run("generate", target, "She", "-d", "none", *options).stdout)
    drafted = json.loads(
        run("generate", target, "She", "-d", drafter, "--any-target", "--draft-tokens", 3, *options).stdout
    )
    assert drafted["stats"]["num_draft_tokens"] > 0
    assert drafted["tokens"] == plain["tokens"]


def test_other_commands_take_it(folders: tuple[str, str]) -> None:
    target, drafter = folders
    told = run("verify", target, "-d", drafter, "--any-target", "--limit", 1, "--samples", 0, *SHORT)
    assert told.exit_code == 0, told.stderr
    assert run("chat", target, "-d", drafter, "--any-target", *SHORT, input="hi\n").exit_code == 0


def test_it_concerns_trained_drafters_only(folders: tuple[str, str]) -> None:
    for drafter in ("none", "lookup"):
        result = run("generate", folders[0], "She", "-d", drafter, "--any-target", *SHORT)
        assert result.exit_code == 2
        assert "--any-target concerns trained drafters only" in result.stderr
