"""Recurrent drafter: its files, its folded form, its beam search against a naive twin, and the promise with it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import EOS, RAGGED, VOCAB

from anydraft import Decoder
from anydraft.drafters.beams import search
from anydraft.drafters.draws import shared, warped
from anydraft.drafters.lockstep import Lockstep
from anydraft.drafters.recurrent import RecurrentDrafter
from anydraft.errors import BrokenCheckpoint, OptionConflict, WrongTarget
from anydraft.growth import Bounds, Growth, grow
from anydraft.networks.apple import APPLE_MODEL_TYPE
from anydraft.networks.folded import FastLinear, FoldedLean
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.packed import Packed
from anydraft.networks.recall import HEAD_DIM, PackedMemory, RowMemory
from anydraft.networks.recurrent import RecurrentConfig, RecurrentNetwork
from anydraft.noise import Noise
from anydraft.onednn import missing
from anydraft.row import Row
from anydraft.sampling import SamplingParams
from anydraft.tree import DraftTree

HIDDEN = 32
FORMS: dict[str, dict[str, Any]] = {
    "lean": {"recall_heads": 0},
    "recalling": {},
    "narrow": {"state_size": 12, "num_layers": 1, "recall_heads": 1},
    "elman": {"cell": "elman", "context_in_cell": False, "recall_heads": 0},
    "reduced": {"vocabulary_size": 90, "recall_heads": 2},
    "redrafter": {"arch": "redrafter"},
    "projected": {"arch": "redrafter", "exit_dim": 20, "num_layers": 1},
    "sums": {"arch": "redrafter", "rnn": False, "num_layers": 0},
}
LEAN = ["lean", "recalling", "narrow", "elman", "reduced"]
APPLE = ["redrafter", "projected", "sums"]


def fresh(form: str, arch: str = "llama", seed: int = 0) -> RecurrentNetwork:
    """Random weights, spread so that the best children are well apart."""
    torch.manual_seed(seed)
    model = tiny.model(arch)
    few = torch.randperm(VOCAB)[:90] if form == "reduced" else None
    network = RecurrentNetwork(RecurrentConfig(target=TargetIdentity.of(model), **FORMS[form]), few)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    return network.attach(model).eval()


@cache
def known(form: str, arch: str = "llama") -> RecurrentNetwork:
    """The same, shared: nothing may change it."""
    return fresh(form, arch)


def row_of(index: int = 0, tokens: tuple[int, ...] = (), **options: Any) -> Row:
    params = SamplingParams(max_new_tokens=64, **options)
    rows, _ = tiny.decoder("llama")._intake.rows([[5, 6, 7 + index]], params, None)
    rows[0].tokens.extend(tokens)
    return rows[0]


def hidden_of(index: int = 0) -> torch.Tensor:
    return torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(50 + index))


def drafts(drafter: RecurrentDrafter, rows: list[Row], bounds: list[Bounds]) -> list[DraftTree]:
    drafter.stop(rows)
    drafter.start(rows)
    for row in rows:
        drafter.read(row, hidden_of(row.prompt[-1]))
    return drafter.propose(rows, bounds)


# Files. ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_it_is_the_same(form: str, dtype: torch.dtype, tmp_path: Path) -> None:
    network = fresh(form).to(dtype)
    network.save_pretrained(tmp_path)
    loaded = RecurrentNetwork.from_pretrained(tmp_path)
    assert loaded.config == network.config
    mine, theirs = network.state_dict(), loaded.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) and mine[name].dtype == theirs[name].dtype for name in mine)


def apple_names(layers: int, *, rnn: bool = True, projected: bool = False) -> set[str]:
    names = {f"lm_head.{i}.linear.{part}" for i in range(layers) for part in ("weight", "bias")}
    names |= {f"lm_head.{layers}.weight"}
    if rnn:
        names |= {"rnn_w.weight", "rnn_u.weight", "rnn_u.bias"}
    if projected:
        names |= {"input_proj.weight", "input_proj.bias"}
    return names


def test_apples_form_has_apples_names_and_config(tmp_path: Path) -> None:
    fresh("redrafter").save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    wanted = {
        "model_type": APPLE_MODEL_TYPE,
        "hidden_size": HIDDEN,
        "vocab_size": VOCAB,
        "exit_dim": 2 * HIDDEN,
        "num_draft_layers": 2,
        "rnn": True,
    }
    assert {name: content[name] for name in wanted} == wanted
    tensors = load_file(tmp_path / "model.safetensors")
    assert set(tensors) == apple_names(2)
    assert tensors["lm_head.2.weight"].shape == (VOCAB, 2 * HIDDEN)
    assert tensors["rnn_u.bias"].shape == (HIDDEN,)
    fresh("projected").save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == apple_names(1, projected=True)
    fresh("sums").save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == apple_names(0, rnn=False)


@pytest.mark.parametrize("form", APPLE)
def test_apples_own_checkpoint_goes_in_and_out_bit_for_bit(form: str, tmp_path: Path) -> None:
    sizes = {"rnn": True, "num_layers": 2, "exit_dim": 2 * HIDDEN, **FORMS[form]}
    content = {
        "model_type": APPLE_MODEL_TYPE,
        "architectures": ["Drafter"],
        "torch_dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "vocab_size": VOCAB,
        "exit_dim": sizes["exit_dim"],
        "num_draft_layers": sizes["num_layers"],
        "rnn": sizes["rnn"],
    }
    theirs = {name: torch.randn(tensor.shape, dtype=torch.bfloat16) for name, tensor in known(form).tensors().items()}
    (tmp_path / "config.json").write_text(json.dumps(content))
    save_file(theirs, tmp_path / "model.safetensors")
    network = RecurrentNetwork.from_pretrained(tmp_path)
    assert network.config.target == TargetIdentity("unknown", HIDDEN, VOCAB)
    network.attach(tiny.model("llama"))
    network.save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert set(again) == set(theirs)
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {name: written[name] for name in content if name != "torch_dtype"} == {
        name: value for name, value in content.items() if name != "torch_dtype"
    }


@pytest.mark.parametrize("names", ["lm_heads.{}", "lm_heads.0.{}", "0.{}", "{}"])
def test_names_of_other_releases(names: str, tmp_path: Path) -> None:
    network = fresh("projected")
    network.save_pretrained(tmp_path)
    renamed = {}
    for name, tensor in network.tensors().items():
        other = name.replace("input_proj.", "input_projs.0.")
        renamed[names.format(other.removeprefix("lm_head.")) if other.startswith("lm_head.") else other] = tensor
    save_file(renamed, tmp_path / "model.safetensors")
    loaded = RecurrentNetwork.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_bad_input(tmp_path: Path) -> None:
    target = TargetIdentity.of(tiny.model("llama"))
    for wrong in (
        {"arch": "gru"},
        {"cell": "lstm"},
        {"arch": "redrafter", "vocabulary_size": 10},
        {"exit_dim": 64},
        {"state_size": 0},
        {"vocabulary_size": VOCAB + 1},
    ):
        with pytest.raises(OptionConflict):
            RecurrentConfig(target=target, **wrong)
    with pytest.raises(OptionConflict, match="3 token ids"):
        RecurrentNetwork(RecurrentConfig(target=target, vocabulary_size=4), torch.arange(3))
    with pytest.raises(WrongTarget, match="hidden size"):
        RecurrentNetwork(RecurrentConfig(target=TargetIdentity("other", 48, VOCAB))).attach(tiny.model("llama"))
    fresh("redrafter").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["rnn_u.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(BrokenCheckpoint, match=r"rnn_u\.bias"):
        RecurrentNetwork.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": APPLE_MODEL_TYPE, "hidden_size": 32}))
    with pytest.raises(BrokenCheckpoint, match="vocab_size"):
        RecurrentNetwork.from_pretrained(tmp_path)


# Steps. ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_folded_steps_levels_and_plain_steps_agree(form: str) -> None:
    network = known(form)
    tokens = torch.randint(0, VOCAB, (12,), generator=torch.Generator().manual_seed(2))
    features = torch.randn(12, HIDDEN, generator=torch.Generator().manual_seed(3))
    where = torch.arange(12)
    batch = Packed(tokens, torch.zeros_like(where), where, torch.ones(12, dtype=torch.bool), features)
    folded = network.fold()
    memory = None
    if network.reads_context:
        pair = network.body.remembered(features, network.embedding[batch.shifted(1)])
        memory = PackedMemory.of(*pair, batch.documents, where)
    states = [network.start(features, memory), folded.start(features, memory)]
    for level in network.levels(batch, 4):
        told = level.inputs @ level.weight.T
        rows = batch.valid(level.depth)
        assert rows.any()
        for i, steps in enumerate((network, folded)):
            logits, states[i] = steps.step(states[i], batch.shifted(level.depth)[:, None])
            torch.testing.assert_close(logits[rows, 0], told[rows], atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.skipif(missing() is not None, reason="this CPU does not multiply in bfloat16")
@pytest.mark.parametrize("form", LEAN)
def test_half_products_are_those_of_bfloat16_weights(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("llama")
    options = FORMS[form] | {"state_size": 128}
    few = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(1))[:90] if form == "reduced" else None
    torch.manual_seed(0)
    network = RecurrentNetwork(RecurrentConfig(target=TargetIdentity.of(model), **options), few)
    for parameter in network.parameters():
        parameter += torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    network = network.bfloat16().attach(model).eval()
    hidden = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(3))
    tokens = torch.randint(0, VOCAB, (3, 2), generator=torch.Generator().manual_seed(2))

    def logits(steps: FoldedLean) -> torch.Tensor:
        memory = None
        if network.reads_context:
            heads, generator = network.config.recall_heads or 0, torch.Generator().manual_seed(4)
            memory = RowMemory(*torch.randn(2, 3, heads, 9, HEAD_DIM, generator=generator))
        state = steps.start(hidden, memory)
        for column in tokens.unbind(1):
            found, state = steps.step(state, column[:, None])
        return found.float()

    halves = network.fold()
    assert isinstance(halves, FoldedLean)
    assert sum(isinstance(module, FastLinear) for module in halves.body.modules()) >= 3
    monkeypatch.setattr("anydraft.networks.folded.laid_out", lambda weight: None)
    floats = network.fold()
    assert isinstance(floats, FoldedLean)
    assert not any(isinstance(module, FastLinear) for module in floats.body.modules())
    wanted = logits(floats)
    assert float((logits(halves) - wanted).norm() / wanted.norm()) < 0.02


@torch.no_grad()
def test_training_recalls_what_decoding_recalls() -> None:
    network = known("recalling")
    generator = torch.Generator().manual_seed(4)
    lengths = [7, 12, 5]
    tokens = torch.randint(0, VOCAB, (sum(lengths),), generator=generator)
    features = torch.randn(sum(lengths), HIDDEN, generator=generator)
    positions = torch.cat([torch.arange(length) for length in lengths])
    documents = torch.arange(3).repeat_interleave(torch.tensor(lengths))
    batch = Packed(tokens, documents, positions, positions >= 2, features)
    levels = list(network.levels(batch, 3))
    compared = 0
    for t in range(len(batch)):
        first = t - int(positions[t])
        for level in levels:
            if not batch.valid(level.depth)[t]:
                continue
            pair = network.body.remembered(features[first : t + 1], network.embedding[tokens[first + 1 : t + 2]])
            memory = RowMemory(*(part.view(1, t + 1 - first, -1, HEAD_DIM).transpose(1, 2) for part in pair))
            state = network.start(features[t][None], memory)
            for ahead in range(1, level.depth + 1):
                logits, state = network.step(state, tokens[t + ahead].view(1, 1))
            torch.testing.assert_close(level.inputs[t] @ level.weight.T, logits[0, 0], atol=1e-4, rtol=1e-4)
            compared += 1
    assert compared == 45


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_is_trained(form: str) -> None:
    network = fresh(form)
    batch = Packed(
        torch.randint(0, VOCAB, (20,)),
        torch.zeros(20).long(),
        torch.arange(20),
        torch.ones(20, dtype=torch.bool),
        torch.randn(20, HIDDEN),
    )
    sum((level.inputs @ level.weight.T).square().mean() for level in network.levels(batch, 3)).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_bytes_per_step_do_not_depend_on_the_targets_width() -> None:
    def bytes_of(hidden: int, **sizes: Any) -> int:
        config = RecurrentConfig(target=TargetIdentity("any", hidden, 50), **sizes)
        return RecurrentNetwork(config).bytes_per_step()

    assert bytes_of(32, state_size=16) == bytes_of(64, state_size=16)
    assert bytes_of(64, state_size=16, vocabulary_size=10) == bytes_of(64, state_size=16) - 4 * 16 * 40
    assert bytes_of(64, arch="redrafter") > 4 * bytes_of(32, arch="redrafter") * 0.7


# Beam search. ---------------------------------------------------------------------------------


def memory_of(network: RecurrentNetwork, row: Row) -> RowMemory | None:
    """What there is to recall when a row's first state was all that was read."""
    if not network.reads_context:
        return None
    pair = network.body.remembered(hidden_of(row.prompt[-1]), network.embedding[row.prompt[1:2]])
    return RowMemory(*(part.view(1, 1, -1, HEAD_DIM).transpose(1, 2) for part in pair))


