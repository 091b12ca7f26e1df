"""A tree of draft tokens as a tree of target tokens.

Every path's bytes become target tokens (the committed ones stay as they are), and equal prefixes are merged.
A target token counts as likely as the draft path that covers it; one that unseen text could still change
counts half. The best nodes are kept, so both readings of an unsure boundary compete for a place.
"""

from __future__ import annotations

import math

from anydraft.text.alignment import DraftContext, to_target
from anydraft.text.encoder import PlainEncoder
from anydraft.tree import Bounds, DraftTree, Growth

UNSTABLE = math.log(0.5)


class Retokenizer:
    """Converts drafts of one tokenizer pair.

    Args:
        draft, target: encoders of the two tokenizers.
        enders: draft tokens that end a text; end: the target's end-of-sequence id, or -1.
    """

    def __init__(self, draft: PlainEncoder, target: PlainEncoder, enders: frozenset[int], end: int) -> None:
        self.draft_table = draft.table
        self.target = target
        self.enders = enders
        self.end = end

    def draft(self, growth: Growth, context: DraftContext, bound: Bounds) -> DraftTree:
        """The best `bound.nodes` target tokens of a growth, as a tree."""
        kept = growth.best(max(bound.nodes, 1) if bound.chain_only else 2 * bound.nodes, bound.min_node)
        inner = {growth.parents[node] for node in kept}
        leaves = [node for node in kept if node not in inner]
        if bound.chain_only:
            leaves = [self._main(growth)] if growth.tokens else []
        merged = Growth()
        index: dict[tuple[int, int], int] = {}
        for leaf in sorted(leaves, key=lambda node: -growth.scores[node]):
            tokens, scores = self._path(growth, leaf, context)
            node = -1
            for token, score in zip(tokens, scores, strict=True):
                key = (node, token)
                if key not in index:
                    index[key] = len(merged.tokens)
                    merged.tokens.append(token)
                    merged.parents.append(node)
                    merged.scores.append(score)
                else:
                    merged.scores[index[key]] = max(merged.scores[index[key]], score)
                node = index[key]
        if bound.chain_only:
            return DraftTree.chain(merged.tokens[: min(bound.nodes, bound.target_depth)])
        _bound_by_parents(merged)
        return merged.tree(bound.nodes, bound.min_node).cut(bound.target_depth)

    def _path(self, growth: Growth, leaf: int, context: DraftContext) -> tuple[list[int], list[float]]:
        """Target tokens of one path with the log score of each."""
        nodes = []
        while leaf >= 0:
            nodes.append(leaf)
            leaf = growth.parents[leaf]
        nodes.reverse()
        ended = growth.tokens[nodes[-1]] in self.enders
        text = nodes[:-1] if ended else nodes
        drafted = self.draft_table.join(growth.tokens[node] for node in text)
        held = context.pending
        if held:
            if not drafted.startswith(held):
                return [], []
            drafted = drafted[len(held) :]
        tokens: list[int] = []
        scores: list[float] = []
        if drafted:
            ids, ends, stable, _ = to_target(self.target, drafted, context.committed_bytes[-64:])
            place, covered = 0, -len(held)
            for i, (token, end) in enumerate(zip(ids, ends, strict=True)):
                while covered < end and place < len(text):
                    covered += len(self.draft_table.bytes_of(growth.tokens[text[place]]) or b"")
                    place += 1
                tokens.append(token)
                loose = 0.0 if i < stable or ended else UNSTABLE
                scores.append(growth.scores[text[max(place, 1) - 1]] + loose)
        if ended and self.end >= 0:
            tokens.append(self.end)
            scores.append(growth.scores[nodes[-1]])
        return tokens, scores

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


def _bound_by_parents(growth: Growth) -> None:
    """No node may look likelier than its parent, or the best nodes would not be closed under ancestors."""
    for node, parent in enumerate(growth.parents):
        if parent >= 0:
            growth.scores[node] = min(growth.scores[node], growth.scores[parent])

