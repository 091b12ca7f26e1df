"""Trained drafters that do not fit or cannot be read: an error that names the way out, and nothing half-written."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tiny_networks import KINDS, MAKERS, random_network

import anydraft
from anydraft.errors import AnydraftError, BrokenCheckpoint, OptionConflict, UnsupportedModel, WrongTarget
from anydraft.networks.identity import TargetIdentity, fingerprint
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.registry import load_network

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMS = [*KINDS, "lean, reduced", "medusa, reduced", "eagle, reduced"]


def load(path: Any, model: Any = None, **options: Any) -> anydraft.Decoder:
    return anydraft.load(tiny.model("llama") if model is None else model, path, tokenizer=tiny.byte_level(), **options)


def saved(kind: str, folder: Path, seed: int = 0) -> Path:
    random_network(kind, tiny.model("llama"), seed).save_pretrained(folder)
    return folder


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The folder, its config changed."""
    content = json.loads((folder / CONFIG).read_text())
    change(content)
    (folder / CONFIG).write_text(json.dumps(content))
    return folder


def retensored(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """The folder, its tensors changed."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize("kind", FORMS)
def test_a_good_one_is_recognised(kind: str, tmp_path: Path) -> None:
    """What the errors below are about: the same folder, untouched, decodes; given as path, string or network."""
    folder = saved(kind, tmp_path / "drafter")
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    expected = load(None).generate([5, 6, 7], max_new_tokens=8)
    ways: list[tuple[Any, dict[str, Any]]] = [
        (folder, {}), (str(folder), {"verification": "rejection"}), (load_network(folder), {"draft_tokens": 3})
    ]
    for given, options in ways:
        decoder = load(given, **options)
        assert decoder.drafter is not None
        assert decoder.drafter.name == load_network(folder).kind
        result = decoder.generate([5, 6, 7], max_new_tokens=8)
        assert isinstance(result, anydraft.Generation)
        assert isinstance(expected, anydraft.Generation)
        assert result.tokens == expected.tokens


# Another target. --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2}, ["hidden size 32", "48"]),
        ({"vocab": 170}, ["vocabulary 160", "170"]),
        ({"vocab": 150}, ["vocabulary 160", "150"]),
        ({"seed": 5}, ["other weights", "any_target=True"]),
    ],
    ids=["hidden size", "larger vocabulary", "smaller vocabulary", "weights"],
)
def test_another_target(kind: str, changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "drafter")
    other = tiny.make("llama", **changes)
    with pytest.raises(WrongTarget) as caught:
        load(folder, other)
    message = str(caught.value)
    assert all(word in message for word in [*words, "anydraft train"])
    if "seed" in changes:
        plain = anydraft.load(other, None, tokenizer=tiny.byte_level()).generate([5, 6, 7], max_new_tokens=8)
        result = load(folder, other, any_target=True).generate([5, 6, 7], max_new_tokens=8)
        assert isinstance(plain, anydraft.Generation)
        assert isinstance(result, anydraft.Generation)
        assert result.tokens == plain.tokens
    else:
        with pytest.raises(WrongTarget):
            load(folder, other, any_target=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_without_hidden_states(kind: str, tmp_path: Path) -> None:
    """A model that is all head has nothing to read."""
    folder = saved(kind, tmp_path / "drafter")
    with pytest.raises(AnydraftError):
        anydraft.load(tiny.parrot("byte-level"), folder, tokenizer=tiny.byte_level())


def test_a_target_without_a_body_is_refused_on_load(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.make("llama")
    network = random_network("lean", model)
    monkeypatch.setattr(model, "get_decoder", lambda: model, raising=False)
    with pytest.raises(UnsupportedModel, match="no body"):
        load(network, model)


def test_a_body_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that comes with a model may name another body than its forward pass calls."""
    model = tiny.make("llama")
    decoder = load(random_network("lean", model), model)
    monkeypatch.setattr(model, "get_decoder", lambda: torch.nn.Identity(), raising=False)
    with pytest.raises(UnsupportedModel, match="forward pass runs"):
        decoder.generate([5, 6, 7], max_new_tokens=4)


@pytest.mark.parametrize("tied", [False, True])
def test_a_change_of_any_matrix_is_another_target(tied: bool) -> None:
    """As a fine-tune with frozen embeddings changes them, or a merged LoRA of a few matrices."""
    model = tiny.make("llama", tie_word_embeddings=tied).bfloat16()
    print_ = fingerprint(model)
    assert print_ == fingerprint(copy.deepcopy(model).float()) == fingerprint(copy.deepcopy(model))
    for name, matrix in model.named_parameters():
        if matrix.ndim > 1:
            other = copy.deepcopy(model)
            with torch.no_grad():
                other.get_parameter(name).mul_(1.01)
            assert fingerprint(other) != print_, name


def test_what_cannot_be_read_of_a_target_is_not_compared() -> None:
    model, offloaded = tiny.model("llama"), tiny.make("llama")
    offloaded.model.layers.to("meta")
    mine, theirs = TargetIdentity.of(model), TargetIdentity.of(offloaded)
    assert str(theirs.fingerprint).endswith("unknown")
    assert mine.same_weights(theirs)
    assert not TargetIdentity.of(tiny.make("llama", seed=5)).same_weights(theirs)
    assert fingerprint(offloaded.to("meta")) is None


@pytest.mark.parametrize("kind", ["redrafter", "lean, reduced", "medusa, reduced", "eagle, reduced"])
def test_a_network_handed_in_stays_as_it_is(kind: str) -> None:
    model = tiny.make("llama")
    network = random_network(kind, model).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attributes = {name: id(value) for name, value in vars(network).items()}
    other = tiny.make("llama", seed=5).bfloat16()
    decoder = load(network, other, any_target=True)
    own = getattr(decoder.drafter, "network", None)
    assert isinstance(own, DrafterNetwork)
    assert own.embedding.data_ptr() == other.get_input_embeddings().weight.data_ptr()  # shared, not copied
    assert {p.dtype for p in own.parameters()} == {torch.bfloat16}
    decoder.generate([5, 6, 7], max_new_tokens=8)
    assert {name: id(value) for name, value in vars(network).items()} == attributes
    assert network.training
    assert all(p.dtype == torch.float32 and p.requires_grad for p in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_an_offloaded_head() -> None:
    model = tiny.make("llama", tie_word_embeddings=False)
    network = random_network("lean", model)
    model.lm_head.to("meta")
    with pytest.raises(UnsupportedModel, match="offloaded"):
        network.attach(model)


# Broken files. ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_weights(kind: str, share: float, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "drafter")
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: int(share * len(content))])
    with pytest.raises(BrokenCheckpoint, match="again") as caught:
        load(folder)
    assert WEIGHTS in str(caught.value)


