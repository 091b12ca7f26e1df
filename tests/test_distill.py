"""Distilled data: the target's own answers whatever the batch, the drafter and the kill; and what is refused."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from cli_pair import run, write_pair

from anydraft.decoder import Decoder
from anydraft.drafters.lookup import LookupDrafter
from anydraft.errors import AnydraftError, ContextOverflow, OptionConflict, TokenizerMismatch
from anydraft.text.token_bytes import TokenBytes
from anydraft.training import shards as shards_module
from anydraft.training.corpus import PROVENANCE, Corpus
from anydraft.training.distill import AnswerProgress, distill
from anydraft.training.plan import AnswerSettings
from anydraft.training.prompts import read_prompts, token_ids
from anydraft.training.race import Race

LENGTHS = (11, 3, 19, 1, 7, 7, 30, 2, 13, 5, 5, 24, 17, 9)
SETTINGS = AnswerSettings(max_new_tokens=8, seed=3)
SMALL: dict[str, Any] = {"batch_size": 3, "shard_size": 5}


def write_prompts(folder: Path, name: str = "prompts.jsonl") -> Path:
    path = folder / name
    lines = [json.dumps({"id": f"p{i}", "prompt": tiny.prompt(length, i)}) for i, length in enumerate(LENGTHS)]
    path.write_text("\n".join(lines) + "\n")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*"))}


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for content in contents(folder).values() for line in content.splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A prompts file, and what an unbroken run makes of it."""
    folder = tmp_path_factory.mktemp("distilled")
    prompts = write_prompts(folder)
    distill(Decoder(tiny.target("llama")), prompts, folder / "out", SETTINGS, **SMALL)
    return prompts, folder / "out"


# The answers. -----------------------------------------------------------------------------------


def test_answers_are_those_of_generate_one_by_one(whole: tuple[Path, Path]) -> None:
    found = {record["id"]: record for record in records(whole[1])}
    assert sorted(found) == sorted(f"p{i}" for i in range(len(LENGTHS)))
    assert {record["temperature"] for record in found.values()} == {0.0, 1.0}
    decoder = Decoder(tiny.target("llama"))
    for i, length in enumerate(LENGTHS):
        record = found[f"p{i}"]
        assert record["prompt"] == tiny.prompt(length, i)
        alone: Any = decoder.generate(
            record["prompt"], temperature=record["temperature"], seed=record["seed"], max_new_tokens=8
        )
        assert record["answer"] == alone.tokens
        assert record["finish"] == alone.finish_reason


def test_shards_are_full_but_the_last_and_counted(whole: tuple[Path, Path]) -> None:
    assert [(name, content.count(b"\n")) for name, content in contents(whole[1]).items()] == [
        ("shard-00000.jsonl", 5),
        ("shard-00001.jsonl", 5),
        ("shard-00002.jsonl", 4),
    ]
    story = json.loads((whole[1] / PROVENANCE).read_text())
    assert story["complete"]
    assert story["counts"]["answers"] == len(LENGTHS)
    assert story["counts"]["tokens"] == sum(len(record["answer"]) for record in records(whole[1]))
    assert story["counts"]["sampled"] == sum(record["temperature"] > 0 for record in records(whole[1]))
    assert story["settings"]["max_new_tokens"] == 8
    assert story["versions"]["torch"]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_batches_and_drafters_change_nothing(whole: tuple[Path, Path], tmp_path: Path, batch_size: int) -> None:
    target = tiny.target("llama")
    for name, answering in (("auto", target), ("lookup", Decoder(target, LookupDrafter()))):
        out = tmp_path / name
        distill(answering, whole[0], out, SETTINGS, batch_size=batch_size, shard_size=5)
        assert contents(out) == contents(whole[1])


