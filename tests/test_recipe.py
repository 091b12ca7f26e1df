"""The recipe of the embedded pair, end to end on a corpus of a few made-up files."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # recipes/ lies beside tests/ and is not installed

from recipes.pycode import corpus, evaluate, vocabularies
from recipes.pycode.data import PROMPT_WEIGHT, OwnTexts, RawWindows
from recipes.pycode.generate import continue_batch, generate
from recipes.pycode.pausing import pause_while
from recipes.pycode.prompts import Pool, dressed, function_heads
from recipes.pycode.train import Plan, Trainer, export, llama_config, new_model
from recipes.pycode.widen import widened

FILE = '''import os


class Store{n}:
    def fetch_{n}(self, key: str, count: int = {n}) -> list[str]:
        """Fetch the values under a key, at most count of them.

        >>> store.fetch_{n}("a", 1)
        ["x"]
        """
        found = [value for value in self.values if value.key == key]
        return found[:count]


def join_{n}(left, right):
    """Join two names — with a slash between them."""
    return os.path.join(left, "{n}", right)
'''
SMALL = (64, 2, 1, 1, 96)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with a corpus and two tokenizers."""
    folder = tmp_path_factory.mktemp("work")
    package = folder / "site" / "package"
    (package / "tests").mkdir(parents=True)
    for number in range(150):
        (package / f"file{number}.py").write_text(
            "\n\n".join(FILE.format(n=number * 4 + part) for part in range(4)), encoding="utf-8"
        )
    (package / "copy.py").write_bytes((package / "file0.py").read_bytes())
    (package / "tests" / "test_it.py").write_text(FILE.format(n=1000), encoding="utf-8")
    (package / "long.py").write_text("x = 1\n" * 100 + "y" * 500, encoding="utf-8")
    notice = "# under the terms of the GNU Lesser General Public\n# License\n"
    (package / "vendored.py").write_text(notice + FILE.format(n=2000), encoding="utf-8")
    corpus.collect([folder / "site"], folder / "corpus")
    texts = corpus.read_texts(folder / "corpus/train.jsonl")
    vocabularies.train_target(texts, 400).save_pretrained(folder / "tokenizers/target")
    vocabularies.train_assistant(texts, 420).save_pretrained(folder / "tokenizers/assistant")
    return folder


def tokenizer(work: Path, role: vocabularies.Role) -> Tokenizer:
    return vocabularies.load(work / "tokenizers" / role)


