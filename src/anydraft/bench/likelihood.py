"""How likely the target finds a text that was decoded in its name.

Speed is worth nothing if the text is not the target's. At temperature 0 equality shows that; sampled texts of
different engines differ anyway, but on average a text drawn from the target costs it its own entropy in nats,
and one drawn from something else costs more (or, from something narrower, less).
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel


class Judge:
    """Scores texts by one model. A target enlarged by `anydraft.bench.enlarge` is judged by the one it came from."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @torch.inference_mode()
    def nats(self, prompt: Sequence[int], tokens: Sequence[int]) -> float:
        """Minus log probability of the tokens after the prompt, at temperature 1."""
        ids = torch.tensor([[*prompt, *tokens]], device=self.model.device)
        logits = self.model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])
        return -float(chosen.sum())
