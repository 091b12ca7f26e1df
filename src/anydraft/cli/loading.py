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
    trust_remote_code: bool = False,
    threads: int | None = None,
    **options: Any,
) -> Decoder:
    """A decoder for names given on the command line.

    Raises:
        AnydraftError: what `anydraft.load` raises, and for options that have no effect.
    """
    from anydraft.errors import OptionConflict, UnsupportedModel

    target, drafter = resolve(target, drafter)
    if drafter is None and draft_tokens is not None:
        raise OptionConflict("--draft-tokens has no effect with --drafter none; leave one of them out")
    for name in (target, drafter):
        if name is not None and _is_path(name) and not Path(name).expanduser().is_dir():
            raise UnsupportedModel(
                f"there is no folder {name!r}; give a hub name or a folder written by save_pretrained"
            )
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
            trust_remote_code=trust_remote_code,
            **options,
        )


def warm_up() -> None:
    """Import what takes seconds to import."""
    with status("loading torch and transformers"):
        import torch
        import transformers

        del torch, transformers


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
