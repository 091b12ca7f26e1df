"""Shared noise: Gumbel by law, independent between positions and tokens, a pure function of its three keys."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anydraft.noise import Noise, gumbel, mix64, uniform, uniform_torch, words, words_torch

SEEDS = [0, 1, 2, -1, 2**63, 2**64 + 1, 10**40, -(10**30)]


@pytest.mark.parametrize("seed", SEEDS)
def test_law_over_tokens(seed: int) -> None:
    values = Noise(seed, 50_000).at(3).double().numpy()
    assert stats.kstest(values, stats.gumbel_r.cdf).pvalue > 1e-4
    assert np.isfinite(values).all()


@pytest.mark.parametrize("token", [0, 31_999])
def test_law_over_positions_of_one_token(token: int) -> None:
    values = [float(gumbel([mix64(7, position)], torch.tensor([token], dtype=torch.int32))) for position in range(4000)]
    assert stats.kstest(values, stats.gumbel_r.cdf).pvalue > 1e-4


def test_law_over_seeds_of_one_token() -> None:
    values = [float(gumbel([mix64(seed, 0)], torch.tensor([5], dtype=torch.int32))) for seed in range(4000)]
    assert stats.kstest(values, stats.gumbel_r.cdf).pvalue > 1e-4


def test_tails() -> None:
    """The largest of many is where the largest of Gumbel variables lies; nothing is cut off early."""
    values = torch.cat([Noise(1, 200_000).at(position) for position in range(10)]).double()
    largest = float(values.max()) - math.log(len(values))
    assert 1e-3 < stats.gumbel_r.cdf(largest) < 1 - 1e-3
    assert -3.2 < float(values.min()) < -2.3


def test_independent_between_positions_tokens_and_seeds() -> None:
    positions = torch.stack([Noise(5, 20_000).at(position) for position in range(8)]).double()
    seeds = torch.stack([Noise(seed, 20_000).at(0) for seed in range(8)]).double()
    shifted = torch.stack([positions[0][shift : 19_000 + shift] for shift in (0, 1, 2, 3, 4, 8, 16, 256)])
    for sample in (positions, seeds, shifted):
        ranks = sample.argsort(-1).argsort(-1).double()
        correlations = torch.corrcoef(ranks) - torch.eye(len(sample))
        assert float(correlations.abs().max()) < 0.035  # five standard deviations


@given(st.integers(), st.integers(0, 10**6), st.integers(1, 500))
def test_a_part_of_the_vocabulary_has_the_same_noise(seed: int, position: int, size: int) -> None:
    whole = Noise(seed, 500).at(position)
    assert torch.equal(Noise(seed, size).at(position), whole[:size])
    token = torch.tensor([size - 1], dtype=torch.int32)
    assert gumbel([mix64(seed, position)], token)[0] == whole[size - 1]


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=40),
)
def test_words_are_those_of_torch_operations(keys: list[int], index: list[int]) -> None:
    """As on other devices, bit for bit; also of every other entry, of rows, and of each key alone."""
    tensor = torch.tensor(index * 2, dtype=torch.int32)
    for entries in (tensor, tensor[::2], tensor.reshape(2, -1)):
        before = entries.clone()
        assert np.array_equal(words(keys, entries), words_torch(keys, entries).numpy())
        assert torch.equal(uniform(keys, entries), uniform_torch(keys, entries))
        for key, together in zip(keys, gumbel(keys, entries), strict=True):
            assert torch.equal(gumbel([key], entries)[0], together)
        assert torch.equal(entries, before)
    assert int(words(keys, tensor).min()) >= 0


def test_the_order_of_asking_does_not_matter() -> None:
    """Vectors are dropped and made again beyond KEEP positions."""
    noise, other = Noise(3, 40), Noise(3, 40)
    forward = [noise.at(position).clone() for position in range(3 * Noise.KEEP)]
    backward = [other.at(position).clone() for position in reversed(range(3 * Noise.KEEP))][::-1]
    assert torch.equal(torch.stack(forward), torch.stack(backward))
    assert torch.equal(noise.at(0), forward[0])
    assert sum(map(len, noise._blocks.values())) <= Noise.KEEP


def test_noise_of_its_own_is_another() -> None:
    noise = Noise(3, 20_000)
    samples = torch.stack([noise.at(2), noise.own(2, 20_000), noise.own(2, 20_000, stream=2), noise.own(3, 20_000)])
    assert float((torch.corrcoef(samples.double()) - torch.eye(4)).abs().max()) < 0.035
    assert stats.kstest(samples[1].double().numpy(), stats.gumbel_r.cdf).pvalue > 1e-4


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_argmax_of_scores_and_noise_has_the_law_of_the_scores(temperature: float) -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5, -4.0]) / temperature
    counts = np.zeros(6)
    index = torch.arange(6, dtype=torch.int32)
    for position in range(6_000):
        counts[int((logits + gumbel([mix64(11, position)], index)[0]).argmax())] += 1
    expected = logits.double().softmax(-1).numpy() * counts.sum()
    assert stats.chisquare(counts, expected).pvalue > 1e-4
    assert stats.chisquare(counts, np.roll(expected, 1)).pvalue < 1e-4


def test_seeds_differ() -> None:
    first = {round(float(Noise(seed, 4).at(0)[2]), 6) for seed in [*SEEDS, *range(3, 200)]}
    assert len(first) == len({*SEEDS, *range(3, 200)})


def test_mixing_depends_on_the_order_and_number_of_words() -> None:
    keys = {mix64(), mix64(0), mix64(0, 0), mix64(1, 0), mix64(0, 1), mix64(2, 1 << 64), mix64(2, 1 << 128)}
    assert len(keys) == 7
    assert all(0 <= key < 1 << 64 for key in keys)


def test_uniform_stays_inside_the_open_interval() -> None:
    values = uniform([mix64(seed) for seed in range(4)], torch.arange(1 << 18, dtype=torch.int32)).flatten()
    assert 0 < float(values.min()) < 1e-4
    assert 1 - 1e-4 < float(values.max()) < 1
    assert stats.kstest(values.numpy(), stats.uniform.cdf).pvalue > 1e-4
