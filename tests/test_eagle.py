"""EAGLE: packed training, drafts with a cache against a naive twin without one, the promise, files, bad input."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from scipy import stats
from tiny import EOS, RAGGED, VOCAB

from anydraft import Decoder, Generation
from anydraft.drafters.eagle import EagleDrafter
from anydraft.errors import BrokenCheckpoint, OptionConflict, WrongTarget
from anydraft.growth import Bounds
from anydraft.hidden import LastHidden
from anydraft.networks.eagle import EagleConfig, EagleNetwork
from anydraft.networks.packed import Packed
from anydraft.pacing import Fixed
from anydraft.row import Row
from anydraft.sampling import SamplingParams
from anydraft.target import Target
from anydraft.tree import DraftTree

ARCHITECTURES = ["llama", "gemma2", "gpt2"]
SETTINGS: list[dict[str, Any]] = [{}, {"temperature": 1.0, "seed": 1}, {"temperature": 0.7, "top_p": 0.9, "seed": 2}]


def network(arch: str = "llama", vocabulary: Sequence[int] | None = None, seed: int = 1) -> EagleNetwork:
    """Random weights, wide enough that drafts differ."""
    torch.manual_seed(seed)
    rows = None if vocabulary is None else torch.tensor(vocabulary)
    config = EagleConfig.for_model(tiny.model(arch), vocabulary_size=None if rows is None else len(rows))
    made = EagleNetwork(config, rows)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    return made.attach(tiny.model(arch)).eval()


@torch.no_grad()
def features(arch: str, tokens: Sequence[int]) -> torch.Tensor:
    """The target's last hidden states, from a whole forward."""
    model = tiny.model(arch)
    with LastHidden(model).caught() as caught:
        model(input_ids=torch.tensor([list(tokens)]), use_cache=False)
    return caught[-1][0]


