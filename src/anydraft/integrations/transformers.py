"""`generate` with any assistant: transformers' own call, settings and results, by anydraft's engine.

Inputs, settings, processors and stopping criteria are prepared by the model's own `generate`, which then calls
back to decode (`custom_generate`), so that every setting means what it means in transformers. Neither the
models nor their configs are modified.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from anydraft.drafters.protocol import Drafter
from anydraft.errors import OptionConflict
from anydraft.integrations.assisted import Assisted, assisted, ended
from anydraft.lm import LanguageModel

__all__ = ["Assisted", "assisted", "generate"]

_NO_EFFECT = {
    "assistant_confidence_threshold": "the drafter stops by its own measure",
    "num_assistant_tokens_schedule": "the draft's length follows what is accepted; draft_tokens= fixes it",
    "assistant_lookbehind": "texts are kept in step by bytes, not by windows",
    "target_lookbehind": "texts are kept in step by bytes, not by windows",
}


def generate(
    model: PreTrainedModel,
    inputs: torch.Tensor | None = None,
    *,
    assistant_model: PreTrainedModel | None = None,
    tokenizer: Any = None,
    assistant_tokenizer: Any = None,
    generation_config: Any = None,
    streamer: Any = None,
    drafter: Drafter | str | None = None,
    draft_tokens: int | None = None,
    exact: bool = False,
    seed: int | None = None,
    **kwargs: Any,
) -> Any:
    """`model.generate(inputs, **kwargs)` with drafts: the same call, settings and results.

    Greedy output is that of `model.generate`. Sampled tokens are drawn from the same distribution by anydraft's
    noise: other tokens than transformers draws after the same `torch.manual_seed`, but the same ones with any
    assistant and with none. Equal prompts in a batch, and `num_return_sequences`, get noise of their own.

    Rows end where plain decoding token by token would end them. Processors and stopping criteria get one row of
    the batch at a time, (1, length) with its padding; a processor is asked about drafted tokens too, so it must
    be a function of its arguments. Scores behind a row's end are zeros; `past_key_values` is None.

    Args:
        model: the model whose words are kept.
        inputs: token ids (rows, length), also as `input_ids=`, with `attention_mask=` if padded.
        assistant_model: drafts; any causal language model on the same device. None decodes plainly, or by
            lookup if `prompt_lookup_num_tokens` is given.
        tokenizer, assistant_tokenizer: of the two models; looked for where the models were loaded from if left
            out. They may be equal, or differ in anything.
        generation_config: as in transformers.
        streamer: gets the prompt, then one token per row at a time, and `end()` whatever happens.
        drafter: "lookup"; "assistant" (token ids mean the same in both models) or "universal" instead of a
            comparison of the tokenizers; or a `Drafter` instead of an assistant.
        draft_tokens: fixed draft length in the drafter's tokens, also as `num_assistant_tokens`; default: what is
            accepted decides.
        exact: one shape for all passes, so that results in bfloat16 do not depend on the drafts.
        seed: of the noise; None draws one from torch's generator, so `torch.manual_seed` and `set_seed` count.
        kwargs: anything else that `model.generate` takes: settings, `logits_processor`, `stopping_criteria`,
            `stop_strings` (needs `tokenizer`), `prefix_allowed_tokens_fn`, `return_dict_in_generate`, ...

    Returns:
        (rows, length) token ids, prompts included, or a `GenerateDecoderOnlyOutput`.

    Raises:
        OptionConflict: a setting that cannot be served, such as beam search or `use_cache=False`.
        TokenizerMismatch, ContextOverflow, UnsupportedModel: see the message.
    """
    with ended(streamer):
        LanguageModel(model)  # before anything runs: an encoder-decoder, say, is refused at once
        for name, why in _NO_EFFECT.items():
            if kwargs.get(name) is not None:
                raise OptionConflict(f"{name} has no effect here: {why}; leave it out")
        for name in ("custom_generate", "negative_prompt_ids", "synced_gpus"):
            if kwargs.get(name) is not None and kwargs[name] is not False:
                raise OptionConflict(f"{name} cannot be combined with anydraft.generate; leave it out")
        lookup = kwargs.pop("prompt_lookup_num_tokens", None)
        if lookup is not None:
            if assistant_model is not None or drafter not in (None, "lookup"):
                raise OptionConflict("prompt_lookup_num_tokens and another drafter were given; leave one out")
            drafter = "lookup"
        lengths = [n for n in (draft_tokens, kwargs.pop("num_assistant_tokens", None), lookup) if n is not None]
        preparing, generation_config, stops = _without_stop_strings(
            model, generation_config, kwargs.pop("stop_strings", None)
        )
        bound = Assisted(
            assistant_model,
            tokenizer=tokenizer,
            assistant_tokenizer=assistant_tokenizer,
            drafter=drafter,
            draft_tokens=lengths[0] if lengths else None,
            exact=exact,
            seed=seed,
            streamer=streamer,
            stop_strings=stops,
        )

        def decode(_: Any, input_ids: torch.Tensor, **prepared: Any) -> Any:
            return bound.decode(model, input_ids, **prepared)

        return preparing.generate(inputs, generation_config=generation_config, custom_generate=decode, **kwargs)


def _without_stop_strings(model: Any, config: Any, stops: Any) -> tuple[Any, Any, Any]:
    """Take the stop strings out of the settings, for `generate` passes no tokenizer on to build them with.

    Returns:
        the model (a shallow copy if its own settings have them), the generation config, the strings.
    """
    given = stops if stops is not None else getattr(config, "stop_strings", None)
    if getattr(config, "stop_strings", None) is not None:
        config = copy.deepcopy(config)
        config.stop_strings = None
    own = getattr(model.generation_config, "stop_strings", None)
    if own is not None:
        model = copy.copy(model)
        model.generation_config = copy.deepcopy(model.generation_config)
        model.generation_config.stop_strings = None
    return model, config, given if given is not None else own