@torch.no_grad()
def naive(network: RecurrentNetwork, row: Row, bound: Bounds) -> DraftTree:
    """One row, one node at a time, through the weights as they are: `grow` asks, the path is read from the root."""
    vocabulary = torch.arange(VOCAB) if network.vocabulary is None else network.vocabulary
    growth = Growth()
    steps = grow(replace(bound, depth=min(bound.depth, bound.target_depth)), growth)
    frontier = next(steps)
    while True:
        children = []
        for node in frontier:
            path = []
            while node >= 0:
                path.append(growth.tokens[node])
                node = growth.parents[node]
            state = network.start(hidden_of(row.prompt[-1]), memory_of(network, row))
            for token in (row.root, *reversed(path)):
                logits, state = network.step(state, torch.tensor([[token]]))
            noise = None if row.noise is None else row.noise.at(row.position + len(path))[vocabulary]
            (found,) = shared(warped(row, logits[:, 0]), noise, growth.branch, frozenset())
            ids = [(int(vocabulary[index]), score) for index, score, _ in found]
            children.append([(token, score, token == EOS) for token, score in ids])
        try:
            frontier = steps.send(children)
        except StopIteration:
            return growth.tree(bound.nodes, bound.min_node)


def assert_same(mine: DraftTree, theirs: DraftTree) -> None:
    assert (mine.tokens, mine.parents) == (theirs.tokens, theirs.parents)
    assert mine.scores == pytest.approx(theirs.scores, abs=1e-4)


