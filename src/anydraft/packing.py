"""Packed weights: on a CPU, linear weights are laid out for fast products once instead of at every product.

In bfloat16 a packed layer computes the same numbers, bit by bit, as the layer it was: a weight of each shape is tried
before anything is packed, and what differs stays as it is. Small layers stay too, because torch multiplies them without
oneDNN and adds up in another order.

In float32 torch calls another library, which adds up otherwise, so numbers differ in their last digits. Layers are
packed where a row gives the same bits alone and among others, which that library does not give, and where it is
faster: a product of one row takes no longer, and one of eight a tenth less. Both are tried by shape (`trials.py`).

Layers of a drafter are rounded to int8 where that is known to be faster (`int8.py`), and laid out beside it untried.

The plain weight is given up. It comes back when asked for: by `layer.weight`, by `state_dict()` (so
`save_pretrained` works), and for good when the model is trained, converted, moved or loaded anew. Copies are plain. A
weight that others share, such as a head tied to the embeddings, is kept beside its packed form, and so is one of which
there is a rounded form only. Where a weight was given up, `parameters()` has a tensor without data (on "meta");
`plain_parameters` has all data.
"""

from __future__ import annotations

import copyreg
import logging
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Self, TypeGuard

import torch
from torch import nn
from torch.nn import functional as F

from anydraft.int8 import Int8Weight, pays
from anydraft.kernels.streamed import Streamed
from anydraft.layout import laid_out
from anydraft.onednn import LaidOut, missing
from anydraft.trials import helps

logger = logging.getLogger(__name__)

def pack(model: nn.Module, *, always: bool = False, drafter: bool = False) -> int:
    """Pack the linear layers of a model in place, those that it helps; does nothing where it is done already.

    Only for a model that nobody else relies on. Call it after `eval()`; with the number of threads that will be used,
    because over 32 rows oneDNN may split sums among them, and because in float32 it decides what is faster. What was
    rounded for a drafter is packed anew for a target.

    Args:
        always: pack layers in float32 without timing them.
        drafter: what the model says need not be exact, so its weights may be rounded (`int8.py`).

    Returns:
        how many layers are packed now.
    """
    if not drafter and is_rounded(model):
        unpack(model)
    reason = obstacle(model, drafter=drafter)
    if reason is not None:
        logger.info("weights of %s stay as they are: %s", type(model).__name__, reason)
        return 0
    users = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
    alike: dict[tuple[torch.Size, torch.dtype], list[nn.Linear]] = {}
    for module in model.modules():
        if _packable(module) and module.weight.device.type == "cpu":
            alike.setdefault((module.weight.shape, module.weight.dtype), []).append(module)
    given_up, stay, small = 0, 0, 0
    for layers in alike.values():
        if drafter and pays(layers[0].weight):
            for layer in layers:
                laid = laid_out(layer.weight, full=True)
                keep = laid is None or users[id(layer.weight)] > 1
                given_up += not keep
                PackedLinear.of(layer, Int8Weight(layer.weight, laid), keep=keep)
            small += len(layers)
            continue
        first, own = _tried(layers, always)
        stay += first is None
        for layer in layers if first is not None else ():
            laid = first if layer is layers[0] else laid_out(layer.weight, full=True, own=own)
            if laid is None:
                continue
            keep = users[id(layer.weight)] > 1
            given_up += not keep
            PackedLinear.of(layer, laid, keep=keep)
    packed = sum(isinstance(module, PackedLinear) for module in model.modules())
    logger.info(
        "%d linear layers of %s packed for this CPU, %d of them instead of the plain weight, %d rounded to int8; %d "
        "shapes cannot be laid out, gave other results or were no faster, and stay",
        packed, type(model).__name__, given_up, small, stay,
    )  # fmt: skip
    return packed


def _tried(layers: Sequence[nn.Linear], always: bool) -> tuple[LaidOut | None, bool]:
    """The first of layers of one shape in the layout that stands its trial, and whether that is our own."""
    for own in (True, False):
        laid = laid_out(layers[0].weight, full=True, own=own)
        if laid is None or helps(layers, laid, always):
            return laid, own
        if not isinstance(laid, Streamed):
            break
    return None, False


def unpack(model: nn.Module) -> None:
    """Make every packed layer plain again, in place."""
    for module in model.modules():
        if isinstance(module, PackedLinear):
            module.unpack()


def is_rounded(model: nn.Module) -> bool:
    """Whether layers of a model multiply with rounded weights, as those of a drafter may."""
    return any(isinstance(module, PackedLinear) and isinstance(module.laid, Int8Weight) for module in model.modules())