@pytest.mark.parametrize("kind", FORMS)
def test_missing_files(kind: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "drafter")
    (folder / WEIGHTS).rename(folder / "elsewhere")
    with pytest.raises(BrokenCheckpoint, match=rf"no {WEIGHTS}.*again"):
        load(folder)
    (folder / "elsewhere").rename(folder / WEIGHTS)
    (folder / CONFIG).unlink()
    with pytest.raises(AnydraftError, match="save_pretrained"):
        load(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"medusa"', "\x00\x01"])
def test_a_config_that_is_none(content: str, tmp_path: Path) -> None:
    folder = saved("medusa", tmp_path / "drafter")
    (folder / CONFIG).write_text(content)
    with pytest.raises(AnydraftError, match=r"save|again"):
        load(folder)
    with pytest.raises(BrokenCheckpoint):
        load_network(folder)


def test_files_on_the_hub_are_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request costs a round trip, also where everything is in the local cache."""
    folder, asked = saved("medusa", tmp_path / "medusa"), []

    def config(name: str, file: str, revision: str | None) -> str:
        asked.append((name, file))
        return str(folder / file)

    def weights(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, *allow_patterns))
        return str(folder)

    monkeypatch.setattr("anydraft.networks.files.hf_hub_download", config)
    monkeypatch.setattr("anydraft.networks.files.snapshot_download", weights)
    decoder = load("somebody/medusa")
    assert decoder.drafter is not None
    assert decoder.drafter.name == "medusa"
    assert asked == [("somebody/medusa", CONFIG), ("somebody/medusa", CONFIG, WEIGHTS)]


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    for name in (tmp_path, str(tmp_path), tmp_path / "missing", str(tmp_path / "missing")):
        with pytest.raises(AnydraftError, match="save_pretrained"):
            load(name)
        with pytest.raises(BrokenCheckpoint):
            load_network(name)


@pytest.mark.parametrize("kind", FORMS)
def test_tensors_that_do_not_fit(kind: str, tmp_path: Path) -> None:
    names = sorted(load_file(saved(kind, tmp_path / "all") / WEIGHTS))
    for i, name in enumerate(names):
        missing = retensored(saved(kind, tmp_path / f"missing{i}"), lambda t, name=name: t.pop(name))
        with pytest.raises(BrokenCheckpoint, match="missing") as caught:
            load(missing)
        assert name.rsplit(".", 2)[-1] in str(caught.value)

        def cut(tensors: dict[str, torch.Tensor], name: str = name) -> None:
            tensors[name] = tensors[name][:-1].clone()

        with pytest.raises(BrokenCheckpoint, match=r"is \(.*instead of"):
            load(retensored(saved(kind, tmp_path / f"cut{i}"), cut))
    extra = retensored(saved(kind, tmp_path / "extra"), lambda t: t.update(stranger=torch.zeros(2)))
    with pytest.raises(BrokenCheckpoint, match=r"unknown.*stranger"):
        load(extra)


@pytest.mark.parametrize("kind", [kind for kind in FORMS if kind != "redrafter"])
def test_configs_that_do_not_fit(kind: str, tmp_path: Path) -> None:
    """Apple's form is left out of the first: its config belongs to others, who add keys."""
    folder = changed(saved(kind, tmp_path / "unknown"), lambda c: c.update(dropout=0.1))
    with pytest.raises(BrokenCheckpoint, match="dropout"):
        load(folder)
    folder = changed(saved(kind, tmp_path / "missing"), lambda c: c.pop("target"))
    with pytest.raises(BrokenCheckpoint, match="target"):
        load(folder)
    folder = changed(saved(kind, tmp_path / "strange"), lambda c: c["target"].update(colour="red"))
    with pytest.raises(BrokenCheckpoint, match="colour"):
        load(folder)
    folder = changed(saved(kind, tmp_path / "flat"), lambda c: c.update(target="llama"))
    with pytest.raises(BrokenCheckpoint):
        load(folder)


@pytest.mark.parametrize("kind", FORMS)
def test_sizes_that_make_no_sense(kind: str, tmp_path: Path) -> None:
    """Numbers of another type or range are refused one by one, never with a bare TypeError from torch."""
    content = json.loads((saved(kind, tmp_path / "all") / CONFIG).read_text())
    ignored = ("num_lookback_tokens",)  # Apple's code does not use it either
    sizes = {n: v for n, v in content.items() if isinstance(v, int) and not isinstance(v, bool) and n not in ignored}
    for name, right in sizes.items():
        for value in (-1, "many", [2], right + 2):
            folder = changed(saved(kind, tmp_path / f"{name}{value}"), lambda c, n=name, v=value: c.update({n: v}))
            with pytest.raises(AnydraftError):
                load(folder)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("lean", {"num_layers": 10**6}),
        ("lean", {"state_size": 10**6}),
        ("redrafter", {"num_draft_layers": 10**6}),
        ("redrafter", {"exit_dim": 10**12}),
        ("medusa", {"num_heads": 10**6}),
        ("eagle", {"intermediate_size": 10**18}),
    ],
)
def test_sizes_too_large_to_build(kind: str, sizes: dict[str, int], tmp_path: Path) -> None:
    """Refused by the tensors' shapes, before time and memory are spent."""
    folder = changed(saved(kind, tmp_path / "drafter"), lambda c: c.update(sizes))
    with pytest.raises(BrokenCheckpoint, match=CONFIG):
        load_network(folder)


