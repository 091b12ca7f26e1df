"""What is slow to make for a model, kept for the next call as long as that model lives, and no longer.

A probe of the target takes a few forwards, a drafter between two tokenizers seconds. Nothing here holds a
model: an idle drafter gives its assistant back, for a value that refers to its key would keep both for ever.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel

from anydraft.drafters.assistant import AssistantDrafter
from anydraft.drafters.named import model_drafter
from anydraft.drafters.universal import UniversalDrafter
from anydraft.lm import LanguageModel
from anydraft.pretrained import load_tokenizer
from anydraft.target import Structure, Target
from anydraft.text.token_bytes import TokenBytes

ModelDrafter = AssistantDrafter | UniversalDrafter
IDLE = 2  # idle drafters kept per assistant


class Pool:
    """Probes, tokenizers and idle drafters by model; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._structures: WeakKeyDictionary[PreTrainedModel, dict[Hashable, Structure]] = WeakKeyDictionary()
        self._idle: WeakKeyDictionary[PreTrainedModel, list[tuple[Hashable, ModelDrafter, Any]]]
        self._idle = WeakKeyDictionary()
        self._tokenizers: WeakKeyDictionary[PreTrainedModel, Any] = WeakKeyDictionary()
        self._tables: WeakKeyDictionary[Any, tuple[int, TokenBytes]] = WeakKeyDictionary()

    def target(self, model: PreTrainedModel, tokenizer: Any, *, exact: bool) -> Target:
        """A target, probed once per model."""
        key = (str(model.device), model.dtype, getattr(model.config, "_attn_implementation", None))
        with self._lock:
            known = self._structures.get(model, {}).get(key)
        target = Target(model, tokenizer, exact=exact, structure=known)
        with self._lock:
            self._structures.setdefault(model, {})[key] = target.structure
        return target

    def tokenizer(self, model: PreTrainedModel) -> Any:
        """The tokenizer of the checkpoint that a model was loaded from; None when there is none."""
        with self._lock:
            known = self._tokenizers.get(model)
        if known is None:
            known = load_tokenizer(model)
            with self._lock:
                self._tokenizers[model] = known
        return known

    def table(self, tokenizer: Any) -> TokenBytes:
        """What the tokenizer's tokens write."""
        with self._lock:
            size, table = self._tables.get(tokenizer, (-1, None))
        if table is None or size != len(tokenizer):
            table = TokenBytes.of(tokenizer)
            with self._lock:
                self._tables[tokenizer] = (len(tokenizer), table)
        return table

    @contextmanager
    def drafter(
        self, target: Target, assistant: PreTrainedModel, tokenizer: Any, *, kind: str
    ) -> Iterator[ModelDrafter]:
        """A drafter for one generation, and for no other at the same time.

        Raises:
            TokenizerMismatch, UnsupportedModel: as `model_drafter`.
        """
        lm = LanguageModel(assistant)
        both = (target.tokenizer, tokenizer)
        key = (
            kind,
            *(None if one is None else (id(one), len(one)) for one in both),
            target.vocab_size,
            target.eos_token_ids,
            target.device,
            (lm.device, lm.dtype, lm.vocab_size),
        )
        drafter = self._take(assistant, key)
        if drafter is None:
            drafter = model_drafter(target, assistant, tokenizer, kind=kind)
        drafter.lm.model = assistant
        yield drafter
        # Not reached after an error, so that what may be in disorder is not used again.
        drafter.lm.model = None
        with self._lock:
            kept = self._idle.setdefault(assistant, [])
            kept.append((key, drafter, both))  # the tokenizers too, so that their ids stay theirs
            del kept[:-IDLE]

    def _take(self, assistant: PreTrainedModel, key: Hashable) -> ModelDrafter | None:
        with self._lock:
            idle = self._idle.get(assistant, [])
            for i, (known, drafter, _) in enumerate(idle):
                if known == key:
                    del idle[i]
                    return drafter
        return None


@cache
def shared_pool() -> Pool:
    """The pool of this process."""
    return Pool()
