"""One colour per contender and proposer, the same in every part of the page; plain decoding is grey.

The colours are Okabe and Ito's, which people with any common colour vision tell apart; the style sheet holds them
for light and dark pages. A colour never stands alone: names are written beside it, and lines have their own marks.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from anydraft.bench.pages.markup import Markup, tag
from anydraft.bench.pages.results import Result

COUNT = 8
SHAPES = 4


class Colours:
    """Classes of the style sheet, by name.

    Args:
        rows: whose contenders get a colour, in order.
        proposers: by contender, who proposed in its text: a single one shares its contender's colour.
    """

    def __init__(self, rows: Iterable[Result], proposers: Mapping[str, Collection[str]] | None = None) -> None:
        self._index: dict[str, int] = {}
        self._plain: set[str] = {"target"}
        for row in rows:
            if row.plain:
                self._plain.add(row.contender)
            else:
                self._index.setdefault(row.contender, len(self._index))
        for contender, names in (proposers or {}).items():
            if len(names) == 1 and contender in self._index:
                self._index.setdefault(next(iter(names)), self._index[contender])

    def index(self, name: str) -> int:
        """The number of a name's colour: its own contender's, or that of the first whose name holds it as a word."""
        if name not in self._index:
            near = [known for known in self._index if name in re.split(r"[^\w.-]+", known)]
            self._index[name] = self._index[near[0]] if len(near) == 1 else len(set(self._index.values()))
        return self._index[name]

    def of(self, name: str) -> str:
        """`c0` to `c7`, or `plain`."""
        return "plain" if name in self._plain else f"c{self.index(name) % COUNT}"

    def mark(self, name: str, x: float, y: float, size: float) -> Markup:
        """The mark of a name on a line: a disc, a square, a diamond or a triangle of about the same area."""
        kind = self.index(name) % SHAPES
        if kind == 0:
            return tag("circle", cx=float(x), cy=float(y), r=float(size))
        corners = {
            1: [(-0.89, -0.89), (0.89, -0.89), (0.89, 0.89), (-0.89, 0.89)],
            2: [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
            3: [(0, -1.3), (1.2, 0.85), (-1.2, 0.85)],
        }[kind]
        return tag("polygon", points=" ".join(f"{x + dx * size:.1f},{y + dy * size:.1f}" for dx, dy in corners))

    def key(self, name: str) -> Markup:
        """The mark of a name, for a legend."""
        mark = self.mark(name, 6, 6, 4.4)
        return tag(
            "svg", mark, width=12, height=12, viewBox="0 0 12 12", class_=f"key {self.of(name)}", aria_hidden="true"
        )


def legend(entries: Iterable[tuple[str, str]]) -> Markup:
    """Names with their colours: (class of the style sheet, name)."""
    return tag(
        "ul",
        *(tag("li", tag("i", class_=f"chip {kind}"), name, class_=kind) for kind, name in entries),
        class_="legend",
    )
