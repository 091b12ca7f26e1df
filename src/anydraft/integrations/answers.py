"""Rows of different lengths back into transformers' rectangles: streamed, returned, with scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.generation import GenerateDecoderOnlyOutput

from anydraft.choice import ScoreLog
from anydraft.row import Row


class Streaming:
    """Feeds a streamer as plain decoding does: the prompt, then one token per row at a time."""

    def __init__(self, streamer: Any, input_ids: torch.Tensor, pad: int | None) -> None:
        self.streamer = streamer
        self.pad = pad
        self._position = 0
        if streamer is not None:
            streamer.put(input_ids.cpu())

    def advance(self, rows: Sequence[Row]) -> None:
        """Put every position that all unfinished rows have reached."""
        if self.streamer is None:
            return
        unfinished = [len(row.tokens) for row in rows if row.finish_reason is None]
        reached = min(unfinished) if unfinished else max(len(row.tokens) for row in rows)
        for position in range(self._position, reached):
            tokens = [row.tokens[position] if position < len(row.tokens) else self.pad or 0 for row in rows]
            self.streamer.put(torch.tensor(tokens))
        self._position = reached


def sequences(input_ids: torch.Tensor, rows: Sequence[Row], pad: int | None) -> torch.Tensor:
    """The prompts as given, then each row's tokens, filled up with `pad`: (rows, length) on the prompts' device."""
    width = max(len(row.tokens) for row in rows)
    filled = [row.tokens + [pad or 0] * (width - len(row.tokens)) for row in rows]
    return torch.cat([input_ids, torch.tensor(filled, dtype=input_ids.dtype, device=input_ids.device)], dim=1)


def output(
    input_ids: torch.Tensor,
    rows: Sequence[Row],
    pad: int | None,
    logs: Sequence[ScoreLog] | None,
    config: Any,
) -> Any:
    """What `generate` returns: a tensor, or a `GenerateDecoderOnlyOutput` if the config asks for one."""
    found = sequences(input_ids, rows, pad)
    if not config.return_dict_in_generate:
        return found
    scores = _stacked([log.scores for log in logs], input_ids.device) if logs and config.output_scores else None
    logits = _stacked([log.logits for log in logs], input_ids.device) if logs and config.output_logits else None
    return GenerateDecoderOnlyOutput(sequences=found, scores=scores, logits=logits)


def _stacked(vectors: Sequence[list[torch.Tensor]], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Per position one tensor (rows, vocab); zeros where a row has ended."""
    width = max(len(row) for row in vectors)
    return tuple(
        torch.stack([row[i] if i < len(row) else torch.zeros_like(row[0]) for row in vectors]).to(device)
        for i in range(width)
    )
