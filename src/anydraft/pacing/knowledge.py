"""What a pacing has measured, and the questions that are asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, ref

from anydraft.pacing.experience import GAINS_IN_HAND, Expected, Experience, Form, Record, kind
from anydraft.pacing.ledger import Ledger
from anydraft.pacing.report import PacingReport
from anydraft.pacing.serving import Serving
from anydraft.pacing.sums import Mean
from anydraft.pacing.times import PassTimes
from anydraft.row import Row

FREE, NOT_FREE = 0.02, 0.04
"""A drafter whose call takes less than the first share of a plain pass is free, until it takes more than the second."""

FIRST_STARTS, FIRST_LOSS = 2, 2.0
"""Readings of prompts until which one counts so many plain passes at most: tables and kernels are built once."""

TRIAL_DRAFTS, TRIAL_LOSS = 12, 8.0
"""Drafts until an unknown drafter is judged by what they brought, and plain passes that they may cost until then.

They are spread over the text, whose beginning is often harder to guess than what follows.
"""

HOPELESS = 0.25
"""Share of what finding out may cost that is for drafters which are not in doubt."""

FEWEST = 7
"""Nodes that a draft may have, however many rows there are and whatever pass is expected."""

DEEPEST = 20.0
"""Plain passes behind plain decoding that are remembered."""

DEBT_AT_FIRST = 3.0
"""Plain passes that probes owe at the start, for trials have just looked."""


def most_nodes(nodes: int, rows: int) -> int:
    """Nodes that a draft may have if so many rows are drafted for, and that of a single one so many."""
    return min(nodes, max(FEWEST, nodes * 2 // (rows + 1)))


@dataclass
class State:
    """What is known of a row: its form with each drafter, what was done for it, and with how many rows at last.

    Attributes:
        in_gap: tokens of its last step, if no free drafter had anything in it.
    """

    forms: dict[str, Form] = field(default_factory=dict)
    rows: int = 1
    in_gap: int = 0
    report: PacingReport = field(default_factory=PacingReport)

    def form(self, name: str) -> Form:
        """The row's form with a drafter."""
        form = self.forms.get(name)
        if form is None:
            form = self.forms[name] = Form()
        return form


class Knowledge:
    """Times, drafters by name, rows, and what was lost and gained.

    Attributes:
        deciding: seconds that a step with a costly drafter takes beside drafts and pass.
        learning: seconds that learning from a step takes in which somebody was asked.
        depth, nodes: levels and nodes of the largest draft.
        exploring: what probes lost against the best that was known; doubting: those of drafters that may well pay.
        safety: what drafting lost against plain decoding, or gained.
        now: time that went by, in plain passes.
    """

    def __init__(self, overhead: float, depth: int, nodes: int = 31) -> None:
        if not overhead > 0:
            raise ValueError(f"overhead is a share of the time, above 0, got {overhead}; use Fixed or Steady for none")
        self.depth, self.nodes = depth, nodes
        self.times = PassTimes()
        self.drafters: dict[str, Experience] = {}
        self.exploring = Ledger(HOPELESS * overhead, debt=DEBT_AT_FIRST)
        self.doubting = Ledger((1 - HOPELESS) * overhead)
        self.safety = Ledger(overhead, bank=GAINS_IN_HAND, worst=DEEPEST)
        self.deciding, self.learning = Mean.of(0.0, 0.0), Mean.of(0.0, 0.0)
        self.now = 0.0
        self._serving: dict[float, Serving] = {}
        self._rows: WeakKeyDictionary[Row, State] = WeakKeyDictionary()
        self._latest: tuple[ref[Row] | None, State] = (None, State())

    def seconds(self, rows: int, width: int) -> float:
        """Expected seconds of a pass; 1 before anything was seen."""
        return self.times.seconds(rows, width) or 1.0

    def reading(self, drafter: Experience, tokens: int, rows: int) -> float:
        """Plain passes that a drafter takes to read so many tokens of a prompt."""
        passes = drafter.times.start(tokens) / self.seconds(rows, 1)
        return min(passes, FIRST_LOSS) if drafter.times.starts < FIRST_STARTS else passes

    def price(self, drafter: Experience, rows: int) -> None:
        """Say whether a drafter's calls take next to no time."""
        if drafter.call is not None:
            drafter.free = drafter.call.value < (NOT_FREE if drafter.free else FREE) * self.seconds(rows, 1)

    def state(self, row: Row) -> State:
        """What is known of a row."""
        latest, state = self._latest
        if latest is not None and latest() is row:
            return state
        found = self._rows.get(row)
        if found is None:
            found = self._rows[row] = State()
        self._latest = (ref(row), found)
        return found

    def form(self, row: Row, name: str) -> Form:
        """A row's form with a drafter."""
        return self.state(row).form(name)

    def expected(self, row: Row, name: str, rows: int = 1) -> Expected:
        """What a draft of a known drafter for so many rows would bring the row, and take."""
        form = self.form(row, name)
        form.idle(row.position)
        return form.expected(self.drafters[name].record(row), min(self.depth, most_nodes(self.nodes, rows)))

    def doubt(self, row: Row, name: str) -> float:
        """Standard error of what a draft of a known drafter is expected to bring the row, in plain passes."""
        return self.form(row, name).doubt(self.drafters[name].record(row))

    def serving(self, row: Row) -> Serving:
        """What free drafters had of late under the row's kind of sampling."""
        key = kind(row)
        serving = self._serving.get(key)
        if serving is None:
            serving = self._serving[key] = Serving()
        return serving

    @staticmethod
    def on_trial(record: Record) -> bool:
        """Whether too little is known of a drafter to judge it, and finding out has not yet cost too much."""
        return record.drafts < TRIAL_DRAFTS and record.trial_loss < TRIAL_LOSS

    def report(self, row: Row) -> PacingReport:
        """What was chosen for the row, and the figures on which it was."""
        state = self.state(row)
        report = state.report
        plain = self.times.seconds(state.rows, 1)
        report.seconds_plain = plain
        if plain is None:
            return report
        report.seconds_pass = {width: self.seconds(state.rows, width) for width in self.times.seen(state.rows)}
        for name, known in self.drafters.items():
            record = known.record(row)
            if not record.drafts and name not in report.steps:
                continue
            draft = self.expected(row, name, state.rows)
            step = known.times.step(state.rows)
            if step is not None:
                report.seconds_draft_step[name] = step
            taken = known.times.seconds(draft.levels, state.rows) or 0.0
            taken += self.seconds(state.rows, round(draft.width))
            report.expected_tokens[name] = 1 + draft.gain
            report.expected_speedup[name] = (1 + draft.gain) * plain / taken
        return report
