"""What can go wrong on the user's side: every error says what was given and which option to change.

All are `ValueError`s, so `except ValueError` catches them; the subclasses let a server map them to answers.
"""


class AnydraftError(ValueError):
    """Base of all errors that anydraft raises for input it cannot serve."""


class UnsupportedModel(AnydraftError):
    """The model cannot be verified in trees or chains (recurrent state, alibi from a 2-D mask, encoder-decoder)."""


class TokenizerMismatch(AnydraftError):
    """A tokenizer is missing, or two tokenizers do not fit what was asked for."""


class ContextOverflow(AnydraftError):
    """Prompt and requested tokens do not fit into the model's context."""


class OptionConflict(AnydraftError):
    """Two options contradict each other, or an option has no effect where it was given."""


class DraftError(AnydraftError):
    """A drafter returned something that is no draft (token ids out of range, parents out of order)."""


class WrongTarget(AnydraftError):
    """A trained drafter was given another target than the one it was trained for."""


class BrokenCheckpoint(AnydraftError):
    """A drafter's files are missing, truncated, or hold other tensors than its config says."""


class DrafterWarning(RuntimeWarning):
    """A drafter broke and was left out; what was generated is unharmed, and was slower than it might have been."""
