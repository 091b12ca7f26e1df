"""The text of an answer coloured by the fate of its tokens: accepted drafts, the target's own, rejected drafts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.text import Text

from anydraft.cli.printing import SHOWN
from anydraft.generation import Step
from anydraft.text.stream import TextStream

ACCEPTED, OWN, REJECTED = "green", "bold blue", "dim red strike"
LONGEST = 8
"""Characters of a rejected draft that are shown."""

BytesOf = Callable[[int], bytes | None]


def coloured(steps: Iterable[Step], bytes_of: BytesOf, *, rejected: bool = True) -> Text:
    """The answer as text; after the place of a rejection, the beginning of what was rejected."""
    text = Text()
    stream = TextStream(bytes_of)
    for step in steps:
        for token, proposer in zip(step.tokens, step.proposers, strict=True):
            own = proposer == "target"
            if own and rejected and len(step.draft):
                text.append(_shown(lost(step), bytes_of), REJECTED)
            text.append(stream.push([token]).translate(SHOWN), OWN if own else ACCEPTED)
    text.append(stream.finish(), OWN)
    return text


def lost(step: Step) -> list[int]:
    """Drafted tokens that the target did not follow: the main line from the place of rejection on."""
    tree = step.draft
    node = step.accepted[-1] if step.accepted else -1
    tokens = []
    while tree.children.get(node):
        token, node = next(iter(tree.children[node].items()))
        tokens.append(token)
    return tokens


def legend() -> Text:
    """What the colours mean."""
    return Text.assemble(
        ("accepted drafts", ACCEPTED), "  ", ("the target's own", OWN), "  ", ("rejected drafts", REJECTED)
    )


def _shown(tokens: list[int], bytes_of: BytesOf) -> str:
    written = b"".join(bytes_of(token) or b"" for token in tokens).decode(errors="replace")
    written = written.replace("\n", "⏎").replace("\t", "⇥").translate(SHOWN)
    return written if len(written) <= LONGEST else written[: LONGEST - 1] + "…"
