"""Shapes of passes in half precision on a CPU: few, and such that a token is rounded alike alone and among others.

oneDNN makes kernels anew for every shape that it meets, which takes two to ten times as long as the pass itself. So
there are few, where it makes the products. And how a sum is rounded depends on the kernel that makes it. A token that
is scored by itself in one decoding and among drafted ones in another should come out the same, bit by bit, so in
bfloat16 shapes are padded to some that agree. What was measured of which processors is in docs/lossless.md, "Floating
point".
"""

from __future__ import annotations

WIDTHS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Widths that passes are padded to where kernels are made; wider ones to multiples of `SPAN_STEP`. Six rows are what a
product with AVX-512 takes at once: they cost as much as four, and eight a sixth to a quarter more."""

LEAST_WIDTH, MOST_PADDED = 4, 8
"""Least width of a pass whose results matter: products of one row, and attention of up to three queries, are made by
other kernels than those of more, which round otherwise. But of a batch only as long as it makes so many nodes in all,
which cost little more than one; beyond that plain decoding would be slower. There, and where products of one row round
as those of more, the queries alone are padded (`queries.py`)."""

SPAN_STEP = 32
"""Key spans are multiples of this, for attention adds up whole vectors otherwise than the rest behind them."""

KEY_BLOCK, KEY_CHUNK = 192, 512
"""Attention takes keys in chunks, and adds up those of a chunk in blocks: in whole ones, but from one to two blocks in
two halves, wherever those may end. So a span has at most one block of a chunk, or at least two."""


def padded_width(width: int, rows: int = 1, *, few: bool = True, alike: bool = False) -> int:
    """The width that a pass over so many nodes per row is padded to.

    Args:
        few: whether widths are to be few.
        alike: whether a token is to be rounded alike by itself and among others.
    """
    if alike and rows * LEAST_WIDTH <= MOST_PADDED:
        width = max(width, LEAST_WIDTH)
    if not few:
        return width
    return next((edge for edge in WIDTHS if edge >= width), _whole(width, SPAN_STEP))


def whole_span(slots: int) -> int:
    """The least span of whole vectors that holds so many slots."""
    return _whole(slots, SPAN_STEP)


def padded_span(slots: int) -> int:
    """The span that a pass over so many slots is padded to, so that keys are added up alike wherever it ends."""
    span = whole_span(slots)
    of_chunk = span % KEY_CHUNK
    return span - of_chunk + 2 * KEY_BLOCK if KEY_BLOCK < of_chunk < 2 * KEY_BLOCK else span


def _whole(count: int, step: int) -> int:
    return -(-count // step) * step
