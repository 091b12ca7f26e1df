"""The target's last hidden states are caught for one pass, and nothing stays on the model."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import tiny
import torch

from anydraft.hidden import LastHidden

IDS = torch.tensor([tiny.prompt(7)])


@pytest.mark.parametrize("arch", ["llama", "gemma2", "phi"])
def test_they_are_what_the_head_reads(arch: str) -> None:
    model = tiny.model(arch)
    read: list[torch.Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        with torch.no_grad(), LastHidden(model).caught() as caught:
            model(input_ids=IDS)
            model(input_ids=IDS[:, :3])
    finally:
        handle.remove()
    assert [state.shape[1] for state in caught] == [7, 3]
    assert all(torch.equal(*pair) for pair in zip(caught, read, strict=True))


def test_a_users_hook_stays_and_others_may_catch_at_the_same_time() -> None:
    model = tiny.make("llama")
    last, seen = LastHidden(model), []
    handle = last.body.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad(), last.caught() as outer:
        with LastHidden(model).caught() as inner:
            model(input_ids=IDS)
        model(input_ids=IDS)
    model(input_ids=IDS)
    assert (len(outer), len(inner), len(seen)) == (2, 1, 3)
    assert list(last.body._forward_hooks) == [handle.id]


def test_nothing_stays_after_an_error() -> None:
    model = tiny.make("llama")
    last = LastHidden(model)
    with pytest.raises(KeyboardInterrupt), last.caught():
        raise KeyboardInterrupt
    assert not last.body._forward_hooks


def test_passes_of_other_threads_are_theirs() -> None:
    model = tiny.make("llama")
    found: dict[str, Any] = {}
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        with torch.no_grad(), LastHidden(model).caught() as states:
            inside.set()
            done.wait()
            model(input_ids=IDS[:, :2])
        found["other"] = states

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait()
    with torch.no_grad(), LastHidden(model).caught() as states:
        model(input_ids=IDS)
    done.set()
    thread.join()
    assert [state.shape[1] for state in states] == [7]
    assert [state.shape[1] for state in found["other"]] == [2]