def small_target(work: Path, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return new_model(tokenizer(work, "target").get_vocab_size(), 0, 0, *SMALL).eval()


def test_corpus_filters_and_holds_out_by_text_alone(work: Path) -> None:
    train, held = (corpus.read_texts(work / f"corpus/{split}.jsonl") for split in ("train", "held"))
    assert len(train) + len(held) == 150  # no copy, no test, no long line, no copyleft
    assert not any(map(corpus.held_out, train))
    assert all(map(corpus.held_out, held))
    assert held
    assert [corpus.held_out(f"file {n}") for n in range(200)].count(True) == 4  # pinned: the rule must never move


@pytest.mark.parametrize("role", ["target", "assistant"])
def test_tokenizers_round_trip(work: Path, role: vocabularies.Role) -> None:
    text = "def f(x):\n    return x  # ½ – 𝄞 １2\n\n\n"
    loaded = tokenizer(work, role)
    assert loaded.decode(loaded.encode(text).ids) == text
    with pytest.raises(ValueError, match=r"tokenizer\.json does not exist"):
        vocabularies.load(work)


def test_function_heads_are_prompts_without_a_body() -> None:
    heads = function_heads(FILE.format(n=7))
    assert [head.split("(")[0] for head in heads] == ["def fetch_7", "def join_7"]
    assert heads[0].startswith('def fetch_7(key: str, count: int = 7) -> list[str]:\n    """Fetch')
    rng = np.random.default_rng(0)
    for head in heads * 20:
        prompt = dressed(head, rng)
        assert prompt.endswith('"""\n')
        assert prompt.count('"""') == 2
        assert "return" not in prompt
        compile(prompt + "    pass\n", "prompt", "exec")


def test_generation_greedy_rows_follow_the_model_and_shards_resume(work: Path, tmp_path: Path) -> None:
    model, target_tokenizer = small_target(work), tokenizer(work, "target")
    prompts = torch.randint(1, 300, (2, 7))
    new = continue_batch(model, prompts, torch.tensor([False, True]), 5, seed=3)
    slow = prompts[:1]
    for _ in range(5):
        slow = torch.cat([slow, model(slow).logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert new[0].tolist() == slow[0, 7:].tolist()
    assert new.tolist() == continue_batch(model, prompts, torch.tensor([False, True]), 5, seed=3).tolist()

    pool = Pool(corpus.read_texts(work / "corpus/train.jsonl"), target_tokenizer)
    options = {"rows": 4, "batches_per_shard": 2, "new_tokens": 6}
    generate(model, pool, tmp_path, shards=2, **options)
    contents = [path.read_text() for path in sorted(tmp_path.glob("shard-*.jsonl"))]
    (tmp_path / "shard-00001.jsonl").unlink()  # as if it had been killed there
    generate(model, pool, tmp_path, shards=2, **options)
    assert [path.read_text() for path in sorted(tmp_path.glob("shard-*.jsonl"))] == contents
    for line in "".join(contents).splitlines():
        record = json.loads(line)
        assert record["text"].startswith(record["prompt"])
        assert record["prompt"].endswith("\n")


def test_own_texts_weigh_prompts_less(work: Path, tmp_path: Path) -> None:
    lines = [{"prompt": "def f(x):\n", "text": "def f(x):\n    return x", "ended": ended} for ended in (True, False)]
    (tmp_path / "shard-00000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assistant_tokenizer = tokenizer(work, "assistant")
    own = OwnTexts(tmp_path, assistant_tokenizer)
    length = len(assistant_tokenizer.encode(lines[0]["text"]).ids) + 1
    ids, weights = own.draw(np.random.default_rng(0), 3, length)
    generated = [int(index) for index in ids[0][weights[0] == 1]]
    assert assistant_tokenizer.decode(generated, skip_special_tokens=False) == "    return x</s>"
    assert set(weights[0].tolist()) == {PROMPT_WEIGHT, 1.0}
    assert len(own.ids) == 2 * length - 2  # the text that was cut short has no end and lost its last token


def test_a_killed_run_goes_on_as_if_nothing_had_happened(work: Path, tmp_path: Path) -> None:
    ids = corpus.encode(corpus.read_texts(work / "corpus/train.jsonl"), tokenizer(work, "assistant"), 2)
    plan = Plan(steps=6, rows=2, length=32, warm_up=2, compiled=False)

    def run(folder: Path, *pieces: int | None) -> Trainer:
        for piece in pieces:
            torch.manual_seed(0)
            model = new_model(420, 2, 1, *SMALL)
            trainer = Trainer(model, plan, folder)
            trainer.run(RawWindows(ids), stop_after=piece)
        return trainer

    whole, pieced = run(tmp_path / "whole", None), run(tmp_path / "pieced", 2, 3, None)
    assert whole.step == pieced.step == 6
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, pieced.model.state_dict()[name]), name
    assert whole.rng.bit_generator.state == pieced.rng.bit_generator.state


def test_training_learns_and_exports(work: Path, tmp_path: Path) -> None:
    assistant_tokenizer = tokenizer(work, "assistant")
    ids = corpus.encode(corpus.read_texts(work / "corpus/train.jsonl"), assistant_tokenizer, 2)
    torch.manual_seed(0)
    model = new_model(assistant_tokenizer.get_vocab_size(), 2, 1, *SMALL)
    before = evaluate.held_out_loss(model, ids, 64)
    trainer = Trainer(model, Plan(steps=40, rows=4, length=64, warm_up=5, compiled=False), tmp_path / "run")
    trainer.run(RawWindows(ids))
    assert evaluate.held_out_loss(trainer.model.eval(), ids, 64) < before - 2

    for _ in range(2):  # the second time it replaces the first
        export(trainer.model, tmp_path / "out", sorted((work / "tokenizers/assistant").glob("tokenizer*.json")))
    loaded = type(model).from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.bfloat16
    assert loaded.config.eos_token_id == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_widening_keeps_the_function_and_lets_everything_learn() -> None:
    torch.manual_seed(0)
    narrow = new_model(100, 2, 1, *SMALL).eval()
    wide = widened(narrow, llama_config(100, 2, 1, 128, 2, 2, 1, 160)).eval()
    ids = torch.randint(1, 100, (3, 20))  # id 0 is padding, whose embedding has no gradient of its own
    torch.testing.assert_close(wide(ids).logits, narrow(ids).logits, atol=1e-5, rtol=1e-5)
    wide(input_ids=ids, labels=ids).loss.backward()
    assert wide.model.embed_tokens.weight.grad[ids[:, :-1].unique(), 64:].ne(0).all()
    with pytest.raises(ValueError, match="cannot shrink hidden_size from 128 to 64"):
        widened(wide, llama_config(100, 2, 1, *SMALL))


def test_agreement_of_a_perfect_and_a_useless_assistant(work: Path) -> None:
    model, target_tokenizer = small_target(work), tokenizer(work, "target")
    prompts = [head for text in corpus.read_texts(work / "corpus/held.jsonl") for head in function_heads(text)]
    greedy = evaluate.write(model, target_tokenizer, prompts, sampled=False, new_tokens=8)
    assert greedy
    assert all(text.text.startswith(text.prompt) for text in greedy)
    torch.manual_seed(1)
    useless = new_model(420, 2, 1, *SMALL).eval()
    found = evaluate.agreement(useless, tokenizer(work, "assistant"), target_tokenizer, greedy)
    assert 0 <= found.right_bytes < 0.5
    assert 1 <= found.tokens_per_pass < 3
    assert evaluate.divergence(useless, tokenizer(work, "assistant"), greedy) > 0


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give minutes or steps"):
        Plan()
    with pytest.raises(ValueError, match="not a folder"):
        corpus.collect([tmp_path / "nowhere"], tmp_path)
    pause_while(tmp_path / "PAUSE")()  # no such file: returns at once
