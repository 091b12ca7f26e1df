"""Sequences as flat arrays, the order in which they are read, and how a batch of them is packed.

The order is a function of seed and epoch alone, so that a place in it is two numbers. Sequences of similar length come
together: the target reads a batch right-padded, which causal attention needs no mask for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anydraft.errors import OptionConflict, TokenizerMismatch
from anydraft.networks.packed import Packed
from anydraft.training.corpus import Corpus

Ints = npt.NDArray[np.int64]
POOL = 32
"""Batches among whose sequences those of similar length are sought."""


@dataclass(frozen=True)
class Dataset:
    """A corpus in arrays.

    Attributes:
        tokens: (total,) all sequences one after the other.
        starts: (n + 1,) where each begins.
        prompts: (n,) tokens of each that are its prompt.
        temperatures: (n,) at which the answer was drawn; 0 is greedy.
        digest: of all of it.
    """

    tokens: npt.NDArray[np.int32]
    starts: Ints
    prompts: Ints
    temperatures: npt.NDArray[np.float32]
    digest: str

    @classmethod
    def of(cls, corpus: Corpus, *, vocab_size: int, longest: int) -> Dataset:
        """Arrays of a corpus; sequences are cut to `longest` tokens.

        Raises:
            OptionConflict: no sequence is left.
            TokenizerMismatch: a token the target does not have.
        """
        parts, prompts, temperatures = [], [], []
        for sequence in corpus.sequences:
            if len(sequence.prompt) + 1 >= longest or len(sequence.prompt) + len(sequence.answer) < 3:
                continue
            parts.append(np.asarray((sequence.prompt + sequence.answer)[:longest], dtype=np.int32))
            prompts.append(len(sequence.prompt))
            temperatures.append(sequence.temperature)
        if not parts:
            raise OptionConflict(
                f"the data has no sequence to train on ({len(corpus.sequences)} were read; prompts must leave room "
                f"within the target's context of {longest} tokens); distil more with `anydraft distill`"
            )
        tokens = np.concatenate(parts)
        if tokens.min() < 0 or tokens.max() >= vocab_size:
            raise TokenizerMismatch(
                f"the data holds token {tokens.max() if tokens.max() >= vocab_size else tokens.min()}, and the target "
                f"has {vocab_size}: it was made for another tokenizer; distil again with this target"
            )
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        arrays = (tokens, starts, np.asarray(prompts, np.int64), np.asarray(temperatures, np.float32))
        hasher = hashlib.sha256()
        for array in arrays:
            hasher.update(array.tobytes())
        return cls(*arrays, hasher.hexdigest())

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def lengths(self) -> Ints:
        """(n,) tokens of each sequence."""
        return np.diff(self.starts)

    def sequence(self, index: int) -> npt.NDArray[np.int32]:
        """Tokens of one."""
        return self.tokens[self.starts[index] : self.starts[index + 1]]

    @cached_property
    def answers(self) -> npt.NDArray[np.bool_]:
        """(total,) which tokens are the target's own."""
        places = np.arange(len(self.tokens)) - np.repeat(self.starts[:-1], self.lengths)
        return places >= np.repeat(self.prompts, self.lengths)

    def most_frequent(self, size: int, vocab_size: int) -> Ints:
        """The `size` tokens that answers hold most often, the likelier first; ties by id."""
        counts = np.bincount(self.tokens[self.answers], minlength=vocab_size)
        return np.argsort(-counts, kind="stable")[:size].astype(np.int64)

    def split(self, share: float) -> tuple[Ints, Ints]:
        """Indices for training and held out: by hash of the prompt, so that its answers stay together.

        Raises:
            OptionConflict: nothing would be left for training.
        """
        keys = np.empty(len(self))
        for index in range(len(self)):
            sequence = self.sequence(index)
            known = sequence[: self.prompts[index]] if self.prompts[index] else sequence
            keys[index] = int.from_bytes(hashlib.sha256(known.tobytes()).digest()[:8], "big") / 2**64
        held = keys < share
        if share > 0 and not held.any():
            held = keys == keys.min()
        if held.all():
            raise OptionConflict(
                f"of {len(self)} sequences none is left to train on after holding some out; give more data or "
                "--held-out 0"
            )
        return np.flatnonzero(~held), np.flatnonzero(held)


