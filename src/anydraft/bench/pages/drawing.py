"""What all drawings share: scales, ticks, the room a text takes, and an SVG with a title and a description.

Each drawing is made twice, for a wide and for a narrow page, so that its letters keep their size on a phone.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from anydraft.bench.pages.markup import Markup, tag

WIDE, NARROW = 760, 340
"""Pixels across."""
WIDTHS = (("ijl'", 0.3), ("frtI.,:;|!()[]/ -", 0.41), ("mwMW@%", 1.0), ("ABCDEFGHJKLNOPQRSTUVXYZ<>=+~&#", 0.84))
"""Widths of letters in parts of the font's size; others take 0.64."""


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels, proportional or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value, within the drawing."""
        low, high, value = (math.log(max(x, 1e-9)) if self.logarithmic else x for x in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.0
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def ticks(high: float, most: int = 6) -> list[float]:
    """Round numbers from 0 to `high`, at most `most` steps."""
    if high <= 0:
        return [0.0]
    rough = high / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    return [index * step for index in range(int(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Round numbers between two positive ones, for a logarithmic scale."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
    for factors in steps:
        found = [factor * 10.0**decade for decade in decades for factor in factors]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found
    return [1.0]


def room(text: str, size: float = 13, *, bold: bool = False) -> float:
    """Pixels that a text takes at most, in the widest font that a page may fall back to (DejaVu Sans)."""
    em = sum(
        next((width for letters, width in WIDTHS if letter in letters), 0.64) for letter in text if letter < "\u2000"
    )
    em += sum(letter >= "\u2000" for letter in text)
    return em * size * (1.1 if bold else 1.0)


def column(names: Iterable[str], most: float, *, bold: bool = False) -> float:
    """Pixels for a column of names."""
    return min(most, max((room(name, bold=bold) for name in names), default=0.0) + 10)


def shorten(text: str, pixels: float, size: float = 13, *, bold: bool = False) -> str:
    """The text, without its middle where it does not fit: names differ at both ends."""
    if room(text, size, bold=bold) <= pixels:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
        if room(short, size, bold=bold) <= pixels:
            return short
    return "…"


def cut(text: str, pixels: float, size: float = 13) -> str:
    """The beginning of a text, as far as it fits."""
    if room(text, size) <= pixels:
        return text
    keep = len(text)
    while keep and room(text[:keep] + "…", size) > pixels:
        keep -= 1
    return text[:keep] + "…"


def write(x: float, y: float, text: str, class_: str | None = None, anchor: str | None = None) -> Markup:
    """A text at a place; y is its baseline."""
    return tag("text", text, x=float(x), y=float(y), class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def bar(x: float, y: float, width: float, height: float, class_: str, *, round_: float = 2) -> Markup:
    """A rectangle, at least one pixel wide."""
    return tag(
        "rect",
        x=float(x),
        y=float(y),
        width=float(max(width, 1)),
        height=float(height),
        rx=float(round_),
        class_=class_,
    )


def group(hint: str, *children: Markup, class_: str = "mark") -> Markup:
    """Shapes that belong together; the hint is shown when they are pointed at."""
    return tag("g", tag("title", hint), *children, class_=class_)


def figure(
    draw: Callable[[int], tuple[float, list[Markup]]], *, title: str, description: str, note: str = ""
) -> Markup:
    """A drawing for both widths. `draw` takes a width and returns the height and the parts."""
    drawings = []
    for width, name in ((WIDE, "wide"), (NARROW, "narrow")):
        height, parts = draw(width)
        drawings.append(
            tag(
                "svg",
                tag("title", title),
                tag("desc", description),
                *parts,
                class_=f"chart {name}",
                role="img",
                viewBox=f"0 0 {width} {math.ceil(height)}",
                width=width,
                height=math.ceil(height),
            )
        )
    return tag("figure", *drawings, tag("figcaption", note) if note else None)
