"""A pair of tiny random models with different tokenizers, on disk, and a way to run the program on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
from typer.testing import CliRunner

from anydraft.cli.app import app

TARGET_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
DRAFT_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}: {{ m['content'] }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant: {% endif %}"
)


def write_pair(folder: Path) -> tuple[str, str]:
    """Folders of a target and an assistant; both have chat templates of their own."""
    sides = []
    for name, tokenizer, template, seed in (
        ("target", tiny.byte_level(320, complete=True), TARGET_TEMPLATE, 0),
        ("assistant", tiny.pieces(), DRAFT_TEMPLATE, 1),
    ):
        place = folder / name
        tiny.make("llama", vocab=len(tokenizer), seed=seed).save_pretrained(place)
        tokenizer.chat_template = template
        try:
            tokenizer.save_pretrained(place)
        finally:
            tokenizer.chat_template = None
        sides.append(str(place))
    return sides[0], sides[1]


def run(*arguments: object, input: str | None = None) -> Any:
    """Run the program in this process; the result has exit_code, stdout and stderr."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=input)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
