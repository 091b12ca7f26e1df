"""Universal drafter (UAG): any model drafts for any other, whatever its tokenizer (arXiv 2502.05202).

Bytes are the common currency. Committed target tokens become bytes, the draft's context follows them exactly
(text/alignment.py), the assistant grows a tree of its own tokens, and the bytes of its paths become target
tokens again, merged into one tree for the target to verify. Under sampling the assistant follows the target's
noise (coupling.py).

With `verification="rejection"` drafts are drawn over the tokens that both vocabularies share (intersection.py).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from anydraft.drafters.coupling import Coupling, Floats, Place
from anydraft.drafters.draft_model import DraftModel
from anydraft.drafters.draws import warped
from anydraft.drafters.intersection import Intersection
from anydraft.drafters.retokenize import Retokenizer
from anydraft.growth import Bounds, Children, Growth
from anydraft.lm import LanguageModel
from anydraft.row import Row
from anydraft.text.alignment import DraftContext
from anydraft.text.backend import Backend
from anydraft.text.encoder import PlainEncoder
from anydraft.text.vocabulary import TargetSegments
from anydraft.tree import DraftTree
from anydraft.verify import Verification


@dataclass
class _State:
    """One row as the drafter sees it."""

    context: DraftContext
    seen: int = 0
    growth: Growth = field(default_factory=Growth)
    places: dict[int, Place] = field(default_factory=dict)
    noise: OrderedDict[int, Floats] = field(default_factory=OrderedDict)
    probs: dict[int, torch.Tensor] = field(default_factory=dict)


class UniversalDrafter:
    """Drafts with a causal language model of any tokenizer.

    Args:
        lm: the assistant.
        tokenizer: the assistant's; target_tokenizer: the target's.
        vocab_size: of the target.
        eos_token_ids: of the target; the draft's own end becomes the target's.
        verification: "exact" or "rejection".
    """

    name = "universal"

    def __init__(
        self,
        lm: LanguageModel,
        tokenizer: Any,
        *,
        target_tokenizer: Any,
        vocab_size: int,
        eos_token_ids: frozenset[int] = frozenset(),
        verification: Verification = "exact",
    ) -> None:
        self.lm = lm
        self.model = DraftModel(lm)
        self.tokenizer = tokenizer
        self.encoder = PlainEncoder(Backend.of(tokenizer).within(lm.vocab_size))
        self.target_encoder = PlainEncoder(Backend.of(target_tokenizer).within(vocab_size))
        self.vocab_size = vocab_size
        self.eos_token_ids = eos_token_ids
        self.verification = verification
        self.enders = _enders(lm, tokenizer)
        self._size = min(lm.vocab_size, self.encoder.table.size)
        self.retokenizer = Retokenizer(self.encoder, self.target_encoder, self.enders, eos_token_ids)
        self.intersection = Intersection(
            self.encoder.table,
            self.target_encoder.table,
            size=self._size,
            vocab_size=vocab_size,
            enders=self.enders,
            end=min(eos_token_ids, default=None),
        )
        self.seconds_convert = 0.0
        self._rows: dict[Row, _State] = {}
        self._width = 1

    def start(self, rows: Sequence[Row]) -> None:
        """Read the prompts in the assistant's own tokens."""
        for row in rows:
            state = _State(self._context(row))
            if len(state.context) > self._room():
                state.context.slide(self._room() // 2)
            self._rows[row] = state
            self.model.start(row, state.context.tokens)

    def propose(self, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        """One tree per row, in the target's tokens."""
        started = time.perf_counter()
        unread = [self._sync(row) for row in rows]
        self.seconds_convert += time.perf_counter() - started
        if self.verification == "rejection":
            self._width = max(min(b.width, b.branch) for b in bounds)
            drawn = [self.intersection.bounded(b, self._width) for b in bounds]
            growths = self.model.grow(rows, unread, drawn, self._draw)
            return [self._mapped(row, growth) for row, growth in zip(rows, growths, strict=True)]
        growths = self.model.grow(rows, unread, bounds, self._children)
        started = time.perf_counter()
        drafts = []
        for row, growth, bound in zip(rows, growths, bounds, strict=True):
            state = self._rows[row]
            state.growth = growth
            drafts.append(self.retokenizer.draft(growth, state.context, bound))
        self.seconds_convert += time.perf_counter() - started
        return drafts

    def stop(self, rows: Sequence[Row]) -> None:
        """Forget the rows."""
        self.model.stop(rows)
        for row in rows:
            self._rows.pop(row, None)

    def _context(self, row: Row) -> DraftContext:
        if row.draft_prompt is not None:
            ids = self.tokenizer(row.draft_prompt, add_special_tokens=False)["input_ids"]
            known = [token for token in ids if token < self.lm.vocab_size]
            context = DraftContext(self.encoder, b"", known or self._opening)
        else:
            context = DraftContext(self.encoder, row.prompt_text, self._opening)
        if not len(context):
            # No start token and nothing to read: any token will do, for losslessness does not depend on it.
            context = DraftContext(self.encoder, b"", [min(self.enders, default=0)])
        return context

    @cached_property
    def _opening(self) -> list[int]:
        """Special tokens that the assistant's tokenizer puts before a text."""
        opening = []
        for token in self.tokenizer("a")["input_ids"]:
            if token not in self.encoder.table.special:
                break
            opening.append(int(token))
        return opening

    def _sync(self, row: Row) -> list[int]:
        """Bring context and cache in line with what was committed; returns the tokens to be read."""
        state = self._rows[row]
        new = self.target_encoder.table.join(row.tokens[state.seen :])
        state.seen = len(row.tokens)
        state.context.extend(self._kept(state.growth, new))
        valid = state.context.sync(new)
        if len(state.context) > self._room():
            # The window slides by half, so that rereading it stays rare.
            state.context.slide(self._room() // 2)
            valid = 0
        state.growth = Growth()
        state.places = {}
        state.probs = {}
        return self.model.sync(row, state.context.tokens, valid)

    def _kept(self, growth: Growth, committed: bytes) -> list[int]:
        """The longest drafted path whose bytes are a prefix of the committed ones."""
        pieces = self.encoder.table
        ends = {-1: 0}
        best, deepest = -1, 0
        for node, (token, parent) in enumerate(zip(growth.tokens, growth.parents, strict=True)):
            piece = pieces.bytes_of(token)
            start = ends.get(parent)
            if piece and start is not None and committed[start : start + len(piece)] == piece:
                ends[node] = start + len(piece)
                if ends[node] > deepest:
                    best, deepest = node, ends[node]
        path = []
        while best >= 0:
            path.append(growth.tokens[best])
            best = growth.parents[best]
        return path[::-1]

    def _children(self, row: Row, growth: Growth, frontier: list[int], logits: torch.Tensor) -> list[Children]:
        state = self._rows[row]
        scores = warped(row, logits[:, : self._size])
        scores = scores.masked_fill(self._silent, float("-inf"))
        if frontier == [-1] and state.context.pending:
            scores = scores.masked_fill(self._unlike(state.context.pending), float("-inf"))
        logs = scores.log_softmax(-1)
        noise = row.noise
        if noise is not None:
            vectors: Floats = logs.numpy(force=True).astype(np.float64)
            coupled = []
            for node, vector in zip(frontier, vectors, strict=True):
                parent = growth.parents[node] if node >= 0 else -1
                if node < 0:
                    state.places[-1] = self.coupling.start(row.position)
                else:
                    state.places[node] = self.coupling.step(state.places[parent], growth.tokens[node])
                coupled.append(self.coupling.scores(state.places[node], vector, noise, state.noise))
            logs = torch.from_numpy(np.stack(coupled))
        best, tokens = torch.topk(logs, min(growth.branch, self._size), dim=-1)
        return [
            [(t, s, t in self.enders) for t, s in zip(row_t, row_s, strict=True) if not s <= -1e30]
            for row_t, row_s in zip(tokens.tolist(), best.tolist(), strict=True)
        ]

    @cached_property
    def coupling(self) -> Coupling:
        """The target's noise for this vocabulary; built when first sampled."""
        segments = TargetSegments(self.encoder, self.target_encoder.table)
        return Coupling(self.encoder, self.target_encoder, segments, self._size)

    @cached_property
    def _silent(self) -> torch.Tensor:
        """Tokens that are never drafted: special ones other than ends, and ids without text."""
        table = self.encoder.table
        silent = [token not in self.enders and not table.bytes_of(token) for token in range(self._size)]
        return torch.tensor(silent, device=self.lm.device)

    def _unlike(self, pending: bytes) -> torch.Tensor:
        """Tokens that do not go on with bytes that are already committed."""
        pieces = (self.encoder.table.bytes_of(token) or b"" for token in range(self._size))
        unlike = [not (p.startswith(pending) and len(p) > len(pending)) for p in pieces]
        return torch.tensor(unlike, device=self.lm.device)

    def _draw(self, row: Row, growth: Growth, frontier: list[int], logits: torch.Tensor) -> list[Children]:
        state = self._rows[row]
        if state.context.pending:
            return [[]]
        position = row.position + growth.depth(frontier[0])
        children, state.probs[frontier[0]] = self.intersection.draw(row, position, logits, self._width)
        return children

    def _mapped(self, row: Row, growth: Growth) -> DraftTree:
        state = self._rows[row]
        state.growth = growth
        tokens = tuple(int(self.intersection.there[token]) for token in growth.tokens)
        return DraftTree(tokens, tuple(growth.parents), probs=state.probs)

    def _room(self) -> int:
        return max(8, self.lm.context_length - 72)


def _enders(lm: LanguageModel, tokenizer: Any) -> frozenset[int]:
    """Draft tokens that mean: the text, or the turn, is over."""
    found: set[int] = set()
    for source in (lm.model.generation_config, lm.text_config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        if ids is not None:
            found.update([ids] if isinstance(ids, int) else ids)
    return frozenset(token for token in found if 0 <= token < lm.vocab_size)
