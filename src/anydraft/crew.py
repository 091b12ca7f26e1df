"""Crew: the drafters of one session, of which pacing asks whom it likes.

A drafter meets a row when it is first asked for a draft of it; until then it costs nothing, and the hidden states that
it will want to read are kept. Drafts are checked and timed here. A drafter that breaks (an exception, token ids or
scores that are none) is dropped with a warning and the row goes on without it: no draft can change a token.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

from anydraft.drafters.protocol import Converts, Drafter, ReadsHidden
from anydraft.errors import AnydraftError, DraftError, DrafterWarning
from anydraft.growth import Bounds
from anydraft.hearing import Hearing
from anydraft.row import Row
from anydraft.target import Target
from anydraft.tree import DraftTree
from anydraft.verify import Verification

Result = TypeVar("Result")


class Crew:
    """Drafters of the rows of one session.

    Args:
        target: for whom they draft.
        drafters: none for plain decoding.
        verification: what is asked of their drafts.

    Attributes:
        names: of the drafters, told apart where two have the same.
        rows: those that are decoded; they leave with `leave`.
        working: drafters that have not broken.
        hearing: hidden states that drafters will read.
        reads: which hidden states are wanted: "all", "last" or none (None).
        seconds_start: of meeting rows and reading their prompts, so far.
        seconds_last: of the last `propose`, without that.
        kept: what the pacing keeps of the session, by first row.
    """

    def __init__(self, target: Target, drafters: Sequence[Drafter], verification: Verification) -> None:
        self.target = target
        self.drafters = tuple(drafters)
        self.verification = verification
        self.names = _told_apart([drafter.name for drafter in drafters])
        self.rows: list[Row] = []
        self.kept: dict[Row, Any] = {}
        self.seconds_start = self.seconds_last = 0.0
        self._met: list[set[Row]] = [set() for _ in drafters]
        self._readers = {i: drafter for i, drafter in enumerate(drafters) if isinstance(drafter, ReadsHidden)}
        self.hearing = Hearing(self._readers)
        self._converters = [(d, d.seconds_convert) for d in drafters if isinstance(d, Converts)]
        self.working = list(range(len(drafters)))
        self.reads = self._wanted()

    @property
    def chain_only(self) -> bool:
        """Whether the target verifies chains only."""
        return self.target.structure == "chain" or self.target.fixed_width is not None

    @property
    def seconds_convert(self) -> float:
        """Seconds spent between vocabularies, so far."""
        return sum(drafter.seconds_convert - before for drafter, before in self._converters)

    def met(self, which: int, row: Row) -> bool:
        """Whether the drafter has read the row's prompt."""
        return row in self._met[which]

    def propose(self, which: int, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        """One checked draft per row; empty ones when the drafter breaks, now or before."""
        none = [DraftTree.EMPTY] * len(rows)
        if which not in self.working or not rows:
            self.seconds_last = 0.0
            return none
        limit = (self.target.fixed_width or 1 << 30) - 1
        tightened = [b.within(row.remaining - 1, limit, self.chain_only) for row, b in zip(rows, bounds, strict=True)]
        drafter = self.drafters[which]
        started = time.perf_counter()
        self._guarded(which, lambda: self._meet(which, rows))
        met = time.perf_counter()
        trees = self._guarded(which, lambda: self._drafts(which, drafter, rows, tightened, limit))
        self.seconds_start += met - started
        self.seconds_last = time.perf_counter() - met
        return none if trees is None else trees

    def leave(self, rows: Sequence[Row]) -> None:
        """Rows are finished, or given up."""
        self.rows = [row for row in self.rows if row not in rows]
        for row in rows:
            self.kept.pop(row, None)
        for i in range(len(self.drafters)):
            self._forget(i, rows)

    def _wanted(self) -> Literal["last", "all"] | None:
        wanted = {reader.hidden for i, reader in self._readers.items() if i in self.working}
        return "all" if "all" in wanted else "last" if wanted else None

    def _forget(self, which: int, rows: Iterable[Row]) -> None:
        leaving = list(rows)
        known = [row for row in leaving if row in self._met[which]]
        self._met[which].difference_update(known)
        self.hearing.forget(which, leaving)
        if known:
            self._guarded(which, lambda: self.drafters[which].stop(known))

    def _meet(self, which: int, rows: Sequence[Row]) -> None:
        """Start the rows that are new to the drafter, and hand over what all of them have for it to read."""
        new = [row for row in rows if row not in self._met[which]]
        if new:
            self._met[which].update(new)
            self.drafters[which].start(new)
        reader = self._readers.get(which)
        if reader is not None:
            for row in rows:
                unread = self.hearing.take(which, row)
                if unread is not None:
                    reader.read(row, unread)

    def _drafts(
        self, which: int, drafter: Drafter, rows: Sequence[Row], bounds: Sequence[Bounds], limit: int
    ) -> list[DraftTree]:
        if which not in self.working:
            return [DraftTree.EMPTY] * len(rows)
        trees = drafter.propose(rows, bounds)
        if len(trees) != len(rows):
            raise DraftError(f"returned {len(trees)} drafts for {len(rows)} rows")
        return [self._checked(row, tree, limit) for row, tree in zip(rows, trees, strict=True)]

    def _checked(self, row: Row, tree: DraftTree, limit: int) -> DraftTree:
        if not isinstance(tree, DraftTree):
            raise DraftError(f"returned {type(tree).__name__} instead of a DraftTree")
        if not {*map(type, tree.tokens)} <= {int} and any(not isinstance(token, Integral) for token in tree.tokens):
            raise DraftError(f"proposed token ids that are no integers, such as {tree.tokens[0]!r}")
        if tree.tokens and not 0 <= min(tree.tokens) <= max(tree.tokens) < self.target.vocab_size:
            raise DraftError(f"proposed token ids outside the target's vocabulary of {self.target.vocab_size}")
        if tree.scores is not None and (
            len(tree.scores) != len(tree)
            or (not {*map(type, tree.scores)} <= {float} and any(not isinstance(score, Real) for score in tree.scores))
            or any(map(math.isnan, tree.scores))
        ):
            raise DraftError("gave scores that are not numbers (NaN), or not one for each token")
        if self.verification == "rejection" and row.processors.sample and not {*tree.parents} <= {*(tree.probs or {})}:
            raise DraftError(
                "gave no probabilities of its proposals to reject with; use verification='exact'"
            )
        tree = tree.cut(row.remaining - 1)
        if self.chain_only:
            if not tree.is_chain:
                raise DraftError("proposed a tree where only chains can be verified")
            tree = tree.cut(limit)
        return tree

    def _guarded(self, which: int, work: Callable[[], Result]) -> Result | None:
        """The work's result; None, a warning and a note on every row when the drafter broke in it."""
        try:
            return work()
        except AnydraftError as failure:
            if not isinstance(failure, DraftError):
                raise  # what the user asked for cannot be done, and the message says so
            self._drop(which, failure)
        except Exception as failure:
            self._drop(which, failure)
        return None

    def _drop(self, which: int, failure: Exception) -> None:
        if which not in self.working:
            return
        self.working.remove(which)
        self.hearing.drop(which)
        self.reads = self._wanted()
        what = str(failure) if isinstance(failure, DraftError) else f"{type(failure).__name__}: {failure}"
        text = f"drafter {self.names[which]!r} {what}"
        for row in self.rows:
            row.stats.drafter_failures += (text,)
        warnings.warn(f"{text}; going on without it, the tokens are the same", DrafterWarning, stacklevel=7)
        self._forget(which, self.rows)


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Names with a number behind those that were there before."""
    found: list[str] = []
    for name in names:
        count = 1
        unique = name
        while unique in found:
            count += 1
            unique = f"{name}-{count}"
        found.append(unique)
    return tuple(found)