def plain_parameters(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """As `named_parameters()`, with data in all of them; made one by one where they were given up."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                plain = module.weight if isinstance(module, PackedLinear) and name == "weight" else parameter
                yield f"{prefix}.{name}" if prefix else name, plain


def packed_bytes(model: nn.Module) -> int:
    """Memory of the packed weights of a model."""
    return sum(module.laid.nbytes for module in model.modules() if isinstance(module, PackedLinear))


class PackedLinear(nn.Linear):
    """A linear layer whose weight lies in another layout (`layout.py`), or is rounded.

    Attributes:
        laid: the weight in that layout.
        stand_in: the parameter it was packed with. Once there is another one, the layer computes with that.
    """

    laid: LaidOut
    stand_in: torch.Tensor
    _held: weakref.ref[torch.Tensor] | None
    OWN = ("laid", "stand_in", "_held")

    @classmethod
    def of(cls, layer: nn.Linear, laid: LaidOut, *, keep: bool) -> Self:
        """Turn a plain layer into this, in place, so that whoever holds it uses the packed weight."""
        weight = layer.weight
        if not keep:
            weight = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=weight.requires_grad)
            layer._parameters["weight"] = weight
        layer.__class__ = cls
        layer.__dict__.update(laid=laid, stand_in=weight, _held=None)  # not as a parameter of its own
        return layer  # type: ignore[return-value]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        bias = self._parameters["bias"]
        if (
            self._parameters["weight"] is not self.stand_in
            or input.dtype != self.laid.dtype
            or (torch.is_grad_enabled() and (input.requires_grad or (bias is not None and bias.requires_grad)))
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
            or torch._C._get_tracing_state() is not None
        ):
            return F.linear(input, self.weight, bias)
        return self.laid(input, bias)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """(out, in) the plain weight. Writing into it changes nothing where it had been given up."""
        parameter = self._parameters["weight"]
        if parameter is None or not self._gave_up:
            return parameter  # type: ignore[return-value]
        held = self._held() if self._held is not None else None
        if held is None:
            held = self.laid.dense()
            self._held = weakref.ref(held)  # all who ask share it, for as long as one of them needs it
        return held

    @property
    def _gave_up(self) -> bool:
        return self.stand_in.is_meta and self._parameters["weight"] is self.stand_in

    def _plain_state(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in self.OWN}
        if self._gave_up:
            weight = nn.Parameter(self.weight, requires_grad=self.stand_in.requires_grad)
            state["_parameters"] = {**self._parameters, "weight": weight}
        return state

    def unpack(self) -> nn.Linear:
        """Make this a plain layer again, in place."""
        state = self._plain_state()
        self.__dict__.clear()
        self.__dict__.update(state)
        self.__class__ = nn.Linear  # type: ignore[assignment]
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and files are of plain layers."""
        return copyreg.__newobj__, (nn.Linear,), self._plain_state()  # type: ignore[attr-defined]

    def train(self, mode: bool = True) -> Self:
        """What is trained is plain."""
        return nn.Linear.train(self.unpack() if mode else self, mode)  # type: ignore[return-value]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        plain: Any = self.unpack()
        return plain._apply(fn, recurse)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        nn.Linear._load_from_state_dict(self.unpack(), *arguments, **options)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._gave_up:
            destination[prefix + "weight"] = self.weight


def obstacle(model: nn.Module, *, drafter: bool = False) -> str | None:
    """Why nothing of a model can be packed; None when something can or is.

    Args:
        drafter: its weights may be rounded.
    """
    if model.training:
        return "the model is in training mode"
    if getattr(model, "_hf_peft_config_loaded", False):
        return "adapters may be merged into them"
    if any(isinstance(module, PackedLinear) for module in model.modules()):
        return None
    weights = [module.weight for module in model.modules() if _packable(module)]
    if drafter and any(pays(weight) for weight in weights):
        return None
    on_cpu = {weight.dtype for weight in weights if weight.device.type == "cpu"} & {torch.bfloat16, torch.float32}
    if not on_cpu:
        kinds = sorted({f"{str(weight.dtype).removeprefix('torch.')} on {weight.device.type}" for weight in weights})
        return (
            "only linear layers in bfloat16 or float32 on a CPU are packed; these are "
            f"{', '.join(kinds) or 'of another kind'}"
        )
    reasons = [missing(dtype) for dtype in sorted(on_cpu, key=str)]
    return None if None in reasons else reasons[0]


def _packable(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is a linear layer as torch made it: no subclass, no weight elsewhere or of another's making."""
    return type(module) is nn.Linear and not hasattr(module, "_hf_hook") and type(module.weight) is nn.Parameter
