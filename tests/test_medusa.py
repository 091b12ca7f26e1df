"""Medusa: its files, its calibration, the best n paths through its heads' candidates, and the promise with them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import EOS, RAGGED, VOCAB

from anydraft.drafters.draws import shared
from anydraft.drafters.medusa import LEAST, MedusaDrafter, best_paths
from anydraft.errors import BrokenCheckpoint, OptionConflict, WrongTarget
from anydraft.generation import Generation
from anydraft.growth import Bounds, Children
from anydraft.hidden import LastHidden, OutputHead
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.medusa import RANKS, MedusaConfig, MedusaNetwork, _noise_given
from anydraft.networks.packed import Packed
from anydraft.noise import Noise
from anydraft.row import Row
from anydraft.sampling import SamplingParams
from anydraft.tree import DraftTree

HEADS = 4
ARCHITECTURES = ["llama", "gemma2", "gpt2"]
FEW = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(1))[:90]
TABLES = {
    "greedy": [[0.5 / 2**rank for rank in range(RANKS)]] * HEADS,
    "sampled": [[0.3 / 1.3**rank for rank in range(RANKS)]] * HEADS,
}


def network(
    arch: str = "llama", *, reduced: bool = False, calibrated: bool = False, noise: float = 0.2, heads: int = HEADS
) -> MedusaNetwork:
    """Heads near the target's own, disturbed: right now and then."""
    model = tiny.model(arch)
    config = MedusaConfig(
        target=TargetIdentity.of(model),
        num_heads=heads,
        vocabulary_size=len(FEW) if reduced else None,
        calibration=TABLES if calibrated else None,
    )
    made = MedusaNetwork(config, FEW if reduced else None).initialise(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=generator)
    return made.eval()


def row_of(tokens: Sequence[int] = (), **options: Any) -> Row:
    rows, _ = tiny.decoder("llama")._intake.rows([[5, 6, 7]], SamplingParams(max_new_tokens=64, **options), None)
    rows[0].tokens.extend(tokens)
    return rows[0]


def draft(drafter: MedusaDrafter, row: Row, bound: Bounds, seed: int = 0) -> DraftTree:
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(seed))
    drafter.start([row])
    drafter.read(row, hidden)
    return drafter.propose([row], [bound])[0]


# Network and files. ---------------------------------------------------------------------------


@pytest.mark.parametrize("reduced", [False, True])
def test_a_new_network_says_what_the_targets_head_says(reduced: bool) -> None:
    made = network(reduced=reduced, noise=0.0)
    hidden = torch.randn(2, 32)
    expected = OutputHead(tiny.model("llama")).logits(hidden)
    expected = expected[:, FEW] if reduced else expected
    logits = made.logits(hidden, 3)
    assert logits.shape == (2, 3, expected.shape[-1])
    for depth in range(3):
        torch.testing.assert_close(logits[:, depth], expected)


def test_the_scale_of_logits_is_part_of_the_head() -> None:
    model = tiny.make("cohere", logit_scale=0.25)
    made = MedusaNetwork(MedusaConfig(target=TargetIdentity.of(model), num_heads=1)).initialise(model)
    hidden = torch.randn(2, 32)
    torch.testing.assert_close(made.logits(hidden, 1)[:, 0], OutputHead(model).logits(hidden))


def test_levels_are_the_heads_own_and_can_be_trained() -> None:
    made = network(heads=2)
    batch = packed(torch.randint(3, 150, (20,)), torch.randn(20, 32).bfloat16())
    levels = list(made.levels(batch, 9))
    assert [level.depth for level in levels] == [1, 2]
    for level, depth in zip(levels, (0, 1), strict=True):
        logits = torch.nn.functional.linear(level.inputs, level.weight)
        torch.testing.assert_close(logits, made.logits(batch.features.float(), 2)[:, depth])
    sum(torch.nn.functional.linear(level.inputs, level.weight).sum() for level in levels).backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    assert len(list(made.levels(batch, 1))) == 1


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("calibrated", [False, True])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, reduced: bool, calibrated: bool) -> None:
    made = network(reduced=reduced, calibrated=calibrated)
    made.save_pretrained(tmp_path)
    again = MedusaNetwork.from_pretrained(tmp_path)
    assert again.config == made.config
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "anydraft-medusa"
    ours, theirs = made.state_dict(), again.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    half = MedusaNetwork.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.logits(torch.randn(1, 32).bfloat16(), 2).dtype == torch.bfloat16
    assert half.vocabulary is None or half.vocabulary.dtype == torch.int64


