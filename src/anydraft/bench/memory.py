"""How much memory a contender takes: its weights, and the most that a run adds to them.

All contenders sit in one process, whose own figures say nothing about a single one. So weights are counted, each
once, and the tensors of a run are added at their highest: as torch's allocator says on a GPU, as its profiler saw on a
CPU (there in a short run of its own, because profiling takes time). What is not a tensor is left out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

logger = logging.getLogger(__name__)

MEANING = "weights of target and drafter, and the tensors of a run at their highest; not those of other contenders"
REGISTERED = ("_parameters", "_buffers", "_modules")
DEEPEST = 6
"""How far below a drafter its models may lie."""


def weight_bytes(*holders: Any) -> int:
    """Bytes of all tensors that these objects hold between runs (weights, packed or not), shared ones once."""
    sizes: dict[tuple[str, int], int] = {}
    for tensor in (tensor for holder in holders for tensor in tensors_in(holder)):
        if tensor.is_meta:
            continue
        if tensor.layout != torch.strided:  # packed for oneDNN
            sizes["packed", id(tensor)] = tensor.numel() * tensor.element_size()
        else:
            storage = tensor.untyped_storage()
            sizes[str(tensor.device), storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def tensors_in(holder: Any, depth: int = DEEPEST, seen: set[int] | None = None) -> Iterator[torch.Tensor]:
    """Tensors of modules and of this package's objects, directly or in what they hold."""
    seen = set() if seen is None else seen
    if depth < 0 or id(holder) in seen:
        return
    seen.add(id(holder))
    inner: Iterable[Any] = ()
    if isinstance(holder, torch.Tensor):
        yield holder
    elif isinstance(holder, torch.nn.Module):
        yield from (*holder.parameters(), *holder.buffers())
        inner = [value for module in holder.modules() for name, value in vars(module).items() if name not in REGISTERED]
    elif isinstance(holder, list | tuple):
        inner = holder
    elif isinstance(holder, dict):
        inner = list(holder.values())
    elif type(holder).__module__.partition(".")[0] == "anydraft":
        slots = [name for kind in type(holder).__mro__ for name in getattr(kind, "__slots__", ())]
        names = [*getattr(holder, "__dict__", {}), *slots]
        inner = [getattr(holder, name, None) for name in names]
    for part in inner:
        yield from tensors_in(part, depth - 1, seen)


def added_bytes(work: Callable[[], Any], device: torch.device) -> int | None:
    """The most that tensors took during `work()`, above what was there before; None where nobody can say."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device)) - before
    if device.type != "cpu":
        return None
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler writes to the terminal
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        work()
    try:
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    except AttributeError:  # not a public part of torch
        logger.warning("this version of torch does not say what was allocated; memory is left out")
        return None
    now = highest = 0
    for event in sorted(events, key=lambda event: int(event.start_ns())):
        now += int(event.nbytes())
        highest = max(highest, now)
    return highest
