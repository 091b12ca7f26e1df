"""Training: losses against plain twins, batches, resume to the bit after a kill, and what is refused."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from anydraft.errors import AnydraftError, BrokenCheckpoint, OptionConflict, TokenizerMismatch, WrongTarget
from anydraft.hidden import OutputHead
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.packed import Level, Packed
from anydraft.networks.registry import load_network
from anydraft.text.token_bytes import TokenBytes
from anydraft.training import checkpoint, features
from anydraft.training.batches import Dataset, Order, pack
from anydraft.training.corpus import Corpus, Sequence_
from anydraft.training.estimate import Tally, count
from anydraft.training.factory import new_network
from anydraft.training.features import Cached, Computed
from anydraft.training.objectives import Objective
from anydraft.training.progress import TrainingProgress
from anydraft.training.settings import TrainingSettings
from anydraft.training.teacher import Teacher
from anydraft.training.train import open_corpus, train
from anydraft.training.trainer import Trainer

DEPTH = 3
CPU = torch.device("cpu")
QUICK: dict[str, Any] = {
    "depth": DEPTH,
    "batch_tokens": 96,
    "lr": 1e-2,
    "warmup": 2,
    "held_out": 0.2,
    "evaluations": 4,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """What the tiny Llama itself says, greedy and sampled, cut into prompts and answers."""
    model, generator = tiny.model("llama"), torch.Generator().manual_seed(0)
    greedy = torch.arange(32) % 2 == 0
    rows = torch.tensor([tiny.prompt(3, i) for i in range(32)])
    for _ in range(26):
        with torch.no_grad():
            logits = model(input_ids=rows, use_cache=False).logits[:, -1]
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
        rows = torch.cat([rows, torch.where(greedy, logits.argmax(-1), drawn)[:, None]], 1)
    cuts = [(3 + i % 9, 12 + i % 7) for i in range(32)]
    return Corpus(
        [
            Sequence_(row[:start], row[start : start + count], float(i % 2))
            for i, (row, (start, count)) in enumerate(zip(rows.tolist(), cuts, strict=True))
        ]
    )


@pytest.fixture(scope="module")
def dataset(corpus: Corpus) -> Dataset:
    return Dataset.of(corpus, vocab_size=tiny.VOCAB, longest=256)


@pytest.fixture(scope="module")
def data(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a folder of distilled data."""
    return write_data(tmp_path_factory.mktemp("data"), corpus)


def write_data(folder: Path, corpus: Corpus, **provenance: Any) -> Path:
    lines = [
        json.dumps({"id": str(i), "prompt": s.prompt, "answer": s.answer, "temperature": s.temperature, "seed": i})
        for i, s in enumerate(corpus.sequences)
    ]
    (folder / "shard-00000.jsonl").write_text("".join(line + "\n" for line in lines))
    story = {
        "target": TargetIdentity.of(tiny.model("llama")).to_dict(),
        "tokenizer": TokenBytes.of(tiny.byte_level()).digest,
        **provenance,
    }
    (folder / "provenance.json").write_text(json.dumps(story))
    return folder


def trained(data: Path | str, out: Path, kind: str = "redrafter", steps: int = 6, **options: Any) -> dict[str, Any]:
    own = {name: options.pop(name) for name in list(options) if name in TrainingSettings.__dataclass_fields__}
    settings = TrainingSettings(**{**QUICK, "steps": steps, **own})
    return train(kind, tiny.model("llama"), tiny.byte_level(), data, out, settings, **options)


# The loss. --------------------------------------------------------------------------------------


