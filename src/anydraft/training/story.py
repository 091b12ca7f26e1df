"""The provenance file of distilled data: what its answers depend on, and whether they are complete."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anydraft.bench.provenance import provenance
from anydraft.errors import OptionConflict
from anydraft.networks.files import write_whole
from anydraft.networks.identity import TargetIdentity
from anydraft.target import Target
from anydraft.text.token_bytes import TokenBytes
from anydraft.training.corpus import PROVENANCE, read_provenance
from anydraft.training.plan import AnswerSettings
from anydraft.training.prompts import PromptSet
from anydraft.training.shards import shard_paths


def begin(folder: Path, target: Target, prompts: PromptSet, settings: AnswerSettings, wanted: int) -> dict[str, Any]:
    """Write the provenance file, or compare with the one that is there; it says "not complete" from here on.

    Raises:
        OptionConflict: the folder was begun with other settings, or is none of distilled data.
    """
    digest = TokenBytes.of(target.tokenizer).digest if target.tokenizer is not None else None
    identity = TargetIdentity.of(target.model)
    asked = {"prompts": prompts.to_dict(), "settings": asdict(settings)}
    made = {"target": identity.to_dict(), "tokenizer": digest, **asked}
    if not (folder / PROVENANCE).exists():
        if shard_paths(folder):
            raise OptionConflict(f"{folder} holds shards without a {PROVENANCE}; give another folder")
        story = made | provenance(dtype=target.dtype, seed=settings.seed)
        return _running(folder, story, wanted)
    story = read_provenance(folder)
    now = made | {"dtype": str(target.dtype).removeprefix("torch.")}
    differences = _other_target(story.get("target"), identity) + [
        f"{name} {there!r} there, {here!r} here"
        for (name, there), here in zip(_compared(story), (value for _, value in _compared(now)), strict=True)
        if there != here
    ]
    if differences:
        raise OptionConflict(
            f"{folder} holds answers made with other settings ({'; '.join(differences)}); give another folder, or the "
            "settings it was begun with"
        )
    return _running(folder, story, wanted)


def _running(folder: Path, story: dict[str, Any], wanted: int) -> dict[str, Any]:
    story = story | {"wanted": wanted, "complete": False, "counts": None}
    write(folder, story)
    return story


def _compared(story: dict[str, Any]) -> list[tuple[str, Any]]:
    """What must be the same for a run to go on, beside the target: name and value, in a fixed order."""

    def part(name: str) -> dict[str, Any]:
        value = story.get(name)
        return value if isinstance(value, dict) else {}

    prompts, settings = part("prompts"), part("settings")
    return [
        ("tokenizer", story.get("tokenizer")),
        ("dtype", story.get("dtype")),
        *((f"prompts {name}", prompts.get(name)) for name in ("sha256", "cut")),
        *((name, settings.get(name)) for name in AnswerSettings.__dataclass_fields__),
    ]


def _other_target(theirs: Any, mine: TargetIdentity) -> list[str]:
    """How the target there is not this one; empty where it may be."""
    with suppress(TypeError):
        if TargetIdentity.from_dict(theirs).same_as(mine):
            return []
    there = theirs if isinstance(theirs, dict) else {}
    return [
        f"target {name} {there.get(name)!r} there, {getattr(mine, name)!r} here"
        for name in ("hidden_size", "vocab_size", "fingerprint")
        if there.get(name) != getattr(mine, name)
    ]


def write(folder: Path, story: dict[str, Any]) -> None:
    """Write the file, whole or not at all."""
    write_whole(folder, {PROVENANCE: (json.dumps(story, indent=2) + "\n").encode()})
