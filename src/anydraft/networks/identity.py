"""Which target a trained drafter belongs to."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from transformers import PreTrainedModel

from anydraft.errors import UnsupportedModel, WrongTarget
from anydraft.packing import plain_parameters

SAMPLED_ENDS = 1024
SAMPLED_BETWEEN = 32
"""Numbers read of the embeddings and of the head, and of each matrix between them: few even of 70 billion."""

SEPARATOR, UNKNOWN = "-", "unknown"


@dataclass(frozen=True)
class TargetIdentity:
    """What is compared: sizes always, the fingerprint where both sides have one.

    Attributes:
        name: hub name or folder name, for messages only.
        hidden_size: width of the target's last hidden state.
        vocab_size: rows of its LM head.
        fingerprint: hashes of samples of its weights, which a change of precision to bfloat16 does not alter.
    """

    name: str
    hidden_size: int
    vocab_size: int
    fingerprint: str | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> Self:
        """Identity of a loaded model.

        Raises:
            UnsupportedModel: it has no LM head.
        """
        output = model.get_output_embeddings()
        if output is None:
            raise UnsupportedModel(f"{type(model).__name__} has no LM head, so no drafter can belong to it")
        head = output.weight
        name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__).rstrip("/")
        return cls(name.rsplit("/", 1)[-1], int(head.shape[1]), int(head.shape[0]), fingerprint(model))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def same_as(self, other: TargetIdentity) -> bool:
        """Whether nothing that is known of both says that they are two targets; names say nothing."""
        return (
            self.hidden_size == other.hidden_size
            and self.vocab_size == other.vocab_size
            and self.same_weights(other)
        )

    def same_weights(self, other: TargetIdentity) -> bool:
        """Whether nothing that is known of both says that their weights differ."""
        if self.fingerprint is None or other.fingerprint is None:
            return True
        return _same(self.fingerprint, other.fingerprint)

    def require(self, other: TargetIdentity, *, any_target: bool = False) -> None:
        """Refuse another target.

        Raises:
            WrongTarget: other sizes; or another fingerprint, unless `any_target`.
        """
        for what, mine, theirs in (
            ("hidden size", self.hidden_size, other.hidden_size),
            ("vocabulary", self.vocab_size, other.vocab_size),
        ):
            if mine != theirs:
                raise WrongTarget(
                    f"this drafter was trained for {self.name!r} ({what} {mine}); the target {other.name!r} has {what} "
                    f"{theirs}. Load the target it belongs to, or train one with `anydraft train`."
                )
        if not any_target and not self.same_weights(other):
            raise WrongTarget(
                f"this drafter was trained for {self.name!r}; the target {other.name!r} has the same sizes but other "
                "weights. Load the target it belongs to, train one with `anydraft train`, or pass any_target=True "
                "(--any-target), for a fine-tune of the same model: the tokens stay right, fewer drafts will be kept."
            )


def _same(mine: str, theirs: str) -> bool:
    """Whether two fingerprints agree in all parts that both know."""
    parts, others = mine.split(SEPARATOR), theirs.split(SEPARATOR)
    if len(parts) != len(others):
        return False
    return all(UNKNOWN in pair or pair[0] == pair[1] for pair in zip(parts, others, strict=True))


@torch.no_grad()
def fingerprint(model: PreTrainedModel) -> str | None:
    """Hashes of samples of the embeddings, the LM head and all matrices between them; None where none can be read.

    A part is unknown where its numbers are elsewhere (offloaded) or not plain floating point (quantised), so that
    what is left can still be compared.
    """
    embedding = getattr(model.get_input_embeddings(), "weight", None)
    head = getattr(model.get_output_embeddings(), "weight", None)
    ends = (embedding, head)
    between = {
        name: _sample(parameter, SAMPLED_BETWEEN)
        for name, parameter in plain_parameters(model)
        if parameter.ndim > 1 and _is_plain(parameter) and not any(parameter is end for end in ends)
    }
    parts = [
        _hash([_sample(embedding, SAMPLED_ENDS)]),
        _hash([_sample(head, SAMPLED_ENDS)]),
        _hash([between[name] for name in sorted(between)]),
    ]
    return None if {*parts} == {UNKNOWN} else SEPARATOR.join(parts)


def _is_plain(weight: torch.Tensor) -> bool:
    """Whether a weight is stored as it is used; numbers of eight bits have a scale elsewhere."""
    return weight.is_floating_point() and weight.element_size() > 1


def _hash(samples: list[torch.Tensor | None]) -> str:
    """Hash of samples; unknown where one of them is, and of none."""
    if not samples or any(sample is None for sample in samples):
        return UNKNOWN
    digest = hashlib.sha256()
    for sample in samples:
        if sample is not None:
            digest.update(sample.cpu().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _sample(weight: torch.Tensor | None, count: int) -> torch.Tensor | None:
    """About `count` evenly spaced numbers of a weight, in bfloat16; None where they cannot be read."""
    if weight is None or not _is_plain(weight) or weight.is_meta:
        return None
    count = min(count, weight.numel())
    flat = torch.tensor([i * (weight.numel() - 1) // max(1, count - 1) for i in range(count)], device=weight.device)
    return weight[torch.unravel_index(flat, weight.shape)].to(torch.bfloat16)