def test_a_reduced_vocabulary_that_is_none(tmp_path: Path) -> None:
    for kind in ("lean, reduced", "medusa, reduced", "eagle, reduced"):
        for name, value in (("outside", 160), ("outside", -1), ("twice", None)):
            folder = saved(kind, tmp_path / f"{kind}{value}")

            def spoil(tensors: dict[str, torch.Tensor], value: int | None = value) -> None:
                ids = tensors["vocabulary"]
                ids[0] = int(ids[1]) if value is None else value

            with pytest.raises(BrokenCheckpoint, match=name):
                load(retensored(folder, spoil))


def test_another_kind_of_config(tmp_path: Path) -> None:
    """Weights of one kind under the config of another, and a kind that nobody knows."""
    medusa, eagle = saved("medusa", tmp_path / "medusa"), saved("eagle", tmp_path / "eagle")
    (medusa / WEIGHTS).write_bytes((eagle / WEIGHTS).read_bytes())
    with pytest.raises(BrokenCheckpoint, match="missing"):
        load(medusa)
    changed(eagle, lambda c: c.update(model_type="anydraft-oracle"))
    with pytest.raises(AnydraftError, match="anydraft-oracle"):
        load(eagle)
    with pytest.raises(BrokenCheckpoint, match=r"anydraft-oracle.*anydraft-medusa"):
        load_network(eagle)


