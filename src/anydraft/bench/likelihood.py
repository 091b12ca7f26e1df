"""Whether a text that was decoded in the target's name could be the target's.

Speed is worth nothing if the words are somebody else's. At temperature 0 equality shows whose they are; sampled texts
of two engines differ in any case. But a token drawn from a distribution costs, on average, that distribution's entropy:
the sum of (cost - entropy) along a sampled text is a martingale of known variance, so a total far from zero, counted
in its standard deviations, cannot be chance. The converse does not hold: this is one test, not a proof.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Surprise:
    """What a text costs in nats, what one drawn by the judge would cost on average, and the variance of that."""

    nats: float
    expected: float
    variance: float


class Judge:
    """Scores texts by one model. A target enlarged by `anydraft.bench.enlarge` is judged by the one it came from."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @torch.inference_mode()
    def surprise(self, prompt: Sequence[int], tokens: Sequence[int], temperature: float = 1.0) -> Surprise:
        """Score the tokens after the prompt at a temperature > 0 (no top-k or the like)."""
        if temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {temperature}; greedy texts are compared by equality")
        ids = torch.tensor([[*prompt, *tokens]], device=self.model.device)
        logits = self.model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        costs = -(logits.float() / temperature).log_softmax(-1)  # (tokens, vocabulary)
        probabilities = (-costs).exp()
        entropy = (probabilities * costs).sum(-1)
        variance = (probabilities * (costs - entropy[:, None]).square()).sum(-1)
        chosen = costs.gather(-1, ids[0, len(prompt) :, None])
        return Surprise(float(chosen.sum()), float(entropy.sum()), float(variance.sum()))
