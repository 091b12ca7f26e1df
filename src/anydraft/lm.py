"""LanguageModel: any Hugging Face causal language model seen as "score these nodes".

No copies of modelling code: a pass hands the model a 4-D mask, explicit position ids and a `SlotCache`, which
together give exact tree attention. Targets and assistants are both read through this class; it never changes
the model, its config or its generation config.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedModel

from anydraft.cache import SlotCache, bucket
from anydraft.errors import UnsupportedModel
from anydraft.grouped import Grouping
from anydraft.hidden import LastHidden
from anydraft.masks import Masks
from anydraft.onednn import makes_kernels
from anydraft.shapes import padded_span, padded_width, whole_span

Nodes = tuple[Sequence[int], Sequence[int]]
"""New nodes of one row: token ids, and parents as indices into the row's tail (-1 = end of the prefix)."""


class Pass(NamedTuple):
    """What a forward pass gave: logits (rows, width, vocab), and when asked for last hidden states (rows, width, H)."""

    logits: torch.Tensor
    hidden: torch.Tensor | None


PREFILL_CHUNK = 512
ATTENTION_KINDS = {"full_attention", "sliding_attention"}


class LanguageModel:
    """Scores nodes of token trees with one forward pass.

    Args:
        model: a causal language model of transformers, in evaluation mode or not (it is called under
            `inference_mode`; dropout must be off, so a model in training mode is refused).
        fixed_width: when given, every pass has exactly this many nodes per row and a key span in whole buckets,
            so that floating point results do not depend on how many tokens were drafted.
        alike: pad passes in bfloat16 on a CPU so that a token is rounded alike alone and among others, as far as that
            is known (`shapes.py`). Where the width is fixed that is so anyway.
    """

    def __init__(self, model: PreTrainedModel, *, fixed_width: int | None = None, alike: bool = False) -> None:
        _refuse_unsupported(model)
        self.model = model
        self.fixed_width = fixed_width
        self.text_config = model.config.get_text_config()
        self.vocab_size = int(self.text_config.vocab_size)
        self.dtype = model.dtype
        self.kinds = _mask_kinds(self.text_config)
        self.window = int(getattr(self.text_config, "sliding_window", None) or 0)
        parameters = inspect.signature(model.forward).parameters
        self._takes_keep = "logits_to_keep" in parameters
        on_cpu = model.device.type == "cpu"
        self._few = on_cpu and makes_kernels(self.dtype)
        self._alike = alike and on_cpu and self.dtype == torch.bfloat16 and fixed_width is None
        self._company = self._alike and self.text_config._attn_implementation == "sdpa"
        self._whole = self._alike and (self._few or not self._company)
        self._masks = Masks(self.kinds, self.window, self.dtype)
        self._embedding = model.get_input_embeddings()
        self._catcher: LastHidden | None = None
        self._grouping = Grouping(model)

    @property
    def device(self) -> torch.device:
        """Where token ids go in and logits come out."""
        embedding = self._embedding
        device = next(embedding.parameters()).device
        # Offloaded weights are on "meta"; accelerate says where they come to be used.
        hook = getattr(embedding, "_hf_hook", None) if device.type == "meta" else None
        return torch.device(hook.execution_device) if hook is not None else device

    @property
    def context_length(self) -> int:
        """Positions that the model was made for; very large when its config does not say."""
        config = self.text_config
        for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
            if getattr(config, name, None):
                return int(getattr(config, name))
        return 1 << 30

    @property
    def num_parameters(self) -> int:
        """Parameters of the model, tied ones counted once."""
        return sum(p.numel() for p in self.model.parameters())

    def new_cache(self, rows: int, slots: int = 1) -> SlotCache:
        """An empty cache with room for `slots` tokens a row."""
        return SlotCache(rows, self._span(slots), company=self._company)

    def prefill(self, cache: SlotCache, row: int, tokens: Sequence[int]) -> None:
        """Append committed tokens to one row of the cache, in chunks."""
        self._read(cache, range(row, row + 1), [tokens], hidden=None)

    def prefill_rows(
        self, cache: SlotCache, prompts: Sequence[Sequence[int]], *, hidden: Literal["last", "all"] | None = None
    ) -> list[torch.Tensor]:
        """Read prompts into the empty rows of a cache: several in one pass while they are short, equal ones once.

        With fixed shapes every prompt is read by itself, so that its neighbours do not matter.

        Returns:
            per row the last hidden states (tokens, H) of all tokens or of the last one, when asked for; else nothing.
        """
        known: dict[tuple[int, ...], int] = {}
        sources = [known.setdefault(tuple(tokens), row) for row, tokens in enumerate(prompts)]
        states: list[torch.Tensor] = []
        row = 0
        while row < len(prompts):
            end = row + 1
            longest = len(prompts[row])
            while self.fixed_width is None and end < len(prompts):
                longest = max(longest, len(prompts[end]))
                if longest * (end + 1 - row) > PREFILL_CHUNK:
                    break
                end += 1
            rows = range(row, end)
            states += self._read(cache, rows, [prompts[r] if sources[r] == r else [] for r in rows], hidden=hidden)
            row = end
        for row, source in enumerate(sources):
            if source != row:
                cache.copy_prefix(source, row)
        return [states[source] for source in sources] if hidden is not None else []

    def _read(
        self, cache: SlotCache, rows: range, prompts: Sequence[Sequence[int]], *, hidden: Literal["last", "all"] | None
    ) -> list[torch.Tensor]:
        parts: list[list[torch.Tensor]] = [[] for _ in rows]
        for start in range(0, max(len(tokens) for tokens in prompts), PREFILL_CHUNK):
            chunks = [tokens[start : start + PREFILL_CHUNK] for tokens in prompts]
            nodes = [chain(chunk) for chunk in chunks]
            width = self.padded_width(max(len(chunk) for chunk in chunks), len(rows))
            states = self._pass(cache, nodes, rows=rows, keep=1, width=width, hidden=hidden is not None).hidden
            for i, (row, chunk) in enumerate(zip(rows, chunks, strict=True)):
                cache.advance(row, len(chunk))
                if states is not None and hidden == "all":
                    parts[i].append(states[i, : len(chunk)])
                elif states is not None and len(chunk):
                    parts[i] = [states[i, len(chunk) - 1 : len(chunk)].clone()]  # a view would keep the whole pass
        return [torch.cat(part) if part else torch.empty(0) for part in parts] if hidden is not None else []

    def score(self, cache: SlotCache, nodes: Sequence[Nodes], *, hidden: bool = False) -> Pass:
        """Append nodes to the tails of the cache's rows and score them in one pass.

        Returns:
            logits (rows, width, vocab) in the model's dtype; node i of a row is at [row, i], what lies behind
            its last new node is padding. When asked for, the last hidden states (rows, width, H) of the same nodes.
        """
        width = max((len(tokens) for tokens, _ in nodes), default=0)
        if width == 0:
            raise ValueError("a pass needs at least one node in one row")
        if self.fixed_width is not None:
            if width > self.fixed_width:
                raise ValueError(f"a pass of {width} nodes does not fit the fixed width {self.fixed_width}")
            width = self.fixed_width
        else:
            width = self.padded_width(width, cache.num_rows)
        return self._pass(cache, nodes, rows=range(cache.num_rows), keep=None, width=width, hidden=hidden)

    def padded_width(self, width: int, rows: int) -> int:
        """The width that a pass over so many nodes per row is padded to, where its width is not fixed."""
        return padded_width(width, rows, few=self._few, alike=self._whole)

    def _span(self, slots: int) -> int:
        return padded_span(slots) if self._alike else whole_span(slots)

    @torch.inference_mode()
    def _pass(
        self, cache: SlotCache, nodes: Sequence[Nodes], *, rows: range, keep: int | None, width: int, hidden: bool
    ) -> Pass:
        starts = []
        for r, (tokens, parents) in zip(rows, nodes, strict=True):
            starts.append(cache.lengths[r] + len(cache.tails[r]))
            if len(tokens):
                cache.append(r, parents)
        span = self._span(max(starts) + width)
        if self.fixed_width is not None:
            span = bucket(max(span, cache.fixed_span))
        cache.reserve(span)
        cache.plan(rows, starts, width, span)
        ids, positions = [], []
        for r, (tokens, _) in zip(rows, nodes, strict=True):
            n, length, depths = len(tokens), cache.lengths[r], cache.depths[r]
            ids.append([*tokens, *[0] * (width - n)])
            positions.append([*[length + depth for depth in depths[len(depths) - n :]], *[length] * (width - n)])
        device = self.device
        arguments: dict[str, Any] = {"logits_to_keep": keep} if keep is not None and self._takes_keep else {}
        catching: AbstractContextManager[list[torch.Tensor]]
        catching = self._last_hidden().caught() if hidden else nullcontext([])
        with catching as states, self._grouping:
            output = self.model(
                input_ids=torch.tensor(ids, device=device),
                position_ids=torch.tensor(positions, device=device),
                attention_mask=self._masks.of(cache, rows, [len(tokens) for tokens, _ in nodes], width, device),
                past_key_values=cache,
                use_cache=True,
                return_dict=True,
                **arguments,
            )
        return Pass(output.logits, LastHidden.newest(states, self.model) if hidden else None)

    def _last_hidden(self) -> LastHidden:
        if self._catcher is None:
            self._catcher = LastHidden(self.model)
        return self._catcher


