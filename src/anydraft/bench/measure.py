"""Times contenders side by side: every prompt by every contender in turn, in one process.

A machine's speed drifts; a ratio of two numbers taken minutes apart drifts with it. Here the contenders
alternate prompt by prompt, and who begins moves on with each prompt. All decode the same number of tokens: a
run that gives another number is recorded as an error, not as a speed.
"""

import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, cast

from anydraft.bench.likelihood import Judge, Surprise

logger = logging.getLogger(__name__)

Tokens = Sequence[int] | Sequence[Sequence[int]]
"""Token ids of one prompt; for a batch, of each of its prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every contender does with a prompt, or with `batch` of them at once: so many new tokens for each."""

    temperature: float
    max_new_tokens: int
    seed: int
    batch: int = 1

    @property
    def num_tokens(self) -> int:
        """New tokens of the whole task."""
        return self.max_new_tokens * self.batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one contender did with one prompt, or with a batch of them.

    Attributes:
        tokens: new tokens; those of a batch one row after the other, all of the same length.
        seconds: wall time, the whole run; other `seconds_*` are parts of it.
        passes: target forwards after the prompt, counted for every row that was in them.
        seconds_first_token: until the first new tokens were there (of a batch: of all its rows).
        seconds_draft, seconds_convert: drafting, and the part of it that turned tokens of one vocabulary into others.
        seconds_verify, seconds_choose: target forwards, and choosing the target's tokens from their scores.
        reached, accepted_at: by depth, drafts that got there and tokens accepted there.
        peak_memory: bytes, see `anydraft.bench.memory`.
        failures: what broke in a drafter, which was left out from there on.
        pacing: what the pacing says of its choices.
    """

    tokens: list[int]
    seconds: float
    passes: int
    seconds_first_token: float | None = None
    draft_tokens: int = 0
    accepted_tokens: int = 0
    seconds_prefill: float = 0.0
    seconds_draft: float = 0.0
    seconds_verify: float = 0.0
    seconds_convert: float = 0.0
    seconds_choose: float = 0.0
    reached: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)
    peak_memory: int | None = None
    failures: list[str] = field(default_factory=list)
    pacing: str | None = None

    def texts(self, task: Task) -> list[list[int]]:
        """The new tokens by row."""
        length = task.max_new_tokens
        return [self.tokens[start : start + length] for start in range(0, len(self.tokens), length)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A run with its place in the comparison; without a run, the error that took its place."""

    prompt_id: str
    contender: str
    task: Task
    run: Run | None = None
    error: str | None = None
    surprise: Surprise | None = None  # what the sampled text is to the judge

    def to_dict(self) -> dict[str, Any]:
        """One flat object, ready for a line of JSON."""
        row = {"prompt_id": self.prompt_id, "contender": self.contender, **dataclasses.asdict(self.task)}
        if self.run is None:
            return row | {"error": self.error}
        surprise = {} if self.surprise is None else {"surprise": dataclasses.asdict(self.surprise)}
        return row | dataclasses.asdict(self.run) | surprise

    @classmethod
    def from_dict(cls, row: dict[str, Any], kind: type[Run] = Run) -> Self:
        """What `to_dict` wrote; `kind` of run."""
        task, run = ({f.name: row[f.name] for f in dataclasses.fields(part) if f.name in row} for part in (Task, kind))
        return cls(
            prompt_id=row["prompt_id"],
            contender=row["contender"],
            task=Task(**task),
            run=kind(**run) if run else None,
            error=row.get("error"),
            surprise=Surprise(**row["surprise"]) if "surprise" in row else None,
        )


class Contender(Protocol):
    """A way to decode. Its name is its engine's, for plain decoding, or begins with that and a hyphen."""

    name: str

    def prepare(self, temperature: float) -> None:
        """Get ready to decode at this temperature; also called after a failure, to start clean."""

    def run(self, prompt: Any, task: Task) -> Run:
        """Decode once and say what it took; `prompt` is `Tokens`, a batch only where the task is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure: prompts as (id, token ids), temperatures, tokens a prompt, and a warm-up prompt.

    Warming up takes as many tokens unless told otherwise. The judge, where given, scores every sampled text after its
    run. With a batch > 1 every "prompt" is that many prompts, decoded together, under one id; the warm-up too. What is
    `done`, as (temperature, prompt id), is measured elsewhere, or was before, and is left out.
    """

    prompts: Sequence[tuple[str, Tokens]]
    temperatures: Sequence[float]
    max_new_tokens: int
    warm_up: Tokens
    warm_up_tokens: int | None = None
    seed: int = 0
    batch: int = 1
    judge: Judge | None = None
    done: AbstractSet[tuple[float, str]] = frozenset()
    on_start: Callable[[str, str], None] = field(default=lambda prompt_id, contender: None)

    def tasks(self, temperature: float) -> Iterator[tuple[str, Tokens, Task]]:
        """Prompt id, token ids and task, with a seed of its own for each prompt."""
        for number, (prompt_id, tokens) in enumerate(self.prompts):
            yield prompt_id, tokens, self.task(temperature, self.seed + number)

    def task(self, temperature: float, seed: int, max_new_tokens: int | None = None) -> Task:
        """One task of this plan."""
        return Task(
            temperature=temperature,
            max_new_tokens=max_new_tokens or self.max_new_tokens,
            seed=seed,
            batch=self.batch,
        )

    def without(self, prompt_ids: AbstractSet[str]) -> Self:
        """The same, but for some prompts; the others keep their place, and with it seed and order of contenders."""
        done = {(temperature, prompt_id) for temperature in self.temperatures for prompt_id in prompt_ids}
        return dataclasses.replace(self, done=self.done | done)

    @property
    def runs_per_contender(self) -> int:
        """Timed runs of each contender, with those that are done."""
        return len(self.prompts) * len(self.temperatures)

    @property
    def runs_left(self) -> int:
        """Timed runs of each contender that are not done."""
        return sum((each, prompt_id) not in self.done for each in self.temperatures for prompt_id, _ in self.prompts)


