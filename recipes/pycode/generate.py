"""The target's own output: batches of prompts continued greedily and by sampling, written in shards as they come.

Shard i is a function of (seed, i) alone, so that a killed run goes on with the first shard that is missing. Rows of a
batch have prompts of one length: no padding, no mask, one cache that is written in place.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from recipes.pycode.corpus import write_atomically
from recipes.pycode.prompts import Kind, Pool
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM
from transformers.cache_utils import Cache, DynamicLayer

log = logging.getLogger(__name__)


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in a buffer of fixed size: a step writes one column and copies nothing."""

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots, self.filled = slots, 0

    def update(self, key_states, value_states, *args, **kwargs):  # type: ignore[no-untyped-def]
        """Write the new columns; returns views of all columns so far, (rows, heads, filled, head dim)."""
        if not self.is_initialized:
            rows, heads, _, dim = key_states.shape
            self.keys = key_states.new_empty(rows, heads, self.slots, dim)
            self.values = torch.empty_like(self.keys)
            self.is_initialized = True
        end = self.filled + key_states.shape[2]
        self.keys[:, :, self.filled : end] = key_states
        self.values[:, :, self.filled : end] = value_states
        self.filled = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self, *args: object) -> int:
        """Columns written so far."""
        return self.filled


@torch.inference_mode()
def continue_batch(
    model: LlamaForCausalLM, prompts: torch.Tensor, sampled: torch.Tensor, new_tokens: int, seed: int
) -> torch.Tensor:
    """Continue prompts (rows, length) by `new_tokens`: (rows, new_tokens).

    A row is drawn at temperature 1 from the whole vocabulary where `sampled` (rows,) says so, greedy elsewhere. Rows go
    on after an end of text; the caller cuts them.
    """
    rng, drawn = np.random.default_rng(seed), sampled.nonzero()[:, 0]
    shape = (len(drawn), model.config.vocab_size)
    layers = [PreallocatedLayer(prompts.shape[1] + new_tokens) for _ in range(model.config.num_hidden_layers)]
    cache, step, out = Cache(layers=layers), prompts, []
    for _ in range(new_tokens):
        hidden = model.model(input_ids=step, past_key_values=cache, use_cache=True)[0][:, -1]
        scores = model.lm_head(hidden).float()
        # argmax(log p - log E) is a draw from p; numpy's exponentials cost a tenth of torch's on a CPU
        waiting = torch.from_numpy(rng.standard_exponential(shape, dtype=np.float32))
        scores[drawn] -= waiting.clamp_(min=1e-30).log_()
        step = scores.argmax(-1, keepdim=True)
        out.append(step)
    return torch.cat(out, 1)


def records(
    kind: Kind, prompts: torch.Tensor, new: torch.Tensor, sampled: torch.Tensor, tokenizer: Tokenizer
) -> Iterator[dict[str, object]]:
    """One record a row: prompt and whole text as plain text, whether it was sampled, whether the target ended it."""
    end = tokenizer.token_to_id("<|endoftext|>")
    for prompt, row, drawn in zip(prompts.tolist(), new.tolist(), sampled.tolist(), strict=True):
        ended = end in row
        row = row[: row.index(end)] if ended else row
        head = tokenizer.decode(prompt)
        text = tokenizer.decode([*prompt, *row])
        if not text.startswith(head) or "\ufffd" in head:
            continue
        if (broken := text.find("\ufffd")) >= 0:  # half a character: the text is good up to there
            text, ended = text[:broken], False
        yield {"prompt": head, "text": text, "sampled": drawn, "ended": ended, "kind": kind, "tokens": len(row)}


def generate(
    model: LlamaForCausalLM,
    pool: Pool,
    out: Path,
    *,
    minutes: float | None = None,
    shards: int | None = None,
    first: int = 0,
    rows: int = 128,
    batches_per_shard: int = 8,
    new_tokens: int = 144,
    sampled_share: float = 0.55,
    function_share: float = 0.6,
    seed: int = 0,
    wait: Callable[[], None] = lambda: None,
) -> int:
    """Write shards `first`, `first + 1`, ... that are not there yet, until the minutes or shards are used up.

    Returns the number of tokens made. `wait` is called between batches and may block (a pause file).
    """
    if minutes is None and shards is None:
        raise ValueError("generation needs an end: give minutes or shards")
    out.mkdir(parents=True, exist_ok=True)
    made, spent, index = 0, 0.0, first
    while (shards is None or index < first + shards) and (minutes is None or spent < 60 * minutes):
        path = out / f"shard-{index:05d}.jsonl"
        index += 1
        if path.exists():
            continue
        rng = np.random.default_rng([seed, index])
        lines = []
        for _ in range(batches_per_shard):
            wait()
            began = time.monotonic()
            kind, batch = pool.batch(rng, rows, function_share)
            prompts = torch.tensor(batch)
            sampled = torch.from_numpy(rng.random(rows) < sampled_share)
            new = continue_batch(model, prompts, sampled, new_tokens, int(rng.integers(2**62)))
            for record in records(kind, prompts, new, sampled, pool.tokenizer):
                lines.append(json.dumps(record) + "\n")
                made += int(str(record["tokens"]))
            spent += time.monotonic() - began
        write_atomically(path, "".join(lines))
        log.info("shard %d: %d texts, %d tokens in all, %.0f a second", index - 1, len(lines), made, made / spent)
    return made
