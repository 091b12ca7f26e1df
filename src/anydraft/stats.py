"""What a generation did, in vLLM's terms (counters, acceptance rate, mean acceptance length)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anydraft.pacing.report import PacingReport


@dataclass
class Stats:
    """Counters and seconds of one generation, or of several added up.

    Attributes:
        num_passes: target forwards after the prompt.
        num_tokens: tokens committed.
        num_drafts: passes that verified a non-empty draft.
        num_draft_tokens: drafted nodes verified.
        num_accepted_tokens: drafted tokens committed.
        num_drafts_per_pos, num_accepted_tokens_per_pos: by depth (index 0 = first drafted position): drafts that
            reached this depth, and tokens accepted there.
        seconds_prefill, seconds_draft, seconds_verify, seconds_total: wall time; verify = target forwards.
        seconds_convert: the part of drafting that turned tokens of one vocabulary into those of the other.
        seconds_choose: choosing the target's tokens from its scores and keeping their path.
        pacing: how the drafts were chosen and why; None when there was nothing to choose.
        drafter_failures: what broke in a drafter, which was left out from there on; the tokens are unharmed.
    """

    num_passes: int = 0
    num_tokens: int = 0
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_drafts_per_pos: list[int] = field(default_factory=list)
    num_accepted_tokens_per_pos: list[int] = field(default_factory=list)
    seconds_prefill: float = 0.0
    seconds_draft: float = 0.0
    seconds_verify: float = 0.0
    seconds_total: float = 0.0
    seconds_convert: float = 0.0
    seconds_choose: float = 0.0
    drafter_failures: tuple[str, ...] = ()
    pacing: PacingReport | None = None

    @property
    def tokens_per_pass(self) -> float:
        """tau: tokens committed per target pass of this row."""
        return self.num_tokens / self.num_passes if self.num_passes else 0.0

    @property
    def acceptance_rate(self) -> float:
        """Accepted / drafted tokens (vLLM's draft acceptance rate)."""
        return self.num_accepted_tokens / self.num_draft_tokens if self.num_draft_tokens else 0.0

    draft_acceptance_rate = acceptance_rate

    @property
    def mean_acceptance_length(self) -> float:
        """1 + accepted tokens per draft (vLLM's definition)."""
        return 1 + self.num_accepted_tokens / self.num_drafts if self.num_drafts else 1.0

    @property
    def seconds_other(self) -> float:
        """Time that was neither prompt, draft, target forward nor choice."""
        named = self.seconds_prefill + self.seconds_draft + self.seconds_verify + self.seconds_choose
        return max(0.0, self.seconds_total - named)

    @property
    def tokens_per_second(self) -> float:
        """Committed tokens per second of the whole generation, prompt included."""
        return self.num_tokens / self.seconds_total if self.seconds_total else 0.0

    @property
    def acceptance_per_position(self) -> list[float]:
        """Share of drafts that reached a depth in which the token at this depth was accepted."""
        pairs = zip(self.num_accepted_tokens_per_pos, self.num_drafts_per_pos, strict=True)
        return [accepted / drafts if drafts else 0.0 for accepted, drafts in pairs]

    def record(self, committed: int, drafted: int, depth: int, accepted: int) -> None:
        """Count one verified step."""
        self.num_passes += 1
        self.num_tokens += committed
        if not drafted:
            return
        self.num_drafts += 1
        self.num_draft_tokens += drafted
        self.num_accepted_tokens += accepted
        missing = depth - len(self.num_drafts_per_pos)
        if missing > 0:
            self.num_drafts_per_pos += [0] * missing
            self.num_accepted_tokens_per_pos += [0] * missing
        for position in range(depth):
            self.num_drafts_per_pos[position] += 1
            self.num_accepted_tokens_per_pos[position] += position < accepted

    def __add__(self, other: Stats) -> Stats:
        total = Stats()
        for name in self.__dataclass_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, list):
                size = max(len(mine), len(theirs))
                mine = mine + [0] * (size - len(mine))
                theirs = theirs + [0] * (size - len(theirs))
                setattr(total, name, [a + b for a, b in zip(mine, theirs, strict=True)])
            elif name == "pacing":
                setattr(total, name, theirs if mine is None else mine if theirs is None else mine + theirs)
            else:
                setattr(total, name, mine + theirs)
        return total

    def to_dict(self) -> dict[str, Any]:
        """All counters and derived figures, ready for JSON."""
        derived = (
            "tokens_per_pass",
            "acceptance_rate",
            "mean_acceptance_length",
            "acceptance_per_position",
            "seconds_other",
            "tokens_per_second",
        )
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["pacing"] = None if self.pacing is None else self.pacing.to_dict()
        return plain | {name: getattr(self, name) for name in derived}
