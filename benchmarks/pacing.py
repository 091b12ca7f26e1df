"""Pacing held against plain decoding: never slower with bad drafters, as fast as the best fixed length with good ones.

    python benchmarks/pacing.py                               # all four parts on the embedded models
    python benchmarks/pacing.py --part bad --dtype float32    # one of bad, good, mixed, batch
    python benchmarks/pacing.py --enlarge 400e6 --part good --limit 4 --max-new-tokens 96

All contenders of a group decode the same prompt at the same time, a slice of tokens each in turn, plain decoding among
them, and plain decoding once more to see what chance does. Each warms up on a prompt that is not timed, so that its
pacing has seen its drafter once. The best of many settings on few prompts is so partly by luck: in part good the best
two of the sweep meet pacing in a final, on other prompts and more of them. With `--processes` the prompts of a group
are dealt to several processes, one after another. See benchmarks/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from anydraft.bench.measure import Record
from anydraft.bench.pacing_groups import Group, Part, finals_of, groups_of
from anydraft.bench.pacing_report import PacingRow, pacing_table, reached, summarise_pacing
from anydraft.bench.pacing_series import Series, runs_of
from anydraft.bench.processes import ProcessBroke
from anydraft.bench.prompts import held_out_prompts, read_prompts
from anydraft.bench.provenance import provenance
from anydraft.bench.session import wide_console, write_json
from anydraft.bench.surroundings import surround

BATCHES = (1, 2, 4, 8)
app = typer.Typer(add_completion=False)


@app.command()
def main(
    part: Annotated[list[Part], typer.Option(help="May be repeated; all by default.")] = list(Part),  # noqa: B006
    prompts: Annotated[str, typer.Option(help="A .jsonl file, or 'held-out'.")] = "held-out",
    mismatched: Annotated[Path | None, typer.Option(help="Folder of an assistant that fits badly.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Prompts.")] = 6,
    final: Annotated[int, typer.Option(min=0, help="Prompts of part good's final, beyond those; 0: none.")] = 24,
    batch: Annotated[list[int], typer.Option(min=1, help="Rows of part batch; may be repeated.")] = list(BATCHES),  # noqa: B006
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[list[float], typer.Option(help="May be repeated.")] = [0.0, 1.0],  # noqa: B006
    enlarge: Annotated[float, typer.Option(help="Give the target the cost of so many parameters (400e6).")] = 0.0,
    dtype: str = "bfloat16",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    seed: int = 0,
    slice_tokens: Annotated[
        int, typer.Option(min=0, help="Tokens of a row that a contender decodes at a time; 0: whole runs in turn.")
    ] = 32,
    processes: Annotated[int, typer.Option(min=1, help="To deal the prompts of a group to, one after another.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for all files of the run.")] = Path("runs/pacing"),
    docs: Annotated[Path | None, typer.Option(help="PREFIX of copies: .md, .summary.json, .provenance.json")] = None,
    again: Annotated[bool, typer.Option("--again", help="Figures of the runs in OUT, without measuring.")] = False,
) -> None:
    """Measure the parts and say which aims are reached."""
    console = wide_console()
    if again:
        try:
            stored = json.loads((out / "provenance.json").read_text("utf-8"))
        except OSError as error:
            raise typer.BadParameter(f"--again needs a run in {out}, the folder of --out: {error}") from error
        temperature, final = stored["temperatures"], stored.get("prompts_final") or 0
    else:
        final = final if Part.GOOD in part else 0
        try:
            surround(dtype, threads)
            chosen = held_out_prompts(limit=9 * limit + final) if prompts == "held-out" else read_prompts(Path(prompts))
            series = Series(
                prompts=chosen,
                dtype=dtype,
                threads=threads,
                enlarge=enlarge,
                mismatched=mismatched,
                seed=seed,
                max_new_tokens=max_new_tokens,
                slice_tokens=slice_tokens,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        needed = limit + 1 + (final + 1 if final else 0)
        if len(chosen.prompts) < needed:
            raise typer.BadParameter(
                f"{needed} prompts are needed (--limit and --final, and one more of each to warm up), got "
                f"{len(chosen.prompts)}; choose a smaller --limit or --final"
            )
        bench = series.bench()
        taken = provenance(
            dtype=bench.dtype,
            seed=seed,
            target=bench.name,
            mismatched=None if mismatched is None else mismatched.name,
            prompts=chosen.source,
            prompts_digest=chosen.digest,
            prompts_timed=limit,
            prompts_final=final or None,
            max_new_tokens=max_new_tokens,
            temperatures=temperature,
            parts=[str(one) for one in part],
            batches=batch if Part.BATCH in part else None,
            slice_tokens=slice_tokens or None,
            processes=processes,
        )
        out.mkdir(parents=True, exist_ok=True)
        (out / "title.txt").write_text(f"Pacing: {bench.name}, {dtype}, {threads} threads\n", "utf-8")
        write_json(out / "provenance.json", taken)

        shared = bench if processes == 1 else None
        del bench  # new processes make their own
    broken = []

    def records(group: Group) -> Sequence[Record]:
        if not again:
            try:
                series.measure(group, out, taken, bench=shared, processes=processes)
            except ProcessBroke as failure:  # the other groups may do
                broken.append(f"{group.name}: {failure}; figures are of what was measured before")
        return runs_of(group, out)

    groups = [group for one in part for group in groups_of(one, batch, limit, temperature)]
    rows = _rows(groups, records, final, seed)
    aims = reached(rows)
    table = pacing_table(rows, aims, (out / "title.txt").read_text("utf-8").strip())
    summary = {"rows": [row.to_dict() for row in rows], "aims": [aim.to_dict() for aim in aims]}
    write_json(out / "summary.json", summary)
    (out / "table.md").write_text(table, "utf-8")
    if docs is not None:
        docs.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{docs}.md").write_text(table, "utf-8")
        for name in ("summary.json", "provenance.json"):
            Path(f"{docs}.{name}").write_text((out / name).read_text("utf-8"), "utf-8")
    console.print(table, markup=False, soft_wrap=True)
    for failure in broken:
        console.print(failure, markup=False)
    if broken:
        raise typer.Exit(1)


def _rows(
    groups: Sequence[Group], records: Callable[[Group], Sequence[Record]], final: int, seed: int
) -> list[PacingRow]:
    """Of all groups, and of the finals of those that are sweeps."""
    rows: list[PacingRow] = []
    for group in groups:
        rows += summarise_pacing(group.row_part, records(group), seed=seed)
        for late in finals_of(group, rows, final):
            rows += summarise_pacing(late.row_part, records(late), seed=seed)
    return rows


if __name__ == "__main__":
    app()
