"""The contenders: anydraft's decoder, and transformers' `generate` with and without an assistant.

All get the same token ids, go on after the end-of-sequence token and restrict sampling by nothing but
temperature. The models belong to the contender: transformers' sampling with another tokenizer changes the
assistant for good, so it works on a copy that is made anew at every temperature and after every failure.
"""

import copy
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from anydraft.bench.measure import Run, Task, Tokens, quiet
from anydraft.stats import Stats


class DecoderLike(Protocol):
    """The part of `anydraft.Decoder` that is timed."""

    def stream(self, prompt: Any, **options: Any) -> Iterator[Any]:
        """Decode step by step; the last step of a row has its `generation`, with `tokens` and `stats`."""


class AnydraftContender:
    """A decoder of this package, with or without a drafter.

    Attributes:
        trace: steps of the last run, for who wants to show them.
        memory: bytes by batch size, noted with every run of that size.
        draft_prompts: what the drafter reads instead, by the token ids of a prompt.
    """

    def __init__(self, name: str, decoder: DecoderLike) -> None:
        self.name = name
        self.decoder = decoder
        self.trace: list[Any] = []
        self.memory: dict[int, int | None] = {}
        self.draft_prompts: dict[tuple[int, ...], str] = {}
        self._pacing = copy.deepcopy(getattr(decoder, "pacing", None))

    def prepare(self, temperature: float) -> None:
        """Forget what the pacing has learned; the warm-up teaches it again."""
        if self._pacing is not None:
            self.decoder.pacing = copy.deepcopy(self._pacing)  # type: ignore[attr-defined]

    def run(self, prompt: Tokens, task: Task) -> Run:
        """Decode once."""
        steps = self.steps(prompt, task)
        with quiet():
            while True:
                try:
                    next(steps)
                except StopIteration as done:
                    run: Run = done.value
                    return run

    def steps(self, prompt: Tokens, task: Task) -> Generator[int, None, Run]:
        """Decode once; after every step the tokens so far, of all rows. Time between the steps does not count."""
        self.trace = []
        first: dict[int, float] = {}
        count, seconds, start = 0, 0.0, time.perf_counter()
        options = {"temperature": task.temperature, "max_new_tokens": task.max_new_tokens, "seed": task.seed}
        options |= self._draft_prompt(prompt, task.batch)
        stream = self.decoder.stream(prompt, ignore_eos=True, **options)
        for step in stream:
            if step.row not in first:
                first[step.row] = seconds + time.perf_counter() - start
            self.trace.append(step)
            count += len(step.tokens)
            seconds += time.perf_counter() - start
            yield count
            start = time.perf_counter()
        seconds += time.perf_counter() - start
        return self._run(seconds, first, task)

    def _run(self, seconds: float, first: dict[int, float], task: Task) -> Run:
        rows = {step.row: step.generation for step in self.trace if step.generation is not None}
        stats = sum((rows[row].stats for row in rows), Stats())
        return Run(
            tokens=[token for row in sorted(rows) for token in rows[row].tokens],
            seconds=seconds,
            seconds_first_token=max(first.values(), default=None),
            passes=stats.num_passes,
            draft_tokens=stats.num_draft_tokens,
            accepted_tokens=stats.num_accepted_tokens,
            seconds_prefill=stats.seconds_prefill,
            seconds_draft=stats.seconds_draft,
            seconds_verify=stats.seconds_verify,
            seconds_convert=stats.seconds_convert,
            seconds_choose=stats.seconds_choose,
            reached=list(stats.num_drafts_per_pos),
            accepted_at=list(stats.num_accepted_tokens_per_pos),
            peak_memory=self.memory.get(task.batch),
            failures=list(dict.fromkeys(stats.drafter_failures)),
            pacing=_said(rows.values()),
        )

    def _draft_prompt(self, prompt: Tokens, batch: int) -> dict[str, Any]:
        prompts = cast(Sequence[Sequence[int]], [prompt] if batch == 1 else prompt)
        found = [self.draft_prompts.get(tuple(ids)) for ids in prompts]
        if any(text is None for text in found):
            return {}
        return {"draft_prompt": found[0] if batch == 1 else found}


def _said(generations: Iterable[Any]) -> str | None:
    """What the pacing says of the first of these rows; None where it says nothing."""
    pacing = next((getattr(generation.stats, "pacing", None) for generation in generations), None)
    return None if pacing is None else str(pacing)


