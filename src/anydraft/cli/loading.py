"""From the options of a command to a decoder, with a sign of life while models load."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from anydraft.decoder import Decoder

EMBEDDED = "embedded"
EMBEDDED_REDRAFTER = "embedded-redrafter"


def stderr() -> Console:
    """Where progress, figures and remarks go: standard output belongs to the answer."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def resolve(target: str, drafter: str | None) -> tuple[str, str | None]:
    """What `load` takes for the names given on the command line; None = plain decoding."""
    from anydraft import models

    if drafter is None:
        drafter = EMBEDDED if target == EMBEDDED else "lookup"
    if drafter == EMBEDDED:
        drafter = str(models.path("assistant"))
    elif drafter == EMBEDDED_REDRAFTER:
        drafter = str(models.path("redrafter"))
    if target == EMBEDDED:
        target = str(models.path("target"))
    return target, None if drafter == "none" else drafter


def load_decoder(
    target: str,
    drafter: str | None,
    *,
    dtype: str | None = None,
    device: str | None = None,
    exact: bool = False,
    draft_tokens: int | None = None,
    any_target: bool = False,
    trust_remote_code: bool = False,
    threads: int | None = None,
    **options: Any,
) -> Decoder:
    """A decoder for names given on the command line.

    Raises:
        AnydraftError: what `anydraft.load` raises, and for options that have no effect.
    """
    from anydraft.errors import OptionConflict

    target, drafter = resolve(target, drafter)
    if any_target and drafter in (None, "lookup"):
        raise OptionConflict("--any-target concerns trained drafters only; leave it out")
    if drafter is None and draft_tokens is not None:
        raise OptionConflict("--draft-tokens has no effect with --drafter none; leave one of them out")
    for name in (target, drafter):
        if name is not None:
            _require_folder(name)
    warm_up()
    import torch
    import transformers

    from anydraft.loading import load

    transformers.utils.logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    names = target if drafter in (None, "lookup") else f"{target} and {drafter}"
    with status(f"loading {names}"):
        return load(
            target,
            drafter,
            dtype=dtype,
            device=device,
            exact=exact,
            draft_tokens=draft_tokens,
            any_target=any_target,
            trust_remote_code=trust_remote_code,
            **options,
        )


def load_trained(decoder: Decoder, name: str) -> Decoder:
    """A second decoder on the same target, with a trained drafter.

    Args:
        decoder: whose target and verification it shares; a fixed draft length too.
        name: folder or hub name, or "embedded".

    Raises:
        AnydraftError: nothing there, something else, or a drafter for another target.
    """
    from anydraft import models
    from anydraft.decoder import Decoder
    from anydraft.drafters.trained import trained_drafter
    from anydraft.networks.registry import load_network
    from anydraft.pacing import Fixed

    if name in (EMBEDDED, EMBEDDED_REDRAFTER):
        name = str(models.path("redrafter"))
    _require_folder(name)
    with status(f"loading {name}"):
        drafter = trained_drafter(decoder.target, load_network(name), verification=decoder.verification)
    # What a pacing has learned of one drafter's speed is wrong for another.
    pacing = decoder.pacing if isinstance(decoder.pacing, Fixed) else None
    return Decoder(decoder.target, drafter, pacing=pacing, verification=decoder.verification)


def warm_up() -> None:
    """Import what takes seconds to import."""
    with status("loading torch and transformers"):
        import torch
        import transformers

        del torch, transformers


def _require_folder(name: str) -> None:
    from anydraft.errors import UnsupportedModel

    if _is_path(name) and not Path(name).expanduser().is_dir():
        raise UnsupportedModel(f"there is no folder {name!r}; give a hub name or a folder written by save_pretrained")


def _is_path(name: str) -> bool:
    """Whether a name can only be a folder, so that no hub needs to be asked."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def chosen_seed(temperature: float, seed: int | None) -> int | None:
    """A seed that can be shown, so that the answer can be had again; None when greedy."""
    if temperature == 0 or seed is not None:
        return seed
    return secrets.randbits(32)


@contextmanager
def status(message: str) -> Iterator[None]:
    """A spinner with a message while something takes long; nothing where nobody watches."""
    console = stderr()
    if not console.is_terminal:
        yield
        return
    with console.status(f"{message} ..."):
        yield