BOUNDS = st.builds(
    Bounds,
    depth=st.integers(1, 5),
    width=st.integers(1, 5),
    nodes=st.integers(1, 24),
    min_masses=st.sampled_from([(0.0,), (0.05,), (0.3,), (0.0, 0.05, 0.3), (0.6, 0.3, 0.01), (0.1, 2.0)]),
    min_node=st.sampled_from([0.0, 0.01]),
    branch=st.integers(1, 6),
    target_depth=st.integers(1, 6),
    side=st.sampled_from([0.01, 0.1, 0.5, 1.0]),
)
ROWS = st.sampled_from(
    [{}, {"temperature": 1.0, "seed": 1}, {"temperature": 0.6, "seed": 2}, {"temperature": 0.9, "top_k": 5, "seed": 3}]
)


@given(st.sampled_from(list(FORMS)), ROWS, BOUNDS)
@hypothesis_settings(max_examples=60)
def test_the_search_is_that_of_the_naive_twin(form: str, options: dict[str, Any], bound: Bounds) -> None:
    row = row_of(tokens=(9, 30), **options)
    wanted = naive(known(form), row, bound)
    for eager in (False, True):
        drafter = RecurrentDrafter(known(form), tiny.target("llama"), eager=eager)
        (mine,) = drafts(drafter, [row], [bound])
        assert_same(mine, wanted)


