"""The chain of logits processors between the target's logits and its choice.

Transformers' own classes are used wherever they exist, so that a setting means what it means there. Processors
that look at the tokens so far run once per visited node with that node's own path (a repetition penalty sees
the path of the draft, not the batch); warpers that do not look at the tokens (temperature, top-k, top-p, min-p,
typical-p) follow. The order is that of transformers' `generate`: processors, then warpers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import generation as hf

from anydraft.errors import OptionConflict, TokenizerMismatch
from anydraft.sampling import SamplingParams, TokenProcessor

INDEPENDENT = (
    hf.TemperatureLogitsWarper,
    hf.TopKLogitsWarper,
    hf.TopPLogitsWarper,
    hf.MinPLogitsWarper,
    hf.TypicalLogitsWarper,
    hf.EpsilonLogitsWarper,
    hf.EtaLogitsWarper,
    hf.TopHLogitsWarper,
    hf.LogitNormalization,
)


class CountPenalty:
    """Presence and frequency penalties over the generated tokens, as in OpenAI's API."""

    def __init__(self, prompt_length: int, presence: float, frequency: float) -> None:
        self.prompt_length = prompt_length
        self.presence = presence
        self.frequency = frequency

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Subtract `presence` once and `frequency` per occurrence from the scores of generated tokens."""
        generated = input_ids[:, self.prompt_length :]
        counts = torch.zeros_like(scores).scatter_add_(
            1, generated, torch.ones(generated.shape, dtype=scores.dtype, device=scores.device)
        )
        return scores - self.frequency * counts - self.presence * (counts > 0)


class LogitBias:
    """Adds a number to the logits of given tokens."""

    def __init__(self, bias: dict[int, float], device: torch.device) -> None:
        self.tokens = torch.tensor(list(bias), dtype=torch.long, device=device)
        self.values = torch.tensor(list(bias.values()), dtype=torch.float32, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores with the bias added."""
        return scores.index_add(1, self.tokens, self.values.to(scores.dtype).expand(len(scores), -1))


@dataclass(frozen=True)
class Processors:
    """Processors of one row, split by whether they look at the tokens."""

    by_path: tuple[TokenProcessor, ...] = ()
    by_scores: tuple[TokenProcessor, ...] = ()
    sample: bool = False

    @property
    def trivial(self) -> bool:
        """Whether the choice is the argmax of logits, plus noise when sampling at temperature 1."""
        return not self.by_path and not self.by_scores

    def __call__(self, path: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        """Processed scores (vocab,) float32 of one node; `path` = all tokens up to and including the node."""
        scores = logits.to(torch.float32, copy=True).unsqueeze(0)
        if self.by_path:
            ids = torch.tensor([path], dtype=torch.long, device=logits.device)
            for processor in self.by_path:
                scores = processor(ids, scores)
        for processor in self.by_scores:
            scores = processor(_NO_IDS, scores)
        return scores[0]

    @classmethod
    def of_list(cls, processors: Sequence[TokenProcessor], *, sample: bool) -> Processors:
        """Split a transformers `LogitsProcessorList`, keeping its order."""
        rest = list(processors)
        tail: list[TokenProcessor] = []
        while rest and isinstance(rest[-1], INDEPENDENT):
            tail.append(rest.pop())
        return cls(tuple(rest), tuple(reversed(tail)), sample)

    @classmethod
    def of_params(
        cls,
        params: SamplingParams,
        *,
        prompt_length: int,
        vocab_size: int,
        eos_token_ids: Sequence[int] = (),
        tokenizer: Any = None,
        device: torch.device | str = "cpu",
    ) -> Processors:
        """Build the chain that `params` asks for.

        Raises:
            OptionConflict: a token id outside the vocabulary.
            TokenizerMismatch: `bad_words` given as strings without a tokenizer.
        """
        device = torch.device(device)
        bad_words = _word_ids(params.bad_words, tokenizer)
        for token in (*params.logit_bias, *params.stop_token_ids, *(token for word in bad_words for token in word)):
            if not isinstance(token, int) or not 0 <= token < vocab_size:
                raise OptionConflict(f"token id {token!r} is outside the vocabulary of {vocab_size}")
        chain: list[TokenProcessor] = []
        if params.repetition_penalty != 1.0:
            chain.append(hf.RepetitionPenaltyLogitsProcessor(penalty=float(params.repetition_penalty)))
        if params.no_repeat_ngram_size:
            chain.append(hf.NoRepeatNGramLogitsProcessor(params.no_repeat_ngram_size))
        if bad_words:
            chain.append(hf.NoBadWordsLogitsProcessor(bad_words))
        if params.min_new_tokens:
            enders = [*([] if params.ignore_eos else eos_token_ids), *params.stop_token_ids]
            if enders:
                chain.append(
                    hf.MinNewTokensLengthLogitsProcessor(prompt_length, params.min_new_tokens, enders, str(device))
                )
        if params.logit_bias:
            chain.append(LogitBias(dict(params.logit_bias), device))
        if params.presence_penalty or params.frequency_penalty:
            chain.append(CountPenalty(prompt_length, params.presence_penalty, params.frequency_penalty))
        chain.extend(params.logits_processors)
        return cls(tuple(chain), tuple(warpers(params)), not params.greedy)


def warpers(params: SamplingParams) -> list[TokenProcessor]:
    """Warpers that need no tokens, in transformers' order; none when greedy."""
    chain: list[TokenProcessor] = []
    if params.greedy:
        return chain
    if params.temperature != 1.0:
        chain.append(hf.TemperatureLogitsWarper(float(params.temperature)))
    if params.top_k:
        chain.append(hf.TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        chain.append(hf.TopPLogitsWarper(float(params.top_p)))
    if params.min_p > 0.0:
        chain.append(hf.MinPLogitsWarper(float(params.min_p)))
    if params.typical_p < 1.0:
        chain.append(hf.TypicalLogitsWarper(float(params.typical_p)))
    return chain


def _word_ids(words: Sequence[str | Sequence[int]], tokenizer: Any) -> list[list[int]]:
    ids: list[list[int]] = []
    for word in words:
        if not isinstance(word, str):
            ids.append(list(word))
            continue
        if tokenizer is None:
            raise TokenizerMismatch(f"bad word {word!r} is a string; give a tokenizer, or token ids")
        for variant in {word, " " + word}:
            encoded = tokenizer.encode(variant, add_special_tokens=False)
            if encoded and encoded not in ids:
                ids.append(encoded)
    return ids


_NO_IDS = torch.zeros((1, 0), dtype=torch.long)
