"""Corpus: what drafters are trained on. The target's own answers as `anydraft distill` writes them, or raw text.

Format of a folder: `shard-00000.jsonl` and so on, one answer a line, and `provenance.json` (target, tokenizer, prompts,
settings). The shard still being written counts as far as its lines are whole.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from anydraft.errors import OptionConflict, TokenizerMismatch
from anydraft.training.shards import read_shard, shard_paths
from anydraft.training.texts import read_texts

PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Sequence_:
    """A prompt and its answer, in the target's tokens; an end-of-sequence token is part of the answer."""

    prompt: list[int]
    answer: list[int]
    temperature: float


@dataclass(frozen=True)
class Corpus:
    """Sequences in the order of the data.

    Attributes:
        provenance: content of provenance.json; for raw text its source.
    """

    sequences: list[Sequence_]
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path, tokenizer_digest: str | None = None) -> Self:
        """Distilled data.

        Args:
            folder: as written by `anydraft distill`.
            tokenizer_digest: of the target's tokenizer (`TokenBytes.digest`), compared where both sides have one.

        Raises:
            OptionConflict: nothing there, or a broken line (named with file and number).
            TokenizerMismatch: data of another tokenizer.
        """
        folder = Path(folder)
        provenance = read_provenance(folder)
        theirs = provenance.get("tokenizer")
        if tokenizer_digest is not None and theirs is not None and tokenizer_digest != theirs:
            raise TokenizerMismatch(
                f"the data in {folder} was made with another tokenizer than the target's (for target "
                f"{provenance.get('target', {}).get('name')!r}); distil again with this target"
            )
        same: dict[int, int] = {}  # one object per token id: the data is mostly repetitions of few of them
        sequences = [
            Sequence_(
                [same.setdefault(token, token) for token in record["prompt"]],
                [same.setdefault(token, token) for token in record["answer"]],
                float(record["temperature"]),
            )
            for path in shard_paths(folder)
            for record, _ in read_shard(path, wrong_with)
        ]
        if not sequences:
            raise OptionConflict(f"{folder} holds no answers yet; let `anydraft distill` run for longer")
        return cls(sequences, provenance)

    @classmethod
    def from_texts(
        cls, path: str | Path, tokenizer: Any, *, glob: str | None = None, length: int = 256, prompt: int = 0
    ) -> Self:
        """Raw text, for comparison with distilled data: whole texts in pieces of `length` tokens.

        Args:
            path: a folder of texts, or a file as `read_texts` takes it: one text, or one a line of .jsonl.
            tokenizer: the target's.
            glob: which files of a folder; None for all.
            length: most tokens of a piece; what is left of a text is a shorter one.
            prompt: so many first tokens of a piece are its prompt, the others its answer.

        Raises:
            OptionConflict: nothing there, or pieces without an answer.
        """
        if not 0 <= prompt < length:
            raise OptionConflict(f"prompt must be >= 0 and < length={length}, got {prompt}")
        path = Path(path)
        documents, sha256 = read_texts(path, glob)
        pieces: list[Sequence_] = []
        for document in documents:
            ids = [int(token) for token in tokenizer(document.text)["input_ids"]]
            for start in range(0, len(ids), length):
                piece = ids[start : start + length]
                if len(piece) > prompt + 1:
                    pieces.append(Sequence_(piece[:prompt], piece[prompt:], 1.0))
        if not pieces:
            raise OptionConflict(f"{str(path)!r} holds no text of more than {prompt + 1} tokens")
        return cls(pieces, {"texts": {"source": path.resolve().name, "sha256": sha256, "length": length}})

    @property
    def tokens(self) -> int:
        """Tokens of all answers."""
        return sum(len(sequence.answer) for sequence in self.sequences)

    @property
    def incomplete(self) -> str | None:
        """How much of distilled data is missing, in words; None where it is whole."""
        if self.provenance.get("complete") is not False:
            return None
        prompts = self.provenance.get("prompts")
        count = prompts.get("count") if isinstance(prompts, dict) else None
        wanted = self.provenance.get("wanted", count)
        return (
            f"{len(self.sequences)} of {wanted} answers, not complete: `anydraft distill` was stopped or is still "
            "running; the same command goes on with it"
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all tokens, so that a resumed training can tell whether its data is the same."""
        hasher = hashlib.sha256()
        for sequence in self.sequences:
            for ids in (sequence.prompt, sequence.answer):
                hasher.update(np.asarray([len(ids), *ids], dtype="<i4").tobytes())
        return hasher.hexdigest()


def read_provenance(folder: Path) -> dict[str, Any]:
    """Content of a folder's provenance file.

    Raises:
        OptionConflict: there is no such folder or file, or it is broken.
    """
    try:
        content = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise OptionConflict(
            f"{folder} holds no distilled data ({PROVENANCE} cannot be read: {problem}); make some with `anydraft "
            "distill`"
        ) from problem
    if not isinstance(content, dict):
        raise OptionConflict(f"{folder / PROVENANCE} holds a {type(content).__name__} instead of an object")
    return content


def wrong_with(record: Any) -> str | None:
    """What is wrong with a line of a shard; None for nothing."""
    if not isinstance(record, dict):
        return f"a {type(record).__name__} instead of an object"
    for key in ("prompt", "answer"):
        if not _is_ids(record.get(key)):
            return f'"{key}" is no list of token ids'
    if not isinstance(record.get("id"), str):
        return '"id" is no string'
    if not isinstance(record.get("temperature"), int | float):
        return '"temperature" is no number'
    return None if record["answer"] else "the answer is empty"


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(token) is int and token >= 0 for token in value)
