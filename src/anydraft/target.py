"""Target: the model whose words are kept. Probed on load, so that no list of architectures is needed.

A small tree pass is compared with the plain passes of its paths: what agrees decides whether drafts may be
trees or only chains, and what agrees with neither is refused with the reason.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from anydraft.errors import UnsupportedModel
from anydraft.lm import LanguageModel
from anydraft.packing import is_rounded
from anydraft.tree import DraftTree

logger = logging.getLogger(__name__)

Structure = Literal["tree", "chain"]
PROBE_TREE = DraftTree(tokens=(5, 6, 7, 8, 9), parents=(-1, -1, 0, 0, 1))


class Target(LanguageModel):
    """A causal language model with its tokenizer, ready to verify drafts.

    Args:
        model: the target.
        tokenizer: its tokenizer; None allows token-level use only.
        exact: keep one shape for all passes, so that bfloat16 results do not depend on the draft.
        structure: skip the probe and trust the caller.

    Raises:
        UnsupportedModel: neither trees nor chains reproduce the model's own logits, or its weights are rounded.
    """

    EXACT_WIDTH = 8

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any = None,
        *,
        exact: bool = False,
        structure: Structure | None = None,
    ) -> None:
        if is_rounded(model):
            raise UnsupportedModel(
                "the weights of this model are rounded, for it was loaded to draft; load it anew by its name, or make "
                "it exact with anydraft.packing.unpack(model)"
            )
        super().__init__(model, fixed_width=self.EXACT_WIDTH if exact else None, alike=True)
        self.tokenizer = tokenizer
        self.exact = exact
        self.structure: Structure = structure or self._probe()

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Ids that end a sequence: those of the generation config, else of the config, else of the tokenizer."""
        for source in (self.model.generation_config, self.text_config, self.tokenizer):
            ids = getattr(source, "eos_token_id", None)
            if ids is not None:
                return frozenset([ids] if isinstance(ids, int) else ids)
        return frozenset()

    @torch.inference_mode()
    def _probe(self) -> Structure:
        """Compare a tree pass, then a chain pass, with plain forwards of the same paths."""
        width, self.fixed_width = self.fixed_width, None
        try:
            prefix_length = min(self.window + 3, 40) if self.window else 6
            prefix_length = max(2, min(prefix_length, self.context_length - 8))
            generator = np.random.default_rng(0)
            low = min(10, self.vocab_size - 1)
            prefix = [int(t) for t in generator.integers(low, self.vocab_size, prefix_length)]
            tree = DraftTree(tuple(t % self.vocab_size for t in PROBE_TREE.tokens), PROBE_TREE.parents)
            error = self._difference(prefix, tree)
            tolerance = 1e-3 if self.dtype in (torch.float32, torch.float64) else 0.15
            if error <= tolerance:
                return "tree"
            chain_error = self._difference(prefix, DraftTree.chain(tree.tokens))
            if chain_error <= tolerance:
                logger.info("%s verifies chains only (tree error %.2g)", type(self.model).__name__, error)
                return "chain"
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, KeyError) as failure:
            raise UnsupportedModel(
                f"{type(self.model).__name__} cannot score a tree of drafts: {type(failure).__name__}: {failure}"
            ) from failure
        finally:
            self.fixed_width = width
        raise UnsupportedModel(
            f"{type(self.model).__name__} gives other logits for drafted tokens than for the same text read plainly "
            f"(they differ by {chain_error:.2g} standard deviations, {tolerance} is allowed): its positions or masks "
            "do not follow position ids and a 4-D mask. Use it without anydraft."
        )

    def _difference(self, prefix: list[int], tree: DraftTree) -> float:
        """How far tree passes are from plain passes of the same paths.

        Per node the mean difference over the vocabulary in standard deviations of the plain logits, of which the
        worst node's is returned. A mean, because single logits of a deep model in half precision stray far.
        """
        cache = self.new_cache(1)
        self.prefill(cache, 0, prefix[:-1])
        cut = len(tree) // 2
        nodes = [prefix[-1], *tree.tokens], [-1, *(parent + 1 for parent in tree.parents)]
        # In two passes, so that reading back an uncommitted tail is probed as well.
        first = self.score(cache, [(nodes[0][:cut], nodes[1][:cut])]).logits[0, :cut].float()
        second = self.score(cache, [(nodes[0][cut:], nodes[1][cut:])]).logits[0].float()
        logits = torch.cat([first, second])
        error = 0.0
        for node in range(-1, len(tree)):
            path = prefix + [tree.tokens[n] for n in tree.path(node)]
            plain = self._plain(path)
            error = max(error, float((logits[node + 1] - plain).abs().mean() / plain.std().clamp(min=1e-12)))
        return error

    def _plain(self, tokens: list[int]) -> torch.Tensor:
        ids = torch.tensor([tokens], device=self.device)
        return self.model(input_ids=ids, use_cache=False).logits[0, -1].float()  # type: ignore[no-any-return]
