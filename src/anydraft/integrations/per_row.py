"""What transformers prepared for a batch, seen row by row: processors and stopping criteria.

Both get rows of shape (1, length) *with the prompt's padding*, as transformers hands them over, so that lengths
(`min_length`, `max_length`, a processor of the user's) mean the same. Those that hold one entry per row of the
batch get the entry of their row; transformers' repetition penalty skips the padding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import generation as hf
from transformers.generation import stopping_criteria as hf_stops

from anydraft.choice import ScoreLog
from anydraft.processors import Processors
from anydraft.row import Row, StopRule
from anydraft.sampling import TokenProcessor


class PaddedRow:
    """Processors that see their row with its padding, on the device that they were made for."""

    def __init__(self, processors: Sequence[TokenProcessor], padding: Sequence[int], device: torch.device) -> None:
        self.processors = processors
        self.padding = torch.tensor([padding], dtype=torch.long, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Processed scores (1, vocab) of a row whose ids (1, length) come without padding."""
        ids = torch.cat([self.padding, input_ids.to(self.padding.device)], dim=1)
        processed = scores.to(self.padding.device)
        for processor in self.processors:
            processed = processor(ids, processed)
        return processed.to(scores.device)


def row_processors(
    processors: Sequence[TokenProcessor],
    *,
    index: int,
    rows: int,
    padding: Sequence[int],
    device: torch.device,
    sample: bool,
) -> Processors:
    """The chain of one row of a batch."""
    split = Processors.of_list([_of_row(processor, index, rows) for processor in processors], sample=sample)
    if not split.by_path:
        return split
    return Processors((PaddedRow(split.by_path, padding, device),), split.by_scores, sample)


def _of_row(processor: Any, index: int, rows: int) -> Any:
    """A processor with one entry per row of the batch, cut down to one row's."""
    mine = copy.copy(processor)
    if isinstance(processor, hf.RepetitionPenaltyLogitsProcessor):
        if isinstance(processor.prompt_ignore_length, torch.Tensor):
            mine.prompt_ignore_length = processor.prompt_ignore_length[index : index + 1]
    elif isinstance(processor, hf.EncoderRepetitionPenaltyLogitsProcessor):
        prompt = index * len(processor.encoder_input_ids) // rows
        mine.encoder_input_ids = processor.encoder_input_ids[prompt : prompt + 1]
    elif isinstance(processor, hf.EncoderNoRepeatNGramLogitsProcessor):
        prompt = index * processor.batch_size // rows
        mine.generated_ngrams, mine.batch_size = [processor.generated_ngrams[prompt]], 1
    elif isinstance(processor, hf.PrefixConstrainedLogitsProcessor):
        allowed = processor._prefix_allowed_tokens_fn
        mine._prefix_allowed_tokens_fn = lambda _, ids: allowed(index, ids)
    else:
        return processor
    return mine


def length_limit(criteria: Sequence[Any], config: Any) -> int:
    """Length, padding included, at which plain decoding ends."""
    limits = [c.max_length for c in criteria if isinstance(c, hf_stops.MaxLengthCriteria)]
    return int(min(limits, default=config.max_length))


def beyond_length(criteria: Sequence[Any]) -> list[Any]:
    """The criteria that look at more than the length."""
    return [c for c in criteria if type(c) is not hf_stops.MaxLengthCriteria]


def stop_rules(
    criteria: Sequence[Any], prompt: Sequence[int], device: torch.device, log: ScoreLog | None
) -> list[StopRule]:
    """The criteria beyond length as rules asked after every token.

    Args:
        criteria: of transformers' kind; each gets ids (1, length), and the scores so far where they are kept.
        prompt: the row's prompt with its padding.
        device: where ids are expected.
        log: scores of the row's tokens.
    """
    enders: set[int] = set()
    others = hf.StoppingCriteriaList()
    for criterion in criteria:
        if type(criterion) is hf_stops.EosTokenCriteria:
            enders.update(criterion.eos_token_id.tolist())
        else:
            others.append(criterion)
    rules: list[StopRule] = []
    if enders:
        rules.append(lambda row: row.tokens[-1] in enders)
    if others:
        rules.append(lambda row: bool(others(_ids(prompt, row, device), _scores(log)).all()))
    return rules


def _ids(prompt: Sequence[int], row: Row, device: torch.device) -> torch.Tensor:
    return torch.tensor([[*prompt, *row.tokens]], dtype=torch.long, device=device)


def _scores(log: ScoreLog | None) -> tuple[torch.Tensor, ...] | None:
    return None if log is None else tuple(scores.unsqueeze(0) for scores in log.scores)
