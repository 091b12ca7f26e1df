"""Is the law of sampled tokens the model's own? A chi-square test against exact probabilities.

The first two tokens after a prompt are drawn many times, through the drafter, with room for a third, so that
the second may be a drafted one: there a wrong verification shows. Their exact joint law comes from plain forwards: one
for the first token, one for each of the likeliest first tokens. Rare pairs are pooled, so that every cell of
the test expects at least `LEAST` draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from anydraft.checks.margin import takes_keep
from anydraft.decoder import Decoder
from anydraft.errors import OptionConflict
from anydraft.processors import Processors
from anydraft.sampling import SamplingParams
from anydraft.target import Target

FIRST, SECOND = 12, 8
"""Likeliest first tokens followed up, and likeliest second tokens told apart after each of them."""
LEAST = 5.0
LIMIT = 1e-4
BATCH = 64

Cell = tuple[int, int]
"""First and second token; -1 = any that has no cell of its own. An answer of one token has second token -2."""
REST, ENDED = -1, -2


@dataclass(frozen=True)
class LawTest:
    """Outcome: draws, cells compared, the statistic with its degrees of freedom, and the p-value."""

    samples: int
    cells: int
    statistic: float
    dof: int
    p: float
    largest: tuple[str, float, float] | None
    """The cell that deviates most: what it writes, its share, its probability."""

    @property
    def kept(self) -> bool:
        """Whether the draws fit the law; a true law fails once in 1 / LIMIT tests."""
        return self.p >= LIMIT

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self) | {"kept": self.kept}


class Law:
    """Draws two tokens after a prompt again and again, and compares with the exact law.

    Args:
        decoder: with the drafter to be checked.
        prompt: where to draw.
        params: how to draw; temperature above 0. Restrictions (top-p and the like) are left out, for a token at
            their edge may fall on either side by rounding alone.
        samples: number of draws.

    Raises:
        OptionConflict: greedy parameters, or too few samples to fill two cells.
    """

    def __init__(self, decoder: Decoder, prompt: str, params: SamplingParams, samples: int) -> None:
        if params.greedy:
            raise OptionConflict("a law can be tested only when sampling; set temperature > 0")
        if samples < 100:
            raise OptionConflict(f"a test of the law needs at least 100 samples, got {samples}")
        self.decoder = decoder
        self.prompt = prompt
        self.params = replace(params, max_new_tokens=3, n=1, top_k=0, top_p=1.0, min_p=0.0)
        self.samples = samples
        self._ids = [int(token) for token in decoder.tokenizer(prompt)["input_ids"]]
        self._counts: Counter[Cell] = Counter()

    def draw(self) -> Iterator[int]:
        """Draw all samples in batches; yields the number drawn so far."""
        seed = self.params.seed or 0
        drawn = 0
        while drawn < self.samples:
            n = min(BATCH, self.samples - drawn)
            params = replace(self.params, n=n, seed=seed + drawn)
            answers = self.decoder.generate(self.prompt, params)
            for answer in answers if isinstance(answers, list) else [answers]:
                tokens = answer.tokens
                self._counts[tokens[0], tokens[1] if len(tokens) > 1 else ENDED] += 1
            drawn += n
            yield drawn

    def test(self) -> LawTest:
        """Compare the draws with the exact law."""
        exact = self._exact()
        counts: Counter[Cell] = Counter()
        for (first, second), count in self._counts.items():
            cell = next(c for c in ((first, second), (first, REST), (REST, REST)) if c in exact)
            counts[cell] += count
        total = self._counts.total()
        expected, observed, names = pool(exact, counts, total)
        if len(expected) < 2:
            return LawTest(total, len(expected), 0.0, 0, 1.0, None)
        terms = [(o - e) ** 2 / e for e, o in zip(expected, observed, strict=True)]
        statistic, dof = sum(terms), len(terms) - 1
        worst = max(range(len(terms)), key=terms.__getitem__)
        largest = (self._name(names[worst]), observed[worst] / total, expected[worst] / total)
        return LawTest(total, len(terms), statistic, dof, chi_square_tail(statistic, dof), largest)

    def _exact(self) -> dict[Cell, float]:
        """Probabilities of all cells; they sum to 1."""
        target = self.decoder.target
        processors = Processors.of_params(
            self.params,
            prompt_length=len(self._ids),
            vocab_size=target.vocab_size,
            eos_token_ids=sorted(target.eos_token_ids),
            tokenizer=target.tokenizer,
            device=target.device,
        )
        first = probabilities(target, processors, [self._ids])[0]
        top = [int(t) for t in first.topk(min(FIRST, len(first))).indices if first[t] > 0]
        exact: dict[Cell, float] = {(REST, REST): max(0.0, 1.0 - float(first[top].sum()))}
        enders = frozenset() if self.params.ignore_eos else target.eos_token_ids
        going = [token for token in top if token not in enders]
        for token in top:
            if token in enders:
                exact[token, ENDED] = float(first[token])
        paths = [[*self._ids, token] for token in going]
        for token, second in zip(going, probabilities(target, processors, paths) if paths else (), strict=True):
            best = [int(t) for t in second.topk(min(SECOND, len(second))).indices if second[t] > 0]
            for follower in best:
                exact[token, follower] = float(first[token] * second[follower])
            exact[token, REST] = max(0.0, float(first[token] * (1 - second[best].sum())))
        return exact

    def _name(self, cell: Cell) -> str:
        first, second = cell
        if first == REST:
            return "anything else"
        rest = {REST: " + anything else", ENDED: ""}
        tail = rest.get(second, "")
        tokens = [first] if second in rest else [first, second]
        return repr(self.decoder.tokenizer.decode(tokens, skip_special_tokens=False)) + tail


def most_telling(decoder: Decoder, prompts: Sequence[str], params: SamplingParams, samples: int) -> Law:
    """The law of the prompt whose test has the most cells: where little is certain, more can go wrong."""
    laws = [Law(decoder, prompt, params, samples) for prompt in prompts]
    return max(laws, key=lambda law: sum(p * samples >= LEAST for p in law._exact().values()))


@torch.inference_mode()
def probabilities(target: Target, processors: Processors, paths: Sequence[Sequence[int]]) -> torch.Tensor:
    """Exact probabilities (paths, vocab) float64 of the token after each path (all of one length)."""
    ids = torch.tensor([list(path) for path in paths], device=target.device)
    options = {"logits_to_keep": 1} if takes_keep(target) else {}
    logits = target.model(ids, use_cache=False, **options).logits[:, -1]
    scores = torch.stack([processors(path, row) for path, row in zip(paths, logits, strict=True)])
    return scores.to(torch.float64).softmax(-1).cpu()


def pool(
    exact: dict[Cell, float], counts: Counter[Cell], total: int
) -> tuple[list[float], list[int], list[Cell]]:
    """Expected and observed counts of cells that expect at least `LEAST`; the others together are the last one.

    Where the others together expect fewer, they join the smallest cell; impossible cells that were drawn all the
    same keep a tiny expectation, so that they count as what they are.
    """
    big = [cell for cell, p in exact.items() if p * total >= LEAST]
    small = [cell for cell in exact if cell not in set(big)]
    expected = [exact[cell] * total for cell in big]
    observed = [counts[cell] for cell in big]
    left, seen = sum(exact[cell] for cell in small) * total, sum(counts[cell] for cell in small)
    if left >= LEAST or (seen and left < 1e-6 * total):
        return [*expected, max(left, 1e-6)], [*observed, seen], [*big, (REST, REST)]
    if big and (left or seen):
        least = min(range(len(big)), key=expected.__getitem__)
        expected[least] += left
        observed[least] += seen
    return expected, observed, big


def chi_square_tail(statistic: float, dof: int) -> float:
    """Probability that a chi-square variable with `dof` degrees of freedom exceeds the statistic."""
    half = torch.tensor([dof / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