def packed(arch: str, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Packed:
    texts = [[*p, *a] for p, a in zip(prompts, answers, strict=True)]
    return Packed(
        torch.tensor([token for text in texts for token in text]),
        torch.tensor([7 + i for i, text in enumerate(texts) for _ in text]),
        torch.tensor([place for text in texts for place in range(len(text))]),
        torch.tensor([place >= len(p) for p, text in zip(prompts, texts, strict=True) for place in range(len(text))]),
        torch.cat([features(arch, text) for text in texts]),
    )


def generate(decoder: Decoder, prompts: Any = RAGGED, **options: Any) -> list[Generation]:
    result = decoder.generate(prompts, **{"max_new_tokens": 24, "ignore_eos": True, **options})
    return result if isinstance(result, list) else [result]


@cache
def trained(arch: str) -> EagleNetwork:
    """Taught a few answers of its target by heart, so that drafts are kept, and rejected in their middle."""
    plain = tiny.decoder(arch)
    answers = [r.tokens for options in SETTINGS for r in generate(plain, **options)]
    batch = packed(arch, RAGGED * len(SETTINGS), answers)
    made = EagleNetwork(EagleConfig.for_model(tiny.model(arch))).attach(tiny.model(arch)).train()
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(made.parameters(), lr=5e-3)
    valid = batch.valid(1)
    for _ in range(60):
        (level,) = made.levels(batch, 5)
        logits = torch.nn.functional.linear(level.inputs, level.weight, level.bias)
        assert level.regression is not None
        loss = torch.nn.functional.cross_entropy(logits[valid], batch.shifted(2)[valid]) + 0.1 * level.regression
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made.eval()


def drafter(of: EagleNetwork, arch: str = "llama", **options: Any) -> EagleDrafter:
    return EagleDrafter(of, tiny.target(arch), **options)


# Training. --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_packed_batch_is_its_documents_one_by_one(arch: str) -> None:
    lengths = (9, 30, 3, 12, 11, 2)
    prompts = [tiny.prompt(2, i) for i in range(6)]
    answers = [tiny.prompt(n, 10 + n) for n in lengths]
    made = network(arch)
    batch = packed(arch, prompts, answers)
    (level,) = made.levels(batch, 3)
    assert level.depth == 1
    assert level.inputs.shape == (len(batch), 32)
    distances = []
    start = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        text = [*prompt, *answer]
        states = features(arch, text)
        predicted = made(torch.tensor([text[1:]]), states[None, :-1], torch.arange(len(text) - 1)[None])[0]
        torch.testing.assert_close(level.inputs[start : start + len(text) - 1], predicted, atol=1e-4, rtol=1e-4)
        start += len(text)
        distance = torch.nn.functional.smooth_l1_loss(predicted[:-1], states[1:-1], reduction="none").mean(-1)
        distances.append(distance[len(prompt) - 2 :])
    assert level.regression is not None
    torch.testing.assert_close(level.regression, 10 * torch.cat(distances).mean(), atol=1e-4, rtol=1e-4)
    logits = torch.nn.functional.linear(level.inputs, level.weight, level.bias)
    torch.testing.assert_close(made.logits(level.inputs), logits)  # drafted from is what was trained


def test_noise_in_training_only_and_from_torchs_seed() -> None:
    batch = packed("llama", RAGGED, [tiny.prompt(20, 8)] * 4)
    made = network()

    def inputs() -> torch.Tensor:
        torch.manual_seed(3)
        return next(iter(made.levels(batch, 1))).inputs

    still = inputs()
    assert torch.equal(still, next(iter(made.levels(batch, 1))).inputs)
    made.train()
    assert torch.equal(inputs(), inputs())
    assert not torch.equal(inputs(), next(iter(made.levels(batch, 1))).inputs)
    assert not torch.equal(inputs(), still)


def test_gradients_reach_every_weight_and_none_of_the_targets() -> None:
    made = network().train()
    (level,) = made.levels(packed("llama", RAGGED, [tiny.prompt(9, 8)] * 4), 1)
    assert level.regression is not None
    (level.regression + (level.inputs @ level.weight.T).square().mean()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in made.parameters())
    assert all(parameter.grad is None for parameter in tiny.model("llama").parameters())


# Drafting. --------------------------------------------------------------------------------------


class Watched(EagleDrafter):
    """Compares every draft with the naive twin: no cache, no batch, the target's states from whole forwards."""

    arch = "llama"
    seen = 0

    def propose(self, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        trees = super().propose(rows, bounds)
        for row, tree, bound in zip(rows, trees, bounds, strict=True):
            context = row.prompt + row.tokens
            if len(context) == 1 or bound.target_depth == 0:
                assert tree == DraftTree.EMPTY
                continue
            assert not self._unread[row]
            assert self._cache.pairs(row) == len(context) - 1
            known = {-1: (torch.tensor(context[1:]), features(self.arch, context[:-1]))}
            for node in range(-1, len(tree)):
                self._check(row, tree, node, bound, known)
        return trees

    def _check(
        self, row: Row, tree: DraftTree, node: int, bound: Bounds, known: dict[int, tuple[torch.Tensor, torch.Tensor]]
    ) -> None:
        """`known`: tokens and features that a node's children follow from, by node."""
        children = [child for child, parent in enumerate(tree.parents) if parent == node]
        if not children:
            return
        path = tree.path(node)
        tokens, states = known[node]
        with torch.no_grad():
            predicted = self.network(tokens[None], states[None], torch.arange(len(tokens))[None])[0, -1:]
        for child in children:
            known[child] = torch.cat([tokens, torch.tensor([tree.tokens[child]])]), torch.cat([states, predicted])
        scores = self.network.logits(predicted)
        for warper in row.processors.by_scores:
            scores = warper(torch.zeros((1, 0)), scores)
        ids = torch.arange(VOCAB) if self.network.vocabulary is None else self.network.vocabulary
        if row.noise is not None:
            scores = scores + row.noise.at(row.position + len(path))[ids]
        logs = scores[0].log_softmax(-1)
        of_token = dict(zip(ids.tolist(), logs.tolist(), strict=True))
        base = 0.0 if node < 0 else tree.scores[node]  # type: ignore[index]
        found = [tree.scores[child] for child in children]  # type: ignore[index]
        assert found == pytest.approx([base + of_token[tree.tokens[c]] for c in children], abs=2e-3)
        best = logs.topk(min(bound.branch, len(logs))).values.tolist()
        assert found == pytest.approx([base + log for log in best[: len(found)]], abs=2e-3)
        self.seen += 1


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_drafts_are_the_naive_twins(arch: str) -> None:
    """Trees and chains over many drafts with rejections, in a ragged batch with a prompt of one token."""
    watched = Watched(trained(arch), tiny.target(arch))
    watched.arch = arch
    for width, options in ((3, SETTINGS[0]), (2, SETTINGS[1]), (1, SETTINGS[2])):
        options = {"max_new_tokens": 8, **options}
        results = generate(tiny.decoder(arch, watched, depth=4, width=width, nodes=8), **options)
        plain = generate(tiny.decoder(arch), **options)
        assert [r.tokens for r in results] == [r.tokens for r in plain]
        kept, drafted = (sum(getattr(r.stats, f"num_{n}_tokens") for r in results) for n in ("accepted", "draft"))
        assert 0 < kept < drafted
    assert watched.seen > 50


def test_a_reduced_vocabulary() -> None:
    ids = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(0))[:60].sort().values.tolist()
    watched = Watched(network(vocabulary=ids), tiny.target("llama"))
    for options in SETTINGS:
        results = generate(tiny.decoder("llama", watched), max_new_tokens=6, **options)
        plain = generate(tiny.decoder("llama"), max_new_tokens=6, **options)
        assert [r.tokens for r in results] == [r.tokens for r in plain]
    assert watched.seen > 20


def test_the_cache_after_many_drafts_is_a_fresh_one() -> None:
    """Nothing of a rejected draft stays, whatever came and went beside it."""
    seen: list[tuple[list[int], list[torch.Tensor]]] = []

    class Kept(EagleDrafter):
        def stop(self, rows: Sequence[Row]) -> None:
            for row in rows:
                if row in self._cache.rows:
                    slot, pairs = self._cache.rows.index(row), self._cache.pairs(row)
                    layer = self._cache._cache.layers[0]
                    states = [getattr(layer, name)[slot, :, :pairs].clone() for name in ("keys", "values")]
                    seen.append(((row.prompt + row.tokens)[: pairs + 1], states))
            super().stop(rows)

    of = trained("llama")
    kept = Kept(of, tiny.target("llama"))
    decoder = tiny.decoder("llama", kept)
    for options in SETTINGS:
        generate(decoder, ignore_eos=False, **options)
    assert len(seen) == len(SETTINGS) * len(RAGGED)
    assert not kept._cache.rows
    assert not kept._unread
    for context, states in seen:
        fresh = EagleDrafter(of, tiny.target("llama"))
        row = tiny_row(context)
        fresh.start([row])
        fresh._cache.read(row, context[1:], features("llama", context[:-1]))
        layer = fresh._cache._cache.layers[0]
        for name, found in zip(("keys", "values"), states, strict=True):
            torch.testing.assert_close(found, getattr(layer, name)[0, :, : len(context) - 1], atol=1e-4, rtol=1e-4)


def tiny_row(prompt: list[int]) -> Row:
    made, _ = tiny.decoder("llama")._intake.rows([prompt], SamplingParams(max_new_tokens=8), None)
    return made[0]


def test_a_long_prompt_is_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks' seams do not show in the draft."""
    drafts = []
    for chunk, most in ((512, 64), (7, 20), (512, 1000)):
        monkeypatch.setattr("anydraft.drafters.eagle_cache.PREFILL_CHUNK", chunk)
        monkeypatch.setattr("anydraft.drafters.eagle.LONGEST_UNREAD", most)
        made = drafter(trained("llama"))
        prompts = [tiny.prompt(130, 1), tiny.prompt(70, 2)]
        rows = [tiny_row(prompt) for prompt in prompts]
        made.start(rows)
        for row in rows:
            made.read(row, features("llama", row.prompt[:-1]))
        trees = made.propose(rows, [Bounds(4, 3, 10)] * 2)
        assert len(trees[0]) == len(trees[1]) == 10
        drafts.append(trees)
    for trees in drafts[1:]:
        for tree, first in zip(trees, drafts[0], strict=True):
            assert (tree.tokens, tree.parents) == (first.tokens, first.parents)
            assert tree.scores == pytest.approx(first.scores, abs=1e-3)


# The promise. -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("of", [network, trained], ids=["random", "trained"])
def test_batches_and_single_rows_say_what_plain_decoding_says(arch: str, of: Any) -> None:
    decoder = tiny.decoder(arch, drafter(of(arch), arch))
    for options in SETTINGS:
        options = {"ignore_eos": False, "max_new_tokens": 9, **options}
        plain = [r.tokens for r in generate(tiny.decoder(arch), **options)]
        assert [r.tokens for r in generate(decoder, **options)] == plain
        (single,) = generate(decoder, RAGGED[0], **options)
        assert single.tokens == plain[0]
        assert single.stats.num_draft_tokens > 0


def test_stop_tokens_inside_an_accepted_run() -> None:
    """Wherever a draft passes the end, the end counts; what is drafted after it is nothing."""
    decoder = tiny.decoder("llama", drafter(trained("llama")), depth=8, nodes=16)
    (whole,) = generate(tiny.decoder("llama"), RAGGED[0])
    for stop in set(whole.tokens):
        (result,) = generate(decoder, RAGGED[0], stop_token_ids=[stop])
        assert result.tokens == whole.tokens[: whole.tokens.index(stop) + 1]


def test_a_branch_ends_with_the_text() -> None:
    """The end of sequence is a leaf, under a reduced vocabulary too."""
    for vocabulary in (None, [EOS, *range(20, 30)]):
        of = network(vocabulary=vocabulary)
        with torch.no_grad():  # every node's best child is the end
            of.fc.weight.zero_()
            of.fc.bias.copy_(20 * of.target_head[EOS])
            for parameter in of.layer.parameters():
                parameter.zero_()
        made = drafter(of)
        row = tiny_row(RAGGED[0])
        made.start([row])
        made.read(row, features("llama", row.prompt[:-1]))
        (tree,) = made.propose([row], [Bounds(4, 2, 12)])
        assert EOS in tree.tokens
        assert all(tree.tokens[parent] != EOS for parent in tree.parents if parent >= 0)
        assert tree.depth > 1


def test_chains_where_only_chains_can_be_verified() -> None:
    target = Target(tiny.model("llama"), exact=True)
    made = EagleDrafter(trained("llama"), target)
    for options in SETTINGS[:2]:
        results = generate(tiny.decoder(target, made), **options)
        plain = generate(tiny.decoder(target), **options)
        assert [r.tokens for r in results] == [r.tokens for r in plain]
        assert sum(r.stats.num_accepted_tokens for r in results) > 0


@pytest.mark.parametrize("vocabulary", [None, (1, 2, 4)])
def test_rejection_has_the_targets_law(vocabulary: tuple[int, ...] | None) -> None:
    """Chi-square of the first three tokens over five token ids against whole forwards of the target."""
    size, runs = 5, 1500
    model = tiny.make("llama", size, initializer_range=0.15, pad_token_id=None, bos_token_id=None, eos_token_id=None)
    target = Target(model)
    torch.manual_seed(0)
    rows = None if vocabulary is None else torch.tensor(vocabulary)
    of = EagleNetwork(EagleConfig.for_model(model, vocabulary_size=None if rows is None else len(rows)), rows)
    made = EagleDrafter(of.attach(model), target, verification="rejection")
    decoder = Decoder(target, made, pacing=Fixed(Bounds(2, 2, 8)), verification="rejection")
    results: list[Generation] = []
    for seed in range(runs // 500):
        results += decoder.generate([2, 3], n=500, max_new_tokens=3, temperature=1.0, seed=seed)  # type: ignore[operator]
    said = torch.cartesian_prod(*[torch.arange(size)] * 3)
    with torch.no_grad():
        logits = model(input_ids=torch.cat([torch.tensor([[2, 3]]).expand(len(said), 2), said], 1)).logits
    law = logits[:, 1:4].double().log_softmax(-1).gather(2, said[..., None]).sum((1, 2)).exp()
    counts = torch.zeros(len(said))
    for result in results:
        a, b, c = result.tokens
        counts[a * size * size + b * size + c] += 1
    assert sum(r.stats.num_accepted_tokens for r in results) > runs / 10
    assert law.min() * runs > 1
    assert law.max() < 0.1
    assert stats.chisquare(counts.numpy(), (law * runs).numpy(), sum_check=False).pvalue > 1e-3


# Files and bad input. ---------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [None, list(range(3, 60))])
def test_saved_and_loaded(tmp_path: Path, vocabulary: list[int] | None) -> None:
    made = network(vocabulary=vocabulary)
    made.save_pretrained(tmp_path)
    loaded = EagleNetwork.from_pretrained(tmp_path).attach(tiny.model("llama"))
    assert loaded.config == made.config
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in made.state_dict().items())
    batch = packed("llama", RAGGED, [tiny.prompt(9, 8)] * 4)
    (level,), (other,) = made.levels(batch, 1), loaded.levels(batch, 1)
    assert torch.equal(level.inputs, other.inputs)
    assert torch.equal(level.weight, other.weight)
    half = EagleNetwork.from_pretrained(tmp_path, dtype=torch.bfloat16).attach(tiny.model("llama"))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.rotary.inv_freq, made.rotary.inv_freq)
    plain = generate(tiny.decoder("llama"), RAGGED)
    assert [r.tokens for r in generate(tiny.decoder("llama", drafter(half)))] == [r.tokens for r in plain]


