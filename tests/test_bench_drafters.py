"""The drafters' benchmark: enlarged drafters draft the same, and its figures are the arithmetic they claim."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from scripts import loaded
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from typer.testing import CliRunner

from anydraft import models
from anydraft.bench.aims import aims
from anydraft.bench.drafting import DraftedRun, DraftingContender, sizes_of, unmerged
from anydraft.bench.drafting_report import acceptance, cost_above, summarise_drafting
from anydraft.bench.drafting_tables import markdown
from anydraft.bench.enlarge import enlarge
from anydraft.bench.enlarge_network import enlarge_network
from anydraft.bench.measure import Plan, Record, Task, measure
from anydraft.bench.passes import PassTimer, middle, seconds_of
from anydraft.bench.session import read_records
from anydraft.bench.surroundings import surround
from anydraft.decoder import Decoder
from anydraft.drafters.lookup import LookupDrafter
from anydraft.drafters.trained import trained_drafter
from anydraft.errors import OptionConflict, UnsupportedModel
from anydraft.growth import Bounds
from anydraft.networks.eagle import EagleConfig, EagleNetwork
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.medusa import MedusaConfig, MedusaNetwork
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.packed import Packed
from anydraft.networks.recurrent import RecurrentConfig, RecurrentNetwork
from anydraft.pacing import Fixed
from anydraft.target import Target
from anydraft.tree import DraftTree

VOCAB, WIDTH, WIDE = 96, 48, 120
DEPTH = 3


@cache
def small_target() -> PreTrainedModel:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        intermediate_size=80,
        max_position_embeddings=256,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


@cache
def large_target() -> PreTrainedModel:
    return enlarge(small_target(), width=WIDE, layers=3, heads=10, kv_heads=5)


def network(form: str, model: PreTrainedModel, **sizes: Any) -> DrafterNetwork:
    """A network with random weights everywhere."""
    torch.manual_seed(3)
    identity = TargetIdentity.of(model)
    made: DrafterNetwork
    if form == "medusa":
        made = MedusaNetwork(MedusaConfig(target=identity, num_heads=DEPTH, **sizes))
    elif form == "eagle":
        made = EagleNetwork(EagleConfig.for_model(model, **sizes))
    else:
        arch = "lean" if "lean" in form else "redrafter"
        made = RecurrentNetwork(RecurrentConfig(target=identity, arch=arch, **sizes))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made.attach(model).eval()


FORMS: dict[str, dict[str, Any]] = {
    "redrafter": {},
    "redrafter with projection": {"exit_dim": 64},
    "lean": {"state_size": 40},
    "lean of default width": {},
    "lean elman, part of the vocabulary": {"cell": "elman", "context_in_cell": False, "vocabulary_size": 50},
    "medusa": {},
    "eagle": {},
}


@torch.no_grad()
def logits(of: DrafterNetwork, model: PreTrainedModel) -> torch.Tensor:
    """All levels' logits along a text of two documents."""
    tokens = torch.randint(3, VOCAB, (24,), generator=torch.Generator().manual_seed(5))
    features = model.base_model(tokens[None]).last_hidden_state[0]
    documents = torch.arange(24) // 14
    batch = Packed(tokens, documents, torch.arange(24) - 14 * documents, torch.ones(24, dtype=torch.bool), features)
    return torch.stack([level.inputs @ level.weight.T for level in of.levels(batch, DEPTH)])


@pytest.mark.parametrize("form", FORMS)
def test_an_enlarged_drafter_drafts_the_same(form: str) -> None:
    small = network(form, small_target(), **FORMS[form])
    large = enlarge_network(small, large_target()).attach(large_target())
    mine, theirs = logits(small, small_target()), logits(large, large_target())
    torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-4)
    assert torch.equal(theirs.argmax(-1), mine.argmax(-1))
    assert mine.std() > 0.05


@pytest.mark.parametrize("form", ["redrafter", "lean of default width", "medusa", "eagle"])
def test_it_is_as_large_as_a_fresh_one(form: str) -> None:
    large = enlarge_network(network(form, small_target()), large_target())
    fresh = network(form, large_target())
    assert {name: weight.shape for name, weight in large.named_parameters()} == {
        name: weight.shape for name, weight in fresh.named_parameters()
    }
    assert large.config.target == TargetIdentity.of(large_target())


def test_only_for_a_target_that_holds_the_small_one() -> None:
    with pytest.raises(UnsupportedModel, match="hidden size 120"):
        enlarge_network(network("medusa", large_target()), small_target())


