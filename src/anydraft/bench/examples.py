"""One text per drafter with the fate of every drafted token, for a reader to look at.

A step has the text of its tokens with who proposed each, and what was drafted in vain: the main line of the draft from
the place on where the target went another way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anydraft.generation import Step
from anydraft.text.stream import TextStream

BytesOf = Callable[[int], bytes | None]


def example(
    contender: str, temperature: float, prompt: str, steps: Sequence[Step], bytes_of: BytesOf
) -> dict[str, Any]:
    """The text of one run, ready for JSON; `steps` are those of a single row.

    A character whose bytes come from several tokens is in the piece of the last one.
    """
    stream = TextStream(bytes_of)
    told: list[dict[str, Any]] = []
    for step in steps:
        pieces = [
            {"text": stream.push([token]), "proposer": proposer}
            for token, proposer in zip(step.tokens, step.proposers, strict=True)
        ]
        told.append({"pieces": pieces, "rejected": [written(token, bytes_of) for token in rejected(step)]})
    if told and (rest := stream.finish()):
        told[-1]["pieces"][-1]["text"] += rest
    return {"contender": contender, "temperature": temperature, "prompt": prompt, "steps": told}


def rejected(step: Step) -> list[int]:
    """Drafted tokens that the target did not follow: the main line from the last accepted node on."""
    tree = step.draft
    node = step.accepted[-1] if step.accepted else -1
    tokens = []
    while tree.children.get(node):
        token, node = next(iter(tree.children[node].items()))
        tokens.append(token)
    return tokens


def written(token: int, bytes_of: BytesOf) -> str:
    """What a single token writes."""
    return (bytes_of(token) or b"").decode(errors="replace")


class Examples:
    """The examples of a folder: one per contender and temperature, kept in `example.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: dict[tuple[str, float], dict[str, Any]] = {}
        if path.is_file():
            try:
                for known in json.loads(path.read_text(encoding="utf-8")):
                    self._kept[known["contender"], known["temperature"]] = known
            except (ValueError, KeyError, TypeError):  # a torn file; the examples are made anew
                self._kept = {}

    def add(self, made: dict[str, Any]) -> None:
        """Keep one, in place of an older one."""
        self._kept[made["contender"], made["temperature"]] = made
        self.path.write_text(json.dumps(self.to_list(), indent=1) + "\n", encoding="utf-8")

    def to_list(self) -> list[dict[str, Any]]:
        """Ready for JSON."""
        return list(self._kept.values())
