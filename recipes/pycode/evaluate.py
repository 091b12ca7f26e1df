"""How good the pair is, without running a decoder: held-out loss, and how closely the assistant follows the target.

Two estimates of following, both on texts that the target wrote to held-out prompts and both from one teacher-forced
pass of the assistant. Greedy texts: which bytes it predicts greedily, and the target tokens a pass would commit if
drafts went on until its first mistake (the boundary effects of two tokenizers are left out, so read it as a trend).
Sampled texts: the KL divergence of the assistant from the target, in bits a character.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from recipes.pycode.generate import continue_batch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

LN2 = float(np.log(2))


@dataclass(frozen=True, slots=True)
class Written:
    """A text of the target's own: prompt, the new ids (up to an end of text), and their surprise in nats."""

    prompt: str
    ids: tuple[int, ...]
    text: str
    surprise: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How an assistant follows greedy texts: share of bytes it predicts, target tokens a pass (bonus included)."""

    right_bytes: float
    tokens_per_pass: float


@torch.inference_mode()
def held_out_loss(model: LlamaForCausalLM, ids: np.ndarray, length: int = 512, rows: int = 16) -> float:
    """Mean cross-entropy in nats a token over consecutive windows of token ids."""
    count = (len(ids) - 1) // length
    total, seen = 0.0, 0
    for start in range(0, count, rows):
        part = ids[start * length : min(start + rows, count) * length].astype(np.int64)
        batch = torch.from_numpy(part).view(-1, length)
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
        total += float(F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"))
        seen += batch[:, 1:].numel()
    return total / seen


@torch.inference_mode()
def write(
    target: LlamaForCausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    sampled: bool,
    new_tokens: int = 128,
    seed: int = 0,
) -> list[Written]:
    """The target's continuations, in the order of the prompts' lengths."""
    end = tokenizer.token_to_id("<|endoftext|>")
    groups: defaultdict[int, list[list[int]]] = defaultdict(list)
    for prompt in prompts:
        ids = tokenizer.encode(prompt).ids
        groups[len(ids)].append(ids)
    out = []
    for length, group in sorted(groups.items()):
        rows = torch.tensor(group)
        new = continue_batch(target, rows, torch.full((len(group),), sampled), new_tokens, seed + length)
        whole = torch.cat([rows, new], 1)
        logits = target(input_ids=whole, use_cache=False).logits[:, length - 1 : -1].float()
        nats = F.cross_entropy(logits.transpose(1, 2), new, reduction="none")  # (rows, new_tokens)
        for head, row, surprise in zip(group, new.tolist(), nats, strict=True):
            kept = row[: row.index(end)] if end in row else row
            text = tokenizer.decode([*head, *kept])
            if "\ufffd" not in text:
                out.append(Written(tokenizer.decode(head), tuple(kept), text, float(surprise[: len(kept)].sum())))
    return out


@torch.inference_mode()
def _follow(assistant: LlamaForCausalLM, tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every byte of a text: does its assistant token come out greedily, its token's index; and nats a token."""
    ids = torch.tensor([tokenizer.encode(text).ids])
    logits = assistant(input_ids=ids, use_cache=False).logits[0, :-1].float()
    wanted = ids[0, 1:]
    right = (logits.argmax(-1) == wanted).numpy()
    nats = F.cross_entropy(logits, wanted, reduction="none").numpy()
    lengths = [piece_bytes(tokenizer.id_to_token(index)) for index in wanted.tolist()]
    return np.repeat(right, lengths), np.repeat(np.arange(len(right)), lengths), nats


def piece_bytes(piece: str) -> int:
    """How many bytes an assistant token stands for."""
    return 1 if piece.startswith("<0x") else len(piece.replace("▁", " ").encode())


def agreement(
    assistant: LlamaForCausalLM,
    tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    texts: Sequence[Written],
    depth: int = 8,
) -> Agreement:
    """How an assistant follows greedy texts, with drafts of at most `depth` target tokens."""
    right, total, committed, passes = 0, 0, 0, 0
    for written in texts:
        bytes_right, _, _ = _follow(assistant, tokenizer, written.text)
        start = len(written.prompt.encode())
        right, total = right + int(bytes_right[start:].sum()), total + len(bytes_right) - start
        lengths = [len(target_tokenizer.id_to_token(index)) for index in written.ids]  # byte-level: a letter a byte
        ends = start + np.cumsum(lengths)
        wrong = np.append(np.flatnonzero(~bytes_right), len(bytes_right))
        at = 0
        while at < len(ends):
            here = ends[at - 1] if at else start
            reach = wrong[np.searchsorted(wrong, here)]
            accepted = min(depth, int(np.searchsorted(ends, reach, side="right")) - at)
            step = min(accepted + 1, len(ends) - at)
            at, committed, passes = at + step, committed + step, passes + 1
    return Agreement(right / max(total, 1), committed / max(passes, 1))


def divergence(assistant: LlamaForCausalLM, tokenizer: Tokenizer, texts: Sequence[Written]) -> float:
    """KL(target || assistant) in bits a character, estimated on sampled texts."""
    nats, characters = 0.0, 0
    for written in texts:
        _, owner, surprise = _follow(assistant, tokenizer, written.text)
        start = len(written.prompt.encode())
        if start >= len(owner):
            continue
        nats += float(surprise[owner[start] :].sum()) - written.surprise
        characters += len(written.text) - len(written.prompt)
    return nats / max(characters, 1) / LN2
