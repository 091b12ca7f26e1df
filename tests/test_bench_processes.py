"""Parts of a measurement in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from anydraft.bench.processes import ProcessBroke, dealt, one_after_another


def test_places_are_dealt_in_order_and_evenly() -> None:
    assert dealt(range(7), 3) == [range(2), range(2, 4), range(4, 7)]
    assert dealt(range(5, 9), 2) == [range(5, 7), range(7, 9)]
    assert dealt(range(2), 5) == [range(1), range(1, 2)]
    assert dealt(range(4), 1) == [range(4)]
    assert dealt(range(0), 3) == []
    with pytest.raises(ValueError, match="at least 1 process"):
        dealt(range(4), 0)


def test_each_call_is_made_in_a_process_of_its_own(tmp_path: Path) -> None:
    made = [tmp_path / name for name in ("a", "b")]
    one_after_another(os.mkdir, [(str(place),) for place in made])
    assert [place.is_dir() for place in made] == [True, True]


def test_a_process_that_fails_ends_it(tmp_path: Path) -> None:
    made = tmp_path / "a"
    made.mkdir()
    calls = [(str(made),), (str(tmp_path / "b"),)]  # the first is there already
    with pytest.raises(ProcessBroke, match="process 1 of 2 ended with status 1"):
        one_after_another(os.mkdir, calls)
    assert not (tmp_path / "b").exists()


class _Process:
    """A process during which Ctrl-C is pressed some times; it ends by itself after that."""

    started = 0
    presses = 1
    code = 0

    def __init__(self, **given: Any) -> None:
        self.left, self.exitcode = self.presses, self.code

    def start(self) -> None:
        type(self).started += 1

    def join(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise KeyboardInterrupt

    def terminate(self) -> None:
        self.exitcode = -15


def interrupted(monkeypatch: pytest.MonkeyPatch, presses: int, code: int = 0) -> type[_Process]:
    made = type("_Made", (_Process,), {"presses": presses, "code": code, "started": 0})
    context = type("Context", (), {"Process": made})
    monkeypatch.setattr("anydraft.bench.processes.multiprocessing.get_context", lambda kind: context)
    return made


def test_ctrl_c_lets_the_process_at_hand_end_and_begins_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    made = interrupted(monkeypatch, 1)
    one_after_another(print, [("a",), ("b",)])
    assert made.started == 1


@pytest.mark.parametrize(("presses", "code"), [(2, 0), (1, 1)])
def test_ctrl_c_ends_all_when_pressed_twice_or_before_there_is_anything(
    monkeypatch: pytest.MonkeyPatch, presses: int, code: int
) -> None:
    made = interrupted(monkeypatch, presses, code)
    with pytest.raises(KeyboardInterrupt):
        one_after_another(print, [("a",), ("b",)])
    assert made.started == 1


def test_a_process_that_was_killed_is_named_by_its_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, 0, -9)
    with pytest.raises(ProcessBroke, match="signal SIGKILL"):
        one_after_another(print, [("a",)])
