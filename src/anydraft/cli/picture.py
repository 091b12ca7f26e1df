"""The picture that `anydraft demo` writes: acceptance per position, and tokens per pass."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from anydraft.cli.race import Race

COLORS = ("#2f6f4f", "#d98324", "#4a6fa5")
INK, FAINT = "#22272e", "#c9ced6"
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
    longest = 1
    for race, color in zip(races, COLORS, strict=False):
        stats = race.stats
        shares = [accepted / stats.num_drafts for accepted in stats.num_accepted_tokens_per_pos if accepted]
        places = list(range(1, len(shares) + 1))
        longest = max(longest, len(shares))
        label = f"temperature {race.temperature:g}: {stats.acceptance_rate:.0%} of drafted tokens"
        axes.plot(places, shares, marker="o", markersize=5, linewidth=2, color=color, label=label)
    axes.set_title("acceptance by position", loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel("position in the draft (target tokens)")
    axes.set_ylabel("share of drafts accepted this far")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0.6, longest + 0.4)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(axis="y", color=FAINT, linewidth=0.6, alpha=0.6)
    axes.legend(frameon=False, fontsize=9, loc="upper right")


def _tokens(axes: Any, races: list[Race]) -> None:
    """How many passes committed one token, two, and so on."""
    width = 0.8 / max(1, len(races))
    most = 1
    for index, (race, color) in enumerate(zip(races, COLORS, strict=False)):
        counts = Counter(race.tokens_of_passes)
        total = max(1, counts.total())
        places = range(1, max(counts, default=1) + 1)
        most = max(most, *places)
        shift = (index - (len(races) - 1) / 2) * width
        label = f"temperature {race.temperature:g}: {race.stats.tokens_per_pass:.2f} on average"
        heights = [counts[n] / total for n in places]
        axes.bar([n + shift for n in places], heights, width=width * 0.92, color=color, label=label)
    axes.set_title("tokens per target pass (plain decoding: always 1)", loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel("tokens committed by a pass")
    axes.set_xlim(0.4, most + 0.6)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_ylabel("share of passes")
    axes.grid(axis="y", color=FAINT, linewidth=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9, loc="upper right")
