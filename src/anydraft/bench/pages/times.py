"""Where the time of a token goes: one stacked bar per contender, in milliseconds per token."""

from collections.abc import Sequence

from anydraft.bench.pages.colours import legend
from anydraft.bench.pages.drawing import NARROW, Scale, column, figure, group, line, room, shorten, ticks, write
from anydraft.bench.pages.markup import Markup, tag
from anydraft.bench.pages.panels import panels
from anydraft.bench.pages.results import PARTS, Result

WORDS = {
    "target": "target forwards",
    "draft": "drafting",
    "convert": "between vocabularies",
    "verify": "verifying",
    "other": "other",
    "prefill": "the prompt",
}


def views(rows: Sequence[Result]) -> list[Markup]:
    """Heading and drawing for every setting, on one scale."""
    longest = max(map(total, rows), default=0.0) or 1.0
    return panels(rows, lambda mine: [tag("h2", title(mine)), *chart(mine, longest)])


def total(row: Result) -> float:
    """Seconds per token."""
    return sum(row.seconds_per_token.values())


def shown(rows: Sequence[Result]) -> list[Result]:
    """Contenders whose time is known."""
    return [row for row in rows if total(row) > 0]


def title(rows: Sequence[Result]) -> str:
    """What the chart shows, in words: of the fastest contender."""
    known = [row for row in shown(rows) if set(row.seconds_per_token) > {"prefill", "other"}] or shown(rows)
    if not known:
        return "No times were taken"
    row = min(known, key=total)
    shares = sorted(((seconds / total(row), part) for part, seconds in row.seconds_per_token.items()), reverse=True)
    said = " and ".join(f"{share:.0%} {WORDS[part]}" for share, part in shares[:2] if share >= 0.005)
    return f"{row.contender}: {_milliseconds(total(row))} a token, {said}"


def chart(rows: Sequence[Result], longest: float) -> list[Markup]:
    """The legend and the drawing; `longest` is the right end of the scale in seconds."""
    known = shown(rows)
    if not known:
        return [tag("p", "No times were taken here.", class_="none")]
    used = [part for part in PARTS if any(row.seconds_per_token.get(part, 0) > 0 for row in known)]

    def draw(width: int) -> tuple[float, list[Markup]]:
        narrow = width == NARROW
        names = 0.0 if narrow else column([row.contender for row in known], 220)
        high = longest * 1000
        scale = Scale(0, high, names, width - (12 if narrow else 84))
        top, step, thick = 8.0, 52.0 if narrow else 36.0, 20.0
        bottom = top + step * len(known) + 2
        parts = [
            part
            for tick in ticks(high, 4 if narrow else 7)
            for part in (
                line(scale(tick), top - 4, scale(tick), bottom, "grid"),
                write(
                    scale(tick),
                    bottom + 16,
                    f"{tick:g}" + (" ms" if tick == 0 else ""),
                    "tick",
                    "middle" if tick else "start",
                ),
            )
        ]
        for place, row in enumerate(known):
            y = top + place * step + (24 if narrow else (step - thick) / 2)
            said = _milliseconds(total(row))
            if narrow:
                parts += [
                    write(0, y - 6, shorten(row.contender, width - 90), "name"),
                    write(width, y - 6, said, "value", "end"),
                ]
            else:
                parts.append(write(0, y + thick / 2 + 4.5, shorten(row.contender, names - 8), "name"))
                parts.append(write(scale(total(row) * 1000) + 8, y + thick / 2 + 4.5, said, "value"))
            parts += _stack(row, scale, y, thick)
        return bottom + 24, parts

    said = "; ".join(
        f"{row.contender}: "
        + ", ".join(
            f"{WORDS[part]} {_milliseconds(row.seconds_per_token[part])}"
            for part in PARTS
            if part in row.seconds_per_token
        )
        for row in known
    )
    return [
        legend((f"p-{part}", WORDS[part]) for part in used),
        figure(draw, title="Time per token by part", description=said),
    ]


def _stack(row: Result, scale: Scale, y: float, thick: float) -> list[Markup]:
    parts, passed = [], 0.0
    for part in PARTS:
        seconds = row.seconds_per_token.get(part, 0.0)
        if seconds <= 0:
            continue
        left, right = scale(passed * 1000), scale((passed + seconds) * 1000)
        passed += seconds
        hint = f"{row.contender}\n{WORDS[part]}: {_milliseconds(seconds)} a token, {seconds / total(row):.0%}"
        text = f"{seconds / total(row):.0%}"
        shapes = [tag("rect", x=left, y=y, width=max(right - left, 0.5), height=thick, class_=f"part p-{part}")]
        if room(text, 11) + 8 < right - left:
            shapes.append(write((left + right) / 2, y + thick / 2 + 4, text, f"in-part p-{part}", "middle"))
        parts.append(group(hint, *shapes))
    return parts


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"
