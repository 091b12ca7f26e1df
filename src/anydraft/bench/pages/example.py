"""One text coloured by proposer: what was drafted and kept, what the target wrote itself, and what it refused."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anydraft.bench.pages.colours import Colours, legend
from anydraft.bench.pages.markup import Markup, tag, visible
from anydraft.bench.pages.panels import switch, when
from anydraft.bench.pages.results import Result, mappings, number, sequence, shown_name

OWN = frozenset({"target", "plain", ""})
"""Proposers that are no drafter."""


def proposers(found: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """By contender, who proposed anything in its texts."""
    names: dict[str, set[str]] = {}
    for one in found:
        written = (piece for step in mappings(one.get("steps")) for piece in mappings(step.get("pieces")))
        names.setdefault(_name(one), set()).update({_proposer(piece) for piece in written} - OWN)
    return names


def _name(example: Mapping[str, Any]) -> str:
    contender = str(example.get("contender") or "unnamed")
    return visible(shown_name(contender, contender.partition("-")[0]))


def _proposer(piece: Mapping[str, Any]) -> str:
    return str(piece.get("proposer") or "target")


def examples(found: Sequence[Mapping[str, Any]], rows: Sequence[Result], colours: Colours) -> list[Markup]:
    """All examples behind a switch by contender, the fastest first, each at its temperature."""
    gains = {row.contender: row.speedup.value for row in reversed(rows) if row.speedup is not None}
    names = sorted(dict.fromkeys(map(_name, found)), key=lambda name: -gains.get(name, 0.0))
    temperatures = {row.setting.temperature for row in rows}
    if not names:
        return [tag("p", "No text was kept.", class_="none")]
    parts: list[Markup] = []
    choice = switch("example", "Text by", [(str(place), name) for place, name in enumerate(names)])
    if choice is not None:
        parts.append(choice)
    for place, name in enumerate(names):
        mine = [one for one in found if _name(one) == name]
        at = {number(one.get("temperature")) or 0.0: one for one in reversed(mine)}
        for temperature in sorted(temperatures | set(at)):
            body = [_one(at[temperature], name, colours)] if temperature in at else []
            if not body:
                body = [tag("p", f"No text of {name} was kept at temperature {temperature:g}.", class_="none")]
            chosen: dict[str, object] = {"example": place} if len(names) > 1 else {}
            if len(temperatures | set(at)) > 1:
                chosen["temperature"] = f"{temperature:g}"
            label = tag("p", f"{name}, temperature {temperature:g}", class_="setting")
            parts.append(tag("div", label, *body, class_="panel", data_when=when(**chosen) or None))
    return parts


def _one(example: Mapping[str, Any], name: str, colours: Colours) -> Markup:
    steps = mappings(example.get("steps"))
    counted: dict[str, int] = {}
    for step in steps:
        for piece in mappings(step.get("pieces")):
            proposer = _proposer(piece)
            counted[proposer] = counted.get(proposer, 0) + 1
    total = sum(counted.values())
    passes = len(steps)
    if not total:
        return tag("p", "This text is empty.", class_="none")
    drafted = total - sum(count for proposer, count in counted.items() if proposer in OWN)
    share = f"{drafted / total:.0%} were drafted, the rest is the target’s own" if drafted else "all the target’s own"
    said = f"{total} {'token' if total == 1 else 'tokens'} in {passes} {'pass' if passes == 1 else 'passes'}: {share}"
    entries = [
        (_kind(proposer, colours), f"{'the target itself' if proposer in OWN else proposer} {count / total:.0%}")
        for proposer, count in sorted(counted.items(), key=lambda item: (item[0] in OWN, -item[1]))
    ]
    refused = any(sequence(step.get("rejected")) for step in steps)
    toggle = (
        tag("label", tag("input", type="checkbox", class_="refusals"), "show refused drafts", class_="toggle")
        if refused
        else None
    )
    prompt = str(example.get("prompt") or "")
    return tag(
        "div",
        tag("h2", said),
        tag("div", legend(entries), toggle, class_="bar-above"),
        tag(
            "pre",
            tag("span", prompt, class_="prompt") if prompt else None,
            *(_step(place, step, colours) for place, step in enumerate(steps, 1)),
            class_="text",
            tabindex="0",
            aria_label=f"Text by {name}",
        ),
        class_="example",
    )


def _kind(proposer: str, colours: Colours) -> str:
    return "own" if proposer in OWN else colours.of(proposer)


def _step(place: int, step: Mapping[str, Any], colours: Colours) -> Markup:
    """One pass. What was refused stood where the target's own token came: after the drafted ones."""
    pieces = [(str(piece.get("text") or ""), _proposer(piece)) for piece in mappings(step.get("pieces"))]
    refused = _on_one_line("".join(str(text) for text in sequence(step.get("rejected"))))
    kept = sum(proposer not in OWN for _, proposer in pieces)
    hint = f"pass {place}: {len(pieces)} {'token' if len(pieces) == 1 else 'tokens'}, {kept} drafted"
    written = [tag("span", text, class_=f"by {_kind(proposer, colours)}") for text, proposer in pieces]
    struck = tag("del", refused, class_="refused") if refused else None
    hint += f"\nrefused: {refused}" if refused else ""
    return tag("span", *written[:kept], struck, *written[kept:], class_="step", data_hint=hint)


def _on_one_line(text: str, most: int = 60) -> str:
    text = text.replace("\n", "⏎").replace("\t", "⇥")
    return text if len(text) <= most else text[: most - 1] + "…"
