"""The contenders of `anydraft bench`: plain decoding, every drafter on the same target, transformers beside them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from anydraft.bench.contenders import AnydraftContender, TransformersContender
from anydraft.bench.measure import Contender, Run, Task, Tokens
from anydraft.bench.memory import added_bytes, weight_bytes
from anydraft.bench.prompt_sets import draft_prompt
from anydraft.decoder import Decoder
from anydraft.drafters.assistant import AssistantDrafter
from anydraft.drafters.universal import UniversalDrafter
from anydraft.loading import load
from anydraft.pretrained import load_tokenizer

logger = logging.getLogger(__name__)

PLAIN, PEER = "anydraft", "transformers"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A drafter to measure: the name it is shown by, and what `anydraft.load` takes for it."""

    name: str
    drafter: Any


@dataclass
class Suite:
    """Contenders that share a target.

    Attributes:
        plain: plain decoding, whose target all of this package's contenders verify with.
        contenders: in the order in which they are shown; plain decoding first.
        single: names of those that decode one prompt at a time only.
        weights: bytes, by name.
    """

    plain: Decoder
    contenders: list[Contender]
    single: set[str] = field(default_factory=set)
    weights: dict[str, int] = field(default_factory=dict)

    def of_batch(self, batch: int) -> list[Contender]:
        """Those that can decode so many prompts at once."""
        return [contender for contender in self.contenders if batch == 1 or contender.name not in self.single]

    def write_draft_prompts(self, turns: Sequence[tuple[Sequence[int], str]]) -> None:
        """Let drafters read turns of a chat, given as (token ids in the target's template, text), in their own one."""
        for contender in self.contenders:
            tokenizer = None
            if isinstance(contender, AnydraftContender):
                tokenizer = getattr(getattr(contender.decoder, "drafter", None), "tokenizer", None)
            if tokenizer is not None and isinstance(contender, AnydraftContender):
                contender.draft_prompts = {tuple(ids): draft_prompt(tokenizer, text) for ids, text in turns}

    def note_memory(self, contender: Contender, prompt: Tokens, task: Task) -> None:
        """Measure, in a run that is not timed, what the contender's runs of this batch size take."""
        weights = self.weights.get(contender.name)
        if not isinstance(contender, AnydraftContender | TransformersContender) or weights is None:
            return
        contender.prepare(task.temperature)
        try:
            contender.run(prompt, task)  # what is made once, and kept, is no part of a run
            added = added_bytes(lambda: contender.run(prompt, task), self.plain.target.device)
        except Exception:  # it will fail in its timed runs too, and be reported there
            logger.info("%s failed while its memory was measured", contender.name, exc_info=True)
            return
        if added is not None:
            contender.memory[task.batch] = weights + added


class Unloadable:
    """Takes the place of a contender that could not be made."""

    def __init__(self, name: str, problem: Exception) -> None:
        self.name = name
        self.problem = problem

    def prepare(self, temperature: float) -> None:
        """Nothing."""

    def run(self, prompt: Tokens, task: Task) -> Run:
        """Say why it is not there."""
        raise NotLoaded(f"{type(self.problem).__name__}: {' '.join(str(self.problem).split())}")


class NotLoaded(RuntimeError):
    """A drafter that could not be loaded."""


def load_suite(
    target: str,
    candidates: Sequence[Candidate],
    *,
    peers: bool = True,
    dtype: Any = None,
    device: Any = None,
    exact: bool = False,
    draft_tokens: int | None = None,
    any_target: bool = False,
    trust_remote_code: bool = False,
) -> Suite:
    """Load the target once for this package, once for transformers where that must not share it, and every drafter.

    A drafter that cannot be loaded becomes a contender whose runs fail, so that the others are measured.

    Raises:
        AnydraftError: the target cannot be loaded.
    """
    plain = load(target, None, dtype=dtype, device=device, exact=exact, trust_remote_code=trust_remote_code)
    suite = Suite(plain, [AnydraftContender(PLAIN, plain)], weights={PLAIN: weight_bytes(plain)})
    peer_model = None
    assisted: list[Contender] = []
    if peers:
        # On a CPU this package lays out its weights anew, which the peer's speed must not depend on.
        alone = plain.target.device.type == "cpu"
        peer_model = _untouched(target, plain.target.dtype, trust_remote_code) if alone else plain.target.model
        suite.weights[PEER] = weight_bytes(peer_model)
    for candidate in candidates:
        name = f"{PLAIN}-{candidate.name}"
        try:
            decoder = _decoder(plain, candidate, draft_tokens, any_target, trust_remote_code)
            suite.contenders.append(AnydraftContender(name, decoder))
            suite.weights[name] = weight_bytes(decoder)
            if peer_model is not None and isinstance(decoder.drafter, AssistantDrafter | UniversalDrafter):
                peer = _assisted(peer_model, plain, decoder.drafter, candidate, trust_remote_code)
                assisted.append(peer)
                suite.single.add(peer.name)
                suite.weights[peer.name] = suite.weights[PEER] + weight_bytes(peer.pristine)
        except Exception as problem:
            logger.info("%s cannot be loaded", name, exc_info=True)
            suite.contenders.append(Unloadable(name, problem))
    if peer_model is not None:
        suite.contenders += [TransformersContender(PEER, peer_model), *assisted]
    return suite


def _decoder(
    plain: Decoder, candidate: Candidate, draft_tokens: int | None, any_target: bool, trust_remote_code: bool
) -> Decoder:
    """A decoder with the candidate's drafter, on the target that all share."""
    made = load(
        plain.target.model,
        candidate.drafter,
        tokenizer=plain.tokenizer,
        draft_tokens=draft_tokens,
        any_target=any_target,
        trust_remote_code=trust_remote_code,
    )
    return Decoder(plain.target, made.drafters, pacing=made.pacing)


def _assisted(
    model: Any, plain: Decoder, drafter: Any, candidate: Candidate, trust_remote_code: bool
) -> TransformersContender:
    """transformers' assisted generation with the same assistant, loaded again because it changes what it is given."""
    assistant = _untouched(candidate.drafter, drafter.lm.dtype, trust_remote_code).to(plain.target.device)
    tokenizers = (None, None)
    if isinstance(drafter, UniversalDrafter):
        tokenizers = (plain.tokenizer, load_tokenizer(candidate.drafter, trust_remote_code))
    return TransformersContender(f"{PEER}-{candidate.name}", model, tokenizers[0], assistant, tokenizers[1])


def _untouched(name: str, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    """A model as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(name, dtype=dtype, trust_remote_code=trust_remote_code).eval()