def case(kind: str, reduced: bool, shared: bool, biased: bool) -> tuple[Packed, Teacher, Any]:
    """A random batch of three documents, its teacher, and a maker of levels with trainable heads."""
    generator = torch.Generator().manual_seed(3)
    size, hidden, width, vocab = 60, 16, 12, 50
    batch = Packed(
        torch.randint(0, vocab, (size,), generator=generator),
        torch.tensor([0] * 20 + [1] * 25 + [2] * 15),
        torch.cat([torch.arange(n) for n in (20, 25, 15)]),
        torch.rand(size, generator=generator) > 0.3,
        torch.randn(size, hidden, generator=generator),
    )
    head = OutputHead.__new__(OutputHead)
    head.weight, head.bias = torch.randn(vocab, hidden, generator=generator) / 3, None
    head.cap, head.scale = 0.0, 1.0
    vocabulary = torch.randperm(vocab, generator=generator)[:20] if reduced else None
    rows = 20 if reduced else vocab

    def levels(trained: bool) -> list[Level]:
        drawn = torch.Generator().manual_seed(4)
        heads = [torch.randn(rows, width, generator=drawn).requires_grad_(trained) for _ in range(DEPTH)]
        bias = [torch.randn(rows, generator=drawn).requires_grad_(trained) if biased else None for _ in range(DEPTH)]
        inputs = [torch.randn(size, width, generator=drawn).requires_grad_() for _ in range(DEPTH)]
        return [Level(i + 1, inputs[i], heads[0 if shared else i], bias[i]) for i in range(DEPTH)]

    return batch, Teacher(head, vocabulary), (levels, head, vocabulary)


def plain_loss(kind: str, batch: Packed, levels: list[Level], head: OutputHead, vocabulary: torch.Tensor | None) -> Any:
    """The slow twin: whole matrices, autograd's gradient."""
    total = torch.zeros(())
    for level in levels:
        rows = batch.valid(level.depth).nonzero()[:, 0]
        log_q = torch.nn.functional.linear(level.inputs[rows], level.weight, level.bias).log_softmax(-1)
        p = head.logits(batch.features[rows + level.depth]).softmax(-1)
        wanted = batch.tokens[rows + level.depth + 1]
        if vocabulary is not None:
            p, inside = p[:, vocabulary], wanted[:, None] == vocabulary
        else:
            inside = torch.nn.functional.one_hot(wanted, p.shape[1]).bool()
        mass = p.sum(-1, keepdim=True)
        found = (p * ((p / mass).log() - log_q)).sum() if kind == "kl" else -(log_q * inside).sum()
        total = total + 0.9 ** (level.depth - 1) * found
    return total


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("kind", ["kl", "ce"])
def test_fused_loss_is_the_plain_one(kind: Any, reduced: bool, shared: bool, biased: bool) -> None:
    batch, teacher, (make, head, vocabulary) = case(kind, reduced, shared, biased)
    for with_head in (False, True):
        mine, theirs = make(with_head), make(with_head)
        loss = Objective(kind, chunk=150)(mine, batch, teacher)
        (2 * loss.total).backward()
        wanted = plain_loss(kind, batch, theirs, head, vocabulary)
        (2 * wanted).backward()
        torch.testing.assert_close(loss.total, wanted, rtol=1e-5, atol=1e-5)
        for a, b in zip(mine, theirs, strict=True):
            for x, y in ((a.inputs, b.inputs), (a.weight, b.weight), (a.bias, b.bias)):
                if x is not None and x.requires_grad:
                    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)
        rows = [int(batch.valid(depth).sum()) for depth in range(1, DEPTH + 1)]
        if kind == "kl":
            assert loss.rows.tolist() == rows
            assert float(loss.weight) == pytest.approx(sum(0.9**i * n for i, n in enumerate(rows)))


def test_loss_in_bfloat16_is_near_and_chunks_change_nothing() -> None:
    batch, teacher, (make, *_) = case("kl", True, True, False)
    total = float(Objective()(make(True), batch, teacher).total.detach())
    assert float(Objective(chunk=1)(make(True), batch, teacher).total.detach()) == pytest.approx(total, rel=1e-5)
    rough = Objective(dtype=torch.bfloat16)(make(True), batch, teacher)
    assert float(rough.total.detach()) == pytest.approx(total, rel=2e-2)


def test_a_share_of_the_rows_has_the_same_mean() -> None:
    batch, teacher, (make, *_) = case("kl", False, True, False)
    exact = Objective()(make(False), batch, teacher)
    torch.manual_seed(0)
    found = [Objective(rows=0.5)(make(False), batch, teacher) for _ in range(60)]
    assert max(int(loss.rows[0]) for loss in found) <= len(batch) // 2
    mean = sum(float(loss.total.detach()) for loss in found) / sum(float(loss.weight) for loss in found)
    assert mean == pytest.approx(float(exact.total.detach() / exact.weight), rel=0.03)


