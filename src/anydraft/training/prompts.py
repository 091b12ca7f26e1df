"""Prompts to distil from: a .jsonl or .txt file of prompts, or a folder of texts from which prompts are cut.

A cut is a run of whole lines that ends at a random end of line, so that prompts end where people stop typing. Which
lines are cut depends on the seed and on the text alone, not on where the folder lies or on what else it holds.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anydraft.errors import OptionConflict, TokenizerMismatch

CHARACTERS_PER_TOKEN = 8
"""An upper estimate: so much text before a cut holds the tokens asked for."""
SHORTEST = 4
"""Prompts of texts are between one in so many of the tokens allowed, and all of them."""


@dataclass(frozen=True)
class Prompt:
    """One prompt, as text or as token ids.

    Attributes:
        id: unique among the prompts.
        limit: most tokens of a cut text; its first lines go until it fits.
    """

    id: str
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    limit: int | None = None


@dataclass(frozen=True)
class PromptSet:
    """Prompts in their order, and what they came from.

    Attributes:
        source: name of the file or folder.
        sha256: of the file, or of the names and contents of the folder's files.
        cut: how prompts were cut from texts; None where none were.
    """

    items: tuple[Prompt, ...]
    source: str
    sha256: str
    cut: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """For a provenance file."""
        return {"source": self.source, "sha256": self.sha256, "cut": self.cut, "count": len(self.items)}


@dataclass(frozen=True)
class Document:
    """A whole text that prompts are cut from."""

    name: str
    text: str


def read_prompts(
    path: str | Path, *, glob: str = "*", per_file: int = 4, prompt_tokens: int = 256, seed: int = 0
) -> PromptSet:
    """Prompts of a file, or cut from the texts of a folder.

    Args:
        path: .jsonl with a "prompt" (text or token ids), "text", "turns" (the first counts) or "document" (to be cut)
            a line, and an "id" if wanted; a folder of texts; any other file has one prompt per line.
        glob: which files of a folder, in subfolders too.
        per_file: prompts cut from each text.
        prompt_tokens: most tokens of a prompt cut from a text.
        seed: decides where texts are cut, and in which order.

    Raises:
        OptionConflict: nothing there, no prompts in it, or a line of another form (named with its number).
    """
    if per_file < 1 or prompt_tokens < SHORTEST:
        raise OptionConflict(
            f"per_file must be >= 1 and prompt_tokens >= {SHORTEST}, got {per_file} and {prompt_tokens}"
        )
    path = Path(path)
    cut: dict[str, Any] = {"per_file": per_file, "prompt_tokens": prompt_tokens, "seed": seed}
    if path.is_dir():
        documents, sha256 = read_folder(path, glob)
        items: list[Prompt] = []
        cut["glob"] = glob
    else:
        try:
            content = path.read_bytes()
            lines = content.decode().split("\n")
        except (OSError, UnicodeDecodeError) as problem:
            raise OptionConflict(f"cannot read the prompts in {str(path)!r}: {problem}") from problem
        sha256 = hashlib.sha256(content).hexdigest()
        read = _json_line if path.suffix == ".jsonl" else _text_line
        found = [read(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        items = [item for item in found if isinstance(item, Prompt)]
        documents = [item for item in found if isinstance(item, Document)]
    items += cuts(documents, per_file, prompt_tokens, seed)
    if not items:
        raise OptionConflict(f"{str(path)!r} holds no prompts" + (f" (files {glob!r})" if path.is_dir() else ""))
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise OptionConflict(f"two prompts of {str(path)!r} have the id {item.id!r}; give each its own, or none")
        seen.add(item.id)
    return PromptSet(tuple(items), path.resolve().name, sha256, cut if documents else None)


def read_folder(folder: Path, glob: str) -> tuple[list[Document], str]:
    """Texts of a folder, each once, by name; and the SHA-256 of all of them. Files that are no UTF-8 are left out."""
    documents: dict[str, Document] = {}
    hasher = hashlib.sha256()
    for path in sorted(folder.rglob(glob)):
        if not path.is_file():
            continue
        content = path.read_bytes()
        try:
            text = content.decode()
        except UnicodeDecodeError:
            continue
        name, digest = path.relative_to(folder).as_posix(), hashlib.sha256(content).hexdigest()
        hasher.update(f"{digest} {name}\n".encode())
        if "\x00" not in text:
            documents.setdefault(digest, Document(name, text))
    return list(documents.values()), hasher.hexdigest()


def cuts(documents: Sequence[Document], per_file: int, prompt_tokens: int, seed: int) -> list[Prompt]:
    """Prompts cut from texts: one of every text, then a second of every text, and so on; texts in random order."""
    rounds: list[list[Prompt]] = [[] for _ in range(per_file)]
    for document in documents:
        for prompts, prompt in zip(rounds, _cuts(document, per_file, prompt_tokens, seed), strict=False):
            prompts.append(prompt)
    for prompts in rounds:
        random.Random(seed).shuffle(prompts)
    return [prompt for prompts in rounds for prompt in prompts]


def _cuts(document: Document, count: int, prompt_tokens: int, seed: int) -> Iterator[Prompt]:
    text = document.text
    rng = random.Random(f"{seed} {hashlib.sha256(text.encode()).hexdigest()}")
    ends = [i + 1 for i, character in enumerate(text) if character == "\n"]
    numbers = [n for n, end in enumerate(ends) if end < len(text) and not text[:end].isspace()]
    for number in rng.sample(numbers, min(count, len(numbers))):
        limit = rng.randint(prompt_tokens // SHORTEST, prompt_tokens)
        end = ends[number]
        start = max(0, end - CHARACTERS_PER_TOKEN * limit)
        yield Prompt(f"{document.name}:{number + 1}", _whole_lines(text, start, end), limit=limit)


def _whole_lines(text: str, start: int, end: int) -> str:
    """The lines between two places that begin behind the first; text from there on where there is none."""
    line = text.find("\n", start - 1, end - 1) + 1 if start else 0
    return text[line or start : end]


def token_ids(prompt: Prompt, tokenizer: Any, vocab_size: int) -> list[int]:
    """The prompt in the target's tokens.

    Raises:
        TokenizerMismatch: a text, and no tokenizer.
        OptionConflict: no tokens, or some outside the vocabulary.
    """
    if prompt.tokens is not None:
        ids = list(prompt.tokens)
    elif tokenizer is None:
        raise TokenizerMismatch("prompts of text need the target's tokenizer; pass tokenizer= to load(), or token ids")
    else:
        ids = _encode(prompt.text or "", prompt.limit, lambda text: list(tokenizer(text)["input_ids"]))
    outside = [token for token in ids if not 0 <= token < vocab_size]
    if not ids or outside:
        what = f"has token id {outside[0]}, outside the target's vocabulary of {vocab_size}" if ids else "has no tokens"
        raise OptionConflict(f"prompt {prompt.id!r} {what}")
    return ids


def _encode(text: str, limit: int | None, encode: Callable[[str], list[int]]) -> list[int]:
    ids = encode(text)
    while limit is not None and len(ids) > limit and len(text) > 1:
        # Drop a little more than needed, then up to the next beginning of a line.
        surplus = max(1, len(text) - int(0.97 * len(text) * limit / len(ids)))
        text = _whole_lines(text, surplus, len(text))
        ids = encode(text)
    return ids


def _text_line(path: Path, number: int, line: str) -> Prompt:
    return Prompt(str(number), line.rstrip("\r"))


def _json_line(path: Path, number: int, line: str) -> Prompt | Document:
    """One line of a .jsonl file; without an "id" it goes by its number."""
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if isinstance(row, str):
        row = {"prompt": row}
    if isinstance(row, dict):
        name = str(row.get("id", number))
        content: Any = next((row[key] for key in ("prompt", "text", "turns", "document") if key in row), None)
        if "turns" in row and isinstance(content, list) and content and isinstance(content[0], str):
            content = content[0]
        if isinstance(content, str) and content:
            return Document(name, content) if "document" in row else Prompt(name, content)
        if isinstance(content, list) and content and all(type(token) is int for token in content):
            return Prompt(name, tokens=tuple(content))
    raise OptionConflict(
        f'line {number} of {path.name} is no prompt: it needs "prompt" (text or token ids), "turns" or "document", not '
        f"empty; got {line[:60]!r}"
    )
