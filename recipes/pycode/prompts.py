"""Prompts for the target's own output: what people hand to a code model, built from the training files only.

Two kinds: a window of a file that ends at the end of a line, and the head of a function (a few imports, `def`,
docstring, perhaps a doctest) that is cut where the body should begin. Both end with a newline, so that prompt and
continuation join as plain text and the assistant's tokenizer, which isolates newlines, sees the same boundary.
"""

import re
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

Kind = Literal["window", "function"]
WINDOW_LENGTHS = (96, 128, 160, 192, 224, 256)
FUNCTION_LENGTHS = range(40, 257)
CHARACTERS_PER_TOKEN = 8  # an upper estimate: so much text before a cut holds the tokens asked for
FUNCTION = re.compile(
    r"^(?P<indent>[ ]*)def (?P<name>\w+)\((?P<args>[^()\n]*(?:\([^()\n]*\)[^()\n]*)*)\)(?P<returns>[^:\n]*):[ ]*\n"
    r"[ ]+[ru]?(?P<quote>\"{3}|'{3})(?P<doc>.{20,700}?)(?P=quote)[ ]*\n",
    re.MULTILINE | re.DOTALL,
)
IMPORTS = (
    "from typing import List\n",
    "from typing import List, Tuple\n",
    "from typing import Any, Dict, List, Optional\n",
    "from typing import List, Optional\n",
    "import math\n",
    "import re\n",
    "import os\n",
    "import collections\n",
)
DOCTESTS = ("{name}([1, 2, 3])", "{name}(5)", "{name}('abc')", "{name}([], 0)", "{name}(3, 4)", "{name}('a b', 2)")
RESULTS = ("True", "False", "6", "[1, 2, 3]", "'abc'", "[]", "2.0", "None")


def function_heads(text: str) -> list[str]:
    """Every function head with a docstring in a file, moved to the left margin and cut before the body."""
    return [head for match in FUNCTION.finditer(text) if (head := _head(match)) is not None]


def _head(match: re.Match[str]) -> str | None:
    doc, args = match["doc"], match["args"]
    if '"""' in doc or len(args) > 80 or match["name"].startswith("__"):
        return None
    args = re.sub(r"^(self|cls)(, *|$)", "", args)
    body = textwrap.dedent(" " * (len(match["indent"]) + 4) + doc)
    body = textwrap.indent(body, "    ", lambda line: bool(line.strip())).rstrip()
    close = "\n    " if "\n" in doc else ""
    return f'def {match["name"]}({args}){match["returns"].rstrip()}:\n    """{body.lstrip()}{close}"""\n'


def dressed(head: str, rng: np.random.Generator) -> str:
    """A function head with, at random, an import above it and a doctest at the end of its docstring."""
    if rng.random() < 0.35 and ">>>" not in head:
        name = head[4 : head.index("(")]
        examples = "".join(
            f"    >>> {rng.choice(DOCTESTS).format(name=name)}\n    {rng.choice(RESULTS)}\n"
            for _ in range(rng.integers(1, 3))
        )
        head = head[: head.rindex('"""')].rstrip() + "\n" + examples + '    """\n'
    if rng.random() < 0.4:
        head = str(rng.choice(IMPORTS)) + "\n\n" + head
    return head if rng.random() < 0.7 else "\n\n" + head


class Pool:
    """Function prompts by their length in tokens, and windows on demand: batches of one length need no padding."""

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer, seed: int = 0, functions: int = 60_000) -> None:
        """Collect up to `functions` heads from the texts, in their order, at most six a file."""
        self.texts, self.tokenizer = texts, tokenizer
        self.functions: dict[int, list[list[int]]] = defaultdict(list)
        rng, found = np.random.default_rng(seed), 0
        for text in texts:
            heads = function_heads(text)
            chosen = rng.permutation(len(heads))[:6]
            for ids in (tokenizer.encode(dressed(heads[index], rng)).ids for index in chosen):
                if len(ids) in FUNCTION_LENGTHS:
                    self.functions[len(ids)].append(ids)
                    found += 1
            if found >= functions:
                break

    def batch(self, rng: np.random.Generator, rows: int, function_share: float) -> tuple[Kind, list[list[int]]]:
        """Prompts of one length, (rows, length): function heads with the given probability, else windows."""
        lengths = [length for length, group in sorted(self.functions.items()) if len(group) >= rows]
        if lengths and rng.random() < function_share:
            sizes = np.array([len(self.functions[length]) for length in lengths], dtype=float)
            group = self.functions[int(rng.choice(lengths, p=sizes / sizes.sum()))]
            return "function", [group[index] for index in rng.permutation(len(group))[:rows]]
        return "window", self.windows(rng, rows, int(rng.choice(WINDOW_LENGTHS)))

    def windows(self, rng: np.random.Generator, rows: int, length: int) -> list[list[int]]:
        """The `length` tokens before a random end of line, from random files, (rows, length)."""
        found: list[list[int]] = []
        for _ in range(1000 * rows):
            text = self.texts[rng.integers(len(self.texts))]
            cut = text.find("\n", int(rng.integers(len(text)))) + 1
            ids = self.tokenizer.encode(text[max(0, cut - length * CHARACTERS_PER_TOKEN) : cut]).ids
            if len(ids) >= length:
                found.append(ids[-length:])
            if len(found) == rows:
                return found
        raise ValueError(f"the corpus has too few files of {length} tokens to draw windows from")