@pytest.mark.parametrize("form", ["redrafter", "lean of default width", "medusa", "eagle"])
def test_decoding_with_it_drafts_the_same_trees(form: str) -> None:
    small = network(form, small_target(), **FORMS[form])
    trees = []
    for model, drafts in ((small_target(), small), (large_target(), enlarge_network(small, large_target()))):
        target = Target(model, structure="tree")
        decoder = Decoder(target, trained_drafter(target, drafts), pacing=Fixed(Bounds(4, 3, 12)))
        trees.append([step.draft for step in decoder.stream([5, 6, 7, 8], temperature=0.0, max_new_tokens=8)])
    assert trees[0] == trees[1]
    assert max(map(len, trees[0])) > 3


# The measurement. -----------------------------------------------------------------------------


def measured() -> list[Record]:
    """A run of everything on a tiny target."""
    target = Target(small_target(), structure="tree")
    drafters = {
        "redrafter": trained_drafter(target, network("lean", small_target())),
        "apple": trained_drafter(target, network("redrafter", small_target())),
        "corpus-trained": trained_drafter(target, network("lean", small_target(), state_size=20)),
        "medusa": trained_drafter(target, network("medusa", small_target())),
        "eagle": trained_drafter(target, network("eagle", small_target())),
        "lookup": LookupDrafter(),
    }
    timer = PassTimer(target, sizes_of([4, None]))
    made = [DraftingContender("plain", Decoder(target), None, timer)]
    for nodes in (4, None):
        made += [DraftingContender(name, Decoder(target, drafts), nodes, timer) for name, drafts in drafters.items()]
    plan = Plan(
        prompts=[("one:a", [5, 6, 7, 8, 5, 6]), ("one:b", [9, 10, 11]), ("two:a", [20, 21, 22, 23])],
        temperatures=[0.0, 1.0],
        max_new_tokens=8,
        warm_up=[3, 4],
        warm_up_tokens=3,
    )
    return list(measure(made, plan))


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return measured()


def test_the_table_of_a_run(records: list[Record]) -> None:
    assert [record.error for record in records if record.error] == []
    rows = summarise_drafting(records, baselines=[("redrafter", "corpus-trained")])
    assert len(rows) == 2 * 2 * 13  # sets, temperatures, contenders
    plain = [row for row in rows if row.drafter == "plain"]
    assert all(row.nodes_per_pass == 1.0 and row.parameters == 0 and row.speedup is None for row in plain)
    for row in rows:
        assert row.row.identical.get("anydraft", (1, 1))[0] == row.row.prompts or row.drafter == "plain"
        assert row.own_pass is not None
        assert row.own_pass.value > 0
        assert row.nodes != "4" or (row.nodes_per_pass or 0) <= 4
    trained = [row for row in rows if row.drafter not in ("plain", "lookup") and row.nodes != "default"]
    assert all(row.levels_per_pass > 0.5 and row.bytes_per_pass > 0 and row.parameters > 0 for row in trained)
    assert {other for row in rows for other in row.tau_over} == {"corpus-trained"}
    table = markdown(rows, "Drafters")
    assert table.count("| redrafter | 4 |") == 4
    assert "## one, temperature 0, 2 prompts" in table
    assert "## Aims" in table
    assert {aim.aim.partition(":")[0].partition(",")[0] for aim in aims(rows)} == {"one", "two"}
    json.dumps([row.to_dict() for row in rows] + [aim.to_dict() for aim in aims(rows)])


def test_runs_come_back_from_their_lines(records: list[Record], tmp_path: Path) -> None:
    lines = tmp_path / "runs.jsonl"
    lines.write_text("".join(json.dumps(record.to_dict()) + "\n" for record in records))
    assert read_records(lines, DraftedRun) == records


def test_beams_that_are_not_merged() -> None:
    tree = DraftTree.from_beams([(1, 2, 3), (1, 2, 4), (1, 5, 6), (7, 8, 9)])
    assert len(tree) == 9
    assert unmerged(tree) == 12
    assert unmerged(DraftTree.chain([1, 2, 3])) == 3
    assert unmerged(DraftTree.EMPTY) == 0


def test_step_cost_is_what_the_own_passes_do_not_explain() -> None:
    own = middle([{1: 0.1, 4: 0.16, 8: 0.2}, {1: 0.1, 4: 0.1, 8: 0.2}, {1: 9.0, 4: 0.12, 8: 0.2}])
    assert own == {1: 0.1, 4: 0.12, 8: 0.2}
    assert seconds_of([1, 4, 6, 8], own) == pytest.approx(0.1 + 0.12 + 0.16 + 0.2)
    # 4 passes of 0.3 s, of which the own passes explain 0.145 s each; a plain pass takes 0.125 s.
    cost = cost_above(*(np.array([value]) for value in (1.2, 0.58, 4.0, 1.0, 8.0)))
    assert cost == pytest.approx((0.3 - 0.145) / 0.125)


