"""What a draft through another vocabulary says of its levels: pacing learns from it where drafts should end."""

from __future__ import annotations

import pytest
import tiny

from anydraft import SamplingParams
from anydraft.drafters import UniversalDrafter
from anydraft.growth import Bounds
from anydraft.lm import LanguageModel
from anydraft.row import Row
from anydraft.tree import DraftTree

TEXT = "the red hat and the bear"


def drafted(wanted: int, bound: Bounds) -> DraftTree:
    target = tiny.target("llama")
    drafter = UniversalDrafter(
        LanguageModel(tiny.parrot("pieces")),
        tiny.pieces(),
        target_tokenizer=target.tokenizer,
        vocab_size=target.vocab_size,
        eos_token_ids=target.eos_token_ids,
    )
    params = SamplingParams(max_new_tokens=wanted + 1)
    (row,), _ = tiny.decoder("llama")._intake.rows([TEXT], params, None)
    assert isinstance(row, Row)
    drafter.start([row])
    (tree,) = drafter.propose([row], [bound.within(wanted, 64, False)])
    return tree


@pytest.mark.parametrize("width", [1, 3])
def test_of_a_last_token_that_may_be_cut_off_nothing_is_stated(width: int) -> None:
    tree = drafted(60, Bounds(12, width, 31))
    assert tree.depth >= 3
    assert tree.levels == 12
    assert len(tree.masses) == tree.depth - 1
    assert tree.masses[0] == 1.0
    assert list(tree.masses) == sorted(tree.masses, reverse=True)
    only = drafted(60, Bounds(1, width, 31))
    assert (only.depth, only.masses) == (1, ())  # or short drafts would be a reason for short ones


def test_no_levels_are_drafted_for_tokens_that_nobody_wants() -> None:
    tree = drafted(2, Bounds(12, 1, 31))
    assert tree.depth <= 2
    assert tree.levels <= 4