def changed(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("damage", ["truncated", "heads", "table", "nan", "vocabulary", "twice", "missing"])
def test_broken_files_are_refused(tmp_path: Path, damage: str) -> None:
    made = network(reduced=True, calibrated=True)
    weights = tmp_path / "model.safetensors"
    said = "outside the target's vocabulary"
    if damage == "vocabulary":
        made.vocabulary[3] = VOCAB
    elif damage == "twice":
        made.vocabulary[3] = made.vocabulary[4]
        said = "twice"
    made.save_pretrained(tmp_path)
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
        said = "cannot be read"
    elif damage == "missing":
        weights.unlink()
        said = "no model.safetensors"
    elif damage == "heads":
        changed(tmp_path, num_heads=HEADS + 1, calibration=None)
        said = "missing heads.4"
    elif damage == "table":
        changed(tmp_path, calibration={"greedy": TABLES["greedy"]})
        said = "calibration"
    elif damage == "nan":
        changed(tmp_path, calibration={**TABLES, "sampled": [[math.nan] * RANKS] * HEADS})
        said = "calibration"
    with pytest.raises(BrokenCheckpoint, match=said):
        MedusaNetwork.from_pretrained(tmp_path)


def test_another_target_is_refused(tmp_path: Path) -> None:
    network().save_pretrained(tmp_path)
    loaded = MedusaNetwork.from_pretrained(tmp_path)
    for other in (tiny.make("llama", seed=1), tiny.make("llama", vocab=VOCAB + 1), tiny.make("llama", hidden_size=64)):
        with pytest.raises(WrongTarget):
            loaded.attach(other)
    with pytest.raises(WrongTarget):
        MedusaDrafter(loaded, tiny.target("gpt2"))
    MedusaDrafter(loaded, tiny.target("llama"))


@pytest.mark.parametrize("sizes", [{"num_heads": 0}, {"vocabulary_size": VOCAB + 1}, {"vocabulary_size": 0}])
def test_sizes_out_of_range_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(OptionConflict):
        MedusaConfig(target=TargetIdentity.of(tiny.model("llama")), **sizes)


# Calibration. ---------------------------------------------------------------------------------


class Table:
    """A target's head whose logits are looked up: the feature is the row's number."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.rows = logits

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.rows[hidden[:, 0].long()]


def packed(tokens: torch.Tensor, features: torch.Tensor, answers: Sequence[bool] | None = None) -> Packed:
    count = len(tokens)
    known = torch.ones(count, dtype=torch.bool) if answers is None else torch.tensor(answers)
    return Packed(tokens, torch.zeros(count, dtype=torch.long), torch.arange(count), known, features)


def by_hand(vocabulary: Sequence[int] | None = None) -> MedusaNetwork:
    """Two heads over six tokens whose logits, whatever they read, rank the tokens 0 1 2 3 4 5 and 5 4 3 2 1 0."""
    identity = TargetIdentity("by hand", hidden_size=2, vocab_size=6)
    ids = None if vocabulary is None else torch.tensor(vocabulary)
    made = MedusaNetwork(
        MedusaConfig(target=identity, num_heads=2, vocabulary_size=None if ids is None else len(ids)), ids
    )
    order = torch.arange(6.0) if ids is None else ids.float()
    for sign, head in zip((-1, 1), made.heads, strict=True):
        head.weight.data[:, 1] = sign * 100 * order
    return made


TEXT = [3, 0, 0, 5, 2, 4, 0, 5, 1]


def case(text: Sequence[int] = TEXT, choices: Sequence[int] | None = None) -> tuple[Packed, Table]:
    """A text that a target is sure of, except where `choices` (the choice after each token) say otherwise."""
    after = list(choices or [*text[1:], 0])
    features = torch.stack([torch.arange(len(text)).float(), torch.ones(len(text))], 1)
    return packed(torch.tensor(text), features), Table(1000.0 * torch.eye(6)[after])


def test_calibration_by_hand() -> None:
    batch, head = case()
    made = by_hand().calibrate([batch], head)
    # Depth 1 at places 0..6 predicts tokens 2..8: 0 5 2 4 0 5 1, whose ranks in head 1 are the ids themselves;
    # depth 2 at places 0..5 predicts 5 2 4 0 5 1, ranked by 5 - id. Six tokens: every path is right so far.
    first = [2 / 7, 1 / 7, 1 / 7, 0, 1 / 7, 2 / 7, 0, 0, 0, 0]
    second = [2 / 6, 1 / 6, 0, 1 / 6, 1 / 6, 1 / 6, 0, 0, 0, 0]
    for name in ("greedy", "sampled"):  # the noise is far below the differences
        table = made.config.calibration[name]
        assert table[0] == pytest.approx(first, abs=1e-5)
        assert table[1] == pytest.approx(second, abs=1e-5)


def test_calibration_is_conditional_on_the_path() -> None:
    # In a vocabulary without 0 and 5 the first head is wrong where the text says so: only places 2, 3 and 6 go on.
    batch, head = case()
    made = by_hand([4, 3, 2, 1]).calibrate([batch], head)
    assert made.config.calibration["greedy"][0] == pytest.approx([1 / 7, 1 / 7, 0, 1 / 7] + [0] * 6, abs=1e-5)
    # Place 2 (token 4 is 2): token 5 is 4, rank 0. Place 3 (4): token 6 is 0, unknown. Place 6 (1): the end.
    assert made.config.calibration["greedy"][1] == pytest.approx([1 / 2] + [0] * 9, abs=1e-5)
    assert made.config.calibration["sampled"] == made.config.calibration["greedy"]


def test_calibration_counts_what_the_greedy_target_would_say() -> None:
    # After token 3 (a 5) the target would say 1, not the text's 2.
    choices = [*TEXT[1:], 0]
    choices[3] = 1
    batch, head = case(choices=choices)
    greedy = by_hand().calibrate([batch], head).config.calibration["greedy"]
    # Place 2 at depth 1 now has 1 in place of 2, and is no prefix of depth 2; place 1 at depth 2 has 1 in place of 2.
    assert greedy[0] == pytest.approx([2 / 7, 2 / 7, 0, 0, 1 / 7, 2 / 7, 0, 0, 0, 0], abs=1e-5)
    assert greedy[1] == pytest.approx([2 / 5, 0, 0, 0, 2 / 5, 1 / 5, 0, 0, 0, 0], abs=1e-5)


def test_calibration_leaves_prompts_out_and_stops() -> None:
    batch, head = case()
    batch.answers[:5] = False
    greedy = by_hand().calibrate([batch], head).config.calibration["greedy"]
    assert greedy[0] == pytest.approx([1 / 4, 1 / 4, 0, 0, 1 / 4, 1 / 4, 0, 0, 0, 0], abs=1e-5)
    batch.answers[:] = False
    with pytest.raises(OptionConflict, match="held-out"):
        by_hand().calibrate([batch, batch], head)

    def endless() -> Any:
        while True:
            yield case()[0]

    by_hand().calibrate(endless(), head, rows=20)


def test_sampled_calibration_is_what_shared_noise_does() -> None:
    # A flat target and a flat head agree whenever they share their noise; without it, one time in six.
    batch, _ = case(TEXT * 40)
    made = by_hand()
    for head in made.heads:
        head.weight.data.zero_()
    sampled = made.calibrate([batch], Table(torch.zeros(len(batch), 6))).config.calibration["sampled"]
    assert sampled[0] == sampled[1] == [1.0] + [0.0] * 9


def test_noise_given_a_choice_is_gumbel_noise_that_makes_it() -> None:
    generator = torch.Generator().manual_seed(0)
    count = 40_000
    teacher = torch.tensor([1.0, 0.0, -1.0, 0.5]).expand(count, 4)
    chosen = torch.multinomial(teacher[0].softmax(-1), count, replacement=True, generator=generator)
    noise = -torch.empty(count, 4).exponential_(generator=generator).log()
    drawn = (teacher + noise).argmax(-1)
    noise = _noise_given(teacher, noise, drawn, chosen, generator)
    assert torch.equal((teacher + noise).argmax(-1), chosen)
    # Over choices that the target made itself, it is plain Gumbel noise again: E = 0.5772, Var = pi^2 / 6.
    assert noise.mean(0) == pytest.approx([0.5772] * 4, abs=0.03)
    assert noise.var(0) == pytest.approx([math.pi**2 / 6] * 4, rel=0.05)
    torch.testing.assert_close(torch.corrcoef(noise.T), torch.eye(4), atol=0.03, rtol=0)


# Trees. ---------------------------------------------------------------------------------------


def best_by_enumeration(levels: Sequence[Children], count: int) -> dict[tuple[int, ...], float]:
    """Naive twin: score every path there is, and keep the best."""
    paths: dict[tuple[int, ...], float] = {}
    for depth in range(1, len(levels) + 1):
        for picked in itertools.product(*levels[:depth]):
            if not any(final for _, _, final in picked[:-1]):
                paths[tuple(token for token, _, _ in picked)] = sum(score for _, score, _ in picked)
    return dict(sorted(paths.items(), key=lambda item: -item[1])[:count])


def paths_of(tree: DraftTree) -> dict[tuple[int, ...], float]:
    assert tree.scores is not None
    return {tuple(tree.tokens[n] for n in tree.path(node)): tree.scores[node] for node in range(len(tree))}


SCORES = st.lists(st.floats(0.01, 0.9), min_size=1, max_size=4, unique=True)


@given(st.lists(SCORES, min_size=1, max_size=4), st.integers(1, 30), st.sets(st.integers(0, 3)))
def test_the_tree_holds_the_best_paths(shares: list[list[float]], count: int, enders: set[int]) -> None:
    """Whatever masses are asked for."""
    levels = [[(rank, math.log(share), rank in enders) for rank, share in enumerate(level)] for level in shares]
    found = paths_of(best_paths(levels, Bounds(9, width=2, nodes=count, min_masses=(2.0,))))
    expected = best_by_enumeration(levels, count)
    assert len(found) == len(expected)
    # Where products are equal, either path will do.
    assert sorted(found.values()) == pytest.approx(sorted(expected.values()))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("reduced", [False, True])
def test_a_draft_is_the_best_of_all_paths(temperature: float, calibrated: bool, reduced: bool) -> None:
    made = network(reduced=reduced, calibrated=calibrated)
    drafter = MedusaDrafter(made, tiny.target("llama"))
    row = row_of([9, 8], temperature=temperature, seed=3 if temperature else None)
    found = paths_of(draft(drafter, row, Bounds(3, width=1, nodes=15, branch=5)))
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))[-1:]
    levels = []
    for depth in range(3):
        logits = torch.full((1, VOCAB), -math.inf)
        logits[:, FEW if reduced else slice(None)] = made.logits(hidden, HEADS)[:, depth].detach()
        noise = None if row.noise is None else row.noise.at(2 + depth)
        children = shared(logits, noise, 5, frozenset([EOS]))[0]
        if calibrated:
            table = TABLES["sampled" if temperature else "greedy"][depth]
            children = [(token, math.log(p), final) for (token, _, final), p in zip(children, table, strict=False)]
        levels.append(children)
    expected = best_by_enumeration(levels, 15)
    assert sorted(found.values()) == pytest.approx(sorted(expected.values()), abs=1e-4)
    assert len(found) == 15
    every = best_by_enumeration(levels, 1 << 20)
    assert all(every[path] == pytest.approx(score, abs=1e-4) for path, score in found.items())


def test_bounds() -> None:
    drafter = MedusaDrafter(network(), tiny.target("llama"))
    for bound, depth in (
        (Bounds(9, nodes=64), HEADS),
        (Bounds(2, nodes=64), 2),
        (Bounds(9, nodes=64, target_depth=3), 3),
        (Bounds(0), 0),
        (Bounds(5, nodes=0), 0),
        (Bounds(5, target_depth=0), 0),
    ):
        tree = draft(drafter, row_of(), bound)
        assert tree.depth == depth
        assert len(tree) <= bound.nodes
    chain = draft(drafter, row_of(), Bounds(9, width=4).within(9, 3, chain_only=True))
    assert chain.is_chain
    assert chain.depth == 3
    assert len(draft(drafter, row_of(), Bounds(9, nodes=64, min_node=0.99))) == 0


def test_ranks_never_seen_right_have_a_floor() -> None:
    made = network(calibrated=True)
    made.config = replace(made.config, calibration={**TABLES, "greedy": [[0.9] + [0.0] * 9] * HEADS})
    tree = draft(MedusaDrafter(made, tiny.target("llama")), row_of(), Bounds(4, nodes=6, branch=20))
    assert tree.depth == 4
    assert min(tree.scores or ()) == pytest.approx(math.log(LEAST))


def test_nothing_is_drafted_before_the_first_hidden_state() -> None:
    drafter = MedusaDrafter(network(), tiny.target("llama"))
    blind, seeing = row_of(), row_of()
    drafter.start([blind, seeing])
    drafter.read(seeing, torch.randn(1, 32))
    trees = drafter.propose([blind, seeing], [Bounds(3)] * 2)
    assert len(trees[0]) == 0
    assert len(trees[1]) > 0
    drafter.stop([blind, seeing])
    assert len(drafter.propose([seeing], [Bounds(3)])[0]) == 0


def test_the_end_of_the_text_ends_a_branch() -> None:
    made = network()
    with torch.no_grad():
        made.heads[0].weight[EOS] = 50 * torch.randn(3, 32, generator=torch.Generator().manual_seed(0))[-1]
    tree = draft(MedusaDrafter(made, tiny.target("llama")), row_of(), Bounds(4, nodes=30))
    assert tree.tokens[0] == EOS
    assert all(tree.tokens[parent] != EOS for parent in tree.parents if parent >= 0)


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    drafter = MedusaDrafter(network(reduced=True), tiny.target("llama"))
    rows = [row_of(), row_of(temperature=0.8, top_k=7, seed=1), row_of([4], temperature=1.0, seed=2), row_of([3, 4])]
    bounds = [Bounds(4, nodes=20), Bounds(2, nodes=9, branch=2), Bounds(3, nodes=31, branch=8), Bounds(1)]
    alone = [draft(drafter, row, bound, seed) for seed, (row, bound) in enumerate(zip(rows, bounds, strict=True))]
    together = drafter.propose(rows, bounds)
    assert [(t.tokens, t.parents) for t in together] == [(t.tokens, t.parents) for t in alone]


def test_tokens_that_a_row_excludes_are_not_drafted() -> None:
    row = row_of(temperature=1.0, top_k=2, seed=1)
    for calibrated in (False, True):
        tree = draft(MedusaDrafter(network(calibrated=calibrated), tiny.target("llama")), row, Bounds(1, branch=8))
        assert len(tree) == 2


def test_bytes_per_step() -> None:
    made = network().to(torch.bfloat16)
    head = 32 * 32 + 32 + VOCAB * 32
    assert made.bytes_per_step() == 2 * head
    assert len(MedusaDrafter(made, tiny.target("llama")).each_level) == HEADS


# Rejection. -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reduced", [False, True])
def test_recorded_proposals_are_the_heads(reduced: bool) -> None:
    made = network(reduced=reduced)
    drafter = MedusaDrafter(made, tiny.target("llama"), verification="rejection")
    row = row_of(temperature=0.5, seed=4)
    tree = draft(drafter, row, Bounds(3, width=3, nodes=64, branch=3))
    assert set(tree.parents) <= set(tree.probs)
    logits = made.logits(torch.randn(3, 32, generator=torch.Generator().manual_seed(0))[-1:], HEADS)[0].detach()
    for parent, q in tree.probs.items():
        depth = 0 if parent < 0 else tree.depths[parent]
        expected = torch.zeros(VOCAB, dtype=torch.float64)
        expected[FEW if reduced else slice(None)] = (logits[depth] / 0.5).double().softmax(-1)
        torch.testing.assert_close(q, expected, atol=1e-6, rtol=1e-4)
        siblings = [token for token, above in zip(tree.tokens, tree.parents, strict=True) if above == parent]
        assert len(siblings) == len(set(siblings)) == 3
        assert all(q[token] > 0 for token in siblings)
    assert draft(drafter, row, Bounds(3, width=3, nodes=2, branch=3)).depth == 1


def test_drawn_children_have_the_law_of_q() -> None:
    made = network()
    drafter = MedusaDrafter(made, tiny.target("llama"), verification="rejection")
    row = row_of(temperature=1.0, seed=0)
    counts, runs = torch.zeros(VOCAB), 3000
    bound = Bounds(1, width=1, nodes=4)
    for seed in range(runs):
        row.noise = Noise(seed, VOCAB)
        tree = draft(drafter, row, bound)
        counts[tree.tokens[0]] += 1
    q = tree.probs[-1]
    common = q * runs >= 5
    error = ((counts - q * runs)[common] ** 2 / (q * runs)[common]).sum()
    assert float(error) < int(common.sum()) + 5 * math.sqrt(2 * int(common.sum()))


# The promise. ---------------------------------------------------------------------------------


@cache
def plain(arch: str, **options: Any) -> list[Generation]:
    answers = tiny.decoder(arch).generate(RAGGED, max_new_tokens=20, **options)
    assert isinstance(answers, list)
    return answers


SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "seed": 1},
    "cut": {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2, "seed": 2},
}


@cache
def fitted(arch: str, setting: str) -> MedusaNetwork:
    """Heads that have learned the answers, and are calibrated on them."""
    model, made = tiny.model(arch), network(arch, noise=0.0)
    parts = []
    for i, (prompt, answer) in enumerate(zip(RAGGED, plain(arch, **SETTINGS[setting]), strict=True)):
        tokens = torch.tensor(prompt + answer.tokens)
        with torch.no_grad(), LastHidden(model).caught() as caught:
            model(input_ids=tokens[None])
        parts.append((tokens, torch.full_like(tokens, i), torch.arange(len(tokens)), tokens >= 0, caught[-1][0]))
    batch = Packed(*(torch.cat(part) for part in zip(*parts, strict=True)))
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.zeros(())
        for level in made.levels(batch, HEADS):
            logits = torch.nn.functional.linear(level.inputs, level.weight)[batch.valid(level.depth)]
            following = batch.shifted(1 + level.depth)[batch.valid(level.depth)]
            loss = loss + torch.nn.functional.cross_entropy(logits, following)
        loss.backward()
        optimizer.step()
    return made.eval().calibrate([batch], OutputHead(model))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("form", ["plain", "reduced", "fitted"])
def test_promise(arch: str, setting: str, form: str) -> None:
    made = fitted(arch, setting) if form == "fitted" else network(arch, reduced=form == "reduced")
    decoder = tiny.decoder(arch, MedusaDrafter(made, tiny.target(arch)), nodes=20)
    expected = plain(arch, **SETTINGS[setting])
    together = decoder.generate(RAGGED, max_new_tokens=20, **SETTINGS[setting])
    assert [r.tokens for r in together] == [r.tokens for r in expected]
    assert sum(r.stats.num_draft_tokens for r in together) > 0
    if form == "fitted":
        assert sum(r.stats.num_accepted_tokens for r in together) > 10
    assert not decoder.drafter._states


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_drafts_what_single_rows_do(temperature: float) -> None:
    decoder = tiny.decoder("llama", MedusaDrafter(network(calibrated=True), tiny.target("llama")))
    options = {"max_new_tokens": 16, "temperature": temperature, "seed": 5 if temperature else None}
    together = decoder.generate(RAGGED[:1] * 3, **options)
    alone = decoder.generate(RAGGED[0], **options)
    assert together[0].tokens == alone.tokens
    assert together[0].stats.num_accepted_tokens == alone.stats.num_accepted_tokens


def test_shared_noise_agrees_with_the_target_more_often() -> None:
    """A head that knows the target's next-next token: with one head equal to the target's own law, all is kept."""
    made = network(noise=0.0, heads=1)
    target = tiny.target("llama")

    class Informed(MedusaDrafter):
        """Reads the state behind the root instead of the one before it."""

        def read(self, row: Row, hidden: torch.Tensor) -> None:
            ids = torch.tensor([row.prompt + row.tokens])
            with torch.no_grad():
                super().read(row, target.model.base_model(ids).last_hidden_state[0])

    decoder = tiny.decoder("llama", Informed(made, target), nodes=1)
    answer = decoder.generate(RAGGED[0], max_new_tokens=21, temperature=1.0, seed=9, ignore_eos=True)
    assert answer.stats.num_accepted_tokens == answer.stats.num_draft_tokens == 10


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("reduced", [False, True])
def test_rejection_runs(arch: str, reduced: bool) -> None:
    drafter = MedusaDrafter(network(arch, reduced=reduced), tiny.target(arch), verification="rejection")
    decoder = tiny.decoder(arch, drafter, verification="rejection")
    greedy = decoder.generate(RAGGED, max_new_tokens=20)
    assert [r.tokens for r in greedy] == [r.tokens for r in plain(arch)]
    for options in ({}, {"top_k": 3}):
        answers = decoder.generate(RAGGED, max_new_tokens=20, temperature=1.0, seed=3, **options)
        again = decoder.generate(RAGGED, max_new_tokens=20, temperature=1.0, seed=3, **options)
        assert [r.tokens for r in answers] == [r.tokens for r in again]
        assert sum(r.stats.num_draft_tokens for r in answers) > 0