@dataclass
class Order:
    """Batches without end: epoch after epoch, each in its own order.

    Attributes:
        indices: sequences to read.
        tokens: most positions of a batch that are learned from.
        seed: of the order.
        depth: as for `pack`.
    """

    dataset: Dataset
    indices: Ints
    tokens: int
    seed: int
    depth: int | None = None

    def epoch(self, number: int) -> list[Ints]:
        """Batches of one epoch."""
        generator = np.random.default_rng([self.seed, number])
        shuffled = generator.permutation(self.indices)
        lengths = self.dataset.lengths
        pool = max(1, int(POOL * self.tokens / max(1.0, float(lengths[self.indices].mean()))))
        batches: list[Ints] = []
        for start in range(0, len(shuffled), pool):
            part = shuffled[start : start + pool]
            batches += cut(self.dataset, part, self.tokens, self.depth)
        return [batches[i] for i in generator.permutation(len(batches))]

    def total(self, epochs: int) -> int:
        """Batches of the first so many epochs."""
        return sum(len(self.epoch(number)) for number in range(epochs))

    def walk(self, epoch: int, place: int) -> Iterator[tuple[Ints, int, int]]:
        """Batches from a place on, each with the place behind it."""
        while True:
            batches = self.epoch(epoch)
            for number in range(place, len(batches)):
                last = number + 1 == len(batches)
                yield batches[number], epoch + last, 0 if last else number + 1
            epoch, place = epoch + 1, 0


def cut(dataset: Dataset, indices: Ints, tokens: int, depth: int | None) -> list[Ints]:
    """Sequences by length, in batches of at most `tokens` that `pack` keeps, and of twice that when padded.

    A sequence longer than that is a batch of its own.
    """
    indices = indices[np.argsort(dataset.lengths[indices], kind="stable")]
    first = np.zeros(len(indices), np.int64) if depth is None else dataset.prompts[indices] - 1 - depth
    kept = dataset.lengths[indices] - first.clip(min=0)
    batches: list[Ints] = []
    start, sum_kept = 0, 0
    for place, index in enumerate(indices):
        padded = int(dataset.lengths[index]) * (place - start + 1)
        if place > start and (sum_kept + int(kept[place]) > tokens or padded > 2 * tokens):
            batches.append(indices[start:place])
            start, sum_kept = place, 0
        sum_kept += int(kept[place])
    if start < len(indices):
        batches.append(indices[start:])
    return batches


def pack(
    dataset: Dataset,
    indices: Ints,
    features: Tensor,
    *,
    depth: int | None,
    device: torch.device,
    multiple: int = 1,
) -> Packed:
    """Sequences one after the other.

    Args:
        dataset: what the indices belong to.
        indices: of sequences.
        features: (N, H) of all their tokens.
        depth: leave out the part of each prompt that no prediction up to this depth starts from; None keeps all.
        device: of the result.
        multiple: fill up to a multiple of so many positions with ones that nothing is learned from.
    """
    tokens, documents, positions, answers, kept = [], [], [], [], []
    for number, index in enumerate(indices):
        sequence, prompt = dataset.sequence(int(index)), int(dataset.prompts[index])
        places = np.arange(len(sequence))
        tokens.append(sequence)
        documents.append(np.full(len(sequence), number))
        positions.append(places)
        answers.append(places >= prompt)
        kept.append(places >= (0 if depth is None else prompt - 1 - depth))
    keep = np.concatenate(kept)
    flat = [torch.from_numpy(np.concatenate(part)[keep]).to(device) for part in (tokens, documents, positions, answers)]
    features = features.to(device)
    if not keep.all():
        features = features[torch.from_numpy(keep).to(device)]
    packed = Packed(flat[0].long(), flat[1].long(), flat[2].long(), flat[3], features)
    return packed if len(packed) % multiple == 0 else _filled(packed, multiple - len(packed) % multiple)


def _filled(packed: Packed, more: int) -> Packed:
    """With so many positions more, of a sequence of their own that has no answer."""
    zeros = packed.tokens.new_zeros(more)
    return Packed(
        torch.cat([packed.tokens, zeros]),
        torch.cat([packed.documents, zeros - 1]),
        torch.cat([packed.positions, torch.arange(more, device=zeros.device)]),
        torch.cat([packed.answers, zeros.bool()]),
        torch.cat([packed.features, packed.features.new_zeros(more, packed.features.shape[1])]),
    )
