"""Drafters as they are named on the command line, for the commands that measure several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from anydraft.cli.loading import EMBEDDED, EMBEDDED_REDRAFTER, _require_folder, resolve

if TYPE_CHECKING:
    from anydraft.bench.suite import Candidate

MIX = "mix"


def default_drafters(target: str) -> list[str]:
    """All that is at hand without a name: the embedded ones for the embedded target, else lookup."""
    if target != EMBEDDED:
        return ["lookup"]
    return [EMBEDDED, EMBEDDED_REDRAFTER, "lookup", ",".join((EMBEDDED_REDRAFTER, EMBEDDED, "lookup"))]


def named(target: str, names: Sequence[str]) -> list[Candidate]:
    """What `load` takes for every drafter; several names with commas between them are one that chooses among them.

    Raises:
        AnydraftError: a folder that is not there, or plain decoding, which is measured anyway.
    """
    from anydraft.bench.suite import Candidate
    from anydraft.errors import OptionConflict

    shown, drafters = [], []
    for name in names:
        parts = [part.strip() for part in name.split(",") if part.strip()]
        if not parts:
            raise OptionConflict(f"{name!r} names no drafter; give a hub name, a folder, 'lookup' or 'embedded'")
        if "none" in parts:
            raise OptionConflict("plain decoding is always measured; leave 'none' out")
        places = [str(resolve(target, part)[1]) for part in parts]
        for place in places:
            _require_folder(place)
        shown.append(MIX if len(parts) > 1 else short(parts[0]))
        drafters.append(places[0] if len(places) == 1 else places)
    return [Candidate(name, drafter) for name, drafter in zip(unique(shown), drafters, strict=True)]


def places_of(candidates: Sequence[Candidate]) -> list[tuple[str, str]]:
    """Names and places of all drafters that are models."""
    pairs = []
    for candidate in candidates:
        places = candidate.drafter if isinstance(candidate.drafter, list) else [candidate.drafter]
        pairs += [(short(place), place) for place in places if place != "lookup"]
    return pairs


def short(name: str) -> str:
    """A drafter's name without the folders around it."""
    return ",".join(Path(part.rstrip("/")).name or part for part in name.split(","))


def unique(names: Sequence[str]) -> list[str]:
    """The same names; what occurs again gets a number."""
    seen: set[str] = set()
    made = []
    for name in names:
        numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
        made.append(next(other for other in numbered if other not in seen))
        seen.add(made[-1])
    return made
