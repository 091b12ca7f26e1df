"""Whole raw texts of a file or a folder, as documents: nothing is cut, nothing is drawn."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from anydraft.errors import OptionConflict
from anydraft.training.prompts import Document, read_folder

KEYS = ("text", "document", "prompt")


def read_texts(path: Path, glob: str | None = None) -> tuple[list[Document], str]:
    """Documents, and the SHA-256 of what was read.

    Args:
        path: a folder of texts; a .jsonl file with a "text", "document" or "prompt" a line; any other file is one text.
        glob: which files of a folder; None for all.

    Raises:
        OptionConflict: nothing there that can be read, a line without text (named with its number), or `glob` for a
            file.
    """
    if path.is_dir():
        return read_folder(path, glob if glob is not None else "*")
    if glob is not None:
        raise OptionConflict(f"a glob chooses files of a folder, and {str(path)!r} is none; leave --glob out")
    try:
        content = path.read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as problem:
        raise OptionConflict(f"cannot read the texts in {str(path)!r}: {problem}") from problem
    if path.suffix == ".jsonl":
        lines = enumerate(text.split("\n"), 1)
        documents = [Document(str(number), _text(path, number, line)) for number, line in lines if line.strip()]
    else:
        documents = [Document(path.name, text)]
    return documents, hashlib.sha256(content).hexdigest()


def _text(path: Path, number: int, line: str) -> str:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    found = next((row[key] for key in KEYS if key in row), None) if isinstance(row, dict) else row
    if isinstance(found, str) and found:
        return found
    ids = "; token ids are no raw text" if isinstance(found, list) else ""
    raise OptionConflict(
        f'line {number} of {path.name} is no text: it needs "text", "document" or "prompt", not empty{ids}; got '
        f"{line[:60]!r}"
    )