Started = Callable[[str, str], None]
"""Told the prompt's id and the contender's name when it is the contender's turn."""

Turns = Callable[[Sequence[Any], str, Tokens, Task, Started], Iterator[Record]]
"""A way to take contenders, in an order in which each begins as often as the others, through one prompt."""


def one_by_one(
    contenders: Sequence[Contender], prompt_id: str, tokens: Tokens, task: Task, started: Started
) -> Iterator[Record]:
    """Each contender's whole run in turn."""
    for contender in contenders:
        started(prompt_id, contender.name)
        yield attempt(contender, prompt_id, tokens, task)


def measure(contenders: Sequence[Contender], plan: Plan, turns: Turns = one_by_one) -> Iterator[Record]:
    """Yield a record per temperature, prompt and contender as each is done; all contenders warm up first."""
    for temperature in plan.temperatures:
        if all((temperature, prompt_id) in plan.done for prompt_id, _ in plan.prompts):
            continue
        warm = plan.task(temperature, plan.seed, plan.warm_up_tokens)
        for contender in contenders:
            plan.on_start("warm-up", contender.name)
            _prepare(contender, temperature)
            attempt(contender, "warm-up", plan.warm_up, warm)
        for number, (prompt_id, tokens, task) in enumerate(plan.tasks(temperature)):
            if (temperature, prompt_id) in plan.done:
                continue
            first = number % len(contenders)
            order = [*contenders[first:], *contenders[:first]]
            for record in turns(order, prompt_id, tokens, task, plan.on_start):
                if plan.judge is not None and record.run is not None and temperature > 0:
                    surprise = _surprise(plan.judge, tokens, record.run, task)
                    record = dataclasses.replace(record, surprise=surprise)
                yield record


def _prepare(contender: Contender, temperature: float) -> None:
    """Prepare; one that cannot will fail in its runs, and the others go on."""
    try:
        contender.prepare(temperature)
    except Exception:
        logger.info("%s failed to prepare for temperature %g", contender.name, temperature, exc_info=True)


def _surprise(judge: Judge, tokens: Tokens, run: Run, task: Task) -> Surprise:
    """What the judge says of all texts of a run together."""
    prompts = cast(Sequence[Sequence[int]], [tokens] if task.batch == 1 else tokens)
    pairs = zip(prompts, run.texts(task), strict=True)
    said = [judge.surprise(prompt, text, task.temperature) for prompt, text in pairs]
    return Surprise(sum(s.nats for s in said), sum(s.expected for s in said), sum(s.variance for s in said))


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings: that a drafter was left out is in the run's failures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def attempt(contender: Contender, prompt_id: str, tokens: Tokens, task: Task) -> Record:
    """One run; whatever goes wrong in it becomes the record's error, and the contender is prepared anew."""
    try:
        run = contender.run(tokens, task)
    except Exception as error:  # a peer's crash is a result, and the others go on
        return failed(contender, prompt_id, task, error)
    return finished(contender, prompt_id, task, run)


def failed(contender: Contender, prompt_id: str, task: Task, error: Exception) -> Record:
    """The record of a run that broke; the contender is prepared anew."""
    logger.info("%s failed on %s", contender.name, prompt_id, exc_info=error)
    _prepare(contender, task.temperature)
    text = f"{type(error).__name__}: {error}"
    return Record(prompt_id=prompt_id, contender=contender.name, task=task, error=text)


def finished(contender: Contender, prompt_id: str, task: Task, run: Run) -> Record:
    """The record of a run; one of another length than was asked for is an error."""
    record = Record(prompt_id=prompt_id, contender=contender.name, task=task, run=run)
    if len(run.tokens) != task.num_tokens:
        error = f"decoded {len(run.tokens)} tokens instead of {task.num_tokens}"
        return dataclasses.replace(record, run=None, error=error)
    return record
