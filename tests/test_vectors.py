"""Numbers of Apple's code (shared/vectors/redrafter.json): packing, commit, choice, cell and beam search, unroll, loss.

Trees are compared up to relabelling, by the paths of their nodes.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import apple_rule
import pytest
import tiny
import torch

from anydraft.cache import SlotCache
from anydraft.drafters.beams import search
from anydraft.drafters.lockstep import Lockstep
from anydraft.hidden import OutputHead
from anydraft.lm import LanguageModel
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.packed import Level, Packed
from anydraft.networks.recurrent import RecurrentConfig, RecurrentNetwork
from anydraft.processors import Processors
from anydraft.row import Row
from anydraft.sampling import SamplingParams
from anydraft.training.objectives import Loss, Objective
from anydraft.training.teacher import Teacher
from anydraft.tree import DraftTree
from anydraft.verify import walk

FILE = Path(__file__).resolve().parents[2] / "shared" / "vectors" / "redrafter.json"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="needs ../shared/vectors")
VECTORS: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else defaultdict(dict)
Tokens = tuple[int, ...]


def close(mine: Any, theirs: Any, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(torch.as_tensor(mine), torch.as_tensor(theirs), atol=tolerance, rtol=tolerance)


def paths(tokens: Sequence[int], parents: Sequence[int]) -> list[Tokens]:
    """Tokens from the first node down to each node, which name it whatever its number is."""
    named: list[Tokens] = []
    for token, parent in zip(tokens, parents, strict=True):
        named.append((*(named[parent] if parent >= 0 else ()), token))
    return named


# A, B: packing. -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VECTORS["A"])
def test_beams_are_packed_to_the_same_tree(name: str) -> None:
    case = VECTORS["A"][name]
    for beams, wanted, unpacker in zip(case["beams"], case["per_sequence"], case["unpacker"], strict=True):
        tree = DraftTree.from_beams(beams)
        mine, theirs = paths(tree.tokens, tree.parents), paths(wanted["packed"], wanted["parent"])
        assert len(tree) == wanted["n_nodes"]
        assert sorted(mine) == sorted(theirs)
        offset = dict(zip(theirs, wanted["position_offset"], strict=True))
        assert [depth - 1 for depth in tree.depths] == [offset[path] for path in mine]
        seen = {
            path: {theirs[column] for column, bit in enumerate(row) if bit == "1"}
            for path, row in zip(theirs, wanted["mask"], strict=True)
        }
        for path, row in zip(mine, tree.ancestors(), strict=True):
            assert {mine[column] for column in row.nonzero()[0]} == seen[path]
        for beam, numbers in zip(beams, unpacker, strict=True):
            assert [theirs[number] for number in numbers] == [tuple(beam[: k + 1]) for k in range(len(beam))]


@pytest.mark.parametrize("number", range(len(VECTORS["B"])))
def test_nodes_see_the_same_prefix_in_a_ragged_batch(number: int) -> None:
    """Apple pads prompts on the left; here every row begins at slot 0, and columns for padding do not exist."""
    case = VECTORS["B"][number]
    packed = VECTORS["A"]["A1_two_beams_3x4"]["per_sequence"]
    model = tiny.ToyModel(lambda context: torch.zeros(100), 100)
    said: dict[str, Any] = {}
    model.register_forward_pre_hook(lambda module, args, options: said.update(options), with_kwargs=True)
    lm = LanguageModel(model)
    lengths = [sum(mask) for mask in case["padding_mask"]]
    lm_cache = lm.new_cache(len(lengths))
    for row, length in enumerate(lengths):
        if length:
            lm.prefill(lm_cache, row, list(range(50, 50 + length)))
    lm.score(lm_cache, [(sequence["packed"], sequence["parent"]) for sequence in packed])
    seen, positions = said["attention_mask"][:, 0] > -1, said["position_ids"]
    prefix = len(case["padding_mask"][0])
    for row, (length, sequence) in enumerate(zip(lengths, packed, strict=True)):
        count, pads = sequence["n_nodes"], prefix - length
        for node in range(count):
            wanted = case["rows"][row][node]
            assert wanted[:pads] == "0" * pads
            mine = "".join("1" if bit else "0" for bit in seen[row, node, : length + count].tolist())
            assert mine == wanted[pads : prefix + count]
            assert not seen[row, node, length + count :].any()
        assert positions[row, :count].tolist() == [length + k for k in case["position_offset"][row][:count]]


# E: commit. -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(VECTORS["E"])))
def test_the_same_slots_survive_a_commit(number: int) -> None:
    case = VECTORS["E"][number]
    context, beams, chosen = case["input_ids"][0], case["beams"][0], case["chosen_beam"][0]
    tree = DraftTree.from_beams(beams)
    slots = SlotCache(1)
    for start, parents in ((0, range(-1, len(context) - 1)), (len(context), tree.parents)):
        slots.append(0, list(parents))
        slots.plan(range(1), [start], len(parents), start + len(parents))
        # Each slot holds its own number.
        keys = torch.arange(start, start + len(parents)).float().view(1, 1, -1, 1)
        slots.update(keys, keys.clone(), 0)
        if start == 0:
            slots.advance(0, len(context))
    nodes = {path: node for node, path in enumerate(paths(tree.tokens, tree.parents))}
    kept = [nodes[tuple(beams[chosen][: k + 1])] for k in range(1 + case["n_accepted"][0])]
    slots.commit(0, kept)
    assert slots.lengths[0] == case["new_cache_len"]
    survived = slots.layers[0].keys[0, 0, : slots.lengths[0], 0].long().tolist()
    assert survived == case["surviving_slots"][0]
    read = [*context, *tree.tokens]
    assert [read[slot] for slot in survived] == case["new_input_ids"][0]


# F, G: choice. --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(VECTORS["F"])))
def test_greedy_choice(number: int) -> None:
    case = VECTORS["F"][number]
    for i, (beams, argmax) in enumerate(zip(case["drafter"], case["llm_argmax"], strict=True)):
        kept = []
        for beam, choices in zip(beams, argmax, strict=True):
            kept.append(len(walk(lambda node, c=choices: c[node + 1], DraftTree.chain(beam[1:])).accepted))  # type: ignore[misc]
        assert max(kept) == case["n_accepted"][i]
        assert kept.index(max(kept)) == case["chosen_beam"][i]
        # The merged tree says the same wherever the target's answer is one per node, as a real target's is.
        tree = DraftTree.from_beams(beam[1:] for beam in beams)
        named = paths(tree.tokens, tree.parents)
        answers: dict[Tokens, set[int]] = defaultdict(set)
        for beam, choices in zip(beams, argmax, strict=True):
            for k, choice in enumerate(choices):
                answers[tuple(beam[1 : k + 1])].add(choice)
        if all(len(given) == 1 for given in answers.values()):
            verdict = walk(lambda node: next(iter(answers[named[node] if node >= 0 else ()])), tree)  # noqa: B023
            best = beams[case["chosen_beam"][i]]
            assert [tree.tokens[node] for node in verdict.accepted] == best[1 : 1 + case["n_accepted"][i]]
            assert verdict.next_token == argmax[case["chosen_beam"][i]][case["n_accepted"][i]]


def test_a_deterministic_tree_is_lossless() -> None:
    """All outcomes of the target's draws, with their probabilities."""
    case, given = VECTORS["G"], VECTORS["G"]["p"]
    wanted = case["lossless_reference"]
    tree = DraftTree.from_beams(beam[1:] for beam in case["beams"][0])
    named = paths(tree.tokens, tree.parents)
    p = {(): given["root"], (1,): given["after_1"], (2,): given["after_2"]}
    law = {path: p.get(path, given["after_any_leaf"]) for path in [(), *named]}
    first: dict[int, float] = defaultdict(float)
    pairs: dict[Tokens, float] = defaultdict(float)
    accepted: dict[int, float] = defaultdict(float)
    for outcome in itertools.product(range(case["V"]), repeat=len(law)):
        drawn = dict(zip(law, outcome, strict=True))
        weight = math.prod(law[path][token] for path, token in drawn.items())
        verdict = walk(lambda node: drawn[named[node] if node >= 0 else ()], tree)  # noqa: B023
        tokens = [*(tree.tokens[node] for node in verdict.accepted), verdict.next_token]
        first[tokens[0]] += weight
        accepted[len(verdict.accepted)] += weight
        if len(tokens) > 1:
            pairs[tuple(tokens[:2])] += weight
    close([first[token] for token in range(case["V"])], wanted["p_first"], 1e-9)
    close(accepted[1] + accepted[2], wanted["p_accept_ge1"], 1e-9)
    close(accepted[2], wanted["p_accept_2"], 1e-9)
    close(accepted[1] + 2 * accepted[2], wanted["expected_accepted"], 1e-9)
    for a, b in itertools.product((1, 2), range(case["V"])):
        close(pairs[a, b], p[()][a] * p[a,][b], 1e-9)


