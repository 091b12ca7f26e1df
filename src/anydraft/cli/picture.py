"""The picture that `anydraft demo` writes: acceptance per position, and tokens per pass.

A colour for each drafter; a line style and a hatching for each temperature.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

from anydraft.cli.demo_view import title_of
from anydraft.cli.race import Race

COLORS = ("#2f6f4f", "#d98324", "#4a6fa5", "#8c4a6b")
LINES = ("-", (0, (4, 2)), (0, (1, 1.5)), "-.")
HATCHES = ("", "////", "....", "xxxx")
INK, FAINT = "#22272e", "#c9ced6"
ROOM = 0.25
"""Share of a panel's height that is left above it for the legend."""
FORMATS = (".svg", ".png", ".pdf")


def matplotlib_ready() -> Any:
    """matplotlib, without a display.

    Raises:
        ImportError: it is not installed; names the extra.
    """
    try:
        import matplotlib
    except ImportError as missing:
        raise ImportError(
            "the picture needs matplotlib: pip install 'anydraft[bench]', or leave the picture out with --no-picture"
        ) from missing
    matplotlib.use("Agg")
    return matplotlib


def draw(races: list[Race], path: Path, title: str) -> None:
    """Write the picture; the format follows the file's ending."""
    matplotlib = matplotlib_ready()
    from matplotlib import pyplot

    style = {
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "hatch.linewidth": 1.2,
        "svg.hashsalt": "anydraft",
    }
    with matplotlib.rc_context(style):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
        _acceptance(left, races)
        _tokens(right, races)
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)


def _acceptance(axes: Any, races: list[Race]) -> None:
    """Share of all drafts whose tokens were accepted up to a position: it can only fall."""
    from matplotlib.lines import Line2D

    longest = 1
    for race, line in zip(races, cycle(LINES)):
        for score, color in zip(race.scores, cycle(COLORS)):
            stats = score.stats
            shares = [accepted / stats.num_drafts for accepted in stats.num_accepted_tokens_per_pos if accepted]
            longest = max(longest, len(shares))
            places = range(1, len(shares) + 1)
            axes.plot(places, shares, linestyle=line, marker="o", markersize=4, linewidth=2, color=color)
    axes.set_title("acceptance by position", loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel("position in the draft (target tokens)")
    axes.set_ylabel("share of drafts accepted this far")
    axes.set_ylim(0, 1 + ROOM)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_xlim(0.6, longest + 0.4)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(axis="y", color=FAINT, linewidth=0.6, alpha=0.6)
    styles = [
        Line2D([], [], color=INK, linestyle=line, linewidth=2, label=f"temperature {race.temperature:g}")
        for race, line in zip(races, cycle(LINES))
    ]
    axes.add_artist(axes.legend(handles=_drafters(races), frameon=False, fontsize=9, loc="upper left"))
    axes.legend(handles=styles, frameon=False, fontsize=9, loc="upper right", handlelength=3)


def _tokens(axes: Any, races: list[Race]) -> None:
    """A bar for each drafter at each temperature."""
    most = 1.0
    for place, (race, hatch) in enumerate(zip(races, cycle(HATCHES))):
        scores = race.scores
        width = 0.8 / max(1, len(scores))
        for index, (score, color) in enumerate(zip(scores, cycle(COLORS))):
            middle = place + (index - (len(scores) - 1) / 2) * width
            height = score.stats.tokens_per_pass
            most = max(most, height)
            axes.bar(middle, height, width * 0.9, color=color, hatch=hatch, edgecolor="white", linewidth=0)
            words = f"{height:.2f}\n({score.ratio:.2f}x)"
            axes.annotate(words, (middle, height), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    axes.axhline(1, color=INK, linewidth=1, linestyle=(0, (2, 2)))
    axes.set_title("tokens per target pass (and speed ratio)", loc="left", fontsize=10, fontweight="bold")
    axes.set_xticks(range(len(races)), [f"temperature {race.temperature:g}" for race in races])
    axes.set_xlim(-0.6, len(races) - 0.4)
    axes.set_ylim(0, most * (1.1 + ROOM))
    axes.set_ylabel("tokens (dashed: plain decoding, always 1)")
    axes.grid(axis="y", color=FAINT, linewidth=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    axes.legend(handles=_drafters(races), frameon=False, fontsize=9, loc="upper right", ncols=2)


def _drafters(races: list[Race]) -> list[Any]:
    """What the colours mean."""
    from matplotlib.patches import Patch

    scores = races[0].scores if races else []
    return [Patch(color=color, label=title_of(score.name)) for score, color in zip(scores, cycle(COLORS))]