def chain(tokens: Sequence[int], start: int = 0) -> Nodes:
    """Nodes of a chain: the first continues tail node `start - 1` (-1 = the prefix)."""
    return tokens, range(start - 1, start + len(tokens) - 1)


def _mask_kinds(config: Any) -> list[str]:
    """Kinds of attention layers, in the words of transformers."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types:
        kinds = sorted(set(layer_types))
        unknown = [kind for kind in kinds if kind not in ATTENTION_KINDS]
        if unknown:
            raise UnsupportedModel(
                f"layers of kind {', '.join(map(repr, unknown))} keep a state that cannot be rolled back after a "
                "rejected draft; anydraft needs attention layers (full or sliding). Use the model without anydraft."
            )
        return kinds
    return ["sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"]


def _refuse_unsupported(model: PreTrainedModel) -> None:
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModel(f"expected a model of transformers (PreTrainedModel), got {name}")
    if model.config.is_encoder_decoder:
        raise UnsupportedModel(f"{name} is an encoder-decoder; anydraft decodes causal (decoder-only) models")
    parameters = inspect.signature(model.forward).parameters
    if getattr(model, "_is_stateful", False) or "past_key_values" not in parameters:
        raise UnsupportedModel(
            f"{name} keeps a recurrent state instead of a key-value cache, which cannot be rolled back after a "
            "rejected draft; anydraft needs an attention model"
        )
    if "position_ids" not in parameters:
        raise UnsupportedModel(
            f"{name} takes no position ids (positions come from a 2-D mask, as with alibi), so a tree of drafts "
            "cannot be scored; use another target"
        )
    if model.training:
        raise UnsupportedModel(f"{name} is in training mode, where dropout is random; call model.eval() first")
    implementation = getattr(model.config, "_attn_implementation", None)
    if implementation not in (None, "sdpa", "eager"):
        raise UnsupportedModel(
            f"attention implementation {implementation!r} takes no 4-D masks; load the model with "
            "attn_implementation='sdpa' (or 'eager')"
        )