class TransformersContender:
    """transformers' `generate`; with an assistant its assisted generation across tokenizers (UAG)."""

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        assistant: PreTrainedModel | None = None,
        assistant_tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.pristine = (tokenizer, assistant, assistant_tokenizer)
        self.watch = _Watch()
        self.assistance: dict[str, Any] = {}
        self.memory: dict[int, int | None] = {}

    def prepare(self, temperature: float) -> None:
        """Copy the assistant and both tokenizers: a use may leave them, or caches keyed by them, changed."""
        tokenizer, assistant, assistant_tokenizer = copy.deepcopy(self.pristine)
        if assistant is not None:
            assistant.generate = self.watch.drafting(assistant.generate)
            self.assistance = {
                "assistant_model": assistant,
                "tokenizer": tokenizer,
                "assistant_tokenizer": assistant_tokenizer,
            }

    def run(self, prompt: Tokens, task: Task) -> Run:
        """Decode once. Draft time is the assistant's `generate`; aligning the two texts counts as other.

        The prompts of a batch are padded on the left. With an assistant `generate` takes one prompt at a time.
        """
        prompts = cast(Sequence[Sequence[int]], [prompt] if task.batch == 1 else prompt)
        length = max(map(len, prompts))
        padded = [[0] * (length - len(tokens)) + list(tokens) for tokens in prompts]
        seen = [[0] * (length - len(tokens)) + [1] * len(tokens) for tokens in prompts]
        ids, mask = (torch.tensor(rows, device=self.model.device) for rows in (padded, seen))
        sampling = task.temperature > 0
        how = {"do_sample": True, "temperature": task.temperature, "top_k": 0, "top_p": 1.0} if sampling else {}
        config = GenerationConfig(max_new_tokens=task.max_new_tokens, do_sample=sampling, use_cache=True)
        config.update(**how)
        torch.manual_seed(task.seed)
        with self.watch.on(self.model, length), without_end(self.model):
            start = time.perf_counter()
            output = self.model.generate(
                ids, attention_mask=mask, generation_config=config, streamer=self.watch, **self.assistance
            )
            seconds = time.perf_counter() - start
        watch, tokens = self.watch, output[:, length:].flatten().tolist()
        return Run(
            tokens=tokens,
            seconds=seconds,
            seconds_first_token=watch.first - start,
            passes=watch.passes * task.batch,
            draft_tokens=watch.draft_tokens,
            accepted_tokens=len(tokens) - watch.passes * task.batch,
            seconds_prefill=watch.prefill,
            seconds_draft=watch.draft,
            seconds_verify=watch.verify,
            peak_memory=self.memory.get(task.batch),
        )


@contextmanager
def without_end(model: PreTrainedModel) -> Iterator[None]:
    """Let `generate` go on after the end-of-sequence token (None in a call would mean the model's own)."""
    kept = model.generation_config
    model.generation_config = copy.deepcopy(kept)
    model.generation_config.eos_token_id = None
    try:
        yield
    finally:
        model.generation_config = kept


class _Watch(BaseStreamer):  # type: ignore[misc]
    """Counts and times what happens inside `generate`: target forwards, drafts, the first token."""

    def __init__(self) -> None:
        self.reset(0)

    def reset(self, prompt_length: int) -> None:
        """Start a run."""
        self.prompt_length = prompt_length
        self.passes = self.draft_tokens = self.puts = 0
        self.prefill = self.draft = self.verify = self.first = 0.0
        self.since = 0.0

    @contextmanager
    def on(self, model: PreTrainedModel, prompt_length: int) -> Iterator[None]:
        """Watch the target's forwards."""
        self.reset(prompt_length)
        before = model.register_forward_pre_hook(self._before, with_kwargs=True)
        after = model.register_forward_hook(self._after)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def drafting(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """The assistant's `generate`, timed."""

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return generate(*arguments, **options)
            finally:
                self.draft += time.perf_counter() - start

        return timed

    def _before(self, model: Any, arguments: Any, options: dict[str, Any]) -> None:
        given = options["input_ids"].shape[1]
        # The first pass reads the prompt and the first draft, later ones a committed token and a draft.
        self.draft_tokens += given - (1 if self.passes else self.prompt_length)
        self.since = time.perf_counter()

    def _after(self, model: Any, arguments: Any, output: Any) -> None:
        taken = time.perf_counter() - self.since
        if self.passes:
            self.verify += taken
        else:
            self.prefill += taken
        self.passes += 1

    def put(self, value: torch.Tensor) -> None:
        """Called with the prompt, then with new tokens."""
        self.puts += 1
        if self.puts == 2:
            self.first = time.perf_counter()

    def end(self) -> None:
        """Called at the end."""
