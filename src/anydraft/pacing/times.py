"""Times of target passes, learned while decoding, by rows and width.

A machine's speed drifts, a pass grows with the context, and single measurements stray. So a pass is a slowly moving
base (the pass of one node) times a ratio for its width, both kept as logarithms: what slows everything down moves the
base and leaves the ratios, on which decisions rest. The first use of a shape may take several times as long (kernels
are made for it), so one measurement that is far off what its neighbours say is not believed.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

EDGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
"""Widths up to which passes are taken for equal."""

GUESSED_SLOPE = 0.02
"""Extra time of one more node, in passes of one node, where wider passes were never seen."""

REFRESH = 128
"""Passes with drafts until one without is made, against which they can be measured."""

FIRST_PLAIN, SURE = 3, 16
"""Passes of one node that are made first; and up to which their time is still found out rather than changing."""

STRAY, SAME = 0.3, 0.05
"""Most that one measurement counts, as a logarithm; and how far one may be from another that says the same."""

SELDOM, OFTEN = 8.0, 32.0
"""Passes of a width up to which a shorter time that its neighbours tell of counts beside its own; and how many are
counted at most."""

FORGETTING = 0.995
"""What a pass of a width counts after one of another width: nobody would look again at one that was slow by chance."""

TABLED = 8
"""Passes of a width after which the table of all widths is made anew."""


def edge(width: int) -> int:
    """The smallest edge that holds a width."""
    return EDGES[_place(width)]


def _place(width: int) -> int:
    return min(bisect_left(EDGES, width), len(EDGES) - 1)


@dataclass
class _Ratio:
    """Logarithm of a width's time over that of one node, how often it was seen, and the last time."""

    log: float
    count: float
    last: int

    def known(self, made: int) -> float:
        """How often it was seen, faded since, when so many passes have been made."""
        return self.count * FORGETTING ** (made - self.last)


@dataclass
class _Passes:
    """Times of passes of one number of rows.

    `made`: passes of more than one node; `unmeasured`: of them, those since the last one of a single node; `table`: for
    every edge how many times as long as one of one node, when it has been asked for since the last change.
    """

    base: float | None = None
    count: int = 0
    made: int = 0
    unmeasured: int = 0
    ratios: dict[int, _Ratio] = field(default_factory=dict)
    table: list[float] | None = None