@pytest.mark.parametrize("number", range(5))
def test_the_counter_example_is_apples_own_rule(number: int) -> None:
    """With given coins it keeps, and draws next from, what Apple's code does."""
    case = VECTORS["G"]["cases"][number]

    def model(given: dict[str, list[float]]) -> apple_rule.Model:
        known = {(): given["root"], (1,): given["after_1"], (2,): given["after_2"]}
        return lambda path: torch.tensor(known.get(path, given.get("after_any_leaf")), dtype=torch.float64)

    beams = [tuple(beam[1:]) for beam in VECTORS["G"]["beams"][0]]
    outcome = apple_rule.apply(model(VECTORS["G"]["p"]), model(VECTORS["G"]["q"]), beams, case["uniforms"])
    assert [outcome.kept] == case["n_accepted"]
    assert [outcome.beam] == case["chosen_beam"]
    assert outcome.following.tolist() == pytest.approx(case["next_token_probs"], abs=1e-5)


# H, J, I: network. ----------------------------------------------------------------------------


def f(i: torch.Tensor, j: torch.Tensor, c: float) -> torch.Tensor:
    return torch.sin(1.7 * (i + 1) * (j + 1) + 0.3 * i**2 + c)


def matrix(rows: int, columns: int, c: float, scale: float) -> torch.Tensor:
    return scale * f(torch.arange(rows)[:, None].double(), torch.arange(columns)[None].double(), c)


