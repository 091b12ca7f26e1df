"""What the figures say, in words: a gain is called one only where the whole interval lies above 1."""

from collections.abc import Sequence
from typing import Literal

from anydraft.bench.pages.results import Result
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


def same_tokens(row: Result) -> str:
    """What is known of a contender's tokens, to be put after a comma; empty where nothing was compared."""
    if row.equal is None:
        return ""
    same, compared = row.equal
    if same == compared:
        return "the same tokens"
    return f"but {compared - same} of {compared} texts {'differs' if compared - same == 1 else 'differ'}"


def best(rows: Sequence[Result], engine: str | None = None) -> Result | None:
    """The contender with the largest speedup, a clear one if there is any; of one engine, if named."""

    def worth(row: Result) -> tuple[bool, float]:
        return (verdict(row.speedup) == "faster", row.speedup.value) if row.speedup else (False, 0.0)

    found = [row for row in rows if row.speedup is not None and engine in (None, row.engine)]
    return max(found, key=worth, default=None)


def finding(rows: Sequence[Result]) -> str:
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
            said = f"{name} is not clearly faster than plain decoding ({speedup.value:.2f} times, {between(speedup)})"
    tokens = same_tokens(winner)
    if verdict(speedup) != "faster":
        tokens = tokens.replace("but ", "and ", 1)
    return ", ".join(filter(None, (said, tokens)))


def _has_plain(rows: Sequence[Result]) -> bool:
    return any(row.plain for row in rows)


def remarks(rows: Sequence[Result]) -> list[tuple[str, str]]:
    """What else a reader should know of one setting, under a name each: who gains too, who loses, what failed."""
    winner = best(rows, "anydraft") or best(rows)
    said = []
    if winner is not None and (over := winner.speedup_transformers) is not None and winner.engine != "transformers":
        fast = f"{times(over.value)} times as fast as transformers’ own generate ({between(over)})"
        said.append((winner.contender, fast))
    others = [row for row in rows if row.speedup is not None and verdict(row.speedup) == "faster" and row is not winner]
    if others:
        gains = (f"{row.contender} {times(row.speedup.value)} times{_over(row)}" for row in others if row.speedup)
        said.append(("also faster", ", ".join(gains)))
    troubles: dict[str, list[str]] = {}
    for row in rows:
        if parts := _troubles(row, winner):
            troubles.setdefault("; ".join(parts), []).append(row.contender)
    return said + [(", ".join(names), text) for text, names in troubles.items()]


def _troubles(row: Result, winner: Result | None) -> list[str]:
    parts = []
    if row.speedup is not None and row is not winner:
        shares = f"{row.speedup.value:.2f} ({between(row.speedup)})"
        if verdict(row.speedup) == "slower":
            parts.append(f"slower than plain decoding{_over(row)}, {shares} of its speed")
        elif verdict(row.speedup) == "unclear":
            parts.append(f"no clear difference from plain decoding{_over(row)}: {shares} of its speed")
    if row.equal is not None and row.equal[0] < row.equal[1] and row is not winner:
        parts.append(same_tokens(row).removeprefix("but ") + _from(row))
    if not row.measured:
        parts.append(f"could not be measured: {first(row)}")
    elif row.problems:
        parts.append(f"had trouble on the way: {first(row)}")
    return parts


def _from(row: Result) -> str:
    """Whose texts a contender's were compared with."""
    return " from this engine’s plain decoding" if row.plain or row.engine == "anydraft" else f" from {row.engine}’ own"


def _over(row: Result) -> str:
    return "" if row.engine == "anydraft" else f" (of {row.engine})"


def first(row: Result, most: int = 120) -> str:
    """The first problem of a contender, in one line."""
    text = " ".join((row.problems or ("no reason given",))[0].split())
    return text if len(text) <= most else text[: most - 1] + "…"
