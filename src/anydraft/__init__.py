"""anydraft: several tokens per forward pass, and not one of them changed.

    decoder = anydraft.load("google/gemma-2-9b", drafter="double7/vicuna-68m")
    print(decoder.generate("Alice and Bob", max_new_tokens=64).text)
"""

from anydraft.decoder import Decoder
from anydraft.errors import (
    AnydraftError,
    ContextOverflow,
    DraftError,
    OptionConflict,
    TokenizerMismatch,
    UnsupportedModel,
)
from anydraft.generation import Generation, Step
from anydraft.loading import load
from anydraft.sampling import SamplingParams
from anydraft.stats import Stats
from anydraft.tree import DraftTree

__version__ = "0.1.0"
__all__ = [
    "AnydraftError",
    "ContextOverflow",
    "Decoder",
    "DraftError",
    "DraftTree",
    "Generation",
    "OptionConflict",
    "SamplingParams",
    "Stats",
    "Step",
    "TokenizerMismatch",
    "UnsupportedModel",
    "load",
]