def vector(n: int, c: float, scale: float) -> torch.Tensor:
    return scale * torch.sin(0.9 * torch.arange(n).double() + c)


@cache
def network(H: int, V: int, E: int, blocks: int, rnn: bool) -> RecurrentNetwork:
    """Weights by the formulas of the vectors' README, under Apple's names."""
    target = TargetIdentity("formula", H, V)
    made = RecurrentNetwork(RecurrentConfig(target=target, arch="redrafter", exit_dim=E, num_layers=blocks, rnn=rnn))
    tensors = {f"lm_head.{blocks}.weight": matrix(V, E, 5, 1.5)}
    for i in range(blocks):
        tensors[f"lm_head.{i}.linear.weight"] = matrix(E, E, 1 + i, 0.4)
        tensors[f"lm_head.{i}.linear.bias"] = vector(E, 2 + i, 0.2)
    if rnn:
        tensors["rnn_u.weight"], tensors["rnn_u.bias"] = matrix(H, H, 7, 0.5), vector(H, 8, 0.3)
        tensors["rnn_w.weight"] = matrix(H, H, 9, 0.8)
    if E != 2 * H:
        tensors["input_proj.weight"], tensors["input_proj.bias"] = matrix(E, 2 * H, 11, 0.6), vector(E, 12, 0.1)
    made.fill(tensors)
    object.__setattr__(made, "embedding", matrix(V, H, 3, 1.0))
    return made.double().eval()


def beams_of(case: dict[str, Any], roots: torch.Tensor, hidden: torch.Tensor) -> tuple[Any, Any, Any]:
    """Full-length beams of our search with their scores, and the scores of their tokens."""
    made = network(case["H"], case["V"], case["exit_dim"], case["n_resblocks"], case["rnn"])
    rows = [Row(i, [0], SamplingParams(), Processors()) for i in range(len(roots))]
    pick = Lockstep(rows, case["width"], vocab_size=case["V"], vocabulary=None, device=hidden.device).shared
    levels = search(made.fold(), hidden, roots, pick, case["width"])
    beams, scores = roots[:, None, None], torch.zeros(len(roots), 1, 0, dtype=torch.double)
    with torch.no_grad():
        for level in islice(levels, case["length_incl_init"] - 1):
            parents = level.expanded // level.tokens.shape[2]
            rows_index = torch.arange(len(roots))[:, None]
            beams = torch.cat(
                [beams[rows_index, parents], level.tokens.flatten(1).gather(1, level.expanded)[..., None]], -1
            )
            logs = level.logs.flatten(1).gather(1, level.expanded).double()
            scores = torch.cat([scores[rows_index, parents], logs[..., None]], -1)
    return beams, scores.sum(-1), scores


