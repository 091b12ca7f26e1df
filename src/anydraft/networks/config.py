"""NetworkConfig: what a trained drafter's `config.json` says, its target and its sizes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from anydraft.errors import BrokenCheckpoint, OptionConflict
from anydraft.networks.files import CONFIG
from anydraft.networks.identity import TargetIdentity


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Base of the networks' configs; subclasses add their sizes.

    Attributes:
        target: which target the network belongs to.
        vocabulary_size: rows of a reduced head; None for the target's whole vocabulary.

    Raises:
        OptionConflict: the vocabulary is larger than the target's, or empty.
    """

    target: TargetIdentity
    vocabulary_size: int | None = None

    def __post_init__(self) -> None:
        size, most = self.vocabulary_size, self.target.vocab_size
        if size is not None and not (isinstance(size, int) and 1 <= size <= most):
            raise OptionConflict(f"vocabulary_size must be in 1..{most} (the target's vocabulary), got {size!r}")

    @property
    def repeated(self) -> int:
        """How many layers or heads there are of one kind; each has tensors of its own."""
        return 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**content, "target": self.target.to_dict()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            BrokenCheckpoint: unknown or missing keys.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(content) - known - {"model_type", "anydraft_version"})
        if unknown:
            raise BrokenCheckpoint(f"{CONFIG} has keys that {cls.__name__} does not know: {', '.join(unknown)}")
        try:
            values = {name: content[name] for name in known if name in content}
            return cls(**{**values, "target": TargetIdentity.from_dict(content["target"])})
        except (KeyError, TypeError) as problem:
            raise BrokenCheckpoint(f"{CONFIG} does not describe a {cls.__name__}: {problem}") from problem
