"""anydraft: several tokens per forward pass, and not one of them changed.

    decoder = anydraft.load("google/gemma-2-9b", drafter="double7/vicuna-68m")
    print(decoder.generate("Alice and Bob", max_new_tokens=64).text)

Names are imported when first used, so that `anydraft --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anydraft.decoder import Decoder
    from anydraft.errors import (
        AnydraftError,
        BrokenCheckpoint,
        ContextOverflow,
        DraftError,
        OptionConflict,
        TokenizerMismatch,
        UnsupportedModel,
        WrongTarget,
    )
    from anydraft.generation import Generation, Step
    from anydraft.integrations.transformers import Assisted, assisted, generate
    from anydraft.loading import load
    from anydraft.sampling import SamplingParams
    from anydraft.stats import Stats
    from anydraft.tree import DraftTree
else:
    _HOMES = {
        "anydraft.decoder": ("Decoder",),
        "anydraft.errors": (
            "AnydraftError",
            "BrokenCheckpoint",
            "ContextOverflow",
            "DraftError",
            "OptionConflict",
            "TokenizerMismatch",
            "UnsupportedModel",
            "WrongTarget",
        ),
        "anydraft.generation": ("Generation", "Step"),
        "anydraft.integrations.transformers": ("Assisted", "assisted", "generate"),
        "anydraft.loading": ("load",),
        "anydraft.sampling": ("SamplingParams",),
        "anydraft.stats": ("Stats",),
        "anydraft.tree": ("DraftTree",),
    }
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__version__ = "0.1.0"
__all__ = [
    "AnydraftError",
    "Assisted",
    "BrokenCheckpoint",
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
    "WrongTarget",
    "assisted",
    "generate",
    "load",
]
