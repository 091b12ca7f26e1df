"""Contenders side by side within a prompt: each decodes a slice of it in turn, until all are done.

Where a machine strays for half a second, two whole runs of a second each say little of one another. In slices of a
fifth of a second all contenders meet the same machine at the same place of the text. The price is that the first pass
of a slice finds the caches full of another one's things; all pay it alike.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Protocol

from anydraft.bench.measure import Contender, Record, Run, Started, Task, Tokens, failed, finished, quiet


class Sliced(Contender, Protocol):
    """A contender that can pause."""

    def steps(self, prompt: Tokens, task: Task) -> Generator[int, None, Run]:
        """Decode once; after every step the tokens so far, of all rows. Time between the steps does not count."""


class InSlices:
    """A way to take contenders through a prompt, for `measure`: so many tokens of a row by each in turn.

    Contenders must not share drafters, for their rows would meet in one cache.
    """

    def __init__(self, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"a slice must have at least 1 token, got {tokens}")
        self.tokens = tokens

    def __call__(
        self, contenders: Sequence[Sliced], prompt_id: str, tokens: Tokens, task: Task, started: Started
    ) -> Iterator[Record]:
        """A record per contender, once all are done; who begins moves on with each slice."""
        running = {contender.name: (contender, contender.steps(tokens, task)) for contender in contenders}
        names, turn = list(running), 0
        records: dict[str, Record] = {}
        while running:
            goal = (turn + 1) * self.tokens * task.batch
            first = turn % len(names)
            for name in [*names[first:], *names[:first]]:
                if name not in running:
                    continue
                contender, steps = running[name]
                started(prompt_id, name)
                record = _advance(contender, steps, goal, prompt_id, task)
                if record is not None:
                    del running[name]
                    records[name] = record
            turn += 1
        yield from (records[name] for name in names)


def _advance(
    contender: Sliced, steps: Generator[int, None, Run], goal: int, prompt_id: str, task: Task
) -> Record | None:
    """Decode up to so many tokens; a record once the contender is done, or broke."""
    try:
        with quiet():
            while next(steps) < goal:
                pass
    except StopIteration as done:
        return finished(contender, prompt_id, task, done.value)
    except Exception as error:  # a peer's crash is a result, and the others go on
        return failed(contender, prompt_id, task, error)
    return None
