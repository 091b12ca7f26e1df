"""What a measurement was asked to be: one of the same digest may go on where another ended."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import anydraft
from anydraft.bench.provenance import version


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the figures depend on, but for the machine.

    Attributes:
        target, drafters: as they were named; `models` are fingerprints of their files, by name.
        prompts, prompts_digest: where they are from, and what they say.
        prompt_form: "chat template" or "text to continue"; num_prompts: how many are measured.
        peers: whether transformers is measured too.
        versions: of the packages, and a digest of this package's own code.
    """

    target: str
    drafters: tuple[str, ...]
    models: dict[str, str]
    prompts: str
    prompts_digest: str
    prompt_form: str
    num_prompts: int
    temperatures: tuple[float, ...]
    batches: tuple[int, ...]
    max_new_tokens: int
    seed: int
    peers: bool
    dtype: str
    device: str
    threads: int
    exact: bool
    draft_tokens: int | None
    any_target: bool
    versions: dict[str, str | None]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, and as it reads from there."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return content

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def differences(self, other: dict[str, Any]) -> list[str]:
        """`name: theirs, not mine` for every field in which a stored one differs."""
        mine = self.to_dict()
        names = [
            name for name in (*mine, *(key for key in other if key not in mine)) if mine.get(name) != other.get(name)
        ]
        return [f"{name}: {_short(other.get(name))} there, {_short(mine.get(name))} now" for name in names]


def versions() -> dict[str, str | None]:
    """Versions that figures depend on; the package's code by its own digest, so that a change of it counts."""
    known = {name: version(name) for name in ("anydraft", "torch", "transformers")}
    return known | {"code": code_digest()}


@cache
def code_digest() -> str:
    """A digest of this package's Python files."""
    folder = Path(anydraft.__file__).parent
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


def fingerprint(name: str) -> str:
    """What tells one folder of a model from another: its config, and the names, sizes and beginnings of its weights.

    A name of the hub stands for itself.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return name
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin", ".model") and path.is_file():
            with path.open("rb") as file:
                total.update(f"{path.name} {path.stat().st_size}\n".encode() + file.read(1 << 20))
    return total.hexdigest()[:16]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
