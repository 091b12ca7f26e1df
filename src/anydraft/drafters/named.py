"""From what a user gives as a drafter (a name, a path, a model, a network, an object) to a drafter."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from anydraft.drafters.assistant import AssistantDrafter
from anydraft.drafters.lookup import LookupDrafter
from anydraft.drafters.protocol import Drafter
from anydraft.drafters.trained import trained_drafter
from anydraft.drafters.universal import UniversalDrafter
from anydraft.errors import OptionConflict, TokenizerMismatch, UnsupportedModel
from anydraft.lm import LanguageModel
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.registry import load_if_network
from anydraft.pretrained import ModelLike, load_model, load_tokenizer
from anydraft.target import Target
from anydraft.text.token_bytes import TokenBytes
from anydraft.verify import Verification

logger = logging.getLogger(__name__)

KINDS = ("auto", "assistant", "universal", "lookup")


@dataclass(frozen=True)
class Wanted:
    """A drafter that was asked for and can be made once the target is there.

    Attributes:
        kind: one of `KINDS`, or None where an object does the drafting itself.
        assistant: name, path or model of the assistant, where there is one.
        network: the trained drafter's network, where there is one.
        ready: a drafter that needs no making.
    """

    kind: str | None
    assistant: ModelLike | None = None
    network: DrafterNetwork | None = None
    ready: Drafter | None = None

    @classmethod
    def of(cls, drafter: Any, assistant: ModelLike | None, verification: Verification) -> Wanted:
        """What `load(drafter=, assistant=)` asks for.

        Raises:
            OptionConflict: something that is no drafter, or two that contradict each other.
        """
        network = _network(drafter if assistant is None else assistant)
        if network is not None:
            if assistant is not None and drafter != "auto":
                raise OptionConflict(
                    f"drafter={drafter!r} contradicts a trained drafter as assistant=; give the latter as drafter="
                )
            return cls(None, network=network)
        kind: str | None = None
        if isinstance(drafter, str) and drafter in KINDS:
            kind = drafter
        elif isinstance(drafter, str | os.PathLike | PreTrainedModel):
            if assistant is not None:
                raise OptionConflict("the assistant was given twice, as drafter= and as assistant=; give it once")
            kind, assistant = "auto", drafter
        elif drafter is not None and not all(hasattr(drafter, name) for name in ("start", "propose", "stop")):
            raise OptionConflict(
                f"drafter must be None, one of {', '.join(map(repr, KINDS))}, an assistant, an object with start, "
                f"propose and stop, or a list of these, got {type(drafter).__name__}"
            )
        if kind in ("assistant", "universal") and assistant is None:
            raise OptionConflict(f"drafter={kind!r} needs an assistant model; pass assistant=")
        if kind in (None, "lookup") and assistant is not None:
            raise OptionConflict(
                f"drafter={drafter!r} uses no assistant; leave assistant= out or choose drafter='auto'"
            )
        if kind is not None and assistant is None and verification == "rejection":
            raise OptionConflict("lookup drafts have no probabilities to reject with; use verification='exact'")
        return cls(kind, assistant, ready=drafter if kind is None else None)

    def made(
        self,
        target: Target,
        *,
        assistant_tokenizer: Any = None,
        verification: Verification = "exact",
        any_target: bool = False,
        dtype: torch.dtype | str | None = None,
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
        packed: bool | None = None,
    ) -> Drafter | None:
        """The drafter for a target; None for plain decoding.

        Raises:
            UnsupportedModel, TokenizerMismatch, WrongTarget: see the message.
        """
        if self.network is not None:
            return trained_drafter(target, self.network, verification=verification, any_target=any_target)
        if self.kind is None:
            return self.ready
        if self.assistant is None:
            if self.kind == "auto":
                logger.info("no assistant was given: drafting by lookup")
            return LookupDrafter()
        loaded = load_model(
            self.assistant,
            role="assistant",
            dtype=dtype if dtype is not None else target.model.dtype,
            device=device if device is not None else target.device,
            trust_remote_code=trust_remote_code,
            packed=packed if isinstance(self.assistant, str | os.PathLike) else None,
        )
        if assistant_tokenizer is None:
            assistant_tokenizer = load_tokenizer(self.assistant, trust_remote_code)
        return model_drafter(target, loaded, assistant_tokenizer, kind=self.kind, verification=verification)


def _network(name: Any) -> DrafterNetwork | None:
    """The trained network that was given, loaded or by name; None when something else was."""
    if isinstance(name, DrafterNetwork):
        return name
    if isinstance(name, os.PathLike) or (isinstance(name, str) and name not in KINDS):
        return load_if_network(name)
    return None


def model_drafter(
    target: Target,
    assistant: PreTrainedModel,
    assistant_tokenizer: Any,
    *,
    kind: str = "auto",
    verification: Verification = "exact",
) -> AssistantDrafter | UniversalDrafter:
    """A drafter from an assistant model: by token ids if the tokenizers are the same, else by text.

    Raises:
        TokenizerMismatch: kind "assistant" with different tokenizers, or a tokenizer that is missing.
        UnsupportedModel: the assistant sits on another device than the target.
    """
    lm = LanguageModel(assistant)
    if lm.device != target.device:
        raise UnsupportedModel(
            f"the assistant is on {lm.device}, the target on {target.device}; move one, for example with "
            f"assistant.to({str(target.device)!r})"
        )
    if target.tokenizer is None or assistant_tokenizer is None:
        if kind == "assistant" and target.tokenizer is None and assistant_tokenizer is None:
            return _assistant(lm, target, verification)
        missing = "tokenizer=" if target.tokenizer is None else "assistant_tokenizer="
        raise TokenizerMismatch(
            f"an assistant given as a loaded model comes without its tokenizer; pass {missing}"
        )
    mine, theirs = TokenBytes.of(target.tokenizer), TokenBytes.of(assistant_tokenizer)
    same = mine.same_as(theirs)
    if kind == "assistant" and not same:
        raise TokenizerMismatch(
            "drafter='assistant' needs the same tokenizer on both sides, and these differ; use drafter='universal' "
            "or 'auto'"
        )
    if same and kind != "universal":
        return _assistant(lm, target, verification)
    return UniversalDrafter(
        lm,
        assistant_tokenizer,
        target_tokenizer=target.tokenizer,
        vocab_size=target.vocab_size,
        eos_token_ids=target.eos_token_ids,
        verification=verification,
    )


def _assistant(lm: LanguageModel, target: Target, verification: Verification) -> AssistantDrafter:
    return AssistantDrafter(
        lm, vocab_size=target.vocab_size, eos_token_ids=target.eos_token_ids, verification=verification
    )
