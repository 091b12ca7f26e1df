"""A tree of draft tokens as a tree of target tokens.

Every path's bytes become target tokens (the committed ones stay as they are), and equal prefixes are merged.
A target token counts as likely as the draft path that covers it; one that unseen text could still change
counts half. The best nodes are kept, so where paths read a boundary differently their readings compete for a place.
"""

from __future__ import annotations

import math
from dataclasses import replace

from anydraft.growth import Bounds, Growth
from anydraft.text.alignment import DraftContext, to_target
from anydraft.text.encoder import PlainEncoder
from anydraft.tree import DraftTree

UNSTABLE = math.log(0.5)
RECENT = 64
"""Committed bytes that may decide how a draft is cut into tokens."""


class Retokenizer:
    """Converts drafts of one tokenizer pair.

    Args:
        draft, target: encoders of the two tokenizers.
        enders: draft tokens that end a text or a turn; ends: the target's, all of which are proposed then.
    """

    def __init__(
        self, draft: PlainEncoder, target: PlainEncoder, enders: frozenset[int], ends: frozenset[int]
    ) -> None:
        self.draft_table = draft.table
        self.target = target
        self.enders = enders
        self.ends = sorted(ends)

    def draft(self, growth: Growth, context: DraftContext, bound: Bounds) -> DraftTree:
        """The best `bound.nodes` target tokens of a growth, as a tree."""
        kept = growth.best(bound.nodes + bound.nodes // 4, bound.min_node)
        inner = {growth.parents[node] for node in kept}
        leaves = [node for node in kept if node not in inner]
        if bound.chain_only:
            leaves = [self._main(growth)] if growth.tokens else []
        recent = context.committed_bytes[-RECENT:]
        merged = Growth()
        index: dict[tuple[int, int], int] = {}
        for leaf in sorted(leaves, key=lambda node: -growth.scores[node]):
            node = -1
            for token, score in self._path(growth, leaf, context.pending, recent):
                node = _merge(merged, index, node, token, score)
            if growth.tokens[leaf] in self.enders:
                for end in self.ends[:1] if bound.chain_only else self.ends:
                    _merge(merged, index, node, end, growth.scores[leaf])
        if bound.chain_only:
            _bound_by_parents(merged)
            length = min(bound.nodes, len(merged.tokens))
            tokens, scores = tuple(merged.tokens[:length]), tuple(merged.scores[:length])
            tree = DraftTree(tokens, tuple(range(-1, length - 1)), scores)
        else:
            _bound_by_parents(merged)
            tree = merged.tree(bound.nodes, bound.min_node)
        # Drafted tokens may be longer or shorter than the target's: masses are matched to depths in proportion. The
        # text of the last one may be cut off in the middle of a token: whether it is right says nothing of its level.
        depth, deepest = tree.depth, max(map(growth.depth, leaves), default=0)
        masses = tuple(growth.masses[level * deepest // depth] for level in range(depth - 1))
        return replace(tree, levels=growth.levels, masses=masses).cut(bound.target_depth)

    def _path(self, growth: Growth, leaf: int, held: bytes, recent: bytes) -> list[tuple[int, float]]:
        """Target tokens of one path's text with the log score of each."""
        nodes = []
        while leaf >= 0:
            nodes.append(leaf)
            leaf = growth.parents[leaf]
        nodes.reverse()
        ended = growth.tokens[nodes[-1]] in self.enders
        text = nodes[:-1] if ended else nodes
        drafted = self.draft_table.join(growth.tokens[node] for node in text)
        if held:
            if not drafted.startswith(held):
                return []
            drafted = drafted[len(held) :]
        found: list[tuple[int, float]] = []
        if drafted:
            ids, ends, stable, _ = to_target(self.target, drafted, recent)
            place, covered = 0, -len(held)
            for i, (token, end) in enumerate(zip(ids, ends, strict=True)):
                while covered < end and place < len(text):
                    covered += len(self.draft_table.bytes_of(growth.tokens[text[place]]) or b"")
                    place += 1
                loose = 0.0 if i < stable or ended else UNSTABLE
                found.append((token, growth.scores[text[max(place, 1) - 1]] + loose))
        return found

    def _main(self, growth: Growth) -> int:
        """End of the path that takes the best child at every node."""
        node = -1
        best: dict[int, int] = {}
        for child, parent in enumerate(growth.parents):
            if parent not in best or growth.scores[child] > growth.scores[best[parent]]:
                best[parent] = child
        while node in best:
            node = best[node]
        return node


def _merge(tree: Growth, index: dict[tuple[int, int], int], parent: int, token: int, score: float) -> int:
    """The node of `token` under `parent`, made if there is none; it counts as its likeliest reading."""
    node = index.setdefault((parent, token), len(tree.tokens))
    if node == len(tree.tokens):
        tree.tokens.append(token)
        tree.parents.append(parent)
        tree.scores.append(score)
    else:
        tree.scores[node] = max(tree.scores[node], score)
    return node


def _bound_by_parents(growth: Growth) -> None:
    """No node may look likelier than its parent, or the best nodes would not be closed under ancestors."""
    for node, parent in enumerate(growth.parents):
        if parent >= 0:
            growth.scores[node] = min(growth.scores[node], growth.scores[parent])

