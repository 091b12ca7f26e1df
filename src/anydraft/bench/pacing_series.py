"""A series of groups of the benchmark of pacing: each is measured in this process, or dealt to several new ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anydraft.bench.embedded import Embedded
from anydraft.bench.measure import Record, one_by_one
from anydraft.bench.pacing_groups import Group, contenders_of, plan_of
from anydraft.bench.processes import dealt, one_after_another
from anydraft.bench.prompts import PromptSet
from anydraft.bench.session import collect, read_records, wide_console
from anydraft.bench.slices import InSlices
from anydraft.bench.surroundings import surround

RUNS, PROVENANCE = "runs.jsonl", "provenance.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What all groups are measured with.

    Attributes:
        prompts: of which each group has some places.
        dtype: torch's name of the precision.
        threads: of torch.
        enlarge: parameters that the target is enlarged to; 0 leaves it as it is.
        mismatched: folder of an assistant that fits badly.
        seed: of all that is random.
        max_new_tokens: of every prompt.
        slice_tokens: tokens of a row that a contender decodes at a time; 0 for whole runs in turn.

    Raises:
        ValueError: an id of a prompt comes twice: runs are told apart by it.
    """

    prompts: PromptSet
    dtype: str
    threads: int
    enlarge: float
    mismatched: Path | None
    seed: int
    max_new_tokens: int
    slice_tokens: int

    def __post_init__(self) -> None:
        for name, times in Counter(prompt.id for prompt in self.prompts.prompts).most_common(1):
            if times > 1:
                raise ValueError(f"prompt id {name!r} of {self.prompts.source} comes {times} times; give each its own")

    def bench(self) -> Embedded:
        """Make the models."""
        return Embedded(surround(self.dtype, self.threads), self.enlarge, self.mismatched, self.seed)

    def measure(
        self, group: Group, out: Path, taken: dict[str, Any], *, bench: Embedded | None = None, processes: int = 1
    ) -> None:
        """Measure a group; its runs are in its folder in `out` then, those of each process by themselves.

        Args:
            taken: the provenance.
            bench: models for a single process, this one; new processes make their own.

        Raises:
            ProcessBroke: a new process ended with an error; what was measured before is there.
        """
        folder = out / group.name
        for old in _folders(folder):  # of a measurement before, which may have had more processes
            for name in (RUNS, PROVENANCE):
                (old / name).unlink(missing_ok=True)
        shares = dealt(group.prompts, processes)
        calls = [(self, group, share, folder / str(number), taken) for number, share in enumerate(shares)]
        if processes == 1:
            _measure(*calls[0], bench=bench)
        else:
            one_after_another(_measure, calls)


def runs_of(group: Group, out: Path) -> list[Record]:
    """The runs of a group that are in its folder, of all its processes in turn."""
    return [record for folder in _folders(out / group.name) for record in read_records(folder / RUNS)]


def _folders(folder: Path) -> list[Path]:
    """Where runs of a group are: by number of the process, or in the folder itself, as before there were several."""
    numbered = [each for each in folder.glob("*") if each.name.isdecimal()]
    return [each for each in (folder, *sorted(numbered, key=lambda each: int(each.name))) if (each / RUNS).is_file()]


def _measure(
    series: Series,
    group: Group,
    share: range,
    folder: Path,
    taken: dict[str, Any],
    *,
    bench: Embedded | None = None,
) -> None:
    """Decode the prompts of a share. What a prompt meets, such as its seed, is the same in any share."""
    bench = series.bench() if bench is None else bench
    plan = plan_of(bench, series.prompts, group, series.max_new_tokens, series.seed)
    elsewhere = {name for i, (name, _) in zip(group.prompts, plan.prompts, strict=True) if i not in share}
    console = wide_console()
    console.print(group.name if share == group.prompts else f"{group.name}, prompts {share.start} to {share.stop - 1}")
    collect(
        contenders_of(bench, group),
        plan.without(elsewhere),
        out=folder,
        provenance=taken,
        console=console,
        turns=InSlices(series.slice_tokens) if series.slice_tokens else one_by_one,
    )
