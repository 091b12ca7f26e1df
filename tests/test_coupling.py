"""Coupling: with the true weights inside each group, following the carried-over noise finds the target's own choice."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from anydraft.drafters.coupling import Coupling, Place
from anydraft.noise import Noise

# Draft tokens: 0 "a", 1 "b", 2 "c", 3 "ab" (which no segment uses: it spans two target tokens), 4 silent.
DRAFT = [b"a", b"b", b"c", b"ab", None]
# Target tokens as draft segments; token 4 has none.
SEGMENTS = [(0,), (0, 1), (0, 1, 2), (1,), (), (2, 2), (2,), (1, 0)]


class Encoder:
    """As much of a PlainEncoder as the coupling asks for."""

    def __init__(self, table: list[bytes | None]) -> None:
        self.table = SimpleNamespace(table=table)

    def encode_many(self, pieces: list[bytes]) -> list[Any]:
        """Target tokens of "ab": "a" and "b", in two tokens."""
        return [SimpleNamespace(ids=(0, 3)) for _ in pieces]


@pytest.fixture
def coupling() -> Coupling:
    lengths = [len(segment) for segment in SEGMENTS]
    segments = SimpleNamespace(
        offsets=np.concatenate([[0], np.cumsum(lengths)]), values=np.array([t for s in SEGMENTS for t in s])
    )
    return Coupling(Encoder(DRAFT), Encoder([]), segments, len(DRAFT))  # type: ignore[arg-type]


def exact_logs(p: np.ndarray, prefix: tuple[int, ...], following: np.ndarray) -> np.ndarray:
    """Log law of the next draft token, given that the current target token starts with `prefix`."""
    law = np.zeros(len(DRAFT))
    inside = [t for t, s in enumerate(SEGMENTS) if s and s[: len(prefix)] == prefix]
    total = p[inside].sum()
    for t in inside:
        if len(SEGMENTS[t]) > len(prefix):
            law[SEGMENTS[t][len(prefix)]] += p[t] / total
        else:
            law += following * p[t] / total
    with np.errstate(divide="ignore"):
        return np.log(law)


def first_law(p: np.ndarray) -> np.ndarray:
    """Law of the first draft token of a target token."""
    return np.exp(exact_logs(p, (), np.zeros(len(DRAFT))))


@pytest.mark.parametrize("law", range(6))
def test_true_weights_find_the_targets_choice(coupling: Coupling, law: int) -> None:
    generator = np.random.default_rng(law)
    p = generator.dirichlet(np.ones(len(SEGMENTS)))
    p[4] = 0.0
    p /= p.sum()
    trie = coupling.trie
    trie.prior = np.log(p[trie.tokens])
    # What follows a finished target token never continues it here, so the draft alone decides where it ends.
    found = 0
    for seed in range(300):
        noise = Noise(seed, len(SEGMENTS))
        gumbel = noise.at(0).numpy().astype(np.float64)
        with np.errstate(divide="ignore"):
            choice = int(np.argmax(np.log(p) + gumbel))
        cache: OrderedDict[int, Any] = OrderedDict()
        place, prefix = coupling.start(0), ()
        while True:
            # After the end, draft token 4 (silent, outside every segment) stands for "the target token is over".
            over = np.zeros(len(DRAFT))
            over[4] = 1.0
            scores = coupling.scores(place, exact_logs(p, prefix, over), noise, cache)
            token = int(np.argmax(scores))
            if token == 4:
                break
            prefix = (*prefix, token)
            place = coupling.step(place, token)
        found += SEGMENTS.index(prefix) == choice
    assert found == 300


def test_a_flat_prior_finds_it_less_often(coupling: Coupling) -> None:
    """So the test above can fail."""
    p = np.array([0.02, 0.9, 0.01, 0.01, 0.0, 0.02, 0.02, 0.02])
    right = []
    for prior in (np.log(p[coupling.trie.tokens]), np.zeros(len(coupling.trie.tokens))):
        coupling.trie.prior = prior
        coupling.trie.root.__dict__.pop("_weights", None)
        count = 0
        for seed in range(300):
            noise = Noise(seed, len(SEGMENTS))
            with np.errstate(divide="ignore"):
                choice = int(np.argmax(np.log(p) + noise.at(0).numpy()))
            scores = coupling.scores(coupling.start(0), exact_logs(p, (), first_law(p)), noise, OrderedDict())
            count += int(np.argmax(scores)) == SEGMENTS[choice][0]
        right.append(count)
    assert right[0] == 300 > right[1]


def test_scores_are_log_probabilities(coupling: Coupling) -> None:
    logs = np.log(np.array([0.4, 0.3, 0.2, 0.05, 0.05]))
    noise = Noise(3, len(SEGMENTS))
    place = coupling.start(0)
    for token in (0, 1, 2):
        scores = coupling.scores(place, logs, noise, OrderedDict())
        assert np.exp(scores).sum() == pytest.approx(1)
        assert (scores <= 1e-12).all()
        place = coupling.step(place, token)


def test_places(coupling: Coupling) -> None:
    inside = coupling.step(coupling.start(7), 0)
    assert (inside.position, inside.node is not None) == (7, True)
    deeper = coupling.step(inside, 1)
    assert deeper.position == 7
    assert coupling.step(deeper, 0).position == 8  # "aba": the second "a" begins the next target token
    assert coupling.step(coupling.start(7), 3) == Place(9)  # "ab" writes two target tokens
