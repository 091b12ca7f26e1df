"""What trained drafters read of the target: its last hidden states, and the head that turns them into logits.

The last hidden state is the LM head's input, after the final norm. It is caught where the model's body returns it,
so that no architecture needs code of its own; how a model gets from there to its logits (bias, scale, softcap) is
found by probing.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedModel

from anydraft.errors import UnsupportedModel

PROBE = 8
TOLERANCE = 2e-2
"""Of the largest logit: half precision rounds in another order for another shape."""


class LastHidden:
    """Catches the last hidden states of a model's forward passes.

    Raises:
        UnsupportedModel: the model has no body whose output could be read.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        # Not base_model: OPT's head reads the decoder inside of it, and never runs the body as a whole.
        body = model.get_decoder()
        if body is None or body is model:
            raise UnsupportedModel(
                f"{type(model).__name__} has no body apart from its head, so that its hidden states cannot be read; "
                "use an assistant or drafter='lookup'"
            )
        self.body: torch.nn.Module = body

    def caught(self) -> AbstractContextManager[list[torch.Tensor]]:
        """A list to which every forward pass of this thread adds its last hidden states (rows, width, H)."""
        return _Catching(self.body)

    @staticmethod
    def newest(states: list[torch.Tensor], model: PreTrainedModel) -> torch.Tensor:
        """The last hidden states (rows, width, H) of the newest pass among those caught.

        Raises:
            UnsupportedModel: none were caught: the model (with code of its own, say) does not run the body it names.
        """
        if not states:
            raise UnsupportedModel(
                f"the body that get_decoder() of {type(model).__name__} names is not what its forward pass runs, so "
                "its hidden states cannot be read; use an assistant or drafter='lookup'"
            )
        return states[-1]


class _Catching:
    """A hook on a module's forward for as long as one pass takes.

    It is put where `register_forward_hook` would put it: that and its handle, between passes when nothing of them is in
    the processor's caches, take 2 % of a pass of a small model (`docs/lab-notes.md`).
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._hooks: dict[Any, Any] = module._forward_hooks
        self._thread = threading.get_ident()
        self._states: list[torch.Tensor] = []

    def __enter__(self) -> list[torch.Tensor]:
        self._hooks[self] = self._catch
        return self._states

    def __exit__(self, *error: object) -> None:
        del self._hooks[self]

    def _catch(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if threading.get_ident() == self._thread:
            self._states.append(output[0])


def frozen(weight: torch.Tensor) -> torch.Tensor:
    """A weight outside of training; the same object where it is already (`packing.py` shares what it makes)."""
    return weight.detach() if weight.requires_grad else weight


class OutputHead:
    """From last hidden states to logits, as the model does it.

    Attributes:
        weight: (V, H), the model's own tensor, or one made of its packed weights.

    Raises:
        UnsupportedModel: the model's logits are not those of its head, scaled or capped.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head = model.get_output_embeddings()
        if head is None or getattr(head, "weight", None) is None or head.weight.ndim != 2:
            raise UnsupportedModel(f"{type(model).__name__} has no LM head that could be read")
        self.weight: torch.Tensor = frozen(head.weight)
        self.bias: torch.Tensor | None = getattr(head, "bias", None)
        config = model.config.get_text_config()
        self.cap = float(getattr(config, "final_logit_softcapping", None) or 0.0)
        self.scale = 1.0
        self.scale = self._probed_scale(model)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) float32 of hidden states (..., H)."""
        logits = torch.nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.cap:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits

    @torch.inference_mode()
    def _probed_scale(self, model: PreTrainedModel) -> float:
        """Scale under which this head gives the model's own logits on a few tokens."""
        ids = torch.arange(PROBE, device=model.get_input_embeddings().weight.device)[None] % len(self.weight)
        with LastHidden(model).caught() as caught:
            given = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()
        hidden = LastHidden.newest(caught, model).to(self.weight.device)
        given = given.to(self.weight.device)
        plain = self.logits(hidden)
        uncapped = given if not self.cap else torch.atanh((given / self.cap).clamp(-0.999, 0.999)) * self.cap
        raw = plain if not self.cap else torch.atanh((plain / self.cap).clamp(-0.999, 0.999)) * self.cap
        scale = float((uncapped * raw).sum() / raw.square().sum().clamp(min=1e-12))
        if abs(scale - 1) < 1e-2:
            scale = 1.0
        self.scale = scale
        error = float((self.logits(hidden) - given).abs().mean() / given.abs().max().clamp(min=1e-12))
        if not error < TOLERANCE:
            raise UnsupportedModel(
                f"the logits of {type(model).__name__} are not its head applied to its last hidden states (they differ "
                f"by {error:.2g} of the largest logit), so a drafter cannot be trained on them"
            )
        return scale
