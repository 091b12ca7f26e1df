"""What cannot be served is refused by name, before or inside `generate`; never ignored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_transformers import PROMPT, drafting, target
from transformers import DynamicCache, GenerationConfig, T5Config, T5ForConditionalGeneration

import anydraft
from anydraft.errors import OptionConflict, UnsupportedModel

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "beams": ({"num_beams": 2}, "num_beams"),
    "cache off": ({"use_cache": False}, "use_cache=True"),
    "other cache": ({"cache_implementation": "static"}, "cache_implementation=None"),
    "given cache": ({"past_key_values": DynamicCache()}, "past_key_values"),
    "guidance": ({"guidance_scale": 2.0}, "guidance"),
    "attentions": ({"output_attentions": True, "return_dict_in_generate": True}, "attentions"),
    "hidden": ({"output_hidden_states": True, "return_dict_in_generate": True}, "hidden"),
    "positions": ({"position_ids": torch.arange(9)[None] + 1}, "position_ids"),
    "embeddings": ({"inputs_embeds": torch.zeros(1, 9, 32)}, "inputs_embeds"),
    "unknown": ({"max_new_token": 3}, "max_new_token"),
    "threshold": ({"assistant_confidence_threshold": 0.5}, "no effect"),
    "custom": ({"custom_generate": anydraft.assisted()}, "custom_generate"),
    "two drafters": ({**drafting("same tokenizer"), "drafter": "lookup"}, "leave one out"),
    "lookup too": ({**drafting("same tokenizer"), "prompt_lookup_num_tokens": 3}, "leave one out"),
    "lookup there": (
        {**drafting("same tokenizer"), "generation_config": GenerationConfig(prompt_lookup_num_tokens=3)},
        "leave one out",
    ),
    "model as drafter": ({"drafter": target()}, "assistant_model="),
    "negative prompt": ({"negative_prompt_ids": PROMPT}, "negative_prompt_ids"),
    "no assistant": ({"drafter": "universal"}, "assistant_model="),
    "strange drafter": ({"drafter": "magic"}, "magic"),
    "draft length": ({"draft_tokens": 0}, ">= 1"),
    "stop strings": ({"stop_strings": "x"}, "tokenizer="),
    "empty": ({"attention_mask": torch.zeros(1, 9, dtype=torch.long)}, "masked"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        anydraft.generate(target(), PROMPT, **{"max_new_tokens": 4, **options})


def test_refused_elsewhere() -> None:
    with pytest.raises(OptionConflict, match="streamers"):
        anydraft.assisted(streamers=1)
    with pytest.raises(OptionConflict, match="vocabulary"):
        anydraft.generate(target(), torch.tensor([[5, 4000]]), max_new_tokens=4)
    with pytest.raises(OptionConflict, match="num_beams"):
        target().generate(PROMPT, num_beams=2, max_new_tokens=4, custom_generate=anydraft.assisted())
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8))
    with pytest.raises(UnsupportedModel, match="encoder-decoder"):
        anydraft.generate(t5, PROMPT)
