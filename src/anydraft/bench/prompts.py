"""Prompts to measure with: files of prompts, and Python files that the embedded models never saw.

A file is held out by its own text alone (one in fifty, by hash), so the side it is on is the same on every
machine. The training recipe uses the same rule.
"""

import hashlib
import json
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_ONE_IN = 50
SHORTEST, LONGEST = 200, 400  # characters of a prompt cut from a file
MOST_CHARACTERS, LONGEST_LINE = 200_000, 400  # beyond these nobody wrote the file by hand
TESTS = re.compile(r"(^|/)(tests?|testing|idlelib|lib2to3)(/|$)")
DEFINITION = re.compile(r"^(?:def |class |async def |@)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to continue, with a name that stays the same between runs."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts and where they are from."""

    source: str
    prompts: tuple[Prompt, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all texts: two runs with the same digest continued the same prompts."""
        return hashlib.sha256("\0".join(prompt.text for prompt in self.prompts).encode()).hexdigest()


def read_prompts(path: Path, limit: int | None = None) -> PromptSet:
    """Read a file of `{"id": ..., "turns": [...]}` lines; the first turn is the prompt.

    Raises ValueError for a missing file and for lines of another form.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file of prompts; give a .jsonl file, or held-out for Python files")
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompts.append(Prompt(str(row["id"]), row["turns"][0]))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            message = f'{path} line {number}: expected {{"id": ..., "turns": [...]}}, got {line[:80]!r}'
            raise ValueError(message) from error
    return PromptSet(path.name, tuple(prompts[:limit]))


def held_out_prompts(folders: Sequence[Path] | None = None, limit: int | None = None) -> PromptSet:
    """Beginnings of definitions in held-out Python files, each cut at the end of a line.

    `folders` are by default the standard library and the installed packages of the running interpreter, so
    the set differs between machines (see `PromptSet.digest`); its order, by hash, does not depend on where
    files lie.
    """
    if folders is None:
        paths = sysconfig.get_paths()
        folders = [Path(paths["stdlib"]), Path(paths["purelib"])]
        source = f"held-out files of Python {sys.version.split()[0]} and its installed packages"
    else:
        source = "held-out files of " + ", ".join(folder.name for folder in folders)
    prompts: dict[str, Prompt] = {}
    for name, text in python_files(folders):
        if held_out(text) and (start := beginning(text)):
            prompts[digest(text)] = Prompt(f"{name}#{digest(text)[:8]}", start)
    return PromptSet(source, tuple(prompts[key] for key in sorted(prompts))[:limit])


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def held_out(text: str) -> bool:
    """Whether a file of this text is kept away from training: one in fifty."""
    return int(digest(text)[:8], 16) % HELD_OUT_ONE_IN == 0


def beginning(text: str) -> str | None:
    """The 200 to 400 characters from the first definition on, to the end of a line; None where there are too
    few.

    Definitions rather than the top of the file, because licences and imports are known by heart.
    """
    first = DEFINITION.search(text)
    if first is None:
        return None
    cut = text[first.start() :][:LONGEST]
    end = cut.rfind("\n") + 1
    return cut[:end] if end >= SHORTEST and len(text) > first.start() + end else None


def begun_again(text: str) -> str:
    """A text and the first half of its lines once more: what follows is copied for a while, and then is new."""
    lines = text.splitlines(keepends=True)
    return text.rstrip("\n") + "\n\n\n" + "".join(lines[: max(1, len(lines) // 2)])


def python_files(folders: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Name (relative to its folder) and text of every Python file that somebody wrote and that is no test."""
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder).as_posix()
            if TESTS.search(name) or name.startswith("site-packages/"):  # the latter is its own folder
                continue
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if len(text) <= MOST_CHARACTERS and max(map(len, text.split("\n"))) <= LONGEST_LINE:
                yield name, text
