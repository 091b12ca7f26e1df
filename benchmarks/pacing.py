"""Pacing held against plain decoding: never slower with bad drafters, as fast as the best fixed length with good ones.

    python benchmarks/pacing.py                               # all four parts on the embedded models
    python benchmarks/pacing.py --part bad --dtype float32    # one of bad, good, mixed, batch
    python benchmarks/pacing.py --enlarge 400e6 --part good --limit 4 --max-new-tokens 96

All contenders of a group decode the same prompt at the same time, a slice of tokens each in turn, plain decoding among
them, and plain decoding once more to see what chance does. Each warms up on a prompt that is not timed, so that its
pacing has seen its drafter once. See benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from anydraft import Decoder
from anydraft.bench.contenders import AnydraftContender
from anydraft.bench.embedded import Embedded
from anydraft.bench.measure import Plan, one_by_one
from anydraft.bench.pacing_report import AGAIN, PLAIN, pacing_table, reached, summarise_pacing
from anydraft.bench.prompts import PromptSet, begun_again, held_out_prompts, read_prompts
from anydraft.bench.provenance import provenance
from anydraft.bench.session import collect, read_records, wide_console, write_json
from anydraft.bench.slices import InSlices
from anydraft.bench.surroundings import surround
from anydraft.pacing import Fixed, Pacing, Steady

CHAINS, TREES, BATCHES = (1, 2, 4, 8, 16), (4, 8, 16, 32), (1, 2, 4, 8)
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
    out: Annotated[Path, typer.Option(help="Folder for all files of the run.")] = Path("runs/pacing"),
    docs: Annotated[Path | None, typer.Option(help="PREFIX of copies: .md, .summary.json, .provenance.json")] = None,
    again: Annotated[bool, typer.Option("--again", help="Figures of the runs in OUT, without measuring.")] = False,
) -> None:
    """Measure the parts and say which aims are reached."""
    try:
        precision = surround(dtype, threads)
        chosen = held_out_prompts(limit=9 * limit) if prompts == "held-out" else read_prompts(Path(prompts))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console = wide_console()
    rows = []
    if not again:
        bench = Embedded(precision, enlarge, mismatched, seed)
        taken = provenance(
            dtype=precision,
            seed=seed,
            target=bench.name,
            mismatched=None if mismatched is None else mismatched.name,
            prompts=chosen.source,
            prompts_digest=chosen.digest,
            prompts_timed=limit,
            max_new_tokens=max_new_tokens,
            temperatures=temperature,
            parts=[str(one) for one in part],
            batches=batch if Part.BATCH in part else None,
            slice_tokens=slice_tokens or None,
        )
        out.mkdir(parents=True, exist_ok=True)
        (out / "title.txt").write_text(f"Pacing: {bench.name}, {dtype}, {threads} threads\n", "utf-8")
        write_json(out / "provenance.json", taken)
    for group in [group for one in part for group in _groups(one, batch)]:
        folder = out / group.name
        if again:
            records = read_records(folder / "runs.jsonl") if (folder / "runs.jsonl").is_file() else []
        else:
            console.print(group.name)
            plan = _plan(bench, chosen, group, limit, temperature, max_new_tokens, seed)
            turns = InSlices(slice_tokens) if slice_tokens else one_by_one
            records = collect(
                _contenders(bench, group), plan, out=folder, provenance=taken, console=console, turns=turns
            )
        rows += summarise_pacing(group.part, records, seed=seed)
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
    """Contenders that decode together: one part, or what of it belongs together."""

    part: Part
    drafters: tuple[str, ...]
    batch: int = 1

    @property
    def name(self) -> str:
        """Of its folder."""
        more = {Part.GOOD: f"-{self.drafters[0]}", Part.BATCH: f"-{self.batch}"}
        return self.part + more.get(self.part, "")


def _groups(part: Part, batches: Sequence[int]) -> list[_Group]:
    alone = ("uag", "redrafter", "lookup")
    if part is Part.BAD:
        return [_Group(part, ("wrong", "random", "expensive", "mismatched"))]
    if part is Part.GOOD:
        return [_Group(part, (name,)) for name in alone[:2]]
    return [_Group(part, (*alone, "lookup+redrafter"), batch) for batch in (batches if part is Part.BATCH else (1,))]


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
        if group.part is Part.GOOD:
            for size in CHAINS:
                yield f"{name}@chain{size}", Fixed.chain(size)
            for nodes in TREES:
                yield f"{name}@tree{nodes}", Steady(nodes=nodes - 1)


def _plan(
    bench: Embedded,
    chosen: PromptSet,
    group: _Group,
    limit: int,
    temperatures: list[float],
    max_new_tokens: int,
    seed: int,
) -> Plan:
    batch, copying = group.batch, group.part is Part.MIXED
    texts = [(prompt.id, begun_again(prompt.text) if copying else prompt.text) for prompt in chosen.prompts]
    encoded = [(name, list(bench.tokenizer(text)["input_ids"])) for name, text in texts]
    if len(encoded) <= limit:
        raise typer.BadParameter(f"one prompt more than --limit {limit} is needed to warm up, got {len(encoded)}")
    tokens: list[tuple[str, Any]] = encoded[:limit]
    warm_up: Any = encoded[limit][1]
    if batch > 1:  # every prompt with others after it, which come round again where there are too few
        others = [[encoded[(i + j * limit) % len(encoded)][1] for j in range(batch)] for i in range(limit)]
        tokens = [(name, group) for (name, _), group in zip(tokens, others, strict=True)]
        warm_up = [encoded[-1 - j % len(encoded)][1] for j in range(batch)]
    return Plan(
        prompts=tokens,
        temperatures=temperatures,
        max_new_tokens=max_new_tokens,
        warm_up=warm_up,
        seed=seed,
        batch=batch,
    )


if __name__ == "__main__":
    app()