@pytest.mark.parametrize("number", range(len(VECTORS["H"])))
def test_cell_and_beam_search(number: int) -> None:
    case = VECTORS["H"][number]
    made = network(case["H"], case["V"], case["exit_dim"], case["n_resblocks"], case["rnn"])
    count = len(case["init_token"])
    hidden = torch.stack([vector(case["H"], 0.5 + b, 1.0) for b in range(count)])
    roots = torch.tensor(case["init_token"])
    close(hidden, torch.tensor(case["hidden"]).double(), 1e-5)
    assert roots.tolist() == [2 + 3 * b for b in range(count)]
    with torch.no_grad():
        logits, state = made.step(made.start(hidden), roots[:, None])
    close(state.cell[:, 0].float(), case["s1"])
    close(logits[:, 0].float(), case["logits_step1_raw"])
    close(logits[:, 0].log_softmax(-1).float(), case["logprob_step1"])
    beams, totals, scores = beams_of(case, roots, hidden)
    assert beams.tolist() == case["beams"]
    close(totals.float(), case["beam_logprob"])
    close(scores.float(), case["token_logprob"])


def test_wide_beams_hold_no_masked_token() -> None:
    """Apple keeps 50 tokens per node and, with W > 50, fills the first level with masked ones."""
    case = {"H": 4, "V": 90, "exit_dim": 8, "n_resblocks": 1, "rnn": True, "width": 60, "length_incl_init": 2}
    hidden, roots = vector(4, 0.5, 1.0)[None], torch.tensor([2])
    beams, totals, _ = beams_of(case, roots, hidden)
    made = network(4, 90, 8, 1, True)
    with torch.no_grad():
        logits, _ = made.step(made.start(hidden), roots[:, None])
    best = logits[0, 0].log_softmax(-1).topk(60)
    assert beams[0, :, 1].tolist() == best.indices.tolist()
    close(totals[0].float(), best.values.float())


def known_tokens(ids: torch.Tensor, features: torch.Tensor) -> Packed:
    """One sequence (T,) of the target's own, in which -100 is somebody else's token."""
    length = len(ids)
    return Packed(ids.clamp(min=0), torch.zeros(length).long(), torch.arange(length), ids >= 0, features)


def loss_of(levels: Sequence[Level], batch: Packed) -> Loss:
    """Cross-entropy as our training takes it, all depths weighing the same."""
    target = OutputHead.__new__(OutputHead)  # only its size counts here
    target.weight = levels[0].weight
    return Objective("ce", decay=1.0)(levels, batch, Teacher(target, None))


def test_unroll_along_known_tokens_and_its_loss() -> None:
    case = VECTORS["J"]
    made = network(case["H"], case["V"], 2 * case["H"], 1, True)
    batch = known_tokens(torch.tensor(case["input_ids"][0]), torch.tensor(case["hidden"]).double()[0])
    with torch.no_grad():
        levels = list(made.levels(batch, 2))
    for i, level in enumerate(levels):
        wanted = case[f"logits_i{i}"]
        assert len(wanted) == len(batch) - 1 - i
        close((level.inputs @ level.weight.T)[: len(wanted)].float(), wanted)
        assert batch.valid(i + 1).tolist() == [t <= len(batch) - 3 - i for t in range(len(batch))]
    found = loss_of(levels, batch)
    close((found.sums / found.rows).sum(), case["loss_labels_equal_ids"])


def test_training_loss() -> None:
    """Apple's depth i, counted from 0, is ours of i + 1; theirs is the sum of the depths' means."""
    (case,) = VECTORS["I"]
    logits, labels = torch.tensor(case["logits"])[:, 0], torch.tensor(case["labels"][0])
    batch = known_tokens(labels, torch.zeros(len(labels), 1))
    levels = [Level(i + 1, level, torch.eye(level.shape[1])) for i, level in enumerate(logits)]
    found = loss_of(levels, batch)
    means = found.sums / found.rows
    close(means.sum(), case["loss"])
    close(found.total, found.sums.sum())
    for i, level in enumerate(logits):
        close(means[i], case["log"][f"redrafter{i}_loss"])
        rows = batch.valid(i + 1)
        for k in range(1, case["top_k"] + 1):
            right = (level.topk(k).indices == batch.shifted(i + 2)[:, None]).any(-1)[rows].float().mean()
            close(right, case["log"][f"redrafter{i}_top{k}"])


def test_training_loss_leaves_out_tokens_that_are_not_the_targets() -> None:
    (case,) = VECTORS["I"]
    logits, labels = torch.tensor(case["logits"])[:, 0], torch.tensor(case["labels"][0])
    labels[2] = -100
    levels = [Level(i + 1, level, torch.eye(level.shape[1])) for i, level in enumerate(logits)]
    found = loss_of(levels, known_tokens(labels, torch.zeros(len(labels), 1)))
    assert found.rows.tolist() == [1, 1]
    close(found.sums[0], torch.nn.functional.cross_entropy(logits[0, 1:2], labels[3:]))
    close(found.sums[1], case["log"]["redrafter1_loss"])