@given(st.lists(st.tuples(ROWS, BOUNDS), min_size=2, max_size=5), st.booleans())
@hypothesis_settings(max_examples=30)
def test_rows_of_a_batch_do_not_matter_to_each_other(asked: list[tuple[dict[str, Any], Bounds]], eager: bool) -> None:
    rows = [row_of(i, **options) for i, (options, _) in enumerate(asked)]
    bounds = [bound for _, bound in asked]
    drafter = RecurrentDrafter(known("reduced"), tiny.target("llama"), eager=eager)
    for row, bound, together in zip(rows, bounds, drafts(drafter, rows, bounds), strict=True):
        assert_same(together, drafts(drafter, [row], [bound])[0])


@pytest.mark.parametrize("trained", [None, 3])
def test_levels_enqueued_at_once_end_soon_after_those_trained(trained: int | None) -> None:
    """A GPU computes every level that is enqueued, whether or not it is looked at."""
    config = RecurrentConfig(target=TargetIdentity.of(tiny.model("llama")), trained_depth=trained)
    drafter = RecurrentDrafter(RecurrentNetwork(config).eval(), tiny.target("llama"), eager=True)
    calls = []
    drafter.each_level[0].register_forward_hook(lambda *_: calls.append(1))
    (tree,) = drafts(drafter, [row_of()], [Bounds(20, 1, 30)])
    assert len(calls) == tree.depth == (8 if trained is None else 5)


