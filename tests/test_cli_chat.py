"""`anydraft chat`: both sides read the conversation in the form of their own templates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_pair import run, write_pair

import anydraft
from anydraft.cli.conversation import Conversation
from anydraft.generation import Step

SHORT = ("-m", 8, "-t", 0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], str | None]]:
    """What each side was given to read, turn by turn."""
    found: list[tuple[list[int], str | None]] = []
    stream = anydraft.Decoder.stream

    def noted(self: anydraft.Decoder, prompt: Any, *args: Any, **options: Any) -> Iterator[Step]:
        found.append((list(prompt), options.get("draft_prompt")))
        return stream(self, prompt, *args, **options)

    monkeypatch.setattr(anydraft.Decoder, "stream", noted)
    return found


def test_both_templates_are_read(pair: tuple[str, str], seen: list[tuple[list[int], str | None]]) -> None:
    result = run("chat", *pair[:1], "-d", pair[1], "--system", "Be kind.", *SHORT, "--json", input="Hello\n\nBye\n")
    assert result.exit_code == 0, result.stderr
    turns = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(turns) == len(seen) == 2
    tokenizer = anydraft.load(pair[0], drafter=None).tokenizer
    (first_ids, first_draft), (second_ids, second_draft) = seen
    assert tokenizer.decode(first_ids) == "<s>[system] Be kind.\n[user] Hello\n[assistant] "
    assert first_ids.count(tokenizer.bos_token_id) == 1
    assert first_draft == "<system: Be kind.><user: Hello><assistant: "
    said = turns[0]["content"]
    assert tokenizer.decode(second_ids).endswith(f"[assistant] {said}\n[user] Bye\n[assistant] ")
    assert second_draft == f"<system: Be kind.><user: Hello><assistant: {said}><user: Bye><assistant: "
    alone = run("chat", pair[0], "-d", "none", "--system", "Be kind.", *SHORT, "--no-stats", input="Hello\nBye\n")
    assert alone.stdout == "".join(turn["content"] + "\n" for turn in turns)


def test_same_tokenizer_needs_no_draft_prompt(pair: tuple[str, str], seen: list[Any]) -> None:
    run("chat", pair[0], "-d", pair[0], *SHORT, input="Hello\n")
    assert seen[0][1] is None


def test_without_templates(pair: tuple[str, str], tmp_path: Path, seen: list[Any]) -> None:
    decoder = anydraft.load(pair[0], drafter=pair[1])
    decoder.drafter.tokenizer.chat_template = None  # type: ignore[union-attr]
    conversation = Conversation(decoder, anydraft.SamplingParams(max_new_tokens=4))
    list(conversation.answer("Hello"))
    assert seen[-1][1] == "User: Hello\nAssistant:"
    decoder.tokenizer.chat_template = None
    with pytest.raises(anydraft.TokenizerMismatch, match="--chat-template"):
        Conversation(decoder, anydraft.SamplingParams())
    template = "{% for m in messages %}{{ m['content'] }}|{% endfor %}"
    conversation = Conversation(decoder, anydraft.SamplingParams(max_new_tokens=4), template=template)
    list(conversation.answer("Hello"))
    assert decoder.tokenizer.decode(seen[-1][0]) == "Hello|"


def test_old_turns_make_room(pair: tuple[str, str]) -> None:
    conversation = Conversation(
        anydraft.load(pair[0], drafter=None), anydraft.SamplingParams(max_new_tokens=16), system="Be kind."
    )
    for _ in range(6):
        list(conversation.answer("the red hat " * 8))
    assert conversation.dropped > 0
    assert conversation.messages[0] == {"role": "system", "content": "Be kind."}
    with pytest.raises(anydraft.ContextOverflow, match="shorten"):
        list(conversation.answer("x" * 2000))
    conversation.clear()
    assert conversation.messages == [{"role": "system", "content": "Be kind."}]


def test_a_template_that_refuses(pair: tuple[str, str]) -> None:
    decoder = anydraft.load(pair[0], drafter=None)
    template = "{{ raise_exception('no system role') }}"
    conversation = Conversation(decoder, anydraft.SamplingParams(), system="x", template=template)
    with pytest.raises(anydraft.OptionConflict, match="no system role"):
        list(conversation.answer("Hello"))
