"""Drafters: each guesses what the target will say. They know nothing of each other."""

from anydraft.drafters.assistant import AssistantDrafter
from anydraft.drafters.lookup import LookupDrafter
from anydraft.drafters.protocol import Drafter
from anydraft.drafters.universal import UniversalDrafter

__all__ = ["AssistantDrafter", "Drafter", "LookupDrafter", "UniversalDrafter"]