@pytest.mark.parametrize("form", ["lean", "redrafter"])
def test_the_trained_depth_is_kept(form: str, tmp_path: Path) -> None:
    config = replace(known(form).config, trained_depth=4)
    RecurrentNetwork(config).save_pretrained(tmp_path)
    assert RecurrentNetwork.from_pretrained(tmp_path).config == config


def ending(strength: float) -> RecurrentNetwork:
    """A network that sees the end of the text everywhere."""
    network = fresh("redrafter")
    with torch.no_grad():
        network.body.head[EOS] += strength * network.body.head.std() * network.body.head.shape[1] ** 0.5
    return network


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("verification", ["exact", "rejection"])
def test_a_text_that_ends_is_not_continued(eager: bool, verification: Any) -> None:
    seen = 0
    for strength in (1.0, 2.0, 3.0, -3.0):
        drafter = RecurrentDrafter(ending(strength), tiny.target("llama"), verification=verification, eager=eager)
        for index in range(4):
            row = row_of(index, temperature=1.0, seed=index)
            (tree,) = drafts(drafter, [row], [Bounds(4, 3, 16)])
            ends = [node for node, token in enumerate(tree.tokens) if token == EOS]
            seen += len(ends)
            assert not {*ends} & {*tree.parents}
            if verification == "exact":
                assert_same(tree, naive(drafter.network, row, Bounds(4, 3, 16)))
    assert seen


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", ["shared", "drawn"])
def test_the_search_never_waits_for_the_device(form: str, rule: str) -> None:
    """On tensors without content every look at a number is an error."""
    network = fresh(form).to("meta")
    object.__setattr__(network, "embedding", network.embedding.to("meta"))
    object.__setattr__(network, "target_head", network.target_head.to("meta"))
    rows = [row_of(0), row_of(1, temperature=0.7, seed=1), row_of(2, temperature=0.9, top_p=0.8, top_k=9, seed=2)]
    for row in rows[1:]:
        row.noise = Noise(row.index, VOCAB, "meta")
    width = 3 if rule == "shared" else 1
    lockstep = Lockstep(rows, 5, vocab_size=VOCAB, vocabulary=network.vocabulary, device=torch.device("meta"))
    levels = search(
        network.fold(),
        torch.empty(3, HIDDEN, device="meta"),
        torch.empty(3, dtype=torch.long, device="meta"),
        getattr(lockstep, rule),
        width,
        vocabulary=network.vocabulary,
        closed=torch.empty(VOCAB if network.vocabulary is None else 90, dtype=torch.double, device="meta"),
    )
    with torch.inference_mode():
        shapes = [tuple(tuple(part.shape) for part in level[:3]) for level in islice(levels, 4)]
    assert shapes[0] == ((3, 1, 5), (3, 1, 5), (3, width))
    assert shapes[1:] == [((3, width, 5), (3, width, 5), (3, width))] * 3


def test_a_reduced_vocabulary_is_all_that_is_drafted() -> None:
    network = known("reduced")
    assert network.vocabulary is not None
    few = set(network.vocabulary.tolist())
    for verification in ("exact", "rejection"):
        drafter = RecurrentDrafter(network, tiny.target("llama"), verification=verification)  # type: ignore[arg-type]
        trees = drafts(drafter, [row_of(i, temperature=1.0, seed=i) for i in range(4)], [Bounds(4, 3, 16)] * 4)
        assert all(set(tree.tokens) <= few and len(tree) for tree in trees)


def test_rows_without_a_state_and_without_room_draft_nothing() -> None:
    drafter = RecurrentDrafter(known("lean"), tiny.target("llama"))
    rows = [row_of(i) for i in range(4)]
    drafter.start(rows)
    for row in rows[1:]:
        drafter.read(row, hidden_of())
    bounds = [Bounds(3), Bounds(0), Bounds(3, nodes=0), Bounds(3, target_depth=0)]
    assert drafter.propose(rows, bounds) == [DraftTree.EMPTY] * 4
    drafter.stop(rows)
    assert drafter.propose(rows[1:], [Bounds(3)] * 3) == [DraftTree.EMPTY] * 3