def test_answers_end_with_the_end_of_sequence(whole: tuple[Path, Path], tmp_path: Path) -> None:
    before = {record["id"]: record for record in records(whole[1])}
    end = before["p0"]["answer"][3]
    model = tiny.make("llama")
    model.generation_config.eos_token_id = end
    distill(tiny.Target(model, tiny.byte_level()), whole[0], tmp_path, SETTINGS, **SMALL)
    for record in records(tmp_path):
        answer = before[record["id"]]["answer"]
        stopped = end in answer
        assert record["finish"] == ("stop" if stopped else "length")
        assert record["answer"] == (answer[: answer.index(end) + 1] if stopped else answer)


@pytest.mark.parametrize(("share", "temperatures"), [(0.0, {0.0}), (1.0, {0.7})])
def test_the_sampled_share(tmp_path: Path, share: float, temperatures: set[float]) -> None:
    settings = AnswerSettings(max_new_tokens=2, sampled_share=share, temperature=0.7)
    distill(tiny.target("llama"), write_prompts(tmp_path), tmp_path / "out", settings, limit=5)
    assert {record["temperature"] for record in records(tmp_path / "out")} == temperatures
    coins = [AnswerSettings(sampled_share=0.3, seed=1).sampled(index) for index in range(4000)]
    assert abs(sum(coins) / len(coins) - 0.3) < 0.03


def test_the_race_goes_to_the_faster_and_gives_up_on_the_hopeless() -> None:
    plain, lookup = Decoder(tiny.target("llama")), Decoder(tiny.target("llama"), LookupDrafter())
    race = Race([plain, lookup])
    assert race.choose("greedy") is plain
    race.record("greedy", plain, 1000, 1.0)
    assert race.choose("greedy") is lookup
    assert not race.far_behind("greedy", lookup, 10, 0.1)  # too early to tell
    race.record("greedy", lookup, 1100, 1.0)
    assert race.winner("greedy") is None  # too close to tell
    race.record("greedy", plain, 1000, 1.0)
    race.record("greedy", lookup, 2000, 1.0)
    assert race.choose("greedy") is lookup
    race.record("sampled", plain, 1000, 1.0)
    assert race.far_behind("sampled", lookup, 100, 0.4)
    assert race.choose("sampled") is plain
    assert not race.far_behind("sampled", plain, 1, 100.0)


