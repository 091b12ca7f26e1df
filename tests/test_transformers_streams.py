"""Streamers get what plain decoding gives them, and always an end."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import tiny
import torch
from test_transformers import NEW, PROMPT, drafting, padded, target
from transformers import TextIteratorStreamer, TextStreamer

import anydraft


class Record:
    """A streamer that takes batches."""

    def __init__(self) -> None:
        self.puts: list[Any] = []
        self.ends = 0

    def put(self, value: torch.Tensor) -> None:
        self.puts.append(value.tolist())

    def end(self) -> None:
        self.ends += 1


@pytest.mark.parametrize("inputs", [{"input_ids": PROMPT}, padded()])
def test_streamers_get_what_plain_decoding_gives_them(inputs: dict[str, torch.Tensor]) -> None:
    theirs, mine, other = Record(), Record(), Record()
    options = {**inputs, "max_new_tokens": NEW, "eos_token_id": list(range(20, 40))}
    target().generate(**options, streamer=theirs)
    anydraft.generate(target(), **options, streamer=mine, **drafting("same tokenizer"))
    bound = anydraft.assisted(**drafting("same tokenizer"), streamer=other)
    target().generate(**options, custom_generate=bound)
    assert mine.puts == theirs.puts == other.puts
    assert (mine.ends, other.ends) == (1, 1)


def test_text_streamers(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = tiny.byte_level()
    answer = anydraft.generate(target(), PROMPT, max_new_tokens=NEW, streamer=TextStreamer(tokenizer))
    assert capsys.readouterr().out.rstrip("\n") == tokenizer.decode(answer[0]).rstrip("\n")
    with pytest.raises(ValueError, match="batch size 1"):
        anydraft.generate(target(), **padded(), streamer=TextStreamer(tokenizer))
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    arguments = {"inputs": PROMPT, "max_new_tokens": NEW, "streamer": streamer}
    thread = threading.Thread(target=anydraft.generate, args=(target(),), kwargs=arguments)
    thread.start()
    assert "".join(streamer) == tokenizer.decode(answer[0, 9:])
    thread.join()


def test_the_stream_ends_after_an_error() -> None:
    for wrong in ({"num_beams": 2}, {"nonsense": 1}):
        record = Record()
        with pytest.raises(ValueError, match=r"num_beams|nonsense"):
            anydraft.generate(target(), PROMPT, streamer=record, **wrong)
        assert record.ends == 1
