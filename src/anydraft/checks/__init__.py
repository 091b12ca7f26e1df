"""Checks of the promise on the user's own models: the logic behind `anydraft verify`.

Three questions, each answered by comparing with something that knows nothing of drafts: are the tokens those of
plain decoding (equality.py), is the law of sampled tokens the model's own (law.py), and where they are not, how
close were the two best scores there (margin.py)?
"""

from anydraft.checks.equality import Difference, Equality, Mode, compare
from anydraft.checks.law import Law, LawTest, most_telling
from anydraft.checks.margin import Margin, margin
from anydraft.checks.report import Report, modes_of

__all__ = [
    "Difference",
    "Equality",
    "Law",
    "LawTest",
    "Margin",
    "Mode",
    "Report",
    "compare",
    "margin",
    "modes_of",
    "most_telling",
]
