"""Times contenders side by side: every prompt by every contender in turn, in one process.

A machine's speed drifts; a ratio of two numbers taken minutes apart drifts with it. Here the contenders
alternate prompt by prompt, and who begins moves on with each prompt. All decode the same number of tokens: a
run that gives another number is recorded as an error, not as a speed.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from anydraft.bench.likelihood import Judge, Surprise

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every contender does with a prompt."""

    temperature: float
    max_new_tokens: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one contender did with one prompt. Seconds are of wall time; `passes` are target forwards."""

    tokens: list[int]
    seconds: float
    passes: int
    seconds_first_token: float | None = None
    draft_tokens: int = 0
    accepted_tokens: int = 0
    seconds_prefill: float = 0.0
    seconds_draft: float = 0.0
    seconds_verify: float = 0.0


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

    def run(self, prompt: Sequence[int], task: Task) -> Run:
        """Decode once and say what it took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure: prompts as (id, token ids), temperatures, tokens a prompt, and a warm-up prompt.

    Warming up takes as many tokens unless told otherwise. The judge, where given, scores every sampled text after its
    run.
    """

    prompts: Sequence[tuple[str, list[int]]]
    temperatures: Sequence[float]
    max_new_tokens: int
    warm_up: list[int]
    warm_up_tokens: int | None = None
    seed: int = 0
    judge: Judge | None = None
    on_start: Callable[[str, str], None] = field(default=lambda prompt_id, contender: None)

    def tasks(self, temperature: float) -> Iterator[tuple[str, list[int], Task]]:
        """Prompt id, token ids and task, with a seed of its own for each prompt."""
        for number, (prompt_id, tokens) in enumerate(self.prompts):
            seed = self.seed + number
            yield (
                prompt_id,
                tokens,
                Task(temperature=temperature, max_new_tokens=self.max_new_tokens, seed=seed),
            )

    @property
    def runs_per_contender(self) -> int:
        """Timed runs of each contender."""
        return len(self.prompts) * len(self.temperatures)


def measure(contenders: Sequence[Contender], plan: Plan) -> Iterator[Record]:
    """Yield a record per temperature, prompt and contender as each is done; all contenders warm up first."""
    for temperature in plan.temperatures:
        warm_tokens = plan.warm_up_tokens or plan.max_new_tokens
        warm = Task(temperature=temperature, max_new_tokens=warm_tokens, seed=plan.seed)
        for contender in contenders:
            plan.on_start("warm-up", contender.name)
            contender.prepare(temperature)
            attempt(contender, "warm-up", plan.warm_up, warm)
        for number, (prompt_id, tokens, task) in enumerate(plan.tasks(temperature)):
            first = number % len(contenders)
            for contender in [*contenders[first:], *contenders[:first]]:
                plan.on_start(prompt_id, contender.name)
                record = attempt(contender, prompt_id, tokens, task)
                if plan.judge is not None and record.run is not None and temperature > 0:
                    surprise = plan.judge.surprise(tokens, record.run.tokens, temperature)
                    record = dataclasses.replace(record, surprise=surprise)
                yield record


def attempt(contender: Contender, prompt_id: str, tokens: Sequence[int], task: Task) -> Record:
    """One run; whatever goes wrong in it becomes the record's error, and the contender is prepared anew."""
    place: dict[str, Any] = {"prompt_id": prompt_id, "contender": contender.name, "task": task}
    try:
        run = contender.run(tokens, task)
    except Exception as error:  # a peer's crash is a result, and the others go on
        logger.warning("%s failed on %s", contender.name, prompt_id, exc_info=True)
        contender.prepare(task.temperature)
        return Record(**place, error=f"{type(error).__name__}: {error}")
    if len(run.tokens) != task.max_new_tokens:
        return Record(**place, error=f"decoded {len(run.tokens)} tokens instead of {task.max_new_tokens}")
    return Record(**place, run=run)
