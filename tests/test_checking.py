"""The checks behind `verify` against independent computations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from scipy import stats

from anydraft.checks import Law, Report, margin, modes_of, most_telling
from anydraft.checks.equality import Equality, compare
from anydraft.checks.law import LEAST, REST, chi_square_tail, pool, probabilities
from anydraft.checks.margin import float_logits
from anydraft.checks.prompts import PROMPTS, read_prompts
from anydraft.errors import OptionConflict
from anydraft.processors import Processors
from anydraft.sampling import SamplingParams
from anydraft.target import Target

HOT = SamplingParams(temperature=1.5, seed=3)


@pytest.mark.parametrize(("statistic", "dof"), [(0.1, 1), (3.84, 1), (20.0, 7), (150.0, 60), (300.0, 20)])
def test_chi_square_tail(statistic: float, dof: int) -> None:
    assert chi_square_tail(statistic, dof) == pytest.approx(stats.chi2.sf(statistic, dof), rel=1e-6)


def test_exact_law_is_the_product_of_plain_forwards() -> None:
    decoder = tiny.decoder("llama")
    exact = Law(decoder, "the red hat", HOT, 100)._exact()
    assert sum(exact.values()) == pytest.approx(1.0)
    ids = decoder.tokenizer("the red hat")["input_ids"]
    model = decoder.target.model

    def after(path: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return (model(torch.tensor([path])).logits[0, -1].double() / 1.5).softmax(-1)

    first = after(ids)
    cell = max((c for c in exact if min(c) >= 0), key=exact.__getitem__)
    second = after([*ids, cell[0]])
    assert exact[cell] == pytest.approx(float(first[cell[0]] * second[cell[1]]), rel=1e-4)


def test_law_holds_for_plain_decoding_and_not_for_another_temperature() -> None:
    decoder = tiny.decoder("llama")
    law = Law(decoder, "the red hat", HOT, 400)
    assert list(law.draw()) == [64, 128, 192, 256, 320, 384, 400]
    outcome = law.test()
    assert outcome.kept
    assert outcome.cells > 3
    law.params = replace(law.params, temperature=0.3)
    assert not law.test().kept


def test_the_most_telling_prompt_has_the_most_cells() -> None:
    decoder = tiny.decoder("llama")
    prompts = ["the red hat", "bear", "She went"]
    chosen = most_telling(decoder, prompts, HOT, 400)
    cells = {p: sum(x * 400 >= LEAST for x in Law(decoder, p, HOT, 400)._exact().values()) for p in prompts}
    assert cells[chosen.prompt] == max(cells.values())


def test_pooling_keeps_every_draw_and_leaves_no_small_cell() -> None:
    exact = {(1, 1): 0.5, (1, 2): 0.4, (2, 1): 0.06, (2, 2): 0.03, (REST, REST): 0.01}
    counts = Counter({(1, 1): 52, (1, 2): 37, (2, 1): 6, (2, 2): 4, (REST, REST): 1})
    expected, observed, names = pool(exact, counts, 100)
    assert sum(expected) == pytest.approx(100)
    assert sum(observed) == 100
    assert min(expected) >= LEAST
    assert len(names) == len(expected) == 3  # the two small ones joined the smallest


def test_an_impossible_draw_is_not_pooled_away() -> None:
    exact = {(1, 1): 0.6, (1, 2): 0.4, (REST, REST): 0.0}
    expected, observed, _ = pool(exact, Counter({(1, 1): 60, (1, 2): 39, (REST, REST): 1}), 100)
    assert observed[-1] == 1
    assert expected[-1] < 1e-3


@pytest.mark.parametrize(("params", "samples"), [(SamplingParams(), 1000), (HOT, 10)])
def test_law_needs_sampling_and_samples(params: SamplingParams, samples: int) -> None:
    with pytest.raises(OptionConflict):
        Law(tiny.decoder("llama"), "hi", params, samples)


@pytest.mark.parametrize("params", [SamplingParams(max_new_tokens=6), replace(HOT, max_new_tokens=6)])
def test_margin_sees_what_decoding_saw(params: SamplingParams) -> None:
    decoder = tiny.decoder("llama")
    answer = decoder.generate("the red hat", params)
    assert not isinstance(answer, list)
    for place, token in enumerate(answer.tokens):
        found = margin(decoder.target, answer.prompt_tokens, answer.tokens[:place], params)
        assert found.best == token
        assert found.second != token
        assert found.gap > 0


def test_margin_is_computed_in_float32_and_leaves_the_model_alone() -> None:
    exact = tiny.make("llama")
    rough = tiny.make("llama").to(torch.bfloat16)
    for name, parameter in exact.named_parameters():
        parameter.data.copy_(rough.get_parameter(name).data.float())
    before = {name: p.clone() for name, p in rough.named_parameters()}
    got = float_logits(Target(rough, structure="chain"), [5, 6, 7])
    with torch.no_grad():
        ids = torch.tensor([[5, 6, 7]])
        wanted, coarse = exact(ids).logits[0, -1], rough(ids).logits[0, -1].float()
    assert float((got - wanted).abs().max()) < 0.1 * float((coarse - wanted).abs().max())
    assert all(p.dtype == torch.bfloat16 and torch.equal(p, before[name]) for name, p in rough.named_parameters())


def test_probabilities_see_each_path() -> None:
    target = tiny.target("llama")
    params = SamplingParams(temperature=1.0, repetition_penalty=5.0)
    processors = Processors.of_params(params, prompt_length=1, vocab_size=target.vocab_size)
    both = probabilities(target, processors, [[5, 6], [5, 7]])
    for row, path in zip(both, ([5, 6], [5, 7]), strict=True):
        torch.testing.assert_close(row, probabilities(target, processors, [path])[0], rtol=1e-4, atol=1e-6)


def test_compare_counts_per_mode() -> None:
    modes = modes_of(max_new_tokens=4, seed=0)
    outcomes = list(compare(tiny.decoder("llama"), ["the red", "bear"], modes))
    assert [(o.mode, o.compared) for o in outcomes[1::2]] == [(mode.name, 2) for mode in modes]
    assert all(o.kept for o in outcomes)


def test_modes() -> None:
    assert [m.name for m in modes_of(max_new_tokens=4, seed=0, verification="rejection")] == ["greedy"]
    assert [m.name for m in modes_of(max_new_tokens=4, seed=0, own=SamplingParams())] == ["greedy"]
    own = modes_of(max_new_tokens=4, seed=9, own=SamplingParams(temperature=0.5, min_p=0.1))[1]
    assert own.name == "temperature 0.5, min-p 0.1"
    assert own.params.seed == 9


def test_report_is_broken_by_any_check() -> None:
    report = Report([Equality("greedy", 2, 2)])
    assert report.kept
    report.equalities.append(Equality("temperature 1", 2, 1))
    assert not report.kept
    assert report.to_dict()["equality"][1]["identical"] == 1


def test_prompts(tmp_path: Path) -> None:
    assert len(set(PROMPTS)) == len(PROMPTS)
    lines = tmp_path / "prompts.txt"
    lines.write_text("one\n\ntwo\n")
    assert read_prompts(lines) == ["one", "two"]
    for content in ("", "[]\n", "{}\n", "no json\n", '{"prompt": 3}\n'):
        wrong = tmp_path / "prompts.jsonl"
        wrong.write_text(content)
        with pytest.raises(OptionConflict):
            read_prompts(wrong)
