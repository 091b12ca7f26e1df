"""One measurement of `anydraft bench`: from contenders and prompts to the files of a folder.

`runs.jsonl` has every run, `summary.json` the figures (`anydraft.bench.figures`), `provenance.json` what they were
taken with, `example.json` a text of every drafter, `report.html` a page to look at. What is interrupted keeps what it
measured, and goes on from there when it is started again with the same settings.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from anydraft.bench.contenders import AnydraftContender
from anydraft.bench.differences import first_differences
from anydraft.bench.examples import Examples, example
from anydraft.bench.figures import Figures, figures, summary
from anydraft.bench.likelihood import Judge
from anydraft.bench.measure import Contender, Plan, Tokens, measure
from anydraft.bench.page import write_page
from anydraft.bench.progress import Bar
from anydraft.bench.settings import Settings
from anydraft.bench.store import RunStore, write_whole
from anydraft.bench.suite import Suite

PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class Texts:
    """Prompts to measure with, as (id, text, token ids), and others to warm up with."""

    timed: Sequence[tuple[str, str, list[int]]]
    spare: Sequence[list[int]] = ()

    def groups(self, batch: int) -> list[tuple[str, Tokens]]:
        """Prompts by so many, each group under its first prompt's id; those left over at the end are left out."""
        if batch == 1:
            return [(prompt_id, ids) for prompt_id, _, ids in self.timed]
        starts = range(0, len(self.timed) - batch + 1, batch)
        return [
            (f"{self.timed[start][0]} +{batch - 1}", [ids for *_, ids in self.timed[start : start + batch]])
            for start in starts
        ]

    def warm_up(self, batch: int) -> Tokens:
        """Spare prompts; where there are too few, timed ones too."""
        chosen = [*self.spare, *(ids for *_, ids in reversed(self.timed))]
        chosen = (chosen * batch)[:batch]
        return chosen[0] if batch == 1 else chosen


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a measurement came to."""

    rows: list[Figures]
    summary: dict[str, Any]
    interrupted: bool
    resumed: int


def run_bench(
    suite: Suite,
    texts: Texts,
    settings: Settings,
    *,
    out: Path,
    title: str,
    provenance: dict[str, Any],
    console: Console,
    fresh: bool = False,
) -> Outcome:
    """Measure what the folder does not have yet; a KeyboardInterrupt ends it early, with the figures of what is there.

    Raises:
        OptionConflict: the folder belongs to another measurement.
    """
    by_batch = {batch: suite.of_batch(batch) for batch in settings.batches}
    names = {batch: [contender.name for contender in chosen] for batch, chosen in by_batch.items()}
    store = RunStore(out, settings, names, fresh=fresh)
    if fresh:
        (out / "example.json").unlink(missing_ok=True)
    plans = {batch: _plan(suite, texts, settings, batch, store) for batch in settings.batches}
    per_contender = {batch: plan.runs_per_contender for batch, plan in plans.items()}
    planned = sum(per_contender[batch] * len(chosen) for batch, chosen in by_batch.items())
    left = {
        (contender.name, batch): per_contender[batch] - len(plans[batch].done)
        for batch, chosen in by_batch.items()
        for contender in chosen
    }
    examples = Examples(out / "example.json")
    taken = _provenance(out, provenance, resumed=store.resumed > 0 and any(left.values()))
    interrupted = False
    try:
        with Bar(console, left, time.perf_counter) as bar:
            for batch, plan in plans.items():
                _measure(
                    suite, by_batch[batch], dataclasses.replace(plan, on_start=bar.start), texts, store, examples, bar
                )
    except KeyboardInterrupt:
        interrupted = True
    finally:
        store.close()
    records = store.complete()
    prompts = {prompt_id: ids for plan in plans.values() for prompt_id, ids in plan.prompts}
    rows = figures(records, first_differences(records, prompts, suite.plain.target), seed=settings.seed)
    told = summary(rows, title=title, provenance=taken, examples=examples.to_list(), measured=(len(records), planned))
    write_whole(out / "summary.json", json.dumps(told, indent=1) + "\n")
    write_page(told, out / PAGE)
    return Outcome(rows, told, interrupted, store.resumed)


def _plan(suite: Suite, texts: Texts, settings: Settings, batch: int, store: RunStore) -> Plan:
    groups = texts.groups(batch)
    known = {prompt_id for prompt_id, _ in groups}
    return Plan(
        prompts=groups,
        temperatures=settings.temperatures,
        max_new_tokens=settings.max_new_tokens,
        warm_up=texts.warm_up(batch),
        seed=settings.seed,
        batch=batch,
        judge=Judge(suite.plain.target.model),
        done=frozenset(place for place in store.done(batch) if place[1] in known),
    )


def _measure(
    suite: Suite,
    contenders: Sequence[Contender],
    plan: Plan,
    texts: Texts,
    store: RunStore,
    examples: Examples,
    bar: Bar,
) -> None:
    """All of one batch size that is not done."""
    if len(plan.done) == plan.runs_per_contender:
        return
    for contender in contenders:
        plan.on_start("memory", contender.name)
        suite.note_memory(contender, plan.warm_up, plan.task(plan.temperatures[0], plan.seed))
    shown = plan.prompts[0][0]
    by_name = {contender.name: contender for contender in contenders}
    for record in measure(contenders, plan):
        store.append(record)
        contender = by_name[record.contender]
        if record.prompt_id == shown and record.run is not None and isinstance(contender, AnydraftContender):
            steps = [step for step in contender.trace if step.row == 0]
            text = texts.timed[0][1]
            if plan.batch == min(store.contenders):
                examples.add(example(record.contender, record.task.temperature, text, steps, suite.plain._bytes_of))
        bar.done(record)


def _provenance(out: Path, content: dict[str, Any], *, resumed: bool) -> dict[str, Any]:
    """Write `provenance.json`; a measurement that goes on keeps what it began with, and notes when it went on."""
    path = out / "provenance.json"
    if resumed and path.is_file():
        try:
            begun: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            again = {key: content[key] for key in ("date", "commit", "load_average") if key in content}
            content = begun | {"resumed": [*begun.get("resumed", []), again]}
        except (ValueError, AttributeError):
            pass
    write_whole(path, json.dumps(content, indent=2) + "\n")
    return content
