"""Acceptance by depth: how often the first, second, ... drafted token was kept; points thin out with their drafts."""

import math
from collections.abc import Sequence

from anydraft.bench.pages.colours import Colours
from anydraft.bench.pages.drawing import NARROW, Scale, column, figure, group, line, shorten, write
from anydraft.bench.pages.markup import Markup, tag
from anydraft.bench.pages.panels import panels
from anydraft.bench.pages.results import Result

DEEPEST = 16
FEWEST = 0.01
"""Depths that fewer than this share of the drafts reached are left out: a handful of drafts says little."""
NOTE = (
    "Of the drafts that reached a depth, the share whose token there was kept (so all before it were, too)."
    " A mark shrinks with the number of drafts behind it; depths that under 1 % of the drafts reached are left out."
)


def views(rows: Sequence[Result], colours: Colours) -> list[Markup]:
    """Heading and drawing for every setting, on one scale."""
    high = highest(rows)
    return panels(rows, lambda mine: [tag("h2", title(mine)), *chart(mine, colours, high)])


def shown(rows: Sequence[Result]) -> list[Result]:
    """Contenders that drafted."""
    return [row for row in rows if row.acceptance and (not row.reached or row.reached[0] > 0)]


def title(rows: Sequence[Result]) -> str:
    """What the chart shows, in words."""
    known = shown(rows)
    if not known:
        return "Nothing was drafted"
    row = max(known, key=lambda row: row.acceptance[0])
    others = len(known) > 1
    return f"{row.contender}’s first guess holds {row.acceptance[0]:.0%} of the time" + (
        ", more often than any other’s" if others else ""
    )


def depth_of(row: Result) -> int:
    """How many depths are drawn."""
    if not row.reached:
        return min(len(row.acceptance), DEEPEST)
    enough = [count >= max(1.0, FEWEST * row.reached[0]) for count in row.reached]
    return min(enough.index(False) if False in enough else len(enough), len(row.acceptance), DEEPEST)


def highest(rows: Sequence[Result]) -> float:
    """The top of the scale: a quarter above which nothing lies."""
    most = max((share for row in shown(rows) for share in row.acceptance), default=1.0)
    return min(1.0, max(0.25, math.ceil(most * 4 + 0.2) / 4))


def chart(rows: Sequence[Result], colours: Colours, high: float) -> list[Markup]:
    """The drawing up to a share of `high` and, for narrow pages, its legend."""
    known = shown(rows)
    if not known:
        return [tag("p", "No contender drafted anything here.", class_="none")]
    deepest = max(2, max(depth_of(row) for row in known))

    def draw(width: int) -> tuple[float, list[Markup]]:
        narrow = width == NARROW
        names = 0.0 if narrow else column([row.contender for row in known], 200, bold=True) + 16
        across = Scale(1, deepest, 52, width - names - 14)
        up = Scale(0, high, 250 if narrow else 300, 14)
        parts = []
        for share in (quarter / 4 for quarter in range(int(high * 4) + 1)):
            parts.append(line(44, up(share), across.end + 8, up(share), "grid"))
            parts.append(write(36, up(share) + 4, f"{share:.0%}", "tick", "end"))
        every = 2 if deepest > 10 and narrow else 1
        for depth in range(1, deepest + 1, every):
            parts.append(write(across(depth), up.start + 20, str(depth), "tick", "middle"))
        parts.append(
            write((across.start + across.end) / 2, up.start + 42, "depth of the drafted token", "tick", "middle")
        )
        for row in known:
            parts += _line(row, colours, across, up)
        if not narrow:
            parts += _names(known, colours, across, up, names)
        return up.start + 50, parts

    said = (
        f"{row.contender}: {', '.join(f'{share:.0%}' for share in row.acceptance[: depth_of(row)])}" for row in known
    )
    drawing = figure(draw, title="Acceptance by depth", description="; ".join(said), note=NOTE)
    names = (tag("li", colours.key(row.contender), row.contender) for row in known)
    return [tag("ul", *names, class_="legend only-narrow"), drawing]


def _weight(row: Result, depth: int) -> float:
    """How much a point counts, from 0 to 1: by the square root of its drafts, so that areas follow them."""
    return (row.reached[depth] / row.reached[0]) ** 0.5 if row.reached else 1.0


def _line(row: Result, colours: Colours, across: Scale, up: Scale) -> list[Markup]:
    points = [(across(place + 1), up(row.acceptance[place])) for place in range(depth_of(row))]
    kind = colours.of(row.contender)
    parts: list[Markup] = []
    for place in range(1, len(points)):
        weight = _weight(row, place)
        parts.append(
            tag(
                "line",
                x1=points[place - 1][0],
                y1=points[place - 1][1],
                x2=points[place][0],
                y2=points[place][1],
                class_=f"path {kind}",
                stroke_width=f"{1 + 1.5 * weight:.2f}",
            )
        )
    for place, (x, y) in enumerate(points):
        drafts = f", {row.reached[place]:,} drafts" if row.reached else ""
        hint = f"{row.contender}\ndepth {place + 1}: {row.acceptance[place]:.0%} kept{drafts}"
        target = tag("circle", cx=x, cy=y, r=11, class_="touch")
        mark = colours.mark(row.contender, x, y, 1.6 + 3.4 * _weight(row, place))
        parts.append(group(hint, target, mark, class_=f"mark point {kind}"))
    return parts


def _names(rows: Sequence[Result], colours: Colours, across: Scale, up: Scale, names: float) -> list[Markup]:
    """Names at the ends of their lines, moved apart where they would touch."""
    ends = sorted((up(row.acceptance[depth_of(row) - 1]), row.contender, across(depth_of(row))) for row in rows)
    places: list[float] = []
    for y, _, _ in ends:
        places.append(max(y, places[-1] + 18) if places else y)
    overflow = max(0.0, places[-1] - up.start)
    for index in reversed(range(len(places))):
        below = places[index + 1] - 18 if index + 1 < len(places) else up.start
        places[index] = min(places[index] - (overflow if index + 1 == len(places) else 0), below)
    left = across.end + 20
    return [
        part
        for place, (y, name, x) in zip(places, ends, strict=True)
        for part in (
            tag("path", d=f"M{x + 8:.1f} {y:.1f}L{left - 4:.1f} {place:.1f}", class_=f"leader {colours.of(name)}"),
            write(left, place + 4, shorten(name, names - 20, bold=True), f"end-name {colours.of(name)}"),
        )
    ]
