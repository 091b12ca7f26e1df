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
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from anydraft import Decoder
from anydraft.bench.contenders import AnydraftContender
from anydraft.bench.embedded import Embedded
from anydraft.bench.fixed_settings import fixed_setting
from anydraft.bench.measure import Plan, Record, one_by_one
from anydraft.bench.pacing_report import (
    AGAIN,
    FINAL,
    PLAIN,
    PacingRow,
    best_settings,
    pacing_table,
    reached,
    summarise_pacing,
)
from anydraft.bench.processes import dealt, one_after_another
from anydraft.bench.prompts import PromptSet, begun_again, held_out_prompts, read_prompts
from anydraft.bench.provenance import provenance
from anydraft.bench.session import collect, read_records, wide_console, write_json
from anydraft.bench.slices import InSlices
from anydraft.bench.surroundings import surround
from anydraft.pacing import Pacing

CHAINS, TREES, BATCHES = (1, 2, 4, 8, 16), (4, 8, 16, 32), (1, 2, 4, 8)
FINALISTS = 2
RUNS = "runs.jsonl"
app = typer.Typer(add_completion=False)


class Part(StrEnum):
    """What is measured."""

    BAD = "bad"
    GOOD = "good"
    MIXED = "mixed"
    BATCH = "batch"


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

        def records(group: _Group) -> Sequence[Record]:
            return _found(out / group.name)

    else:
        final = final if Part.GOOD in part else 0
        series = _Series(prompts, 9 * limit + final, dtype, threads, enlarge, mismatched, seed, max_new_tokens,
                         slice_tokens)  # fmt: skip
        try:
            precision = surround(dtype, threads)
            chosen = _prompts(series)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        needed = limit + 1 + (final + 1 if final else 0)
        if len(chosen.prompts) < needed:
            raise typer.BadParameter(
                f"{needed} prompts are needed (--limit and --final, and one more of each to warm up), got "
                f"{len(chosen.prompts)}; choose a smaller --limit or --final"
            )
        bench = _bench(series)
        taken = provenance(
            dtype=precision,
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

        def records(group: _Group) -> Sequence[Record]:
            console.print(group.name)
            folder, shares = out / group.name, dealt(group.prompts, processes)
            for old in folder.rglob(RUNS):  # of a measurement before, which may have had more shares
                old.unlink()
            calls = [(series, group, share, folder / f"{number}", taken) for number, share in enumerate(shares)]
            if len(calls) == 1:
                _measured(*calls[0])
            else:
                one_after_another(_measured, calls)
            return _found(folder)

    groups = [group for one in part for group in _groups(one, batch, limit, temperature)]
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


class _Group(NamedTuple):
    """Contenders that decode together: one part, or what of it belongs together.

    `prompts`: places of those that are timed; `settings`: fixed ones of a drafter; `final`: whether they are those that
    were best in another group.
    """

    part: Part
    drafters: tuple[str, ...]
    prompts: range
    temperatures: Sequence[float]
    batch: int = 1
    settings: tuple[str, ...] = ()
    final: bool = False

    @property
    def name(self) -> str:
        """Of its folder."""
        more = {Part.GOOD: f"-{self.drafters[0]}", Part.BATCH: f"-{self.batch}"}
        return self.part + more.get(self.part, "") + (f"-final-{self.temperatures[0]:g}" if self.final else "")

    @property
    def row_part(self) -> str:
        """What its rows are under."""
        return FINAL if self.final else self.part


class _Series(NamedTuple):
    """What all groups are measured with; `most`: prompts of the held-out ones."""

    prompts: str
    most: int
    dtype: str
    threads: int
    enlarge: float
    mismatched: Path | None
    seed: int
    max_new_tokens: int
    slice_tokens: int


@cache
def _prompts(series: _Series) -> PromptSet:
    return held_out_prompts(limit=series.most) if series.prompts == "held-out" else read_prompts(Path(series.prompts))


@cache
def _bench(series: _Series) -> Embedded:
    return Embedded(surround(series.dtype, series.threads), series.enlarge, series.mismatched, series.seed)


def _measured(series: _Series, group: _Group, share: range, folder: Path, taken: dict[str, Any]) -> None:
    """Decode the prompts of a share, maybe in a process of its own; their runs are in the folder then."""
    bench, turns = _bench(series), InSlices(series.slice_tokens) if series.slice_tokens else one_by_one
    plan = _plan(bench, _prompts(series), group, series.max_new_tokens, series.seed)
    elsewhere = [name for i, (name, _) in zip(group.prompts, plan.prompts, strict=True) if i not in share]
    plan = plan.without(elsewhere)
    collect(_contenders(bench, group), plan, out=folder, provenance=taken, console=wide_console(), turns=turns)


def _found(folder: Path) -> list[Record]:
    """The runs of a group, of all its processes."""
    return [record for runs in sorted(folder.rglob(RUNS)) for record in read_records(runs)]


def _rows(
    groups: Sequence[_Group], records: Callable[[_Group], Sequence[Record]], final: int, seed: int
) -> list[PacingRow]:
    """Of all groups, and of the finals of those that are sweeps."""
    rows: list[PacingRow] = []
    for group in groups:
        rows += summarise_pacing(group.row_part, records(group), seed=seed)
        for late in _finals(group, rows, final):
            rows += summarise_pacing(late.row_part, records(late), seed=seed)
    return rows


def _groups(part: Part, batches: Sequence[int], limit: int, temperatures: Sequence[float]) -> list[_Group]:
    alone, common = ("uag", "redrafter", "lookup"), (range(limit), temperatures)
    if part is Part.BAD:
        return [_Group(part, ("wrong", "random", "expensive", "mismatched"), *common)]
    if part is Part.GOOD:
        settings = (*(f"chain{size}" for size in CHAINS), *(f"tree{nodes}" for nodes in TREES))
        return [_Group(part, (name,), *common, settings=settings) for name in alone[:2]]
    mixture = (*alone, "lookup+redrafter")
    return [_Group(part, mixture, *common, batch) for batch in (batches if part is Part.BATCH else (1,))]


def _finals(group: _Group, rows: Sequence[PacingRow], count: int) -> list[_Group]:
    """What is measured after a sweep, by temperature: its best settings, on so many prompts after its own."""
    if group.part is not Part.GOOD or not count:
        return []
    first = group.prompts.stop + 1  # the one before warmed up
    finals = [
        group._replace(
            prompts=range(first, first + count),
            temperatures=[temperature],
            settings=tuple(best_settings(rows, group.drafters[0], temperature, FINALISTS)),
            final=True,
        )
        for temperature in group.temperatures
    ]
    return [one for one in finals if one.settings]  # none where the sweep was broken off


def _contenders(bench: Embedded, group: _Group) -> list[AnydraftContender]:
    """Plain decoding first, then the group's own; none share a drafter, for all decode at the same time."""
    made = [AnydraftContender(PLAIN, Decoder(bench.target))]
    for name, pacing in _settings(group):
        drafters = bench.drafters(name.partition("@")[0])
        if drafters:
            made.append(AnydraftContender(f"{PLAIN}-{name}", Decoder(bench.target, drafters, pacing=pacing)))
    return [*made, AnydraftContender(AGAIN, Decoder(bench.target))]


def _settings(group: _Group) -> Iterator[tuple[str, Pacing | None]]:
    """Names of contenders and their pacing; None is the default."""
    for name in group.drafters:
        yield name, None
        for setting in group.settings:
            yield f"{name}@{setting}", fixed_setting(setting)


def _plan(bench: Embedded, chosen: PromptSet, group: _Group, max_new_tokens: int, seed: int) -> Plan:
    batch, copying, limit = group.batch, group.part is Part.MIXED, len(group.prompts)
    texts = [(prompt.id, begun_again(prompt.text) if copying else prompt.text) for prompt in chosen.prompts]
    encoded = [(name, list(bench.tokenizer(text)["input_ids"])) for name, text in texts]
    tokens: list[tuple[str, Any]] = encoded[group.prompts.start : group.prompts.stop]
    warm_up: Any = encoded[group.prompts.stop][1]
    if batch > 1:  # every prompt with others after it, which come round again where there are too few
        others = [[encoded[(i + j * limit) % len(encoded)][1] for j in range(batch)] for i in range(limit)]
        tokens = [(name, rows) for (name, _), rows in zip(tokens, others, strict=True)]
        warm_up = [encoded[-1 - j % len(encoded)][1] for j in range(batch)]
    return Plan(
        prompts=tokens,
        temperatures=group.temperatures,
        max_new_tokens=max_new_tokens,
        warm_up=warm_up,
        seed=seed,
        batch=batch,
    )


if __name__ == "__main__":
    app()
