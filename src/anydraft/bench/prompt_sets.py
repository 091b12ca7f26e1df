"""Prompts by name: a file, held-out Python files, or one of five public sets, and how they become token ids.

| name | from | a prompt is | form |
|---|---|---|---|
| humaneval | openai/openai_humaneval, test | `prompt`: a signature and its docstring | text to continue |
| mt_bench | HuggingFaceH4/mt_bench_prompts | the first turn of `prompt` | chat |
| alpaca_eval | tatsu-lab/alpaca_eval | `instruction` | chat |
| gsm8k | openai/gsm8k, main, test | `question` | chat |
| spec_bench | github.com/hemingkx/Spec-Bench | the first of `turns` | chat |

A chat prompt is put into the target's chat template where it has one, and is text to continue where it has none. A file
is text to continue, unless told otherwise. Sets other than spec_bench come from the Hugging Face hub and stay in its
cache; each keeps its own order.
"""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anydraft.bench.prompts import Prompt, PromptSet, held_out_prompts, read_prompts
from anydraft.errors import OptionConflict

logger = logging.getLogger(__name__)

HELD_OUT = "held-out"
SPEC_BENCH = "https://raw.githubusercontent.com/hemingkx/Spec-Bench/main/data/spec_bench/question.jsonl"


@dataclass(frozen=True, slots=True)
class PublicSet:
    """Where a set is, and which part of a row is the prompt."""

    repository: str
    file: str
    text: Callable[[dict[str, Any]], str]
    id: Callable[[dict[str, Any]], Any] | None = None
    chat: bool = True


SETS = {
    "humaneval": PublicSet(
        "openai/openai_humaneval",
        "openai_humaneval/test-00000-of-00001.parquet",
        lambda row: row["prompt"],
        lambda row: row["task_id"],
        chat=False,
    ),
    "mt_bench": PublicSet(
        "HuggingFaceH4/mt_bench_prompts",
        "raw/question.jsonl",
        lambda row: (row.get("prompt") or row["turns"])[0],
        lambda row: f"mt_bench/{row['question_id']}" if "question_id" in row else None,
    ),
    "alpaca_eval": PublicSet("tatsu-lab/alpaca_eval", "alpaca_eval.json", lambda row: row["instruction"]),
    "gsm8k": PublicSet("openai/gsm8k", "main/test-00000-of-00001.parquet", lambda row: row["question"]),
    "spec_bench": PublicSet(
        "hemingkx/Spec-Bench",
        "question.jsonl",
        lambda row: row["turns"][0],
        lambda row: f"spec_bench/{row['question_id']}",
    ),
}


def prompt_set(name: str, limit: int | None = None) -> tuple[PromptSet, bool]:
    """The prompts of a name or file, and whether they are turns of a chat.

    Raises:
        OptionConflict: no such file or name, a set that cannot be downloaded or read.
    """
    if name == HELD_OUT:
        return held_out_prompts(limit=limit), False
    if name in SETS:
        return _public(name, limit), SETS[name].chat
    if not Path(name).is_file():
        raise OptionConflict(
            f'there is no file {name!r} of prompts; give a .jsonl file of {{"id": ..., "turns": [...]}} lines, '
            f"{HELD_OUT!r}, or one of {', '.join(SETS)}"
        )
    try:
        found = read_prompts(Path(name), limit)
    except (ValueError, OSError) as problem:
        raise OptionConflict(str(problem)) from problem
    if not found.prompts:
        raise OptionConflict(f"{name!r} has no prompts")
    return found, False


def _public(name: str, limit: int | None) -> PromptSet:
    chosen = SETS[name]
    try:
        path = download(name)
    except (OSError, ValueError) as problem:  # of the hub, all its errors are one of these
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise OptionConflict(
            f"cannot download the prompts {name!r} from {chosen.repository} ({reason}); without a network give "
            'a file as --prompts: one {"id": ..., "turns": [...]} a line'
        ) from problem
    try:
        rows = _rows(path)[:limit]
        prompts = [Prompt(_name(chosen, name, number, row), chosen.text(row)) for number, row in enumerate(rows)]
    except (ValueError, KeyError, IndexError, TypeError) as problem:
        if isinstance(problem, OptionConflict):
            raise
        raise OptionConflict(
            f"{chosen.repository}/{chosen.file} is not of the form that was expected "
            f"({type(problem).__name__}: {problem}); give a file as --prompts"
        ) from problem
    return PromptSet(f"{name} ({chosen.repository})", tuple(prompts))


def _name(chosen: PublicSet, name: str, number: int, row: dict[str, Any]) -> str:
    given = chosen.id(row) if chosen.id is not None else None
    return str(given) if given is not None else f"{name}/{number}"


def download(name: str) -> Path:
    """The file of a public set, from the cache if it is there."""
    from huggingface_hub import constants, hf_hub_download

    chosen = SETS[name]
    if name != "spec_bench":
        return Path(hf_hub_download(chosen.repository, chosen.file, repo_type="dataset"))
    kept = Path(constants.HF_HOME) / "anydraft" / "spec_bench.jsonl"  # it is not on the hub
    if not kept.is_file():
        with urllib.request.urlopen(SPEC_BENCH, timeout=30) as answer:
            content = answer.read()
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(content)
    return kept


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a .parquet, .json or .jsonl file."""
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet as parquet
        except ImportError as problem:
            raise OptionConflict(
                f"{path.name} is a parquet file, which needs pyarrow: pip install 'anydraft[bench]', or give a .jsonl "
                "file as --prompts"
            ) from problem
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return list(json.loads(text))
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def encode(tokenizer: Any, prompts: Sequence[Prompt], *, chat: bool) -> tuple[list[list[int]], bool]:
    """Token ids of prompts, and whether a chat template was used.

    Raises:
        OptionConflict: the target has no tokenizer.
    """
    if tokenizer is None:
        raise OptionConflict("the target has no tokenizer, and prompts are texts; give a target with a tokenizer")
    templated = chat and bool(getattr(tokenizer, "chat_template", None))
    if not templated:
        return [[int(token) for token in tokenizer(prompt.text)["input_ids"]] for prompt in prompts], False
    return [
        [
            int(token)
            for token in tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt.text}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
            )["input_ids"]
        ]
        for prompt in prompts
    ], True


def draft_prompt(tokenizer: Any, text: str) -> str:
    """A turn of a chat as a drafter with another tokenizer reads it: in its own template, else as a transcript."""
    if getattr(tokenizer, "chat_template", None):
        turn = [{"role": "user", "content": text}]
        return str(tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))
    return f"User: {text}\nAssistant:"
