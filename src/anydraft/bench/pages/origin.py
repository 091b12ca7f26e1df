"""Where the figures come from, and the command that takes them again."""

import re
from collections.abc import Mapping
from typing import Any

from anydraft.bench.pages.markup import Markup, tag
from anydraft.bench.pages.results import sequence

FIRST = ("date", "cpu", "accelerator", "threads", "cores", "dtype", "load_average")


def origin(provenance: Mapping[str, Any]) -> list[Markup]:
    """The command, and everything else that was noted, as a list of terms."""
    if not provenance:
        return [tag("p", "Nothing is known about how these figures were taken.", class_="none")]
    parts: list[Markup] = []
    if provenance.get("command"):
        parts += [
            tag("p", "Run it again:"),
            tag("pre", *_by_option(str(provenance["command"])), class_="command", tabindex="0"),
        ]
    names = [name for name in FIRST if name in provenance]
    names += [name for name in provenance if name not in names and name != "command"]
    terms = [
        tag("div", tag("dt", name.replace("_", " ")), tag("dd", _said(provenance[name])))
        for name in names
        if provenance[name] not in (None, "", [], {})
    ]
    return [*parts, tag("dl", *terms, class_="terms")]


def _by_option(command: str) -> list[Markup]:
    """The command, which may break before an option and not within."""
    first, *others = re.split(r" (?=-)", command)
    return [tag("span", first), *(part for text in others for part in (Markup(" "), tag("span", text)))]


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(part)}" for key, part in value.items() if part is not None)
    if sequence(value):
        return ", ".join(_said(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
