"""Measuring: models of a larger one's cost, prompts, timed runs side by side, intervals and provenance.

Nothing here is needed to generate text. What is compared is timed in one process, prompt by prompt in turn,
and a speedup is always given with tokens per pass (tau) and the cost of a pass (c = tau / speedup).
"""

from anydraft.bench.enlarge import enlarge, enlarge_to

__all__ = ["enlarge", "enlarge_to"]
