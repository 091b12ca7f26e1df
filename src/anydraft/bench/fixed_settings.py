"""Fixed settings by name: what pacing is held against."""

from __future__ import annotations

import re

from anydraft.pacing import Fixed, Pacing, Steady


def fixed_setting(name: str) -> Pacing:
    """A fixed setting: chainN, a chain of N tokens at every step, or treeN, trees of at most N nodes with the root.

    Trees end where the drafter's confidence no longer pays.

    Raises:
        ValueError: there is none of that name.
    """
    found = re.fullmatch(r"(chain|tree)([1-9]\d*)", name)
    if found is None:
        raise ValueError(f"a fixed setting is chainN or treeN, such as tree16, got {name!r}")
    size = int(found[2])
    return Fixed.chain(size) if found[1] == "chain" else Steady(nodes=size - 1)
