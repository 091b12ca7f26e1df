"""The bench does what it says: same work for all, honest arithmetic, errors kept. Nothing here is timed."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from scripts import loaded
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import anydraft
from anydraft.bench.contenders import AnydraftContender, TransformersContender
from anydraft.bench.likelihood import Judge
from anydraft.bench.measure import Plan, Record, Run, Task, measure
from anydraft.bench.prompts import Prompt, PromptSet, beginning, begun_again, held_out, held_out_prompts, read_prompts
from anydraft.bench.provenance import provenance
from anydraft.bench.report import Row, summarise
from anydraft.bench.session import read_records, run_session
from anydraft.bench.statistics import bootstrap, ratio_of_rates, ratio_of_totals
from anydraft.bench.tables import speed_table, time_table
from anydraft.stats import Stats

CORPUS = Path(__file__).resolve().parents[1] / "recipes" / "pycode" / "corpus.py"
TASK = Task(temperature=0.0, max_new_tokens=4, seed=0)
TEXT = "def add(a, b):\n    return a + b\n\nclass Sum:\n    def of(self, items):\n        return sum(items)\n"


class FakeDecoder:
    """The engine's interface without an engine: counts up from the prompt's last token, two tokens a pass."""

    def stream(self, prompt: list[int], *, max_new_tokens: int, **options: Any) -> Iterator[Any]:
        stats = Stats(seconds_convert=0.25, drafter_failures=("it broke", "it broke"))
        tokens = [prompt[-1] + 1 + i for i in range(max_new_tokens)]
        for start in range(0, max_new_tokens, 2):
            stats.record(2, 2, 1, 1)
            done = SimpleNamespace(tokens=tokens, stats=stats) if start + 2 >= max_new_tokens else None
            yield SimpleNamespace(row=0, tokens=tokens[start : start + 2], generation=done)


class Scripted:
    """A contender that takes the seconds it is told to and notes what is asked of it."""

    def __init__(self, name: str, log: list[str], runs: dict[str, Run | BaseException]) -> None:
        self.name = name
        self.log = log
        self.runs = runs

    def prepare(self, temperature: float) -> None:
        self.log.append(f"prepare {self.name}")

    def run(self, prompt: Sequence[int], task: Task) -> Run:
        self.log.append(f"{self.name} {prompt[0]}")
        run = self.runs.get(str(prompt[0]), made(1.0))
        if isinstance(run, BaseException):
            raise run
        return run


def made(seconds: float, passes: int = 4, tokens: Sequence[int] = (1, 2, 3, 4), **options: Any) -> Run:
    return Run(tokens=list(tokens), seconds=seconds, passes=passes, **options)


def records(contender: str, runs: Sequence[Run | None]) -> list[Record]:
    return [
        Record(
            prompt_id=str(number),
            contender=contender,
            task=TASK,
            run=run,
            error=None if run else "ValueError: no",
        )
        for number, run in enumerate(runs)
    ]


def by_name(rows: Sequence[Row]) -> dict[str, Row]:
    return {row.contender: row for row in rows}


def tiny(vocabulary: int, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=0,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")


def test_bootstrap_of_a_constant_ratio_is_a_point() -> None:
    interval = bootstrap(ratio_of_totals, [2, 4, 6], [1, 2, 3], resamples=200)
    assert (interval.value, interval.low, interval.high) == (2.0, 2.0, 2.0)
    assert f"{interval}" == "2.00 [2.00, 2.00]"


def test_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for number in range(200):
        seconds = generator.gamma(20, size=40)
        interval = bootstrap(ratio_of_totals, seconds, np.ones(40), resamples=500, seed=number)
        hits += interval.low <= 20 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_keeps_a_prompts_numbers_together() -> None:
    slow_prompts = [1.0, 100.0, 3.0, 50.0]
    half = [second / 2 for second in slow_prompts]
    interval = bootstrap(ratio_of_rates, [8] * 4, half, [8] * 4, slow_prompts, resamples=300)
    assert interval.low == pytest.approx(2.0)
    assert interval.high == pytest.approx(2.0)


def test_bootstrap_refuses_unequal_columns() -> None:
    with pytest.raises(ValueError, match=r"got lengths \[1, 2\]"):
        bootstrap(ratio_of_totals, [1, 2], [1])
    with pytest.raises(ValueError, match="one number per prompt"):
        bootstrap(ratio_of_totals, [], [])


def test_figures_of_a_drafting_contender() -> None:
    plain = [made(1.0, seconds_prefill=0.2), made(3.0, seconds_prefill=0.2)]
    parts = {"seconds_prefill": 0.1, "seconds_draft": 0.2, "seconds_verify": 0.6}
    drafting = [
        made(1.0, passes=2, draft_tokens=6, accepted_tokens=2, seconds_first_token=0.1, **parts),
        made(
            1.0,
            passes=2,
            draft_tokens=2,
            accepted_tokens=2,
            tokens=(1, 2, 3, 9),
            seconds_first_token=0.3,
            **parts,
        ),
    ]
    row = by_name(summarise([*records("anydraft", plain), *records("anydraft-uag", drafting)]))["anydraft-uag"]
    assert row.tokens_per_second is not None
    assert row.tokens_per_pass is not None
    assert row.cost is not None
    assert row.tokens_per_second.value == pytest.approx(4.0)
    assert row.tokens_per_pass.value == pytest.approx(2.0)
    assert row.speedup["anydraft"].value == pytest.approx(2.0)
    assert row.cost.value == pytest.approx(row.tokens_per_pass.value / row.speedup["anydraft"].value)
    assert row.acceptance_rate == pytest.approx(0.5)
    assert row.shares == pytest.approx({"prefill": 0.1, "draft": 0.2, "verify": 0.6, "other": 0.1})
    # 0.2 s of other in 4 passes, against 3.6 s in 8 plain passes
    assert row.other_per_plain_pass == pytest.approx((0.2 / 4) / (3.6 / 8))
    assert row.seconds_first_token == pytest.approx(0.2)
    assert row.identical == {"anydraft": (1, 2)}
    json.dumps(row.to_dict())


def test_speedups_are_over_each_engines_plain_decoding() -> None:
    rows = by_name(
        summarise(
            [
                *records("transformers", [made(4.0)]),
                *records("transformers-uag", [made(2.0, passes=2)]),
                *records("anydraft", [made(2.0)]),
                *records("anydraft-uag", [made(1.0, passes=1)]),
            ]
        )
    )
    uag = rows["transformers-uag"]
    assert {name: interval.value for name, interval in uag.speedup.items()} == {
        "transformers": 2.0,
        "anydraft": 1.0,
    }
    assert uag.cost is not None
    assert uag.cost.value == pytest.approx(1.0)  # over transformers' own plain decoding
    assert rows["anydraft-uag"].speedup["transformers"].value == pytest.approx(4.0)
    assert rows["anydraft-uag"].cost is not None
    assert rows["anydraft-uag"].cost.value == pytest.approx(2.0)
    assert rows["anydraft"].cost is None
    assert rows["anydraft"].speedup.keys() == {"transformers"}


def test_a_prompt_counts_for_a_ratio_only_where_both_finished() -> None:
    rows = by_name(
        summarise([*records("anydraft", [made(1.0), made(9.0)]), *records("anydraft-uag", [made(0.5), None])])
    )
    row = rows["anydraft-uag"]
    assert row.speedup["anydraft"].value == pytest.approx(2.0)
    assert (row.prompts, row.errors, row.identical) == (1, ("ValueError: no",), {"anydraft": (1, 1)})


def test_a_contender_that_never_finished_has_a_row() -> None:
    rows = summarise([*records("anydraft", [made(1.0)]), *records("anydraft-uag", [None])])
    assert rows[1].tokens_per_second is None
    assert rows[1].errors == ("ValueError: no",)
    console = Console(width=200, record=True)
    console.print(speed_table(rows, "title"), time_table(rows))
    assert "anydraft-uag" in console.export_text()


def test_contenders_alternate_and_warm_up() -> None:
    log: list[str] = []
    contenders = [Scripted("a", log, {}), Scripted("b", log, {})]
    plan = Plan(prompts=[("p", [1]), ("q", [2])], temperatures=[0.0], max_new_tokens=4, warm_up=[9])
    made_records = list(measure(contenders, plan))
    assert log == ["prepare a", "a 9", "prepare b", "b 9", "a 1", "b 1", "b 2", "a 2"]
    assert [record.prompt_id for record in made_records] == ["p", "p", "q", "q"]
    assert {record.task.seed for record in made_records} == {0, 1}


def test_errors_and_short_answers_are_records_and_the_rest_goes_on() -> None:
    log: list[str] = []
    runs: dict[str, Run | BaseException] = {"1": RuntimeError("no such head"), "2": made(1.0, tokens=[1])}
    plan = Plan(prompts=[("p", [1]), ("q", [2]), ("r", [3])], temperatures=[1.0], max_new_tokens=4, warm_up=[9])
    got = list(measure([Scripted("a", log, runs)], plan))
    assert [record.error for record in got] == [
        "RuntimeError: no such head",
        "decoded 1 tokens instead of 4",
        None,
    ]
    assert log == ["prepare a", "a 9", "a 1", "prepare a", "a 2", "a 3"]
    assert [Record.from_dict(record.to_dict()) for record in got] == got
    assert got[0].to_dict()["error"] == "RuntimeError: no such head"
    assert got[2].to_dict()["tokens"] == [1, 2, 3, 4]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_transformers_plain_decodes_past_the_end_token(temperature: float) -> None:
    model = tiny(48)
    contender = TransformersContender("transformers", model)
    contender.prepare(temperature)
    task = Task(temperature=temperature, max_new_tokens=12, seed=3)
    run = contender.run([5, 6, 7], task)
    model.generation_config.eos_token_id = run.tokens[4]  # now it would stop there, were it allowed to
    again = contender.run([5, 6, 7], task)
    assert again.tokens == run.tokens
    assert len(run.tokens) == run.passes == 12
    assert (run.draft_tokens, run.accepted_tokens, run.seconds_draft) == (0, 0, 0.0)
    assert model.generation_config.eos_token_id == run.tokens[4]
    assert run.seconds_first_token is not None
    assert 0 < run.seconds_first_token < run.seconds
    assert not model._forward_hooks


def test_transformers_with_an_assistant_is_watched_and_its_models_are_kept() -> None:
    mine, theirs = tokenizer(290), tokenizer(270)
    target, assistant = tiny(len(mine)), tiny(len(theirs), seed=1)
    before = {name: value.clone() for name, value in assistant.state_dict().items()}
    contenders = [
        TransformersContender("transformers", target),
        TransformersContender("transformers-uag", target, mine, assistant, theirs),
    ]
    ids = mine.encode(TEXT)
    plan = Plan(prompts=[("p", ids), ("q", ids[:9])], temperatures=[1.0, 0.0], max_new_tokens=10, warm_up=ids[:5])
    got = {
        (record.task.temperature, record.contender, record.prompt_id): record for record in measure(contenders, plan)
    }
    for prompt in ("p", "q"):
        plain, drafted = got[0.0, "transformers", prompt].run, got[0.0, "transformers-uag", prompt].run
        assert plain is not None
        assert drafted is not None
        assert drafted.tokens == plain.tokens
        assert drafted.accepted_tokens <= drafted.draft_tokens
        assert drafted.draft_tokens > 0
        assert drafted.seconds_draft > 0
    assert all(torch.equal(value, before[name]) for name, value in assistant.state_dict().items())
    assert type(assistant.lm_head) is torch.nn.Linear


def test_a_decoder_of_the_same_interface() -> None:
    run = AnydraftContender("anydraft-uag", FakeDecoder()).run([3, 7], TASK)
    assert run.tokens == [8, 9, 10, 11]
    assert (run.passes, run.draft_tokens, run.accepted_tokens) == (2, 4, 2)
    assert (run.reached, run.accepted_at, run.seconds_convert) == ([2], [2], 0.25)
    assert run.failures == ["it broke"]
    assert run.seconds_first_token is not None
    assert 0 < run.seconds_first_token < run.seconds


def test_the_real_decoder_beside_transformers(tmp_path: Path) -> None:
    model = tiny(48)
    contenders = [
        TransformersContender("transformers", model),
        AnydraftContender("anydraft", anydraft.load(model, drafter=None)),
        AnydraftContender("anydraft-lookup", anydraft.load(model, drafter="lookup")),
    ]
    plan = Plan(prompts=[("p", [5, 6, 7]), ("q", [9, 8])], temperatures=[0.0, 1.0], max_new_tokens=8, warm_up=[4])
    plan = dataclasses.replace(plan, judge=Judge(model))
    console = Console(width=220, record=True)
    rows = run_session(contenders, plan, out=tmp_path, title="tiny", provenance={"seed": 0}, console=console)
    assert len(rows) == 6
    for row in rows:
        assert row.errors == ()
        if row.temperature == 0 and row.contender != "transformers":
            assert row.identical["transformers"] == (2, 2)
        if row.contender == "anydraft-lookup":
            assert row.identical["anydraft"] == (2, 2)
            assert row.cost is not None
            assert row.tokens_per_pass is not None
            assert row.cost.value == pytest.approx(row.tokens_per_pass.value / row.speedup["anydraft"].value)
            assert (row.excess_nats is None) is (row.temperature == 0)
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    assert summarise(read_records(tmp_path / "runs.jsonl")) == rows
    assert json.loads((tmp_path / "summary.json").read_text())[0]["contender"] == "transformers"
    assert json.loads((tmp_path / "provenance.json").read_text()) == {"seed": 0}
    assert "anydraft-lookup" in console.export_text()


def test_the_judge_adds_up_what_the_model_says() -> None:
    model = tiny(16)
    log_probabilities = model(torch.tensor([[3, 4, 5, 6]])).logits[0].detach().log_softmax(-1)
    given = Judge(model).surprise([3, 4], [5, 6])
    assert given.nats == pytest.approx(-float(log_probabilities[1, 5] + log_probabilities[2, 6]), rel=1e-5)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
    assert given.expected == pytest.approx(float(entropy[1] + entropy[2]), rel=1e-5)
    second = (log_probabilities.exp() * log_probabilities.square()).sum(-1) - entropy.square()
    assert given.variance == pytest.approx(float(second[1] + second[2]), rel=1e-4)
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        Judge(model).surprise([3], [4], 0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_judge_knows_its_own_texts_from_others(temperature: float) -> None:
    model, other = tiny(16), tiny(16, seed=5)
    judge = Judge(model)
    found = {}
    for name, author in (("own", model), ("other", other)):
        contender = TransformersContender("transformers", author)
        got = [
            Record(
                prompt_id=str(seed),
                contender=name,
                task=task,
                run=(run := contender.run([3, 4], task)),
                surprise=judge.surprise([3, 4], run.tokens, temperature),
            )
            for seed in range(20)
            for task in [Task(temperature=temperature, max_new_tokens=40, seed=seed)]
        ]
        found[name] = summarise(got)[0]
    own, others = found["own"].excess_z, found["other"].excess_z
    assert own is not None
    assert others is not None
    assert abs(own) < 4
    assert others > 8


def test_an_interrupted_measurement_keeps_what_it_has(tmp_path: Path) -> None:
    scripted = Scripted("anydraft", [], {"2": KeyboardInterrupt()})
    plan = Plan(prompts=[("p", [1]), ("q", [2])], temperatures=[0.0], max_new_tokens=4, warm_up=[9])
    console = Console(width=160, record=True)
    rows = run_session([scripted], plan, out=tmp_path, title="t", provenance={}, console=console)
    assert [row.prompts for row in rows] == [1]
    assert "interrupted after 1 runs" in console.export_text()


def test_provenance_names_what_matters() -> None:
    facts = provenance(dtype=torch.bfloat16, seed=7, prompts="humaneval.jsonl")
    assert facts["dtype"] == "bfloat16"
    assert (facts["seed"], facts["prompts"], facts["threads"]) == (
        7,
        "humaneval.jsonl",
        torch.get_num_threads(),
    )
    assert facts["versions"]["torch"] is not None
    assert {"command", "commit", "date", "cpu", "cpu_capability"} <= facts.keys()
    json.dumps(facts)


def test_prompt_files(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text('{"id": 1, "turns": ["a", "b"]}\n\n{"id": "x", "turns": ["c"]}\n')
    assert read_prompts(file) == PromptSet("some.jsonl", (Prompt("1", "a"), Prompt("x", "c")))
    assert len(read_prompts(file, 1).prompts) == 1
    assert read_prompts(file).digest != read_prompts(file, 1).digest
    file.write_text('{"id": 1, "turns": []}\n')
    with pytest.raises(ValueError, match=r"some\.jsonl line 1: expected"):
        read_prompts(file)
    with pytest.raises(ValueError, match="is no file of prompts"):
        read_prompts(tmp_path / "other.jsonl")


def test_a_text_that_is_begun_again_has_its_first_lines_once_more() -> None:
    assert begun_again("a\nb\nc\nd\n") == "a\nb\nc\nd\n\n\na\nb\n"
    assert begun_again("a") == "a\n\n\na"


def test_beginnings_end_with_a_line() -> None:
    text = "# licence\nimport os\n\n" + "def f(x):\n" + "    x += 1\n" * 60
    start = beginning(text)
    assert start is not None
    assert start.startswith("def f(x):\n")
    assert start.endswith("x += 1\n")
    assert 200 <= len(start) <= 400
    assert beginning("x = 1\n" * 100) is None
    assert beginning("def f():\n    pass\n") is None


def test_held_out_files_are_chosen_by_their_text(tmp_path: Path) -> None:
    texts = [f"def f{number}(x):\n" + f"    x += {number}\n" * 40 for number in range(300)]
    (tmp_path / "tests").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.py").write_text(text)
        (tmp_path / "tests" / f"{number}.py").write_text(text)
    chosen = held_out_prompts([tmp_path])
    assert {prompt.text.split("(")[0] for prompt in chosen.prompts} == {
        text.split("(")[0] for text in texts if held_out(text)
    }
    assert 0 < len(chosen.prompts) < 20
    assert held_out_prompts([tmp_path], 2).prompts == chosen.prompts[:2]
    assert "held-out" in chosen.source


@pytest.mark.skipif(not CORPUS.exists(), reason="needs recipes/")
def test_the_training_recipe_holds_out_the_same_files() -> None:
    corpus = loaded(CORPUS)
    texts = [f"x = {number}\n" for number in range(2000)]
    assert [held_out(text) for text in texts] == [corpus.held_out(text) for text in texts]
    assert 15 <= sum(map(held_out, texts)) <= 70