def test_figures_of_known_runs() -> None:
    own, slow = {1: 0.1, 4: 0.13}, {1: 0.2, 4: 0.26}
    runs = {
        "anydraft": DraftedRun(
            tokens=[1] * 8, seconds=1.5, passes=8, seconds_prefill=0.5, nodes=[1] * 8, unmerged=[0] * 8, own_passes=own
        ),
        "anydraft-redrafter@4": DraftedRun(
            tokens=[1] * 8,
            seconds=1.5,
            passes=4,
            draft_tokens=12,
            accepted_tokens=4,
            seconds_prefill=0.5,
            seconds_draft=0.28,
            seconds_start=0.2,
            nodes=[4] * 4,
            unmerged=[4] * 4,
            reached=[4, 4],
            accepted_at=[3, 1],
            levels=8,
            bytes_per_level=1e6,
            parameters=7,
            own_passes=own,
        ),
    }
    # A third one, while the machine was half as fast: its figures are those of the second.
    drafted = runs["anydraft-redrafter@4"]
    twice = {"seconds": 3.0, "seconds_prefill": 1.0, "seconds_draft": 0.56, "seconds_start": 0.4, "own_passes": slow}
    runs["anydraft-other@4"] = dataclasses.replace(drafted, **twice)
    task = Task(temperature=0.0, max_new_tokens=8, seed=0)
    rows = summarise_drafting([Record(prompt_id="s:p", contender=c, task=task, run=r) for c, r in runs.items()])
    row, other = rows[1:]
    assert (other.own_pass, other.step_cost, other.draft_cost) == (row.own_pass, row.step_cost, row.draft_cost)
    assert (row.drafter, row.nodes, row.nodes_per_pass) == ("redrafter", "4", 4.0)
    assert row.own_pass is not None
    assert row.own_pass.value == pytest.approx(0.13 / 0.125)
    assert row.step_cost is not None
    assert row.step_cost.value == pytest.approx((0.8 / 4 - 0.13) / 0.125)
    assert row.draft_cost is not None
    assert row.draft_cost.value == pytest.approx(0.02 / 0.125)
    assert row.saved is not None
    assert row.saved.value == pytest.approx(0.25)
    assert row.acceptance == acceptance([runs["anydraft-redrafter@4"]]) == [0.75, 0.25]  # type: ignore[list-item]
    assert (row.levels_per_pass, row.bytes_per_pass) == (2.0, 2e6)
    assert row.bytes_per_token == pytest.approx(8e6 / 12)


def test_the_script_from_folders_to_files(tmp_path: Path) -> None:
    embedded = AutoModelForCausalLM.from_pretrained(models.path("target"))
    network("medusa", embedded).save_pretrained(tmp_path / "medusa")
    prompts = tmp_path / "few.jsonl"
    prompts.write_text(json.dumps({"id": "p", "turns": ["def add(a, b):\n    "]}) + "\n")
    options = ["--medusa", tmp_path / "medusa", "--prompts", prompts, "--limit", 1, "--max-new-tokens", 4]
    options += ["--nodes", 4, "--temperature", 0, "--threads", 1, "--out", tmp_path / "out", "--docs", tmp_path / "doc"]
    options += ["--assistant", "none", "--dtype", "float32"]
    done = CliRunner().invoke(loaded("benchmarks/drafters.py").app, list(map(str, options)))
    assert done.exit_code == 0, done.output
    assert "about" in done.output
    assert "| medusa | 4 |" in (tmp_path / "doc.md").read_text()
    summary = json.loads((tmp_path / "doc.summary.json").read_text())
    assert [row["drafter"] for row in summary["rows"]] == ["plain", "lookup", "medusa"]
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["drafters"]["medusa"]["folder"] == "medusa"
    wrong = CliRunner().invoke(loaded("benchmarks/drafters.py").app, ["--nodes", "1"])
    assert wrong.exit_code != 0
    assert "root included" in wrong.output


def test_a_measurements_surroundings() -> None:
    before = torch.get_num_threads()
    with pytest.raises(OptionConflict, match="'bf16' is no torch dtype"):
        surround("bf16", before + 1)
    assert torch.get_num_threads() == before
    assert surround("bfloat16", before) == torch.bfloat16
    assert not transformers.logging.is_progress_bar_enabled()
