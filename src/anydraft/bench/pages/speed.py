"""Speedup: one bar per contender with its 95 % interval, and a line where plain decoding is."""

from collections.abc import Sequence
from dataclasses import dataclass

from anydraft.bench.pages.colours import Colours
from anydraft.bench.pages.drawing import (
    NARROW,
    Scale,
    bar,
    column,
    cut,
    figure,
    group,
    line,
    room,
    shorten,
    ticks,
    write,
)
from anydraft.bench.pages.markup import Markup, tag
from anydraft.bench.pages.panels import panels, switch, when
from anydraft.bench.pages.results import Result
from anydraft.bench.pages.words import between, first, verdict
from anydraft.bench.statistics import Interval

VALUES = 210
"""Pixels on the right of a wide drawing, for figures."""
NOTE = (
    "Bars: tokens per second over those of plain decoding. Whiskers: 95 % bootstrap interval over prompts;"
    " pale bars have 1 in it."
)
SAID = {"faster": "faster", "slower": "slower", "unclear": "no clear difference"}


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the chart; `why` is said where there is no speedup; `base`: it is what 1 stands for."""

    row: Result
    speedup: Interval | None
    why: str = ""
    base: bool = False

    @property
    def hint(self) -> str:
        """What pointing at the bar tells."""
        speed = self.row.tokens_per_second
        parts = [
            f"{self.speedup.value:.2f} times, 95 % interval {between(self.speedup)}" if self.speedup else self.why,
            f"{speed.value:.1f} tokens a second" if speed else "",
            f"{self.row.prompts} prompts" if self.row.prompts else "",
        ]
        return f"{self.row.contender}\n" + "\n".join(filter(None, parts))


def views(rows: Sequence[Result], colours: Colours) -> list[Markup]:
    """Heading and drawings for every setting, over either base, each on one scale; the buttons to choose the base."""
    bases = [("own", "plain decoding of the same engine", "plain decoding, same engine", over_own)]
    if any(row.speedup_transformers for row in rows):
        bases.append(("transformers", "transformers’ generate", "transformers’ own generate", over_transformers))
    ends = {key: furthest(over(rows)) for key, _, _, over in bases}

    def draw(mine: list[Result]) -> list[Markup]:
        shown = [(key, base, over(mine)) for key, _, base, over in bases]
        return [
            tag(
                "div",
                tag("h2", title(bars)),
                chart(bars, colours, high=ends[key], base=base),
                data_when=when(base=key),
            )
            for key, base, bars in shown
        ]

    choice = switch("base", "Compared with", [(key, text) for key, text, _, _ in bases])
    return [*([choice] if choice else []), *panels(rows, draw), tag("p", NOTE, class_="note")]


def over_own(rows: Sequence[Result]) -> list[Bar]:
    """Over plain decoding of the same engine."""
    bases = [row.plain and row.measured for row in rows]
    return [Bar(row, row.speedup, _why(row, base), base) for row, base in zip(rows, bases, strict=True)]


def over_transformers(rows: Sequence[Result]) -> list[Bar]:
    """Over transformers' own generate."""
    bases = [row.plain and row.measured and row.engine == "transformers" for row in rows]
    return [Bar(row, row.speedup_transformers, _why(row, base), base) for row, base in zip(rows, bases, strict=True)]


def _why(row: Result, base: bool) -> str:
    if base:
        return "what the others are compared with"
    return "nothing to compare with" if row.measured else first(row)


def furthest(bars: Sequence[Bar]) -> float:
    """The right end of the scale: all intervals, unless one is far longer than any bar."""
    known = [bar.speedup for bar in bars if bar.speedup is not None]
    value = max((speedup.value for speedup in known), default=1.0)
    return max(1.2, min(max((speedup.high for speedup in known), default=1.0), 1.6 * value) * 1.03)


