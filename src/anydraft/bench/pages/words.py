"""What the figures say, in words: a gain is called one only where the whole interval lies above 1."""

from collections.abc import Sequence
from typing import Literal

from anydraft.bench.pages.figures import Figures, Setting
from anydraft.bench.statistics import Interval

Verdict = Literal["faster", "slower", "unclear"]


def verdict(speedup: Interval) -> Verdict:
    """What a speedup and its interval allow to be said."""
    return "faster" if speedup.low > 1 else "slower" if speedup.high < 1 else "unclear"


def times(value: float) -> str:
    """`2.4`; two decimals where one would hide the difference from 1."""
    return f"{value:.2f}" if abs(value - 1) < 0.25 else f"{value:.1f}"


def between(interval: Interval, spec: str = ".2f") -> str:
    """`2.20 to 2.63`."""
    return f"{interval.low:{spec}} to {interval.high:{spec}}"


def same_tokens(row: Figures) -> str:
    """What is known of a contender's tokens, to be put after a comma; empty where nothing was compared."""
    if row.equal is None:
        return ""
    same, compared = row.equal
    if same == compared:
        return "the same tokens"
    return f"but {compared - same} of {compared} texts {'differs' if compared - same == 1 else 'differ'}"


def best(rows: Sequence[Figures], engine: str | None = None) -> Figures | None:
    """The contender with the largest speedup; of one engine, if named."""
    found = [row for row in rows if row.speedup is not None and engine in (None, row.engine)]
    return max(found, key=lambda row: row.speedup.value if row.speedup else 0.0, default=None)


def finding(rows: Sequence[Figures]) -> str:
    """The result at one setting in one sentence, about this engine's best contender."""
    winner = best(rows, "anydraft") or best(rows)
    if winner is None or winner.speedup is None:
        if not any(row.measured for row in rows):
            return "Nothing could be measured here" if rows else "This was not measured"
        return "No speedup: there is nothing to compare" + (" plain decoding with" if _has_plain(rows) else " with")
    name, speedup = winner.contender, winner.speedup
    match verdict(speedup):
        case "faster":
            said = f"{name}: {times(speedup.value)} times as fast as plain decoding"
        case "slower":
            only = len([row for row in rows if row.speedup is not None and row.engine == winner.engine]) == 1
            said = (
                f"{name} is slower than plain decoding: {speedup.value:.2f} of its speed"
                if only
                else f"Nothing here beats plain decoding: the best, {name}, runs at {speedup.value:.2f} of its speed"
            )
        case _:
            said = (
                f"{name} is not clearly faster than plain decoding: {speedup.value:.2f} times, and 1 is in the interval"
            )
    return ", ".join(filter(None, (said, same_tokens(winner))))


def _has_plain(rows: Sequence[Figures]) -> bool:
    return any(row.plain for row in rows)


def remarks(rows: Sequence[Figures]) -> list[str]:
    """What else a reader should know of one setting: peers, losses, what is unclear, what failed or differs."""
    winner = best(rows, "anydraft") or best(rows)
    said = []
    if winner is not None and (over := winner.speedup_transformers) is not None and winner.engine != "transformers":
        said.append(
            f"Over transformers' own generate, {winner.contender} is {times(over.value)} times as fast"
            f" (95 % interval {between(over)})."
        )
    for row in rows:
        if row.speedup is None or row is winner:
            continue
        plain = "plain decoding" if row.engine == "anydraft" else f"{row.engine}' plain generate"
        if verdict(row.speedup) == "slower":
            said.append(f"{row.contender} is slower than {plain}: {row.speedup.value:.2f} of its speed.")
        elif verdict(row.speedup) == "unclear":
            said.append(
                f"{row.contender} makes no clear difference: {row.speedup.value:.2f} times {plain},"
                f" interval {between(row.speedup)}."
            )
    for row in rows:
        if row.equal is not None and row.equal[0] < row.equal[1] and row is not winner:
            said.append(f"{row.contender}: {same_tokens(row).removeprefix('but ')} from plain decoding's.")
        if not row.measured:
            said.append(f"{row.contender} could not be measured" + (f": {first(row)}" if row.problems else "."))
        elif row.problems:
            said.append(f"{row.contender} had trouble on the way: {first(row)}")
    return said


def first(row: Figures, most: int = 160) -> str:
    """The first problem of a contender, in one line."""
    text = " ".join((row.problems or ("no reason given",))[0].split())
    return text if len(text) <= most else text[: most - 1] + "…"


def labelled(setting: Setting, several: Sequence[Setting]) -> str:
    """The setting, where there is more than one."""
    return str(setting) if len(several) > 1 else ""
