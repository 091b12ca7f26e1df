"""Pacing: how much to draft now, by whom, and when not to. It can never change what is generated."""

from anydraft.pacing.fixed import Fixed, Steady
from anydraft.pacing.measured import Measured
from anydraft.pacing.protocol import NO_DRAFT, Draft, Outcome, Pacing
from anydraft.pacing.report import PacingReport

__all__ = ["NO_DRAFT", "Draft", "Fixed", "Measured", "Outcome", "Pacing", "PacingReport", "Steady"]
