"""Prompts to verify with: built in, or the user's."""

from __future__ import annotations

import json
from pathlib import Path

from anydraft.errors import OptionConflict

__all__ = ["PROMPTS", "read_prompts"]

PROMPTS: tuple[str, ...] = (
    'def fibonacci(n: int) -> int:\n    """Return the n-th Fibonacci number."""\n',
    "Once upon a time there was a little girl who",
    "class Stack:\n    def __init__(self) -> None:\n        self.items = []\n\n    def push(self, item",
    "The three most important inventions of the twentieth century are",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,",
    "for i in range(10):\n    for j in range(10):\n        print(",
    "import os\nimport sys\nimport json\nfrom pathlib import",
    "Straße, naïve, façade, 漢字, 한글 🙂:",
    '{"name": "Alice", "age": 30}\n{"name": "Bob", "age": 25}\n{"name":',
    "the the the the the the the",
    "Q: What is the capital of France?\nA:",
    "def test_empty() -> None:\n    assert ",
)
"""Code, prose, lists, repetition and scripts that tokenizers cut differently."""


def read_prompts(path: Path) -> list[str]:
    """Prompts of a file: .jsonl with "prompt", "text" or "turns" (the first counts); else one per line.

    Raises:
        OptionConflict: no such file, no prompts in it, or lines of another form.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as problem:
        raise OptionConflict(f"cannot read the prompts in {str(path)!r}: {problem}") from problem
    prompts = lines if path.suffix != ".jsonl" else [_prompt(path, line) for line in lines]
    if not prompts:
        raise OptionConflict(f"{str(path)!r} holds no prompts")
    return prompts


def _prompt(path: Path, line: str) -> str:
    try:
        row = json.loads(line)
        prompt = row if isinstance(row, str) else row.get("prompt") or row.get("text") or row["turns"][0]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        prompt = None
    if not isinstance(prompt, str) or not prompt:
        raise OptionConflict(
            f'each line of {path.name} is a string or an object with "prompt", "text" or "turns"; got {line[:60]!r}'
        )
    return prompt
