"""Distillation: prompts in, the target's own answers out, greedy and sampled, in batches, by this engine.

Every answer is a function of the target, the settings and its own prompt: coin and noise come from the seed and the
prompt's place in the file. Batches, drafters, kills and restarts change nothing (in half precision as far as
rounding goes: the same command makes the same batches again). The idea
is that of ReDrafter's training (arXiv 2403.09919).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anydraft.decoder import Decoder
from anydraft.drafters.lookup import LookupDrafter
from anydraft.errors import ContextOverflow, OptionConflict
from anydraft.row import Row
from anydraft.target import Target
from anydraft.training.corpus import wrong_with
from anydraft.training.plan import AnswerSettings, Plan, Planned
from anydraft.training.prompts import PromptSet, read_prompts
from anydraft.training.race import Race
from anydraft.training.shards import Shards
from anydraft.training.story import begin, write


@dataclass(frozen=True)
class AnswerProgress:
    """How far a distillation is.

    Attributes:
        answers: in the folder; `made` of them by this run.
        total: wanted.
        skipped: prompts too long for the model's context.
        tokens: of the answers in the folder; `made_tokens` of them by this run.
        seconds: spent on answers by this run.
        drafter: of the last batch, None for plain decoding.
    """

    answers: int
    total: int
    skipped: int = 0
    tokens: int = 0
    made: int = 0
    made_tokens: int = 0
    seconds: float = 0.0
    drafter: str | None = None

    @property
    def tokens_per_second(self) -> float:
        """Of this run."""
        return self.made_tokens / self.seconds if self.seconds else 0.0


def distill(
    target: Decoder | Target,
    prompts: PromptSet | str | Path,
    out: str | Path,
    settings: AnswerSettings | None = None,
    *,
    batch_size: int | None = None,
    shard_size: int = 2048,
    limit: int | None = None,
    watch: Callable[[AnswerProgress], None] | None = None,
) -> AnswerProgress:
    """Answer prompts and write the answers; go on where an earlier run with the same settings stopped.

    Args:
        target: a `Decoder` answers with its own drafter; a `Target` tries lookup and plain decoding and goes on
            with the faster.
        prompts: from `read_prompts`, or a path for it.
        out: folder for the shards and provenance.json.
        settings: default: `AnswerSettings()`.
        batch_size: rows decoded together; default: 64 on a CPU, 256 on a GPU.
        shard_size: answers per file.
        limit: use only so many prompts; a later run may have more.
        watch: called after every batch.

    Raises:
        OptionConflict: bad options, broken prompts, or a folder that was written with other settings.
        ContextOverflow: no prompt fits the model's context.
        OSError: the disk is full; all that was written stays good.
    """
    settings = settings or AnswerSettings()
    if isinstance(target, Decoder):
        if target.verification == "rejection":
            raise OptionConflict(
                'answers are made with verification="exact" alone: with "rejection" a sampled one depends on the '
                "drafter, not on its seed; load the decoder without it"
            )
        race = Race([target])
        target = target.target
    else:
        race = Race([Decoder(target), Decoder(target, LookupDrafter())])
    if not isinstance(prompts, PromptSet):
        prompts = read_prompts(prompts, seed=settings.seed)
    if batch_size is None:
        batch_size = 64 if target.device.type == "cpu" else 256
    if batch_size < 1 or (limit is not None and limit < 1):
        raise OptionConflict(f"batch_size and limit must be >= 1, got {batch_size} and {limit}")
    if settings.max_new_tokens >= target.context_length:
        raise ContextOverflow(
            f"max_new_tokens={settings.max_new_tokens} leaves no room for a prompt in the model's context of "
            f"{target.context_length}; lower it"
        )
    folder = Path(out)
    with Shards(folder, shard_size, wrong_with) as shards:
        story = begin(folder, target, prompts, settings, len(prompts.items[:limit]))
        plan = Plan(target, prompts, settings, limit)
        tokens = sum(kept["tokens"] for kept in shards.known.values())
        state = AnswerProgress(len(shards.known), plan.total, tokens=tokens)
        if watch is not None:
            watch(state)
        for batch in plan.batches(batch_size):
            missing = [planned.id not in shards.known for planned in batch]
            if any(missing):
                started = time.perf_counter()
                decoder, records = _raced(race, batch, settings)
                seconds = time.perf_counter() - started
                # A batch that a kill broke in two is made again as a whole: the same shapes, the same rounding.
                records = [record for record, wanted in zip(records, missing, strict=True) if wanted]
                shards.append(records)
                tokens = sum(len(record["answer"]) for record in records)
                state = AnswerProgress(
                    len(shards.known),
                    plan.total,
                    plan.skipped,
                    state.tokens + tokens,
                    state.made + len(records),
                    state.made_tokens + tokens,
                    state.seconds + seconds,
                    decoder.drafter.name if decoder.drafter is not None else None,
                )
                if watch is not None:
                    watch(state)
        shards.finish()
        if not shards.known:
            raise ContextOverflow(
                f"none of the {plan.total} prompts leaves room for max_new_tokens={settings.max_new_tokens} in the "
                f"model's context of {target.context_length}; give shorter ones, or lower it"
            )
        state = AnswerProgress(**{**asdict(state), "skipped": plan.skipped})
        write(folder, story | {"complete": True, "counts": _counts(shards, plan)})
    return state


def _raced(race: Race, batch: Sequence[Planned], settings: AnswerSettings) -> tuple[Decoder, list[dict[str, Any]]]:
    """A batch answered by the fastest decoder, or by the one whose turn it is to show its speed."""
    kind = batch[0].sampled
    params = [settings.params(planned.sampled, settings.noise_seed(planned.index)) for planned in batch]
    while True:
        decoder = race.choose(kind)
        started = time.perf_counter()
        made = 0
        rows: list[Row] = []
        with closing(decoder.passes([planned.ids for planned in batch], params)) as passes:
            for step in passes:
                rows = rows or [of_row.row for of_row in step]
                made += sum(len(of_row.tokens) for of_row in step)
                if race.far_behind(kind, decoder, made, time.perf_counter() - started):
                    break
        if all(row.finish_reason != "aborted" for row in rows):
            race.record(kind, decoder, made, time.perf_counter() - started)
            return decoder, _records(batch, rows, settings)


def _records(batch: Sequence[Planned], rows: Sequence[Row], settings: AnswerSettings) -> list[dict[str, Any]]:
    """What is written of finished rows."""
    return [
        {
            "id": planned.id,
            "prompt": planned.ids,
            "answer": row.tokens,
            "temperature": row.params.temperature,
            "seed": settings.noise_seed(planned.index),
            "finish": row.finish_reason,
        }
        for planned, row in zip(batch, rows, strict=True)
    ]


def _counts(shards: Shards, plan: Plan) -> dict[str, int]:
    kept = shards.known.values()
    return {
        "prompts": plan.total,
        "skipped": plan.skipped,
        "answers": len(kept),
        "tokens": sum(answer["tokens"] for answer in kept),
        "sampled": sum(answer["temperature"] > 0 for answer in kept),
        "stopped": sum(answer["finish"] == "stop" for answer in kept),
    }
