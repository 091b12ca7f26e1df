"""Two vocabularies side by side, byte for byte: a map between their ids, how far they overlap, and segments.

Token strings are not compared (`å` is a character in one vocabulary and a raw byte in another); what tokens
write is. The map is injective. Where a vocabulary has several tokens for the same bytes, the one that its
tokenizer produces counts: the lowest id, byte-fallback tokens last. Special tokens are mapped by role only,
see `with_roles`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers

from anydraft.errors import OptionConflict
from anydraft.text.encoder import PlainEncoder
from anydraft.text.stored import Ints, stored
from anydraft.text.token_bytes import TokenBytes

__all__ = ["TargetSegments", "VocabularyMap", "VocabularyReport", "report"]


@dataclass(frozen=True, eq=False)
class VocabularyMap:
    """Which draft token writes the same bytes as which target token.

    Args:
        draft_to_target: target id per draft id, -1 for none. Shape (draft size,), int32.
        target_to_draft: draft id per target id, -1 for none. Shape (target size,), int32.
        same: the vocabularies are identical up to padding: ids pass as they are.
    """

    draft_to_target: Ints
    target_to_draft: Ints
    same: bool

    @classmethod
    def between(cls, draft: TokenBytes, target: TokenBytes, cache_dir: Path | None = None) -> VocabularyMap:
        """The map of two tables, kept on disk under their digests."""
        shape = {"draft_to_target": draft.size, "target_to_draft": target.size}

        def check(arrays: Mapping[str, Ints]) -> bool:
            return {name: a.size for name, a in arrays.items()} == shape and all(
                a.ndim == 1 and _between(a, -1, other - 1)
                for a, other in [
                    (arrays["draft_to_target"], target.size),
                    (arrays["target_to_draft"], draft.size),
                ]
            )

        sizes = f"{draft.size} {target.size}"
        arrays = stored("map", (draft.digest, target.digest, sizes), lambda: _match(draft, target), check, cache_dir)
        return cls(arrays["draft_to_target"], arrays["target_to_draft"], draft.same_as(target))

    @property
    def shared(self) -> int:
        """Number of pairs."""
        return int((self.draft_to_target >= 0).sum())

    def with_roles(self, roles: Mapping[int, int]) -> VocabularyMap:
        """The same map with special tokens paired by role: draft id -> target id (end of text, end of turn).

        Several draft tokens may have one role; the first that is named stands for the target's.
        """
        there, back = self.draft_to_target.copy(), self.target_to_draft.copy()
        for draft_id, target_id in roles.items():
            if back[target_id] < 0 and there[draft_id] < 0:
                there[draft_id], back[target_id] = target_id, draft_id
        return replace(self, draft_to_target=there, target_to_draft=back)


@dataclass(frozen=True)
class VocabularyReport:
    """How far two vocabularies overlap, by count and by use.

    Shares are between 0 and 1, of a text's tokens and bytes; None if no text was given.
    """

    shared: int
    draft_size: int
    target_size: int
    same: bool
    target_token_share: float | None = None
    target_byte_share: float | None = None
    draft_token_share: float | None = None
    draft_byte_share: float | None = None


def report(
    draft: PlainEncoder | TokenBytes,
    target: PlainEncoder | TokenBytes,
    text: str | None = None,
    cache_dir: Path | None = None,
) -> VocabularyReport:
    """Overlap of two vocabularies; with a text, also the share of its tokens that have a counterpart.

    Sizes count tokens that write something. A text needs encoders, not tables: raises OptionConflict.
    """
    draft_table = draft.table if isinstance(draft, PlainEncoder) else draft
    target_table = target.table if isinstance(target, PlainEncoder) else target
    mapping = VocabularyMap.between(draft_table, target_table, cache_dir)
    result = VocabularyReport(
        shared=mapping.shared,
        draft_size=sum(piece is not None for piece in draft_table.table),
        target_size=sum(piece is not None for piece in target_table.table),
        same=mapping.same,
    )
    if text is None:
        return result
    if not isinstance(draft, PlainEncoder) or not isinstance(target, PlainEncoder):
        raise OptionConflict("overlap by use encodes the text: pass PlainEncoder objects, or leave out text=")
    target_tokens, target_bytes = _shares(target, text, mapping.target_to_draft)
    draft_tokens, draft_bytes = _shares(draft, text, mapping.draft_to_target)
    return replace(
        result,
        target_token_share=target_tokens,
        target_byte_share=target_bytes,
        draft_token_share=draft_tokens,
        draft_byte_share=draft_bytes,
    )


class TargetSegments:
    """Every target token as draft tokens: the draft encoding of its bytes as a continuation.

    In CSR form: the segment of target token t is `values[offsets[t]:offsets[t + 1]]`, empty for special
    tokens and for bytes that the draft's vocabulary cannot write. Computed when first asked for (seconds),
    kept on disk.

    Args:
        encoder: the draft tokenizer's.
        target: the target's table.
        cache_dir: folder of the file, if not the usual one.
    """

    def __init__(self, encoder: PlainEncoder, target: TokenBytes, cache_dir: Path | None = None) -> None:
        self._encoder = encoder
        self._target = target
        self._folder = cache_dir

    @property
    def values(self) -> Ints:
        """Draft tokens of all segments, one after the other. int32."""
        return self._arrays["values"]

    @property
    def offsets(self) -> Ints:
        """Where each segment starts, and the end of the last. Shape (target size + 1,), int32."""
        return self._arrays["offsets"]

    def of(self, token: int) -> tuple[int, ...]:
        """Draft tokens that write what the target token writes; empty if there are none."""
        return tuple(self.values[self.offsets[token] : self.offsets[token + 1]].tolist())

    @cached_property
    def _arrays(self) -> dict[str, Ints]:
        size = self._target.size

        def check(arrays: Mapping[str, Ints]) -> bool:
            values, offsets = arrays.get("values"), arrays.get("offsets")
            return (
                values is not None
                and offsets is not None
                and values.ndim == 1
                and offsets.shape == (size + 1,)
                and offsets[0] == 0
                and offsets[-1] == values.size
                and bool((np.diff(offsets) >= 0).all())
                and _between(values, 0, self._encoder.table.size - 1)
            )

        inputs = (self._encoder.digest, self._target.digest, str(size), tokenizers.__version__)
        return stored("segments", inputs, self._build, check, self._folder)

    def _build(self) -> dict[str, Ints]:
        pieces = self._target.table
        texts = [piece for piece in pieces if piece]
        table = self._encoder.table
        encoded = iter(self._encoder.encode_many(texts))
        segments: list[tuple[int, ...]] = []
        for piece in pieces:
            ids = next(encoded).ids if piece else ()
            segments.append(ids if ids and table.join(ids) == piece else ())
        lengths = np.array([len(segment) for segment in segments], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        values = np.array([token for segment in segments for token in segment], dtype=np.int32)
        return {"values": values, "offsets": offsets}


def _match(draft: TokenBytes, target: TokenBytes) -> dict[str, Ints]:
    """The two directions of the map."""
    there = np.full(draft.size, -1, dtype=np.int32)
    back = np.full(target.size, -1, dtype=np.int32)
    if draft.same_as(target):
        meant = [i for i in range(draft.trimmed) if draft.table[i] is not None or i in draft.special]
        there[meant] = back[meant] = meant
        return {"draft_to_target": there, "target_to_draft": back}
    known = target.ids
    pairs = [(i, known[piece]) for piece, i in draft.ids.items() if piece and piece in known]
    if pairs:
        left, right = np.array(pairs, dtype=np.int32).T
        there[left], back[right] = right, left
    return {"draft_to_target": there, "target_to_draft": back}


def _shares(encoder: PlainEncoder, text: str, counterpart: Ints) -> tuple[float, float]:
    """Share of the text's tokens, and of its bytes, whose token has a counterpart."""
    ids, ends, _ = encoder.encode(text.encode())
    if not ids or not ends[-1]:
        return 0.0, 0.0
    found = counterpart[np.array(ids)] >= 0
    return float(found.mean()), float((np.diff(ends, prepend=0) * found).sum() / ends[-1])


def _between(array: Ints, low: int, high: int) -> bool:
    return array.size == 0 or (int(array.min()) >= low and int(array.max()) <= high)