# Batches. ---------------------------------------------------------------------------------------


def test_packing_leaves_out_only_what_nothing_starts_from(dataset: Dataset) -> None:
    source = Computed(tiny.model("llama"))
    indices = np.asarray([5, 0, 9, 2])
    hidden = source.of(dataset, indices)
    whole = pack(dataset, indices, hidden, depth=None, device=CPU)
    short = pack(dataset, indices, hidden, depth=DEPTH, device=CPU)
    filled = pack(dataset, indices, hidden, depth=DEPTH, device=CPU, multiple=64)
    assert len(short) < len(whole)
    assert len(filled) % 64 == 0

    def predictions(batch: Packed, depth: int) -> list[Any]:
        rows = batch.valid(depth).nonzero()[:, 0].tolist()
        return [
            (*(int(part[t]) for part in (batch.documents, batch.positions)), *batch.tokens[t : t + 2 + depth].tolist())
            for t in rows
        ]

    for depth in range(1, DEPTH + 1):
        answers = sum(
            max(0, int(n) - max(int(p), depth + 1))
            for n, p in zip(dataset.lengths[indices], dataset.prompts[indices], strict=True)
        )
        assert predictions(whole, depth) == predictions(short, depth) == predictions(filled, depth)
        assert len(predictions(whole, depth)) == answers


def test_order_holds_every_sequence_once_and_is_a_function_of_seed_and_epoch(dataset: Dataset) -> None:
    train_on, held = dataset.split(0.2)
    assert sorted([*train_on, *held]) == list(range(len(dataset)))
    order = Order(dataset, train_on, 96, seed=1, depth=DEPTH)
    for epoch in (0, 1):
        assert sorted(i for batch in order.epoch(epoch) for i in batch) == sorted(train_on)
    walk = order.walk(0, 0)
    read = [next(walk) for _ in range(len(order.epoch(0)) + 3)]
    again = Order(dataset, train_on, 96, seed=1, depth=DEPTH).walk(*read[1][1:])
    for indices, *place in read[2:]:
        other, *other_place = next(again)
        assert (indices.tolist(), place) == (other.tolist(), other_place)
    assert [b.tolist() for b in order.epoch(0)] != [b.tolist() for b in order.epoch(1)]