def test_a_drafter_that_is_given_up_leaves_the_batch_to_another(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[Any] = []
    behind = Race.far_behind

    def hopeless(self: Race, kind: Any, decoder: Decoder, tokens: int, seconds: float) -> bool:
        if decoder.drafter is None or tokens < 5 or not behind(self, kind, decoder, 0, 1e9):
            return False
        given_up.append(kind)
        return True

    monkeypatch.setattr(Race, "far_behind", hopeless)
    distill(tiny.target("llama"), whole[0], tmp_path / "out", SETTINGS, **SMALL)
    assert contents(tmp_path / "out") == contents(whole[1])
    assert sorted(given_up) == [False, True]


# Kills. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_resuming_after_a_kill_at_any_byte(whole: tuple[Path, Path], tmp_path: Path, seed: int) -> None:
    prompts, out = whole
    written = b"".join(contents(out).values())
    lines = written[: random.Random(seed).randrange(len(written))].splitlines(keepends=True)
    story = json.loads((out / PROVENANCE).read_text())
    (tmp_path / PROVENANCE).write_text(json.dumps(story | {"complete": False, "counts": None}))
    for start in range(0, len(lines), 5):
        full = len(lines) > start + 5 or (len(lines) == start + 5 and lines[-1].endswith(b"\n") and seed % 2)
        name = f"shard-{start // 5:05d}.jsonl" + ("" if full else ".partial")
        (tmp_path / name).write_bytes(b"".join(lines[start : start + 5]))
    state = distill(tiny.target("llama"), prompts, tmp_path, SETTINGS, **SMALL)
    assert contents(tmp_path) == contents(out)
    assert state.made == len(LENGTHS) - sum(line.endswith(b"\n") for line in lines)
    again = distill(tiny.target("llama"), prompts, tmp_path, SETTINGS, **SMALL)
    assert (again.made, again.answers) == (0, len(LENGTHS))
    assert json.loads((tmp_path / PROVENANCE).read_text())["counts"] == story["counts"]


def test_resuming_after_an_interrupt(whole: tuple[Path, Path], tmp_path: Path) -> None:
    def stop(state: AnswerProgress) -> None:
        if state.made:
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            distill(tiny.target("llama"), whole[0], tmp_path, SETTINGS, watch=stop, **SMALL)
    assert not json.loads((tmp_path / PROVENANCE).read_text())["complete"]
    assert len(Corpus.open(tmp_path).sequences) == len(records(tmp_path)) >= 5
    distill(tiny.target("llama"), whole[0], tmp_path, SETTINGS, **SMALL)
    assert contents(tmp_path) == contents(whole[1])


def test_a_limit_can_be_raised_later(whole: tuple[Path, Path], tmp_path: Path) -> None:
    distill(tiny.target("llama"), whole[0], tmp_path, SETTINGS, limit=6)
    state = distill(tiny.target("llama"), whole[0], tmp_path, SETTINGS)
    assert state.made == len(LENGTHS) - 6
    assert sorted(r["id"] for r in records(tmp_path)) == sorted(r["id"] for r in records(whole[1]))
    by_id = {record["id"]: record for record in records(whole[1])}
    assert all(by_id[record["id"]] == record for record in records(tmp_path))


def test_a_full_disk_leaves_what_was_written(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = os.write, [sum(map(len, contents(whole[1]).values())) * 2 // 3]

    def filling(descriptor: int, content: bytes) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = write(descriptor, content[: left[0]])
        left[0] -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(shards_module.os, "write", filling)
        with pytest.raises(OSError, match=r"No space left.*answers are safe"):
            distill(tiny.target("llama"), whole[0], tmp_path, SETTINGS, **SMALL)
    kept = b"".join(contents(tmp_path).values())
    assert kept
    assert b"".join(contents(whole[1]).values()).startswith(kept)
    assert kept.endswith(b"\n")
    distill(tiny.target("llama"), whole[0], tmp_path, SETTINGS, **SMALL)
    assert contents(tmp_path) == contents(whole[1])


# What is refused. -------------------------------------------------------------------------------


def test_other_settings_in_the_same_folder(whole: tuple[Path, Path], tmp_path: Path) -> None:
    prompts, out = whole
    before = contents(out)
    with pytest.raises(OptionConflict, match=r"max_new_tokens 8 there, 9 here.*another folder"):
        distill(tiny.target("llama"), prompts, out, AnswerSettings(max_new_tokens=9, seed=3))
    with pytest.raises(OptionConflict, match="seed 3 there, 4 here"):
        distill(tiny.target("llama"), prompts, out, AnswerSettings(max_new_tokens=8, seed=4))
    with pytest.raises(OptionConflict, match="target fingerprint"):
        distill(tiny.target("qwen2"), prompts, out, SETTINGS)
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": [5]}\n')
    with pytest.raises(OptionConflict, match="prompts sha256"):
        distill(tiny.target("llama"), other, out, SETTINGS)
    (tmp_path / "shard-00000.jsonl").write_bytes(before["shard-00000.jsonl"])
    with pytest.raises(OptionConflict, match=r"shards without a provenance\.json"):
        distill(tiny.target("llama"), prompts, tmp_path, SETTINGS)
    assert contents(out) == before


def test_a_part_of_the_target_that_was_not_seen_is_no_other_target(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """Of offloaded or quantised weights nothing is known, and names say nothing."""
    prompts, out = whole
    folder = shutil.copytree(out, tmp_path / "same")
    story = json.loads((folder / "provenance.json").read_text())
    whole_print = story["target"]["fingerprint"]
    story["target"] |= {"name": "moved", "fingerprint": f"unknown-{whole_print.split('-', 1)[1]}"}
    (folder / "provenance.json").write_text(json.dumps(story))
    assert distill(tiny.target("llama"), prompts, folder, SETTINGS, **SMALL).made == 0
    story["target"] |= {"fingerprint": f"unknown-{whole_print.split('-', 1)[1][::-1]}"}
    (folder / "provenance.json").write_text(json.dumps(story))
    with pytest.raises(OptionConflict, match="target fingerprint"):
        distill(tiny.target("llama"), prompts, folder, SETTINGS, **SMALL)


def test_two_at_once_in_one_folder(whole: tuple[Path, Path]) -> None:
    with (
        shards_module.Shards(whole[1], 5, lambda record: None),
        pytest.raises(OptionConflict, match="another process is writing"),
    ):
        distill(tiny.target("llama"), whole[0], whole[1], SETTINGS)


def test_prompts_too_long_for_the_context(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": tiny.prompt(length)}) + "\n" for length in (249, 5, 248)))
    state = distill(tiny.target("llama"), path, tmp_path / "out", SETTINGS)
    assert (state.answers, state.skipped) == (2, 1)
    path.write_text(json.dumps({"prompt": tiny.prompt(250)}) + "\n")
    with pytest.raises(ContextOverflow, match=r"none of the 1 prompts.*context of 256"):
        distill(tiny.target("llama"), path, tmp_path / "none", SETTINGS)
    with pytest.raises(ContextOverflow, match="max_new_tokens=256 leaves no room"):
        distill(tiny.target("llama"), path, tmp_path / "none", AnswerSettings(max_new_tokens=256))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.jsonl", "", "holds no prompts"),
        ("p.txt", "\n  \n", "holds no prompts"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": \n', "line 2 of p.jsonl is no prompt"),
        ("p.jsonl", '{"prompt": "a"}\n\n{"prompt": ""}\n', "line 3 of p.jsonl"),
        ("p.jsonl", '{"turns": []}\n', "line 1 of p.jsonl"),
        ("p.jsonl", '{"prompt": [1, true]}\n', "line 1 of p.jsonl"),
        ("p.jsonl", '{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}\n', "two prompts .* id '1'"),
        ("p.jsonl", '{"prompt": [5, 160]}\n', "prompt '1' has token id 160, outside the target's vocabulary of 160"),
    ],
)
def test_prompts_that_are_none(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(OptionConflict, match=words):
        distill(tiny.target("llama"), tmp_path / name, tmp_path / "out", SETTINGS)


@pytest.mark.parametrize(
    "options", [{"sampled_share": 1.5}, {"temperature": 0.0}, {"max_new_tokens": 0}, {"temperature": -1.0}]
)
def test_settings_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(OptionConflict, match=next(iter(options))):
        AnswerSettings(**options)  # type: ignore[arg-type]


# Prompts. ---------------------------------------------------------------------------------------


def test_prompts_of_files(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one prompt\n\nanother\r\n")
    assert [prompt.text for prompt in read_prompts(tmp_path / "p.txt").items] == ["one prompt", "another"]
    lines = [{"id": "a", "turns": ["first", "second"]}, {"prompt": [5, 6]}, {"text": "t"}, "bare"]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = read_prompts(tmp_path / "p.jsonl").items
    assert [(item.id, item.text, item.tokens) for item in items] == [
        ("a", "first", None),
        ("2", None, (5, 6)),
        ("3", "t", None),
        ("4", "bare", None),
    ]


def test_prompts_cut_from_a_folder(tmp_path: Path) -> None:
    texts = {f"sub/f{i}.py": "".join(f"line {i} {n} = {n * n}\n" for n in range(40)) for i in range(5)}
    texts["g.txt"] = "not python\n" * 10
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "copy.py").write_text(texts["sub/f0.py"])
    (tmp_path / "binary.py").write_bytes(b"\xff\x00\n\n")
    cut = read_prompts(tmp_path, glob="*.py", per_file=3, prompt_tokens=100, seed=1)
    assert cut == read_prompts(tmp_path, glob="*.py", per_file=3, prompt_tokens=100, seed=1)
    assert cut != read_prompts(tmp_path, glob="*.py", per_file=3, prompt_tokens=100, seed=2)
    assert len(cut.items) == 15
    assert len({prompt.id.split(":")[0] for prompt in cut.items[:5]}) == 5  # a limit takes some of every file
    tokenizer = tiny.byte_level(330, True)
    lengths = []
    for prompt in cut.items:
        ids = token_ids(prompt, tokenizer, 400)
        text = TokenBytes.of(tokenizer).join(ids).decode()
        assert text.endswith("\n")
        assert text.startswith("line ")
        assert any(text in whole for whole in texts.values())
        lengths.append(len(ids))
    assert max(lengths) <= 100
    assert len(set(lengths)) > 3
    one = tmp_path / "alone"
    one.mkdir()
    (one / "x.py").write_text(texts["sub/f3.py"])
    alone = {prompt.text for prompt in read_prompts(one, per_file=3, prompt_tokens=100, seed=1).items}
    assert alone == {prompt.text for prompt in cut.items if "f3" in prompt.id}
    with pytest.raises(OptionConflict, match=r"holds no prompts \(files '\*\.rs'\)"):
        read_prompts(tmp_path, glob="*.rs")


def test_a_long_line_is_cut_inside(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("x" * 5000 + "\nend\n")
    (prompt,) = read_prompts(tmp_path, prompt_tokens=20).items
    assert 1 <= len(token_ids(prompt, tiny.byte_level(330, True), 400)) <= 20


# Reading. ---------------------------------------------------------------------------------------


def test_corpus(whole: tuple[Path, Path]) -> None:
    corpus = Corpus.open(whole[1], TokenBytes.of(tiny.byte_level()).digest)
    read = [(s.prompt, s.answer, s.temperature) for s in corpus.sequences]
    assert read == [(r["prompt"], r["answer"], r["temperature"]) for r in records(whole[1])]
    assert corpus.tokens == corpus.provenance["counts"]["tokens"]
    assert corpus.digest == Corpus.open(whole[1]).digest
    with pytest.raises(TokenizerMismatch, match=r"another tokenizer.*distil again"):
        Corpus.open(whole[1], TokenBytes.of(tiny.pieces()).digest)


@pytest.mark.parametrize(
    "line", ['{"id": "x", "prompt": [1], "answer"', "[]", '{"id":"x","prompt":[1],"answer":[],"temperature":0}']
)
def test_a_broken_line_names_file_and_number(whole: tuple[Path, Path], tmp_path: Path, line: str) -> None:
    (tmp_path / PROVENANCE).write_bytes((whole[1] / PROVENANCE).read_bytes())
    good = contents(whole[1])["shard-00000.jsonl"]
    (tmp_path / "shard-00000.jsonl").write_bytes(good + line.encode() + b"\n" + good)
    for use in (Corpus.open, lambda out: distill(tiny.target("llama"), whole[0], out, SETTINGS)):
        with pytest.raises(OptionConflict, match=r"line 6 of .*shard-00000\.jsonl is broken"):
            use(tmp_path)


def test_in_a_partial_shard_only_the_last_line_may_be_broken(whole: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / PROVENANCE).write_bytes((whole[1] / PROVENANCE).read_bytes())
    lines = contents(whole[1])["shard-00000.jsonl"].splitlines(keepends=True)
    partial = tmp_path / "shard-00000.jsonl.partial"
    partial.write_bytes(b"".join(lines[:3]) + lines[3][:9])
    assert len(Corpus.open(tmp_path).sequences) == 3
    broken = b"".join([lines[0], lines[1][:9] + b"\n", *lines[2:]])
    partial.write_bytes(broken)
    for use in (Corpus.open, lambda out: distill(tiny.target("llama"), whole[0], out, SETTINGS)):
        with pytest.raises(OptionConflict, match=r"line 2 of .*shard-00000\.jsonl\.partial is broken"):
            use(tmp_path)
    assert partial.read_bytes() == broken


def test_a_run_that_goes_on_is_not_complete_until_its_end(whole: tuple[Path, Path], tmp_path: Path) -> None:
    distill(tiny.target("llama"), whole[0], tmp_path, SETTINGS, limit=6, **SMALL)
    assert Corpus.open(tmp_path).incomplete is None
    said: list[str | None] = []

    def look(state: AnswerProgress) -> None:
        said.append(Corpus.open(tmp_path).incomplete)

    distill(tiny.target("llama"), whole[0], tmp_path, SETTINGS, watch=look, **SMALL)
    assert "6 of 14 answers, not complete" in str(said[0])
    assert all(said)
    assert Corpus.open(tmp_path).incomplete is None


def test_rejection_is_refused(whole: tuple[Path, Path], tmp_path: Path) -> None:
    decoder = Decoder(tiny.target("llama"), verification="rejection")
    with pytest.raises(OptionConflict, match=r"verification=.exact. alone"):
        distill(decoder, whole[0], tmp_path, SETTINGS)
    assert not list(tmp_path.iterdir())


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(OptionConflict, match="holds no distilled data"):
        Corpus.open(tmp_path)
    (tmp_path / PROVENANCE).write_text("{}")
    with pytest.raises(OptionConflict, match="holds no answers yet"):
        Corpus.open(tmp_path)


def test_corpus_of_raw_texts(tmp_path: Path) -> None:
    tokenizer = tiny.byte_level()
    (tmp_path / "a.txt").write_text(tiny.TEXT)
    (tmp_path / "b.txt").write_text("She went")
    corpus = Corpus.from_texts(tmp_path, tokenizer, glob="*.txt", length=50, prompt=10)
    ids = list(tokenizer(tiny.TEXT)["input_ids"])
    first = corpus.sequences[0]
    assert first.prompt + first.answer == ids[:50]
    assert len(first.prompt) == 10
    whole = Corpus.from_texts(tmp_path, tokenizer, glob="a.*", length=50)
    assert [token for s in whole.sequences for token in s.prompt + s.answer] == ids
    with pytest.raises(AnydraftError, match="no text of more than 1000"):
        Corpus.from_texts(tmp_path, tokenizer, length=2000, prompt=999)


def test_raw_files_are_read_whole(tmp_path: Path) -> None:
    tokenizer = tiny.byte_level()

    def read(name: str, content: str, **options: Any) -> list[list[int]]:
        (tmp_path / name).write_text(content)
        return [s.answer for s in Corpus.from_texts(tmp_path / name, tokenizer, **options).sequences]

    texts = ["one\ntwo\nthree\n" * 3, "She went\n", "The bear said"]
    ids = [list(tokenizer(text)["input_ids"]) for text in texts]
    assert read("a.txt", texts[0]) == [ids[0]]
    rows = zip(("text", "document", "prompt"), texts, strict=True)
    assert read("a.jsonl", "".join(json.dumps({key: text}) + "\n" for key, text in rows)) == ids
    with pytest.raises(OptionConflict, match=r"line 2 of b\.jsonl is no text.*token ids"):
        read("b.jsonl", '{"text": "She"}\n{"prompt": [1, 2, 3]}\n')
    with pytest.raises(OptionConflict, match="leave --glob out"):
        read("a.txt", texts[0], glob="*.py")


# The command. -----------------------------------------------------------------------------------


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, assistant = write_pair(tmp_path)
    (tmp_path / "p.txt").write_text("Once upon\nShe\nThe bear said\n")
    options = ("distill", target, "--prompts", tmp_path / "p.txt", "-m", 4)
    outputs = []
    for drafter in ("auto", "lookup", "none", assistant):
        out = tmp_path / f"out{len(outputs)}"
        result = run(*options, "--out", out, "-d", drafter, "--json")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["answers"] == 3
        outputs.append(contents(out))
    assert all(output == outputs[0] for output in outputs)
    assert "3 answers of" in run(*options, "--out", tmp_path / "out0").stderr
    refused = run(*options, "--out", tmp_path / "out0", "--seed", 5)
    assert refused.exit_code == 2
    assert "seed 0 there, 5 here" in " ".join(refused.stderr.split())

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("anydraft.training.distill._records", interrupt)
    assert run(*options, "--out", tmp_path / "stopped").exit_code == 130
    monkeypatch.undo()
    assert run(*options, "--out", tmp_path / "stopped").exit_code == 0
    assert contents(tmp_path / "stopped") == outputs[0]
