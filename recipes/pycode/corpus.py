"""The text: Python files of the machine, filtered, without exact duplicates, one in fifty held out by its own hash.

Whether a file is held out depends on its text alone, so that adding folders or running elsewhere never moves a file
from one side to the other. Benchmarks (HumanEval and its like) have no place here: see `EXCLUDED`.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

MIN_CHARACTERS, MAX_CHARACTERS, MAX_LINE = 200, 200_000, 400
HELD_OUT_ONE_IN = 50
# Tests are long, dull and repetitive; evaluation code may carry the problems it evaluates on.
EXCLUDED = re.compile(r"(^|/)(tests?|testing|idlelib|lib2to3|human_?eval|lm_eval|evalplus|mbpp)(/|$)")
# Copyleft packages that are common in site-packages, and what the head of such a file says when another vendors it.
NOT_PERMISSIVE = frozenset(
    {"ansible", "autocommand", "certifi", "chardet", "docutils", "gensim", "hypothesis", "paramiko", "pathspec", "tqdm"}
)
COPYLEFT = re.compile(r"General Public\s+(#\s*)?License|Mozilla Public|\b[AL]?GPL-|\bMPL[- ]2", re.IGNORECASE)
HEAD = 3000


def digest(text: str) -> str:
    """The SHA-256 of a file's text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def held_out(text: str) -> bool:
    """Whether a file belongs to the held-out side: one in fifty, by its text alone."""
    return int(digest(text)[:8], 16) % HELD_OUT_ONE_IN == 0


def usable(text: str) -> bool:
    """Whether a file has a sensible length, no line that nobody wrote by hand and no copyleft notice at its head."""
    if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS or "\x00" in text or COPYLEFT.search(text[:HEAD]):
        return False
    return max(map(len, text.split("\n"))) <= MAX_LINE


def python_files(folders: Iterable[Path]) -> Iterator[str]:
    """The text of every usable Python file under the folders, each text once."""
    seen: set[str] = set()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder)
            if EXCLUDED.search(inside.parent.as_posix()) or NOT_PERMISSIVE.intersection(inside.parts):
                continue
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if not usable(text) or (key := digest(text)) in seen:
                continue
            seen.add(key)
            yield text


def collect(folders: Sequence[Path], out: Path) -> dict[str, int]:
    """Write `train.jsonl` and `held.jsonl` into `out`, in the order of the hashes; returns characters per side."""
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise ValueError(f"not a folder: {', '.join(missing)}")
    texts = sorted(python_files(folders), key=digest)  # an order that mixes packages and stays put
    out.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for split, chosen in (("held", True), ("train", False)):
        part = [text for text in texts if held_out(text) is chosen]
        write_atomically(out / f"{split}.jsonl", "".join(json.dumps(text) + "\n" for text in part))
        sizes[split] = sum(map(len, part))
    return sizes


def write_atomically(path: Path, content: str) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(content, encoding="utf-8")
    partial.replace(path)


def read_texts(path: Path) -> list[str]:
    """The texts of a jsonl file written by `collect`."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; run the `corpus` command first")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def encode(texts: Sequence[str], tokenizer: Tokenizer, end: int, batch: int = 256) -> np.ndarray:
    """All texts as one row of uint16 ids, each with the tokenizer's own opening tokens and closed by `end`."""
    parts = []
    for start in range(0, len(texts), batch):
        for encoding in tokenizer.encode_batch_fast(list(texts[start : start + batch])):
            parts.append(np.array([*encoding.ids, end], dtype=np.uint16))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint16)


def limited(texts: Sequence[str], megabytes: float | None) -> list[str]:
    """The first texts that together hold at most so many million characters (all of them for None)."""
    if megabytes is None:
        return list(texts)
    total, chosen = 0, []
    for text in texts:
        total += len(text)
        if total > megabytes * 1e6:
            break
        chosen.append(text)
    return chosen