def test_options_that_contradict_a_trained_drafter(tmp_path: Path) -> None:
    folder = saved("medusa", tmp_path / "medusa")
    with pytest.raises(OptionConflict, match="any_target"):
        load(None, any_target=True)
    with pytest.raises(OptionConflict, match="any_target"):
        load("lookup", any_target=True)
    with pytest.raises(OptionConflict):
        load(folder, assistant=tiny.model("llama"))
    with pytest.raises(OptionConflict):
        load("lookup", assistant=folder)
    with pytest.raises(OptionConflict):
        load(None, assistant=folder)
    with pytest.raises(OptionConflict):
        load("universal", assistant=folder)
    with pytest.raises(OptionConflict):
        load(folder, assistant_tokenizer=tiny.byte_level())


# A full disk. -----------------------------------------------------------------------------------


class FullDisk:
    """Raises at a given call of something that writes."""

    def __init__(self, original: Callable[..., Any], after: int) -> None:
        self.original = original
        self.left = after

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.original(*arguments, **options)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full(monkeypatch: pytest.MonkeyPatch, call: str, after: int) -> None:
    """From the given call on nothing can be written."""
    if call == "fsync":
        monkeypatch.setattr(os, "fsync", FullDisk(os.fsync, after))
        return
    opened = Path.open

    def open_(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = opened(path, mode, *arguments, **options)
        return Limited(file) if "w" in mode else file

    writes = FullDisk(lambda: None, after)

    class Limited:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Any:
            self.file.__enter__()
            return self

        def __exit__(self, *problem: Any) -> Any:
            return self.file.__exit__(*problem)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, content: bytes) -> int:
            self.file.write(content[: len(content) // 2])
            writes()
            return int(self.file.write(content[len(content) // 2 :]))

    monkeypatch.setattr(Path, "open", open_)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("call", ["fsync", "write"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_nothing_half_written(
    kind: str, call: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = saved(kind, tmp_path / "old")
    before = everything(tmp_path)
    network = random_network(kind, tiny.model("llama"), seed=1)
    with monkeypatch.context() as patched:
        full(patched, call, after)
        for folder in (tmp_path / "new", old):
            with pytest.raises(OSError, match="space") as caught:
                network.save_pretrained(folder)
            assert caught.value.errno == errno.ENOSPC
    assert everything(tmp_path) == before
    assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.rglob("*") if path.name.startswith(".")] == []
    result = load(old).generate([5, 6, 7], max_new_tokens=4)
    assert isinstance(result, anydraft.Generation)
    network.save_pretrained(old)  # room again: the new one takes its place
    written: DrafterNetwork = load_network(old)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(written.state_dict()[name], tensor)


@pytest.mark.parametrize("after", range(4))
def test_an_error_or_a_kill_while_files_are_moved(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files cannot be replaced at once: an error puts the old ones back, a kill leaves what is refused."""
    old = saved("medusa", tmp_path / "old")
    before = everything(old)
    new = random_network("medusa", tiny.model("llama"), seed=1)
    with monkeypatch.context() as patched:
        moves, moved = FullDisk(lambda: None, after), Path.replace

        def replace(path: Path, to: Path) -> Path:
            if not path.name.startswith("old-"):
                moves()
            return moved(path, to)

        patched.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="space"):
            new.save_pretrained(old)
    assert everything(old) == before
    with monkeypatch.context() as patched:
        moves = FullDisk(lambda: None, after)

        def kill(path: Path, to: Path) -> Path:
            moves()
            return moved(path, to)

        patched.setattr(Path, "replace", kill)
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(OSError, match="space"):
            new.save_pretrained(old)
    if after:
        with pytest.raises(BrokenCheckpoint):
            load_network(old)
    new.save_pretrained(old)
    assert sorted(everything(old)) == [CONFIG, WEIGHTS]
    load_network(old)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_is_a_file(kind: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OSError, match="taken"):
        random_network(kind, tiny.model("llama")).save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_every_error_is_a_value_error() -> None:
    for error in (WrongTarget, BrokenCheckpoint, UnsupportedModel, OptionConflict):
        assert issubclass(error, ValueError)
    assert set(KINDS) <= set(MAKERS)
