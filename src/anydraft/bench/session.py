"""One measurement from start to files: progress on the terminal, a line of JSON per run, figures, provenance.

`OUT/runs.jsonl` grows as the runs are done, `OUT/summary.json` has the figures and `OUT/provenance.json` what they were
taken with. A measurement that is interrupted summarises what it has.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from anydraft.bench.measure import Contender, Plan, Record, Run, Turns, measure, one_by_one
from anydraft.bench.report import Row, summarise
from anydraft.bench.tables import speed_table, time_table


def run_session(
    contenders: Sequence[Contender],
    plan: Plan,
    *,
    out: Path,
    title: str,
    provenance: dict[str, Any],
    console: Console | None = None,
) -> list[Row]:
    """Measure, write the three files into `out`, print the tables; returns their rows."""
    console = wide_console() if console is None else console
    records = collect(contenders, plan, out=out, provenance=provenance, console=console)
    rows = summarise(records, seed=plan.seed)
    write_json(out / "summary.json", [row.to_dict() for row in rows])
    console.print(speed_table(rows, title), time_table(rows))
    for row in rows:
        for error in sorted(set(row.errors)):
            console.print(
                f"{row.contender} at T={row.temperature:g}, {row.errors.count(error)} times: {error}",
                markup=False,
            )
    return rows


def collect(
    contenders: Sequence[Contender],
    plan: Plan,
    *,
    out: Path,
    provenance: dict[str, Any],
    console: Console,
    turns: Turns = one_by_one,
) -> list[Record]:
    """Measure with a progress bar; write `provenance.json`, and `runs.jsonl` as it goes. Ctrl-C ends it early."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "provenance.json", provenance)
    records: list[Record] = []
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with bar, (out / "runs.jsonl").open("w", encoding="utf-8") as lines:
        task = bar.add_task("warm-up", total=plan.runs_left * len(contenders))
        shown = dataclasses.replace(
            plan, on_start=lambda prompt, contender: bar.update(task, description=f"{contender} on {prompt}")
        )
        try:
            for record in measure(contenders, shown, turns):
                records.append(record)
                lines.write(json.dumps(record.to_dict()) + "\n")
                lines.flush()
                bar.advance(task)
        except KeyboardInterrupt:
            console.print(f"interrupted after {len(records)} runs; figures are of these")
    return records


def wide_console() -> Console:
    """The terminal; a file has no width, and columns are not squeezed into 80 there."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def read_records(path: Path, kind: type[Run] = Run) -> list[Record]:
    """The records of a `runs.jsonl`, for figures after the fact; `kind` of run they hold."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Record.from_dict(json.loads(line), kind) for line in lines]


def write_json(path: Path, content: Any) -> None:
    """Write an object, indented."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
