"""`assisted`: an object that decodes for `model.generate(..., custom_generate=...)`.

`generate` prepares inputs, settings, processors and stopping criteria, and calls the object to decode. Nothing
that it hands over is modified.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel
from transformers.generation import StopStringCriteria

from anydraft.choice import ScoreLog
from anydraft.drafters.lookup import LookupDrafter
from anydraft.drafters.protocol import Drafter
from anydraft.errors import OptionConflict, TokenizerMismatch
from anydraft.integrations import answers, settings
from anydraft.integrations.batch import make_rows, pad_token, prompt_text
from anydraft.integrations.pool import shared_pool
from anydraft.pacing import Fixed, Measured, Pacing
from anydraft.pacing.knowledge import Knowledge
from anydraft.session import Session
from anydraft.target import Target

logger = logging.getLogger(__name__)


class Assisted:
    """Decodes for `model.generate(..., custom_generate=this)`; made by `assisted`, reusable and thread-safe."""

    def __init__(
        self,
        assistant_model: PreTrainedModel | None = None,
        *,
        tokenizer: Any = None,
        assistant_tokenizer: Any = None,
        drafter: Drafter | str | None = None,
        draft_tokens: int | None = None,
        exact: bool = False,
        seed: int | None = None,
        streamer: Any = None,
        stop_strings: str | Sequence[str] | None = None,
    ) -> None:
        named = isinstance(drafter, str)
        if named and drafter not in ("auto", "assistant", "universal", "lookup"):
            raise OptionConflict(f"drafter is 'auto', 'assistant', 'universal', 'lookup' or a Drafter, got {drafter!r}")
        if drafter is not None and not named and not hasattr(drafter, "propose"):
            raise OptionConflict(f"drafter={type(drafter).__name__} is no Drafter; a model goes to assistant_model=")
        if assistant_model is not None and drafter is not None and (not named or drafter == "lookup"):
            raise OptionConflict("an assistant and another drafter were given; leave one out")
        if assistant_model is None and drafter in ("assistant", "universal"):
            raise OptionConflict(f"drafter={drafter!r} needs an assistant model; pass assistant_model=")
        if draft_tokens is not None and draft_tokens < 1:
            raise OptionConflict(
                f"draft_tokens must be >= 1, got {draft_tokens}; without an assistant decoding is plain"
            )
        if stop_strings and tokenizer is None:
            raise TokenizerMismatch("stop_strings need the target's tokenizer; pass tokenizer=")
        self.assistant_model = assistant_model
        self.tokenizer = tokenizer
        self.assistant_tokenizer = assistant_tokenizer
        self.drafter = drafter
        self.draft_tokens = draft_tokens
        self.exact = exact
        self.seed = seed
        self.streamer = streamer
        self.stop_strings = stop_strings
        self._known: WeakKeyDictionary[PreTrainedModel, list[Knowledge]] = WeakKeyDictionary()

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Any:
        """Decode what `model.generate` prepared; returns what it returns.

        Raises:
            OptionConflict, TokenizerMismatch, ContextOverflow, UnsupportedModel: see the message.
        """
        with ended(self.streamer):
            return self.decode(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs)

    def decode(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Any:
        """The same, leaving the end of the stream to the caller."""
        config = generation_config
        settings.refuse(config, model_kwargs, logits_processor)
        mask = model_kwargs.get("attention_mask")
        settings.check_positions(model_kwargs.get("position_ids"), input_ids, mask)
        criteria = list(stopping_criteria)
        if self.stop_strings and not any(type(c) is StopStringCriteria for c in criteria):
            criteria.append(StopStringCriteria(self.tokenizer, self.stop_strings))
        target = self._target(model)
        wanted = config.return_dict_in_generate and (config.output_scores or config.output_logits)
        logs = [ScoreLog() for _ in input_ids] if wanted else None
        rows = make_rows(
            target,
            input_ids,
            mask,
            processors=logits_processor,
            criteria=criteria,
            config=config,
            seed=self.seed,
            text_of=lambda prompt: prompt_text(target.tokenizer, prompt),
            logs=logs,
        )
        pad = pad_token(config)
        with self._measured(target) as measured, self._drafter(target, config, measured) as (drafter, pacing):
            stream = answers.Streaming(self.streamer, input_ids, pad)
            session = Session(target, drafter, pacing, rows, logs=logs)
            try:
                while session.active:
                    session.step()
                    stream.advance(rows)
            finally:
                session.close()
        tokens, passes = sum(row.stats.num_tokens for row in rows), sum(row.stats.num_passes for row in rows)
        logger.debug("%d tokens in %d passes", tokens, passes)
        return answers.output(input_ids, rows, pad, logs, config)

    def _target(self, model: PreTrainedModel) -> Target:
        tokenizer = self.tokenizer
        if tokenizer is None and self.assistant_model is not None and self.drafter != "assistant":
            tokenizer = shared_pool().tokenizer(model)
        return shared_pool().target(model, tokenizer, exact=self.exact)

    @contextlib.contextmanager
    def _measured(self, target: Target) -> Iterator[Measured]:
        """A pacing for one call, which knows what an earlier call with this model has measured, and hands that on."""
        idle = self._known.setdefault(target.model, [])
        pacing = Measured(known=idle.pop() if idle else None)  # calls at the same time never share one
        try:
            yield pacing
        finally:
            idle.append(pacing.known)

    @contextlib.contextmanager
    def _drafter(self, target: Target, config: Any, measured: Pacing) -> Iterator[tuple[Drafter | None, Pacing]]:
        lookup = getattr(config, "prompt_lookup_num_tokens", None)
        size = self.draft_tokens or lookup
        pacing: Pacing = Fixed.chain(size) if size else measured
        if lookup and (self.assistant_model is not None or self.drafter not in (None, "lookup", "auto")):
            raise OptionConflict("prompt_lookup_num_tokens and another drafter were given; leave one out")
        if self.assistant_model is None:
            if lookup or self.drafter in ("lookup", "auto"):
                longest = getattr(config, "max_matching_ngram_size", None)
                yield (LookupDrafter(longest, min(2, longest)) if longest else LookupDrafter()), pacing
            else:
                yield (None if isinstance(self.drafter, str) else self.drafter), pacing
            return
        kind = self.drafter if isinstance(self.drafter, str) else "auto"
        tokenizer = self.assistant_tokenizer
        if tokenizer is None and kind != "assistant":
            tokenizer = shared_pool().tokenizer(self.assistant_model)
        if kind != "assistant" and (target.tokenizer is None or tokenizer is None):
            raise TokenizerMismatch(
                "whether the models share a tokenizer cannot be told from their sizes; pass tokenizer= and "
                "assistant_tokenizer=, or drafter='assistant' if token ids mean the same in both"
            )
        with shared_pool().drafter(target, self.assistant_model, tokenizer, kind=kind) as drafter:
            yield drafter, pacing


def assisted(assistant_model: PreTrainedModel | None = None, **options: Any) -> Assisted:
    """An object for `model.generate(**inputs, custom_generate=...)`, with all that call's other arguments.

    What it needs is bound here, because `generate` drops `assistant_model`, the tokenizers and `streamer` on
    the way to a `custom_generate` callable. It may be used for many calls, with several models.

    Args:
        assistant_model: any causal language model; None drafts by lookup if `prompt_lookup_num_tokens` is
            given to `generate`, else decodes plainly.
        options: `tokenizer`, `assistant_tokenizer`, `drafter`, `draft_tokens`, `exact`, `seed`, `streamer` and
            `stop_strings`, as in `anydraft.generate`. Give `streamer` and `stop_strings` here, not to
            `model.generate`, which would send the streamer the prompt only, and refuse the strings.

    Raises:
        OptionConflict, TokenizerMismatch: options that contradict each other.
    """
    unknown = set(options) - set(inspect.signature(Assisted).parameters)
    if unknown:
        raise OptionConflict(f"unknown option {min(unknown)!r}; settings of the generation belong to model.generate")
    return Assisted(assistant_model, **options)


@contextlib.contextmanager
def ended(streamer: Any) -> Iterator[None]:
    """Whoever waits for the stream is told that it has ended, also by an error."""
    try:
        yield
    finally:
        if streamer is not None:
            streamer.end()