def chart(bars: Sequence[Bar], colours: Colours, *, high: float, base: str) -> Markup:
    """The drawing. `base` is what 1 stands for; `high` the right end of the scale."""
    known = [
        f"{one.row.contender}: {one.speedup:.2f}" if one.speedup else f"{one.row.contender}: {one.why}" for one in bars
    ]

    # What has no bar stands below the axis.
    drawn = [one for one in bars if one.speedup or one.base]
    missing = [one for one in bars if one not in drawn]

    def draw(width: int) -> tuple[float, list[Markup]]:
        narrow = width == NARROW
        names = 0.0 if narrow else column([one.row.contender for one in bars], 220)
        scale = Scale(0, high, names, width - 12 if narrow else width - VALUES - 14)
        top, step, thick = 26.0, 50.0 if narrow else 38.0, 18.0
        bottom = top + step * len(drawn) + 2
        parts: list[Markup] = []
        for tick in ticks(high, 4 if narrow else 7):
            parts.append(line(scale(tick), top - 4, scale(tick), bottom, "grid"))
            if abs(tick - 1) > 1e-9:
                parts.append(write(scale(tick), bottom + 16, f"{tick:g}×", "tick", "start" if tick == 0 else "middle"))
        for place, one in enumerate(drawn + missing):
            y = top + place * step + (22 if narrow else (step - thick) / 2) + (0 if place < len(drawn) else 24)
            parts += _bar(one, scale, y, thick, names, width, colours, narrow=narrow)
        label = room(base, 12)
        where = min(max(scale(1), label / 2), width - label / 2)
        parts += [
            line(scale(1), top - 6, scale(1), bottom, "one"),
            write(where, top - 13, base, "one-name", "middle"),
            write(scale(1), bottom + 16, "1×", "tick strong", "middle"),
        ]
        return bottom + 24 + step * len(missing), parts

    return figure(draw, title=f"Speedup over {base}", description="; ".join(known))


def _bar(
    one: Bar, scale: Scale, y: float, thick: float, names: float, width: int, colours: Colours, *, narrow: bool
) -> list[Markup]:
    """One line: name, bar and whiskers, figures. On a narrow page the texts stand above the bar."""
    name, middle, above = one.row.contender, y + thick / 2, y - 6
    text = above if narrow else middle + 4.5
    parts = [write(0, text, shorten(name, width - 130 if narrow else names - 8), "name")]
    if one.row.tokens_per_second is not None and not narrow:
        parts.append(write(width, text, f"{one.row.tokens_per_second.value:,.0f} tok/s", "muted", "end"))
    if one.speedup is None:
        if one.base:
            parts.append(bar(scale(0), y, scale(1) - scale(0), thick, "bar plain"))
            parts.append(
                write(width, text, "1×", "muted", "end") if narrow else write(width - VALUES, text, "1×", "muted")
            )
        else:
            left = scale(0) + 2
            parts.append(write(left, middle + 4, cut(one.why, width - left - (0 if narrow else 90), 12), "problem"))
        return [group(one.hint, *parts)]
    interval, kind = one.speedup, verdict(one.speedup)
    low, high = scale(interval.low), scale(interval.high)
    value, spread = f"{interval.value:.2f}×", f"{interval.low:.2f}–{interval.high:.2f}"
    parts.append(bar(scale(0), y, scale(interval.value) - scale(0), thick, f"bar {colours.of(name)} {kind}"))
    parts.append(line(low, middle, high, middle, "whisker"))
    # One that ends beyond the drawing has no end.
    ends = [scale(end) for end in (interval.low, interval.high) if scale.low <= end <= scale.high]
    parts += [line(end, middle - 4, end, middle + 4, "whisker") for end in ends]
    if narrow:
        parts += [write(width - 48, text, spread, "muted", "end"), write(width, text, value, f"value {kind}", "end")]
    else:
        parts += [
            write(width - VALUES, text, value, f"value {kind}"),
            write(width - VALUES + 50, text, spread, "muted"),
        ]
    return [group(f"{one.hint}\n{SAID[kind]}", *parts)]


def title(bars: Sequence[Bar]) -> str:
    """What the chart shows, in words: how many gain."""
    found = [verdict(one.speedup) for one in bars if one.speedup is not None]
    if not found:
        return "No speedup could be computed"
    if len(found) == 1:
        return {"faster": "It is faster", "slower": "It is slower", "unclear": "It makes no clear difference"}[found[0]]
    words = {"faster": "faster", "slower": "slower", "unclear": "without a clear difference"}
    parts = [f"{found.count(kind)} {said}" for kind, said in words.items() if kind in found]
    return f"Of {len(found)} contenders " + ", ".join(parts)
