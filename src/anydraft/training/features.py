"""The frozen target's last hidden states: computed as they are needed, or once and kept on disk.

The file is keyed by data, target and precision, so that several trainings share it. Its size is known in advance, and
a disk without room for it is refused before anything is computed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from anydraft.errors import OptionConflict
from anydraft.hidden import LastHidden, OutputHead
from anydraft.networks.identity import TargetIdentity
from anydraft.training.batches import Dataset, Ints, cut

MARGIN = 1.02
VERSION = 1


class Features(Protocol):
    """Where hidden states come from."""

    def of(self, dataset: Dataset, indices: Ints) -> Tensor:
        """(N, H) of all tokens of some sequences, one after the other."""


class Computed:
    """By a forward pass of the target's body for every batch."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.identity = TargetIdentity.of(model)
        self.body = LastHidden(model).body
        self.head = OutputHead(model)

    @property
    def device(self) -> torch.device:
        """Where the target's head is."""
        return self.head.weight.device

    @torch.no_grad()
    def of(self, dataset: Dataset, indices: Ints) -> Tensor:
        """(N, H), in the target's precision."""
        lengths = dataset.lengths[indices]
        ids = np.zeros((len(indices), int(lengths.max())), dtype=np.int64)
        for row, index in enumerate(indices):
            ids[row, : lengths[row]] = dataset.sequence(int(index))
        hidden: Tensor = self.body(input_ids=torch.from_numpy(ids).to(self.model.device), use_cache=False)[0]
        real = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None]).to(hidden.device)
        return hidden[real].to(self.device)


class Cached:
    """From a file, made at the first use.

    Args:
        source: computes what is not there yet.
        dataset: the sequences; the file holds all of them.
        folder: where the file lies.
        batch_tokens: of the passes that make it.
        announce: called with a sentence about size and place before it is made.
        advance: called with the tokens done and those there are.

    Raises:
        OptionConflict: the disk lacks room.
    """

    def __init__(
        self,
        source: Computed,
        dataset: Dataset,
        folder: Path,
        *,
        batch_tokens: int,
        announce: Callable[[str], None] = lambda text: None,
        advance: Callable[[int, int], None] = lambda done, total: None,
        write: bool = True,
    ) -> None:
        self.device = source.device
        self.dtype = source.head.weight.dtype
        width = source.identity.hidden_size
        key = json.dumps([VERSION, dataset.digest, source.identity.to_dict(), str(self.dtype)])
        self.path = folder / f"features-{hashlib.sha256(key.encode()).hexdigest()[:24]}.bin"
        shape = (len(dataset.tokens), width)
        size = shape[0] * width * self.dtype.itemsize
        if write:
            _remove_orphans(folder)
        if write and (not self.path.is_file() or self.path.stat().st_size != size):
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            said = f"hidden states of {shape[0]:,} tokens take {_bytes(size)} in {self.path}"
            if free < MARGIN * size:
                raise OptionConflict(f"{said}, and {_bytes(free)} are free; leave out --cache-features")
            announce(said)
            self._make(source, dataset, shape, batch_tokens, advance)
        self.written: torch.Tensor | None = None
        self.shape = shape

    def of(self, dataset: Dataset, indices: Ints) -> Tensor:
        """(N, H), in the target's precision."""
        if self.written is None:
            stored = np.memmap(self.path, dtype=np.uint8, mode="c").reshape(self.shape[0], -1)
            self.written = torch.from_numpy(stored).view(self.dtype)
        parts = [self.written[dataset.starts[i] : dataset.starts[i + 1]] for i in indices]
        return torch.cat(parts).to(self.device)

    def _make(
        self,
        source: Computed,
        dataset: Dataset,
        shape: tuple[int, int],
        batch_tokens: int,
        advance: Callable[[int, int], None],
    ) -> None:
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        row = shape[1] * self.dtype.itemsize
        try:
            with partial.open("wb") as file:
                file.truncate(shape[0] * row)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, max(1, shape[0] * row))
                done = 0
                for indices in cut(dataset, np.arange(len(dataset)), batch_tokens, None):
                    hidden = source.of(dataset, indices).to(self.dtype).cpu().contiguous()
                    at = 0
                    for index in indices:
                        length = int(dataset.lengths[index])
                        file.seek(int(dataset.starts[index]) * row)
                        file.write(hidden[at : at + length].view(torch.uint8).numpy().tobytes())
                        at += length
                    done += at
                    advance(done, shape[0])
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _remove_orphans(folder: Path) -> None:
    """Remove what runs that were killed left half-written: their process is no more."""
    if os.name != "posix":  # elsewhere a process cannot be asked without harm
        return
    for path in folder.glob("features-*.*.partial"):
        number = path.name.split(".")[1]
        if not number.isdigit():
            continue
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except OSError:  # another user's
            continue


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size:.0f} bytes"
        size /= 1000
    raise AssertionError
