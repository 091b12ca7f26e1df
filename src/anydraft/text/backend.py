"""Reading a tokenizer: its specification as data, its alphabet, its special tokens, and private plain copies.

Guarantees: the tokenizer handed in is only read (its JSON is taken, once); what encodes here is a copy that
adds no special tokens, finds none in the text, neither truncates nor pads, and drops nothing. Unicode
normalisation is removed from the copy where the vocabulary can express every byte: it changes prompts, never
what a token id means. Does not do: tables (token_bytes.py), spans (encoder.py).
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from tokenizers import Tokenizer

from anydraft.errors import TokenizerMismatch

SPACE_SIGN = "▁"  # SentencePiece's sign for a space
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Bytes that occur in UTF-8 text; 0xC0, 0xC1 and 0xF5 to 0xFF never do.
TEXT_BYTES = frozenset(range(0xF5)) - {0xC0, 0xC1}

Style = Literal["byte-level", "sentencepiece", "wordpiece", "plain"]


def _alphabet() -> dict[str, int]:
    """The byte-level alphabet of GPT-2: printable characters as they are, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


ALPHABET = _alphabet()
LETTER_OF_BYTE = tuple(sorted(ALPHABET, key=lambda letter: ALPHABET[letter]))


def components(node: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder as a flat sequence of its parts."""
    if node is None:
        return
    parts = next((node[key] for key in ("normalizers", "pretokenizers", "decoders") if key in node), None)
    if parts is None:
        yield node
        return
    for part in parts:
        yield from components(part)


@dataclass(frozen=True)
class Backend:
    """One tokenizer as data.

    Args:
        spec: the tokenizer's JSON; not to be modified.
        special: ids of special tokens (they control, they write no text).
    """

    spec: dict[str, Any]
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any) -> Backend:
        """Read a transformers tokenizer or a `tokenizers.Tokenizer`; TokenizerMismatch for anything else."""
        if isinstance(tokenizer, Backend):
            return tokenizer
        raw = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not hasattr(raw, "to_str"):
            raw = _convert(tokenizer)
        spec: dict[str, Any] = json.loads(raw.to_str())
        added = spec.get("added_tokens") or []
        roles = set(getattr(tokenizer, "all_special_ids", None) or [])
        special = {t["id"] for t in added if t["special"] or t["id"] in roles}
        unknown = spec["model"].get("unk_token")
        if isinstance(unknown, str):
            special |= {i for i in [raw.token_to_id(unknown)] if i is not None}
        elif spec["model"].get("unk_id") is not None:
            special.add(int(spec["model"]["unk_id"]))
        # Byte-fallback tokens are flagged special by some tokenizers, yet they write a byte.
        bytes_ = {t["id"] for t in added if BYTE_TOKEN.fullmatch(t["content"])}
        return cls(spec, frozenset(special - bytes_))

    def within(self, size: int) -> Backend:
        """Without tokens added beyond `size`: a model of so many embeddings can neither read nor write them.

        TokenizerMismatch where they are more than added ones: then it is another model's tokenizer.
        """
        added = self.spec.get("added_tokens") or []
        beyond = {i for i in self.strings if i >= size}
        if not beyond:
            return self
        if beyond - {t["id"] for t in added}:
            raise TokenizerMismatch(
                f"the tokenizer has token ids up to {max(beyond)}, its model a vocabulary of {size}; "
                "pass the model's own tokenizer"
            )
        model = dict(self.spec["model"])
        if isinstance(model.get("vocab"), dict):
            model["vocab"] = {token: i for token, i in model["vocab"].items() if i < size}
        elif model.get("vocab"):
            model["vocab"] = model["vocab"][:size]
        spec = self.spec | {"model": model, "added_tokens": [t for t in added if t["id"] < size]}
        return Backend(spec, self.special - beyond)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokenizer: merges and word rules too."""
        return hashlib.sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()

    @cached_property
    def fallback(self) -> frozenset[int]:
        """Ids of byte tokens (`<0x0A>`), which a tokenizer uses only where it has no other."""
        if self.style != "sentencepiece":
            return frozenset()
        return frozenset(i for i, string in self.strings.items() if BYTE_TOKEN.fullmatch(string))

    @cached_property
    def strings(self) -> dict[int, str]:
        """Token strings as the tokenizer's file spells them, added tokens included."""
        vocabulary = self.spec["model"].get("vocab") or {}
        if isinstance(vocabulary, dict):
            strings = {i: token for token, i in vocabulary.items()}
        else:  # Unigram: a list of (piece, score)
            strings = {i: piece for i, (piece, _) in enumerate(vocabulary)}
        return strings | {t["id"]: t["content"] for t in self.spec.get("added_tokens") or []}

    @cached_property
    def verbatim(self) -> frozenset[int]:
        """Ids of added tokens that the model itself does not know: their string is their text."""
        known = self.spec["model"].get("vocab") or {}
        known = known if isinstance(known, dict) else {piece for piece, _ in known}
        return frozenset(t["id"] for t in self.spec.get("added_tokens") or [] if t["content"] not in known)

    @cached_property
    def literals(self) -> re.Pattern[bytes] | None:
        """Strings of tokens that do not write their string, where the model would take the text for them."""
        if self.spec["model"].get("type") != "Unigram":
            return None
        wrong = [self.strings[i] for i in sorted(self.special | self.fallback) if len(self.strings[i]) > 1]
        return re.compile(b"|".join(re.escape(string.encode()) for string in wrong)) if wrong else None

    @cached_property
    def style(self) -> Style:
        """How token strings stand for bytes."""
        parts = [p for k in ("normalizer", "pre_tokenizer", "decoder") for p in components(self.spec.get(k))]
        kinds = {part["type"] for part in parts}
        if "ByteLevel" in kinds:
            return "byte-level"
        if self.spec["model"].get("type") == "WordPiece" or "WordPiece" in kinds:
            return "wordpiece"
        if kinds & {"Metaspace", "ByteFallback"} or any(SPACE_SIGN in json.dumps(p, ensure_ascii=False) for p in parts):
            return "sentencepiece"
        return "plain"

    @cached_property
    def complete(self) -> bool:
        """Whether every byte of any text can be written by a token of its own."""
        strings = set(self.strings.values())
        if self.style == "byte-level":
            return all(LETTER_OF_BYTE[byte] in strings for byte in TEXT_BYTES)
        return self.style == "sentencepiece" and all(f"<0x{byte:02X}>" in strings for byte in TEXT_BYTES)

    @cached_property
    def splits(self) -> bool:
        """Whether text is cut into words before merging, by rules that may look at neighbours."""
        kinds = list(components(self.spec.get("pre_tokenizer")))
        return not self.complete or any(
            not (part["type"] == "Metaspace" or (part["type"] == "ByteLevel" and part.get("use_regex") is False))
            for part in kinds
        )

    @property
    def unknown(self) -> int | None:
        """Id of the token that stands for text outside of the vocabulary, if there is one."""
        name, index = self.spec["model"].get("unk_token"), self.spec["model"].get("unk_id")
        if isinstance(name, str):
            return next((i for i, token in self.strings.items() if token == name), None)
        return None if index is None else int(index)

    def opening_space(self, text: bytes) -> bytes:
        """The space that the tokenizer itself puts before a text: one or none."""
        parts = [p for k in ("normalizer", "pre_tokenizer") for p in components(self.spec.get(k))]
        for part in parts:
            if part["type"] == "Prepend":
                return b" "
            scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
            adds = scheme != "never" if part["type"] == "Metaspace" else part.get("add_prefix_space", False)
            if adds and not text.startswith(b" "):
                return b" "
        return b""

    def plain_copy(self) -> Tokenizer:
        """A private tokenizer for text only."""
        spec = {key: value for key, value in self.spec.items() if key != "model"}
        spec = copy.deepcopy(spec) | {"truncation": None, "padding": None, "post_processor": None}
        model = dict(self.spec["model"])
        if "dropout" in model:
            model["dropout"] = None
        if "byte_fallback" in model and self.style == "sentencepiece" and self.complete:
            model["byte_fallback"] = True
        keep = [part for part in components(spec.get("normalizer")) if self._keeps(part)]
        spec["normalizer"] = {"type": "Sequence", "normalizers": keep} if keep else None
        for part in components(spec.get("pre_tokenizer")):
            if part["type"] == "Metaspace":
                part.pop("add_prefix_space", None)
                part["prepend_scheme"] = "never"
            elif part["type"] == "ByteLevel":
                part["add_prefix_space"] = False
        for token in spec.get("added_tokens") or []:
            # Also out of reach: a string that stands for other bytes in the model's alphabet ("Ġa").
            strange = self.style == "byte-level" and token["id"] not in self.verbatim
            strange = strange and not token["content"].isascii()
            token["special"] = token["special"] or token["id"] in self.special or strange
            token["lstrip"] = token["rstrip"] = False
        result = Tokenizer.from_str(json.dumps(spec | {"model": model}))
        result.encode_special_tokens = True
        return result

    def _keeps(self, part: dict[str, Any]) -> bool:
        """Whether a normalizer stays in the private copy."""
        if not self.complete:
            return part["type"] not in ("Prepend", "Strip")
        return bool(part == {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_SIGN})


def _convert(tokenizer: Any) -> Tokenizer:
    """The fast twin of a slow transformers tokenizer; TokenizerMismatch where there is none."""
    try:
        from transformers.convert_slow_tokenizer import convert_slow_tokenizer

        result: Tokenizer = convert_slow_tokenizer(tokenizer)
        return result
    except Exception as error:
        raise TokenizerMismatch(
            f"{type(tokenizer).__name__} cannot be read as a table of bytes ({error}); pass a fast tokenizer "
            "(use_fast=True) or a tokenizers.Tokenizer"
        ) from error