def test_broken_files(tmp_path: Path) -> None:
    network().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenCheckpoint, match="cannot be read"):
        EagleNetwork.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"intermediate_size": 64', '"intermediate_size": 48'))
    with pytest.raises(BrokenCheckpoint, match="instead of"):
        EagleNetwork.from_pretrained(tmp_path)


def test_another_target() -> None:
    with pytest.raises(WrongTarget, match="other weights"):
        network("llama").attach(tiny.model("qwen2"))
    with pytest.raises(WrongTarget, match="hidden size 32"):
        network("llama").attach(tiny.make("llama", hidden_size=64))
    with pytest.raises(WrongTarget, match="vocabulary 160"):
        network("llama").attach(tiny.make("llama", 170))


def test_a_drafter_attaches_its_network() -> None:
    fresh = EagleNetwork(EagleConfig.for_model(tiny.model("llama")))
    assert not fresh.attached
    EagleDrafter(fresh, tiny.target("llama"))
    assert fresh.attached


def test_sizes_that_make_no_layer() -> None:
    model = tiny.model("llama")
    for sizes in ({"num_heads": 3, "num_kv_heads": 2}, {"head_dim": 7}, {"intermediate_size": 0}):
        with pytest.raises(OptionConflict, match="EAGLE layer"):
            EagleConfig.for_model(model, **sizes)
    config = EagleConfig.for_model(model, vocabulary_size=10)
    with pytest.raises(OptionConflict, match="12 token ids"):
        EagleNetwork(config, torch.arange(12))
    with pytest.raises(OptionConflict, match="got 200"):
        EagleConfig.for_model(model, vocabulary_size=200)
    with pytest.raises(BrokenCheckpoint, match="outside"):
        EagleNetwork(config, torch.arange(10) + 155).attach(model)


def test_bytes_read_per_level() -> None:
    made = network(vocabulary=list(range(40)))
    assert EagleDrafter(made, tiny.target("llama")).each_level == [made.fc]
    assert made.bytes_per_step() == 4 * (made.num_parameters + 40 * 32)
