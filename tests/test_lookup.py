"""The lookup drafter against a naive search for the longest earlier occurrence of the suffix."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from anydraft import SamplingParams
from anydraft.drafters import LookupDrafter
from anydraft.growth import Bounds
from anydraft.row import Row


def row_of(prompt: list[int]) -> Row:
    (row,), _ = tiny.decoder("llama")._intake.rows(prompt, SamplingParams(max_new_tokens=200), None)
    return row


def naive(tokens: list[int], longest: int, shortest: int, size: int) -> list[int]:
    """What follows the last earlier occurrence of the longest suffix that has one; periodic text goes on."""
    for length in range(min(longest, len(tokens)), shortest - 1, -1):
        suffix = tokens[-length:]
        for start in range(len(tokens) - length - 1, -1, -1):
            if tokens[start : start + length] == suffix:
                text = list(tokens)
                for step in range(size):
                    text.append(text[start + length + step])
                return text[len(tokens) :]
    return []


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), max_size=6),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(0, 8),
)
def test_drafts_are_those_of_a_naive_search(
    prompt: list[int], commits: list[list[int]], shortest: int, more: int, depth: int
) -> None:
    drafter = LookupDrafter(max_ngram=shortest + more, min_ngram=shortest)
    row = row_of(prompt)
    drafter.start([row])
    for commit in [[], *commits]:
        row.tokens += commit
        (tree,) = drafter.propose([row], [Bounds(depth, 1, 6)])
        assert tree.is_chain
        assert list(tree.tokens) == naive(prompt + row.tokens, shortest + more, shortest, min(depth, 6))
    drafter.stop([row])
    drafter.stop([row])


def test_repetitive_text_is_drafted_to_the_end() -> None:
    target = tiny.parrot_target()
    prompt = tiny.TEXT[:120] * 2
    plain = tiny.decoder(target).generate(prompt, max_new_tokens=40)
    drafted = tiny.decoder(target, LookupDrafter()).generate(prompt, max_new_tokens=40)
    assert not isinstance(plain, list)
    assert not isinstance(drafted, list)
    assert drafted.tokens == plain.tokens
    assert drafted.stats.tokens_per_pass > 2
    assert drafted.proposers.count("lookup") == drafted.stats.num_accepted_tokens


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="got 3 and 2"):
        LookupDrafter(max_ngram=2, min_ngram=3)
    with pytest.raises(ValueError, match="got 0 and 6"):
        LookupDrafter(min_ngram=0)
