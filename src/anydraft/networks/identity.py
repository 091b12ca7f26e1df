"""Which target a trained drafter belongs to."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from transformers import PreTrainedModel

from anydraft.errors import UnsupportedModel, WrongTarget

SAMPLED_ROWS = 64


@dataclass(frozen=True)
class TargetIdentity:
    """What is compared: sizes always, the fingerprint where both sides have one.

    Attributes:
        name: hub name or folder name, for messages only.
        hidden_size: width of the target's last hidden state.
        vocab_size: rows of its LM head.
        fingerprint: hash of a sample of its embeddings, which a change of precision to bfloat16 does not alter.
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
        known = self.fingerprint is not None and other.fingerprint is not None
        if known and self.fingerprint != other.fingerprint and not any_target:
            raise WrongTarget(
                f"this drafter was trained for {self.name!r}; the target {other.name!r} has the same sizes but other "
                "weights. Load the target it belongs to, train one with `anydraft train`, or pass any_target=True "
                "(for a fine-tune of the same model): the tokens stay right, fewer drafts will be kept."
            )


@torch.no_grad()
def fingerprint(model: PreTrainedModel) -> str | None:
    """Hash of some rows of the input embeddings in bfloat16; None where they are not plain floating point numbers."""
    weight = model.get_input_embeddings().weight
    if not weight.is_floating_point() or weight.device.type == "meta":
        return None
    rows = torch.linspace(0, len(weight) - 1, min(SAMPLED_ROWS, len(weight)), device=weight.device).long()
    sample = weight[rows].to(torch.bfloat16).cpu().view(torch.int16).contiguous()
    return hashlib.sha256(sample.numpy().tobytes()).hexdigest()[:32]