def test_answers_to_one_prompt_stay_on_one_side() -> None:
    corpus = Corpus([Sequence_([i // 4, 7], [8, 9, i % 4], 1.0) for i in range(160)])
    dataset = Dataset.of(corpus, vocab_size=100, longest=64)
    train_on, held = ({int(dataset.sequence(i)[0]) for i in part} for part in dataset.split(0.3))
    assert held
    assert not train_on & held


def test_frequent_tokens_are_those_of_answers() -> None:
    corpus = Corpus([Sequence_([1, 1, 1, 1], [5, 5, 3, 9], 0.0), Sequence_([1, 1], [3, 5, 4], 0.0)])
    assert Dataset.of(corpus, vocab_size=12, longest=64).most_frequent(3, 12).tolist() == [5, 3, 4]


def test_cached_hidden_states_are_the_computed_ones(dataset: Dataset, tmp_path: Path) -> None:
    source = Computed(tiny.model("llama"))
    said: list[str] = []
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join()
    (tmp_path / f"features-0.{child.pid}.partial").write_bytes(b"of a run that was killed")
    done: list[tuple[int, int]] = []
    advance: Any = lambda *given: done.append(given)  # noqa: E731
    cached = Cached(source, dataset, tmp_path, batch_tokens=64, announce=said.append, advance=advance)
    assert done == sorted(done)
    assert done[-1] == (len(dataset.tokens), len(dataset.tokens))
    indices = np.asarray([3, 11, 4])
    torch.testing.assert_close(cached.of(dataset, indices), source.of(dataset, indices), rtol=1e-4, atol=1e-5)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == len(dataset.tokens) * 32 * 4
    assert str(path) in said[0]
    before = path.stat().st_mtime_ns
    Cached(source, dataset, tmp_path, batch_tokens=64, announce=said.append)
    assert (len(said), path.stat().st_mtime_ns) == (1, before)


def test_a_disk_too_small_for_hidden_states_is_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(OptionConflict, match="leave out --cache-features"):
        Cached(Computed(tiny.model("llama")), dataset, tmp_path, batch_tokens=64)
    assert not list(tmp_path.iterdir())


# The estimate. ----------------------------------------------------------------------------------


@pytest.mark.parametrize("greedy", [False, True])
def test_estimate_is_counted_row_by_row(dataset: Dataset, greedy: bool) -> None:
    model = tiny.model("llama")
    network = new_network("redrafter", model, dataset, vocabulary=100, depth=DEPTH, seed=0)
    source = Computed(model)
    indices = np.asarray([1, 2, 6])
    batch = pack(dataset, indices, source.of(dataset, indices), depth=None, device=CPU)
    tally = Tally(DEPTH, CPU)
    count(network, [(batch, torch.full((len(batch),), greedy))], source.head, DEPTH, tally)
    found = tally.estimate()
    assert found is not None
    levels = list(network.levels(batch, DEPTH))
    kept: list[list[float]] = [[] for _ in range(DEPTH)]
    chains: list[list[float]] = [[] for _ in range(DEPTH)]
    assert network.vocabulary is not None
    for t in range(len(batch)):
        chain = 1.0
        for i, level in enumerate(levels):
            if not all(batch.valid(d)[t] for d in range(1, i + 2)):
                break
            p = source.head.logits(batch.features[t + i + 1]).softmax(-1)
            q = torch.zeros_like(p)
            q[network.vocabulary] = (level.weight @ level.inputs[t]).softmax(-1)
            one = float(p.argmax() == q.argmax()) if greedy else float(torch.minimum(p, q).sum().detach())
            chain *= one
            kept[i].append(one)
            chains[i].append(chain)
    assert found.acceptance == pytest.approx([float(np.mean(part)) for part in kept], abs=1e-4)
    assert found.tokens_per_pass == pytest.approx(1 + sum(float(np.mean(part)) for part in chains), abs=1e-4)


def test_the_target_keeps_its_precision_while_a_network_is_estimated(dataset: Dataset) -> None:
    seen: list[torch.dtype] = []
    model = tiny.model("llama")

    class Watched(Computed):
        def of(self, dataset: Dataset, indices: Any) -> torch.Tensor:
            seen.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
            return super().of(dataset, indices)

    network = new_network("redrafter", model, dataset, vocabulary=None, depth=DEPTH, seed=0)
    trainer = Trainer(network, Watched(model), dataset, TrainingSettings(**{**QUICK, "steps": 1, "precision": "bf16"}))
    assert trainer.estimate() is not None
    assert set(seen) == {torch.float32}


# The loop. --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("redrafter", {"arch": "redrafter"}),
        ("redrafter", {"vocabulary": 120, "precision": "bf16", "optimizer": "muon"}),
        ("redrafter", {"objective": "ce", "accumulate": 2, "rows_share": 0.5}),
        ("medusa", {"vocabulary": 120}),
        ("eagle", {"depth": 1}),
    ],
)
def test_training_teaches(data: Path, tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    note = trained(data, tmp_path / "out", kind, steps=40, held_out=0.2, **options)
    records = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    estimates = [record["tokens_per_pass"] for record in records if "tokens_per_pass" in record]
    assert (len(losses), len(estimates)) == (40, 4)
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    assert note["best"] == max(estimates)
    assert note["best"] > 1.03
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors", "log.jsonl", "training.json"}
    network = load_network(tmp_path / "out")
    assert network.kind == kind
    assert note["estimate"].get("covers") == ("first level only" if kind == "eagle" else None)
    if kind == "medusa":
        assert network.config.calibration is not None  # type: ignore[attr-defined]


def test_micro_batches_add_up_to_one(dataset: Dataset) -> None:
    """Two batches of a step teach what their union does."""

    def gradients(tokens: int, accumulate: int) -> dict[str, torch.Tensor]:
        model = tiny.model("llama")
        network = new_network("redrafter", model, dataset, vocabulary=None, depth=DEPTH, seed=0)
        own = {"steps": 1, "batch_tokens": tokens, "accumulate": accumulate, "clip": 1e9}
        settings = TrainingSettings(**{**QUICK, **own})
        trainer = Trainer(network, Computed(model), dataset, settings)
        found: dict[str, torch.Tensor] = {}
        trainer.optimizers.step = lambda rate: found.update(  # type: ignore[method-assign]
            {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        )
        trainer.run()
        return found

    train_on, _ = dataset.split(0.2)
    batches = len(Order(dataset, train_on, 150, seed=0, depth=DEPTH).epoch(0))
    assert batches > 1
    whole, parts = gradients(1 << 20, 1), gradients(150, batches)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6)


def as_process(rank: int, port: int, data: Path, out: Path) -> None:
    """One of two processes, as a launcher would start it."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    AcceleratorState._reset_state(True)
    torch.set_num_threads(1)
    said: list[str] = []
    trained(data, out, "medusa", **TOGETHER, listener=lambda *_: said.append("step"), announce=said.append)
    torch.distributed.destroy_process_group()
    assert bool(said) == (rank == 0)


TOGETHER: dict[str, Any] = {"steps": 6, "evaluations": 2, "clip": 0.5}


def test_two_processes_teach_what_one_does_with_twice_the_batches(data: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=as_process, args=(rank, port, data, tmp_path / "two")) for rank in range(2)]
    for process in both:
        process.start()
    trained(data, tmp_path / "one", "medusa", **TOGETHER, accumulate=2)
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert json.loads((tmp_path / "two" / "training.json").read_text())["run"]["processes"] == 2
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-5)
    tables = [load_network(tmp_path / name).config.calibration for name in ("one", "two")]  # type: ignore[attr-defined]
    assert tables[0] == tables[1]


def test_patience_ends_a_run_and_the_best_weights_are_kept(data: Path, tmp_path: Path) -> None:
    note = trained(data, tmp_path, steps=60, lr=3.0, evaluations=30, patience=2)
    assert note["stopped"]
    assert note["step"] < 60
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert note["best"] == max(record.get("tokens_per_pass", 0) for record in records)


def test_minutes_follow_the_clock(data: Path, tmp_path: Path) -> None:
    note = trained(data, tmp_path, steps=None, minutes=0.005)
    assert note["seconds"] >= 0.3
    assert note["step"] >= 1


# Resume. ----------------------------------------------------------------------------------------


class Stop(Exception):
    """Thrown in the middle of a training."""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    trained(data, out, **RESUMED)
    return out


RESUMED: dict[str, Any] = {"steps": 24, "rows_share": 0.7, "patience": 50, "precision": "bf16"}


def same(mine: Path, theirs: Path) -> bool:
    a, b = weights(mine), weights(theirs)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("seed", range(3))
def test_thrown_out_anywhere_the_weights_are_the_same(data: Path, unbroken: Path, tmp_path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(3):
        countdown = iter(range(chosen.randrange(1, 9)))

        def fall(*_: Any, countdown: Iterator[int] = countdown) -> None:
            if next(countdown, None) is None:
                raise Stop

        with contextlib.suppress(Stop):
            trained(data, tmp_path, **RESUMED, listener=fall, checkpoint_minutes=chosen.choice([1e-9, 1e-4, 1e-3]))
    trained(data, tmp_path, **RESUMED)
    assert same(tmp_path, unbroken)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 25))
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("seed", range(2))
def test_interrupted_inside_a_step_the_weights_are_the_same(
    data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chosen = random.Random(seed)
    for _ in range(2):
        calls, last, plain = [0], chosen.randrange(3, 9), Objective.__call__

        def interrupted(self: Objective, *given: Any, calls: Any = calls, last: int = last, plain: Any = plain) -> Any:
            calls[0] += 1
            if calls[0] == last:
                raise KeyboardInterrupt
            return plain(self, *given)

        monkeypatch.setattr(Objective, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(data, tmp_path, **RESUMED, checkpoint_minutes=1e-9)
        monkeypatch.undo()
    trained(data, tmp_path, **RESUMED)
    assert same(tmp_path, unbroken)


def test_control_c_ends_and_saves_after_the_step(data: Path, unbroken: Path, tmp_path: Path) -> None:
    def press(progress: TrainingProgress, share: float, speed: float) -> None:
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    before, said = signal.getsignal(signal.SIGINT), []  # type: ignore[var-annotated]
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path, **RESUMED, listener=press)
    assert signal.getsignal(signal.SIGINT) is before
    trained(data, tmp_path, **RESUMED, announce=said.append)
    assert said[0] == "goes on at step 6"
    assert same(tmp_path, unbroken)


def test_killed_at_random_moments_the_weights_are_the_same(data: Path, unbroken: Path, tmp_path: Path) -> None:
    chosen, kills = random.Random(time.time_ns()), 0
    for _ in range(6):
        child = multiprocessing.get_context("fork").Process(
            target=trained, args=(data, tmp_path), kwargs={**RESUMED, "checkpoint_minutes": 1e-9}
        )
        child.start()
        child.join(chosen.uniform(0.05, 0.6))
        if child.is_alive():
            os.kill(child.pid or 0, signal.SIGKILL)
            kills += 1
        child.join()
    trained(data, tmp_path, **RESUMED)
    assert kills
    assert same(tmp_path, unbroken)


def test_a_finished_training_is_not_done_again(data: Path, unbroken: Path) -> None:
    before = (unbroken / "model.safetensors").stat().st_mtime_ns
    said: list[str] = []
    trained(data, unbroken, **RESUMED, announce=said.append)
    assert "finished" in said[0]
    assert (unbroken / "model.safetensors").stat().st_mtime_ns == before


def test_other_settings_in_the_same_folder_are_refused(data: Path, tmp_path: Path, unbroken: Path) -> None:
    with pytest.raises(OptionConflict, match=r"lr was 0\.01 and is 0\.02"):
        trained(data, unbroken, **RESUMED, lr=0.02)
    with pytest.raises(Stop):
        trained(data, tmp_path, **RESUMED, listener=stop_at(3), checkpoint_minutes=1e-9)
    with pytest.raises(OptionConflict, match="seed was 0 and is 1"):
        trained(data, tmp_path, **RESUMED, seed=1)


def test_another_name_and_a_part_unseen_are_the_same_target(data: Path, unbroken: Path, tmp_path: Path) -> None:
    """A moved folder, or a part of the weights that could not be read, is no other target; other weights are."""
    mine = TargetIdentity.of(tiny.model("llama")).to_dict()
    print_ = str(mine["fingerprint"])
    unseen = f"{print_[: print_.rindex('-')]}-unknown"
    folder = shutil.copytree(unbroken, tmp_path / "same")
    note = folder / "training.json"
    content = json.loads(note.read_text())
    assert content["run"]["target"] == mine
    for found, refused in (({"name": "moved", "fingerprint": unseen}, False), ({"fingerprint": print_[::-1]}, True)):
        content["run"]["target"] = {**mine, **found}
        note.write_text(json.dumps(content))
        with pytest.raises(OptionConflict, match="target was") if refused else contextlib.nullcontext():
            assert trained(data, folder, **RESUMED)["step"] == RESUMED["steps"]
    for found, refused in (({"name": "moved", "fingerprint": unseen}, False), ({"fingerprint": print_[::-1]}, True)):
        provenance = json.loads((data / "provenance.json").read_text())
        other = shutil.copytree(data, tmp_path / f"data{refused}")
        (other / "provenance.json").write_text(json.dumps({**provenance, "target": {**mine, **found}}))
        with pytest.raises(WrongTarget) if refused else contextlib.nullcontext():
            open_corpus(other, tiny.model("llama"), tiny.byte_level())


def stop_at(step: int) -> Any:
    def listener(progress: TrainingProgress, share: float, speed: float) -> None:
        if progress.step == step:
            raise Stop

    return listener


# Full disks and broken files. -------------------------------------------------------------------


def test_a_full_disk_leaves_the_checkpoint_before(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stop):
        trained(data, tmp_path, **RESUMED, listener=stop_at(4), checkpoint_minutes=1e-9)
    path = tmp_path / "checkpoint" / "state.pt"
    before = path.read_bytes()

    def full(*anything: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*make room"):
        trained(data, tmp_path, **RESUMED, checkpoint_minutes=1e-9)
    assert path.read_bytes() == before
    assert {p.name for p in path.parent.iterdir()} == {"state.pt", "run.json"}


def test_a_broken_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        trained(data, tmp_path, **RESUMED, listener=stop_at(2), checkpoint_minutes=1e-9)
    path = tmp_path / "checkpoint" / "state.pt"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BrokenCheckpoint, match=r"state\.pt"):
        trained(data, tmp_path, **RESUMED)


# Refused. ---------------------------------------------------------------------------------------


def refused() -> Iterator[tuple[str, type[AnydraftError], str, dict[str, Any]]]:
    yield "no length", OptionConflict, "one of minutes, steps and epochs", {"steps": None}
    yield "two lengths", OptionConflict, "steps and epochs", {"epochs": 2}
    yield "depth", OptionConflict, "depth must be >= 1, got 0", {"depth": 0}
    yield "objective", OptionConflict, "objective is kl or ce", {"objective": "mse"}
    yield "patience", OptionConflict, "held_out > 0", {"patience": 3, "held_out": 0.0}
    yield "vocabulary", OptionConflict, r"1\.\.160", {"vocabulary": 161}
    yield "Apple's head", OptionConflict, "belongs to --arch lean", {"vocabulary": 50, "arch": "redrafter"}
    yield "kind", OptionConflict, "redrafter, medusa, eagle", {"kind": "hydra"}
    yield "log", OptionConflict, "'jsonl' or 'tensorboard'", {"log": "csv"}
    yield "checkpoints", OptionConflict, "checkpoint_minutes must be > 0, got 0", {"checkpoint_minutes": 0}
    yield "medusa", OptionConflict, "measured on held-out answers", {"kind": "medusa", "held_out": 0.0}
    yield "size", OptionConflict, r"no option width; it has arch, num_layers.*state_size", {"width": 3}
    yield "size of another", OptionConflict, "medusa has no option state_size", {"kind": "medusa", "state_size": 8}
    yield "cell", OptionConflict, "cell belongs to arch lean", {"arch": "redrafter", "cell": "elman"}
    yield "compiled", OptionConflict, "does not work for eagle", {"kind": "eagle", "compile": True}


@pytest.mark.parametrize(("error", "words", "options"), [pytest.param(*rest, id=name) for name, *rest in refused()])
def test_options_that_make_no_sense(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[AnydraftError],
    words: str,
    options: dict[str, Any],
) -> None:
    monkeypatch.delattr(features.Cached, "__init__")  # refused before hidden states are computed
    with pytest.raises(error, match=words):
        trained(data, tmp_path / "out", **options, cache_features=True)
    assert not (tmp_path / "out").exists()


def test_data_of_others_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    other = TargetIdentity.of(tiny.make("llama", seed=5)).to_dict()
    for name, error, provenance in (
        ("target", WrongTarget, {"target": other}),
        ("sizes", WrongTarget, {"target": {**other, "hidden_size": 64, "fingerprint": None}}),
        ("tokenizer", TokenizerMismatch, {"tokenizer": "another"}),
    ):
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(error, match="distil again"):
            trained(write_data(folder, corpus, **provenance), tmp_path / "out")
    strange = Corpus([Sequence_([3], [tiny.VOCAB, 4], 0.0)])
    with pytest.raises(TokenizerMismatch, match=f"token {tiny.VOCAB}"):
        trained(write_data(tmp_path, strange), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionConflict, match="anydraft distill"):
        trained(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(OptionConflict, match="no answers yet"):
        trained(write_data(tmp_path, Corpus([])), tmp_path / "out")
    with pytest.raises(OptionConflict, match="none is left to train on"):
        trained(write_data(tmp_path, Corpus([Sequence_([3], [4, 5, 6], 0.0)])), tmp_path / "out")


def test_raw_text_for_the_ablation(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(4):
        (tmp_path / "texts" / f"{number}.txt").write_text(tiny.TEXT[number * 40 :])
    note = trained(f"raw:{tmp_path / 'texts'}", tmp_path / "out", objective="ce", cache_features=True)
    assert note["provenance"]["texts"]["source"] == "texts"
    assert len(list((tmp_path / "out" / "features").iterdir())) == 1
