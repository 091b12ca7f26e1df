"""Speedup: one bar per contender with its 95 % interval, and a line where plain decoding is."""

from collections.abc import Sequence
from dataclasses import dataclass

from anydraft.bench.pages.colours import Colours
from anydraft.bench.pages.drawing import NARROW, Scale, bar, column, figure, group, line, room, shorten, ticks, write
from anydraft.bench.pages.figures import Figures
from anydraft.bench.pages.markup import Markup
from anydraft.bench.pages.words import between, first, verdict
from anydraft.bench.statistics import Interval

SAID = {"faster": "faster", "slower": "slower", "unclear": "no clear difference"}


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the chart; `speedup` is None where there is none, and `why` says so."""

    row: Figures
    speedup: Interval | None
    why: str = ""

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


def over_own(rows: Sequence[Figures]) -> list[Bar]:
    """Over plain decoding of the same engine."""
    return [
        Bar(row, row.speedup, "plain decoding: what the others are compared with" if row.plain else _why(row))
        for row in rows
    ]


def over_transformers(rows: Sequence[Figures]) -> list[Bar]:
    """Over transformers' own generate."""
    return [
        Bar(
            row,
            row.speedup_transformers,
            "what the others are compared with" if row.plain and row.engine == "transformers" else _why(row),
        )
        for row in rows
    ]


def _why(row: Figures) -> str:
    return "nothing to compare with" if row.measured else first(row) if row.problems else "not measured"


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

    def draw(width: int) -> tuple[float, list[Markup]]:
        narrow = width == NARROW
        names = 0.0 if narrow else column([one.row.contender for one in bars], 220)
        scale = Scale(0, high, names, width - 12 if narrow else width - 150)
        top, step, thick = 26.0, 50.0 if narrow else 38.0, 18.0
        bottom = top + step * len(bars) + 2
        parts: list[Markup] = []
        for tick in ticks(high, 4 if narrow else 7):
            parts.append(line(scale(tick), top - 4, scale(tick), bottom, "grid"))
            if abs(tick - 1) > 1e-9:
                parts.append(write(scale(tick), bottom + 16, f"{tick:g}×", "tick", "start" if tick == 0 else "middle"))
        for place, one in enumerate(bars):
            y = top + place * step + (22 if narrow else (step - thick) / 2)
            parts += _bar(one, scale, y, thick, names, width, colours, narrow=narrow)
        label = room(base, 12)
        where = min(max(scale(1), label / 2), width - label / 2)
        parts += [
            line(scale(1), top - 8, scale(1), bottom, "one"),
            write(where, top - 13, base, "one-name", "middle"),
            write(scale(1), bottom + 16, "1×", "tick strong", "middle"),
        ]
        return bottom + 24, parts

    return figure(draw, title=f"Speedup over {base}", description="; ".join(known))


def _bar(
    one: Bar, scale: Scale, y: float, thick: float, names: float, width: int, colours: Colours, *, narrow: bool
) -> list[Markup]:
    name, middle = one.row.contender, y + thick / 2
    label = (
        write(0, y - 6, shorten(name, width - 120), "name")
        if narrow
        else write(0, middle + 4.5, shorten(name, names - 8), "name")
    )
    value, spread = (width, y - 6, "end") if narrow else (width - 138, middle + 4.5, "start"), 44.0
    if one.speedup is None:
        plain = one.row.plain
        shape = [bar(scale(0), y, scale(1) - scale(0), thick, "bar plain")] if plain else []
        said = "plain decoding" if plain else shorten(one.why, (width if narrow else width - names - 12), 12)
        parts = [label, *shape]
        if plain:
            parts.append(write(*value[:2], "1×" if narrow else said, "muted", value[2]))
        else:
            parts.append(write(scale(0) + 2, middle + 4, said, "problem"))
        return [group(one.hint, *parts)]
    interval, kind = one.speedup, verdict(one.speedup)
    low, high = scale(interval.low), scale(interval.high)
    figures = [write(*value[:2], f"{interval.value:.2f}×", f"value {kind}", value[2])]
    said = f"{interval.low:.2f}–{interval.high:.2f}"
    figures.append(
        write(width - 44, y - 6, said, "muted", "end")
        if narrow
        else write(width - 138 + spread + 4, middle + 4.5, said, "muted")
    )
    whisker = [line(low, middle, high, middle, "whisker")]
    whisker += [line(end, middle - 4, end, middle + 4, "whisker") for end in (low, high)]
    return [
        group(
            f"{one.hint}\n{SAID[kind]}",
            label,
            bar(scale(0), y, scale(interval.value) - scale(0), thick, f"bar {colours.of(name)} {kind}"),
            *whisker,
            *figures,
        )
    ]


def title(rows: Sequence[Figures]) -> str:
    """What the chart shows, in words: how many gain."""
    known = [row.speedup for row in rows if row.speedup is not None]
    if not known:
        return "No speedup could be computed"
    counts = {kind: sum(verdict(speedup) == kind for speedup in known) for kind in SAID}
    parts = [
        f"{count} {SAID[kind]}" for kind, count in (("faster", counts["faster"]), ("slower", counts["slower"])) if count
    ]
    if counts["unclear"]:
        parts.append(f"{counts['unclear']} without a clear difference")
    return (
        f"Of {len(known)} contenders " + ", ".join(parts)
        if len(known) > 1
        else f"The contender is {parts[0].lstrip('1 ')}"
    )
