"""Where a contender's texts left plain decoding's for the first time, and how close the two best scores were there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from anydraft.bench.measure import Record, Task, Tokens
from anydraft.bench.report import engine, run_of
from anydraft.checks.margin import margin
from anydraft.sampling import SamplingParams
from anydraft.target import Target

Place = tuple[str, float, int]
"""Contender, temperature and batch size."""
SHOWN = 60
"""Characters of a prompt that are shown."""


def first_differences(
    records: Iterable[Record], prompts: Mapping[str, Tokens], target: Target
) -> dict[Place, dict[str, Any]]:
    """For every contender whose texts can be compared with plain decoding's of its engine: the first difference.

    Sampled texts are compared within this engine only, where both draw from the same noise; the plain decoding of
    another engine is compared with this one's.

    Args:
        records: runs and errors; a prompt without plain decoding's text is passed over.
        prompts: token ids by prompt id; prompts that are not in it are passed over.
        target: computes the margins.
    """
    runs = [record for record in records if record.run is not None]
    plain = {
        (record.contender, *_task(record)): record for record in runs if record.contender == engine(record.contender)
    }
    found: dict[Place, dict[str, Any]] = {}
    for record in runs:
        place = (record.contender, record.task.temperature, record.task.batch)
        if place in found or record.prompt_id not in prompts:
            continue
        base = plain.get((rival(record.contender, record.task.temperature), *_task(record)))
        if base is None or base is record:
            continue
        difference = _between(base, record, prompts[record.prompt_id], target)
        if difference is not None:
            found[place] = difference
    return found


def rival(contender: str, temperature: float) -> str:
    """Whose texts a contender's are compared with; empty for nobody's."""
    own = engine(contender)
    if temperature > 0:
        return "anydraft" if own == "anydraft" != contender else ""
    return own if contender != own else ("" if own == "anydraft" else "anydraft")


def _task(record: Record) -> tuple[float, int, str]:
    return record.task.temperature, record.task.batch, record.prompt_id


def _between(base: Record, record: Record, prompt: Tokens, target: Target) -> dict[str, Any] | None:
    prompts = cast(list[list[int]], [prompt] if record.task.batch == 1 else prompt)
    texts = zip(run_of(base).texts(base.task), run_of(record).texts(record.task), strict=True)
    for row, (one, other) in enumerate(texts):
        if one == other:
            continue
        position = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        close = margin(target, prompts[row], one[:position], _params(record.task))
        return {
            "prompt_id": record.prompt_id,
            "row": row,
            "text": _written(target, prompts[row])[:SHOWN],
            "position": position,
            "plain": one[position],
            "drafted": other[position],
            "plain_text": _written(target, [one[position]]),
            "drafted_text": _written(target, [other[position]]),
            "margin": {"best": close.best, "second": close.second, "gap": close.gap},
        }
    return None


def _params(task: Task) -> SamplingParams:
    return SamplingParams(
        temperature=task.temperature, max_new_tokens=task.max_new_tokens, seed=task.seed, ignore_eos=True
    )


def _written(target: Target, tokens: list[int]) -> str:
    return "" if target.tokenizer is None else str(target.tokenizer.decode(tokens, skip_special_tokens=False))