# Proposals to reject with. --------------------------------------------------------------------


@pytest.mark.parametrize("form", ["lean", "reduced", "redrafter"])
@pytest.mark.parametrize("eager", [False, True])
def test_proposals_are_the_networks_own(form: str, eager: bool) -> None:
    network = known(form)
    drafter = RecurrentDrafter(network, tiny.target("llama"), verification="rejection", eager=eager)
    rows = [row_of(0, temperature=0.7, seed=1), row_of(1), row_of(2, temperature=1.0, top_k=2, seed=2)]
    for row, tree in zip(rows, drafts(drafter, rows, [Bounds(3, 3, 9)] * 3), strict=True):
        assert tree.probs is not None
        assert set(tree.probs) == set(tree.parents)
        for node, q in tree.probs.items():
            state = network.start(hidden_of(row.prompt[-1]), memory_of(network, row))
            with torch.no_grad():
                for token in (row.root, *(tree.tokens[n] for n in (tree.path(node) if node >= 0 else ()))):
                    logits, state = network.step(state, torch.tensor([[token]]))
            part = warped(row, logits[:, 0])[0].double().softmax(-1)
            if row.noise is None:
                part = (part == part.max()).double()
            wanted = part
            if network.vocabulary is not None:
                wanted = torch.zeros(VOCAB, dtype=torch.double).index_put((network.vocabulary,), part)
            torch.testing.assert_close(q, wanted, atol=1e-5, rtol=1e-3)
            children = [tree.tokens[n] for n, parent in enumerate(tree.parents) if parent == node]
            assert len(set(children)) == len(children) == min(3, int((wanted > 0).sum()))
            assert all(q[token] > 0 for token in children)


# The promise. ---------------------------------------------------------------------------------


@cache
def plain(arch: str, temperature: float) -> list[list[int]]:
    params = SamplingParams(max_new_tokens=16, temperature=temperature, seed=5 if temperature else None)
    return [result.tokens for result in tiny.decoder(arch).generate(RAGGED, params)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("form", ["lean", "reduced", "redrafter"])
@pytest.mark.parametrize("arch", ["llama", "gemma2", "qwen3", "gpt2"])
def test_the_tokens_are_those_of_plain_decoding(arch: str, form: str, temperature: float) -> None:
    params = SamplingParams(max_new_tokens=16, temperature=temperature, seed=5 if temperature else None)
    drafter = RecurrentDrafter(known(form, arch), tiny.target(arch))
    decoder = tiny.decoder(arch, drafter)
    assert [result.tokens for result in decoder.generate(RAGGED, params)] == plain(arch, temperature)
    assert not drafter._states


def test_rejection_runs() -> None:
    for form in ("lean", "reduced"):
        drafter = RecurrentDrafter(known(form), tiny.target("llama"), verification="rejection")
        decoder: Decoder = tiny.decoder("llama", drafter, verification="rejection")
        for temperature in (0.0, 1.0):
            params = SamplingParams(max_new_tokens=16, temperature=temperature, seed=5 if temperature else None)
            results = decoder.generate(RAGGED, params)
            assert all(0 < len(result.tokens) <= 16 for result in results)
            if not temperature:
                assert [result.tokens for result in results] == plain("llama", 0.0)


def test_rows_of_other_sides_do_not_narrow_each_other() -> None:
    """One row goes on with chains, the other with every branch: each as if it were alone."""
    sides = [Bounds(5, 4, 24, (1e-6,), 0.0, 6, side=side) for side in (1.0, 0.001)]
    drafter = RecurrentDrafter(known(next(iter(FORMS))), tiny.target("llama"), eager=False)
    rows = [row_of(tokens=(9, 30)), row_of(tokens=(9, 30))]
    alone = [drafts(drafter, [row], [bound])[0] for row, bound in zip(rows, sides, strict=True)]
    for mine, theirs in zip(drafts(drafter, rows, sides), alone, strict=True):
        assert_same(mine, theirs)
    assert alone[0].tokens != alone[1].tokens