class PassTimes:
    """Seconds of a target pass by rows and width (nodes per row, root included)."""

    def __init__(self) -> None:
        self._of_rows: dict[int, _Passes] = {}
        self._padded: Callable[[int, int], int] = lambda width, rows: width
        self._standing: dict[int, list[int]] = {}

    def pad(self, width: Callable[[int, int], int]) -> None:
        """Say what passes are padded to, by width and rows, for those that are padded to the same width are the same.

        But passes of one node: they follow others like them, while those of few nodes come after a draft, and find the
        machine's caches full of other things.
        """
        if self._padded != width:
            self._padded = width
            self._standing.clear()
            self._forget_tables()

    def _stands(self, rows: int) -> list[int]:
        """By edge, the place of the one that stands for it."""
        standing = self._standing.get(rows)
        if standing is None:
            standing = self._standing[rows] = [0, *(_place(self._padded(place, rows)) for place in EDGES[1:])]
        return standing

    def observe(self, rows: int, width: int, seconds: float) -> None:
        """Learn from one pass."""
        passes = self._passes(rows)
        log = math.log(max(seconds, 1e-9))
        width = EDGES[self._stands(rows)[_place(width)]]
        if width == 1:
            self._move(passes, log)
            return
        if passes.base is None:  # no pass of one node was seen with so many rows
            guess = self.seconds(rows, width)
            passes.base = log if guess is None else log - math.log(guess) + math.log(self._plain(rows) or guess)
            return
        ratio = passes.ratios.get(width)
        above = log - passes.base
        passes.made += 1
        if ratio is None:
            sure = above - self._log_ratio(passes, rows, width) < math.log(1.3)  # else it may be slow as the first
            passes.ratios[width] = _Ratio(max(0.0, above), float(sure), passes.made)
            self._forget_tables()
            return
        if ratio.count == 0:
            ratio.log, ratio.count, ratio.last = max(0.0, min(ratio.log, above)), 1.0, passes.made
            self._forget_tables()
            return
        own = moved = above - ratio.log
        known = ratio.known(passes.made)
        if known < SELDOM:  # nothing moved if this is what its neighbours said
            moved = min(own, above - self._log_ratio(passes, rows, width), key=abs)
        # That it is no faster than it was is no news.
        ratio.count, ratio.last = min(1 + (known if own < -SAME else ratio.count), OFTEN), passes.made
        passes.unmeasured += 1
        # What is well known is more likely to have moved with everything else than by itself.
        ratio.log = max(0.0, ratio.log + _clipped(own) / ratio.count)
        if known < SELDOM or passes.made % TABLED == 0:
            self._forget_tables()
        passes.base += _clipped(moved) * 0.12

    def seconds(self, rows: int, width: int) -> float | None:
        """Expected seconds of a pass; None before the first pass of any kind."""
        plain = self._plain(rows)
        if plain is None or width <= 1:
            return plain
        passes, place = self._passes(rows), _place(width)
        if passes.table is not None or passes.ratios:
            return plain * self.table(rows)[1][place]
        return plain * math.exp(self._log_ratio(passes, rows, EDGES[self._stands(rows)[place]]))

    def table(self, rows: int) -> tuple[float, list[float]]:
        """Expected seconds of a pass of one node (1 before anything was seen), and by edge how many times that."""
        passes = self._passes(rows)
        if passes.table is None:
            ratios = [math.exp(log) for log in self._log_ratios(passes, rows)]
            passes.table = [ratios[place] for place in self._stands(rows)]
        return self._plain(rows) or 1.0, passes.table

    def _passes(self, rows: int) -> _Passes:
        passes = self._of_rows.get(rows)
        if passes is None:
            passes = self._of_rows[rows] = _Passes()
        return passes

    def _forget_tables(self) -> None:
        for passes in list(self._of_rows.values()):
            passes.table = None

    def wants_plain(self, rows: int) -> bool:
        """Whether a pass of one node is due: with so many rows there were too few, or none for long."""
        passes = self._of_rows.get(rows)
        return passes is None or passes.count < FIRST_PLAIN or passes.unmeasured >= REFRESH

    def seen(self, rows: int) -> list[int]:
        """Widths (edges) of which passes were seen."""
        passes = self._passes(rows)
        return [1, *sorted(place for place, ratio in passes.ratios.items() if ratio.count)]

    def _move(self, passes: _Passes, log: float) -> None:
        passes.count += 1
        passes.unmeasured = 0
        if passes.base is None:
            passes.base = log
        elif passes.count == 2:
            passes.base = min(passes.base, log)  # of two, the slower one may have been the first of its shape
        else:
            moved = _clipped(log - passes.base) * max(1 / passes.count, 0.1)
            passes.base += moved
            if passes.count <= SURE:  # it was not that everything changed: less was known
                for ratio in passes.ratios.values():
                    ratio.log = max(0.0, ratio.log - moved)
                passes.table = None

    def _plain(self, rows: int) -> float | None:
        """Seconds of a pass of one node: of so many rows, else guessed from the nearest number of rows."""
        passes = self._of_rows.get(rows)
        if passes is not None and passes.base is not None:
            return math.exp(passes.base)
        known = [(count, p.base) for count, p in self._of_rows.items() if p.base is not None]
        if not known:
            return None
        count, base = min(known, key=lambda pair: abs(math.log(pair[0] / rows)))
        grown = self._interpolated(self._of_rows[count], rows / count) if rows > count else 0.0
        return math.exp(base + grown)

    @staticmethod
    def _known(passes: _Passes) -> list[tuple[int, float]]:
        """Widths seen and the logarithms of their ratios.

        Of one that was seen seldom the first passes may have made kernels, and nobody would look again at a width that
        seems dear, or about as dear as a wider one. So where what lies between its neighbours is less, that is believed
        more than itself, until more is known of it. They are the nearest wider one, and the nearest narrower one that
        is well known; the widest has only the narrower one.
        """
        made = passes.made
        seen = sorted((place, ratio.log, ratio.known(made)) for place, ratio in passes.ratios.items() if ratio.count)
        narrower = [(1, 0.0), *((place, log) for place, log, count in seen if count >= SELDOM)]
        found: list[tuple[int, float]] = []
        for place, log, count in reversed(seen):
            while narrower[-1][0] >= place:
                narrower.pop()
            if count < SELDOM:
                others = 1 - count / SELDOM
                if found:
                    log += min(0.0, _between(place, narrower[-1], found[-1]) - log) * others
                elif len(narrower) > 1:
                    log += min(0.0, _beyond(place, narrower[-1]) - log) * others
            found.append((place, log))
        return found[::-1]

    def _log_ratios(self, passes: _Passes, rows: int) -> list[float]:
        """`_log_ratio` of every edge, in one sweep where widths were seen with so many rows."""
        known = self._known(passes)
        if not known:
            return [self._log_ratio(passes, rows, place) for place in EDGES]
        found = [0.0]
        (low, low_log), upper = (1, 0.0), iter(known)
        high, high_log = next(upper)
        for place in EDGES[1:]:
            if place > known[-1][0]:
                found.append(_beyond(place, known[-1]))
                continue
            while place > high:
                (low, low_log), (high, high_log) = (high, high_log), next(upper)
            found.append(_between(place, (low, low_log), (high, high_log)))
        return found

    def _log_ratio(self, passes: _Passes, rows: int, width: int) -> float:
        """Logarithm of a pass of this width over one of one node."""
        if width <= 1:
            return 0.0
        if any(ratio.count for ratio in passes.ratios.values()):
            return self._interpolated(passes, width)
        # Nothing was seen of so many rows: as many tokens of other numbers of rows tell.
        others = [(count, p) for count, p in self._of_rows.items() if any(r.count for r in p.ratios.values())]
        if not others:
            return self._interpolated(passes, width)
        count, other = min(others, key=lambda pair: abs(math.log(pair[0] / rows)))
        narrow, wide = max(1.0, rows / count), max(1.0, rows * width / count)
        return max(0.0, self._interpolated(other, wide) - self._interpolated(other, narrow))

    @staticmethod
    def _interpolated(passes: _Passes, width: float) -> float:
        """Between the widths seen, by the logarithm of the width; beyond them by a guessed slope."""
        if width <= 1:
            return 0.0
        known = [(1, 0.0), *PassTimes._known(passes)]
        for (low, low_log), (high, high_log) in pairwise(known):
            if low < width <= high:
                if edge(math.ceil(width)) == high:
                    return high_log
                return _between(width, (low, low_log), (high, high_log))
        return _beyond(width, known[-1])


def _beyond(width: float, widest: tuple[int, float]) -> float:
    """What the widest width with its logarithm says of a wider one."""
    last, log = widest
    ratio = math.exp(log)
    # At least in proportion to what the widest one costs a node, so that a dear pass is not followed by a dearer.
    slope = GUESSED_SLOPE if last == 1 else max(GUESSED_SLOPE, 0.25 * (ratio - 1) / (last - 1))
    return math.log(ratio + slope * (width - last))


def _between(width: float, low: tuple[int, float], high: tuple[int, float]) -> float:
    """What two widths with their logarithms say of one between them, by the logarithm of the width."""
    return low[1] + (high[1] - low[1]) * math.log(width / low[0]) / math.log(high[0] / low[0])


def _clipped(error: float) -> float:
    """An error of a logarithm, as far as one measurement is believed."""
    return min(max(error, -STRAY), STRAY)
