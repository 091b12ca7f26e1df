"""Why a contender is faster: what a pass brings (tau) against what it costs (c), on one logarithmic scale.

The distance between the two is the speedup, tau / c; where c lies to the right of tau, time is lost.
"""

from collections.abc import Sequence

from anydraft.bench.pages.colours import Colours
from anydraft.bench.pages.drawing import NARROW, Scale, column, figure, group, line, log_ticks, room, shorten, write
from anydraft.bench.pages.markup import Markup, tag
from anydraft.bench.pages.panels import panels
from anydraft.bench.pages.results import Result
from anydraft.bench.pages.words import between

NOTE = (
    "Ring: c, what a pass costs, drafting included, in passes of plain decoding. Disc: tau, tokens per pass."
    " The band between them is the speedup, tau / c, on a logarithmic scale; tau travels between machines, c does not."
)


def title(rows: Sequence[Result]) -> str:
    """What the chart shows, in words."""
    known = shown(rows)
    if not known:
        return "No tokens per pass were counted"
    most = max(known, key=lambda row: row.tau.value if row.tau else 0.0)
    if most.tau is None or most.cost is None:
        return ""
    brings, costs = f"{most.tau.value:.2f}", f"{most.cost.value:.2f}"
    return f"{most.contender} brings {brings} tokens a pass, and its pass costs {costs} plain ones"


def views(rows: Sequence[Result], colours: Colours) -> list[Markup]:
    """Heading and drawing for every setting, on one scale."""
    ends = limits(rows)
    return panels(rows, lambda mine: [tag("h2", title(mine)), chart(mine, colours, ends)])


def shown(rows: Sequence[Result]) -> list[Result]:
    """Contenders of which both figures are known."""
    return [row for row in rows if row.tau is not None and row.cost is not None]


def limits(rows: Sequence[Result]) -> tuple[float, float]:
    """Both ends of the scale, with 1 between them."""
    values = [
        end for row in shown(rows) for one in (row.tau, row.cost) if one for end in (one.value, one.low, one.high)
    ]
    values = [value for value in values if value > 0]
    return min([0.9, *values]) / 1.06, max([2.0, *values]) * 1.06


def chart(rows: Sequence[Result], colours: Colours, ends: tuple[float, float]) -> Markup:
    """The drawing of the rows that have both figures; `ends` of the scale."""
    known = shown(rows)
    if not known:
        return tag("p", "No contender has both figures here.", class_="none")

    def draw(width: int) -> tuple[float, list[Markup]]:
        narrow = width == NARROW
        names = 0.0 if narrow else column([row.contender for row in known], 220)
        scale = Scale(*ends, names + 8, width - 16, logarithmic=True)
        top, step = 14.0, 62.0 if narrow else 46.0
        bottom = top + step * len(known) + 2
        parts = [
            part
            for tick in log_ticks(*ends, 6 if narrow else 9)
            for part in (
                line(scale(tick), top - 4, scale(tick), bottom, "one" if tick == 1 else "grid"),
                write(scale(tick), bottom + 16, f"{tick:g}", "tick strong" if tick == 1 else "tick", "middle"),
            )
        ]
        for place, row in enumerate(known):
            y = top + place * step + (42 if narrow else step / 2 + 4)
            parts += _row(row, scale, y, names, width, colours, narrow=narrow)
        return bottom + 24, parts

    said = (f"{row.contender}: tau {row.tau:.2f}, c {row.cost:.2f}" for row in known)
    return figure(draw, title="Tokens per pass and cost of a pass", description="; ".join(said), note=NOTE)


def _row(
    row: Result, scale: Scale, y: float, names: float, width: int, colours: Colours, *, narrow: bool
) -> list[Markup]:
    tau, cost, kind = row.tau, row.cost, colours.of(row.contender)
    if tau is None or cost is None:
        return []
    left, right = sorted((scale(cost.value), scale(tau.value)))
    speedup = f"\ntau / c = {tau.value / cost.value:.2f}" if cost.value > 0 else ""
    return [
        group(
            f"{row.contender}\ntau {tau.value:.2f} ({between(tau)})\nc {cost.value:.2f} ({between(cost)}){speedup}",
            write(0, y - 26, shorten(row.contender, width - 8), "name")
            if narrow
            else write(0, y + 4, shorten(row.contender, names - 8), "name"),
            line(left, y, right, y, f"band {kind}" if tau.value >= cost.value else f"band loss {kind}"),
            line(scale(cost.low), y, scale(cost.high), y, "whisker"),
            line(scale(tau.low), y, scale(tau.high), y, "whisker"),
            tag("circle", cx=scale(cost.value), cy=y, r=6, class_=f"ring {kind}"),
            tag("circle", cx=scale(tau.value), cy=y, r=6, class_=f"dot {kind}"),
            *_labels(
                [(scale(cost.value), f"c {cost.value:.2f}"), (scale(tau.value), f"tau {tau.value:.2f}")], y, width
            ),
        )
    ]


def _labels(texts: list[tuple[float, str]], y: float, width: int) -> list[Markup]:
    """Both figures above their marks, moved apart where they would touch, and kept inside."""
    (first, before), (second, after) = sorted(texts)
    halves = room(before, 12) / 2, room(after, 12) / 2
    missing = max(0.0, halves[0] + halves[1] + 8 - (second - first)) / 2
    right = min(second + missing, width - halves[1])
    left = min(first - missing, right - halves[0] - halves[1] - 8)
    return [write(left, y - 11, before, "small", "middle"), write(right, y - 11, after, "small", "middle")]
