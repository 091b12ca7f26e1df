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


def resolve_drafters(target: str, drafter: str | None) -> list[str]:
    """The drafters named by `--drafter`, several with commas between them; none for plain decoding.

    Raises:
        OptionConflict: nothing between two commas, or plain decoding beside a drafter.
    """
    from anydraft.errors import OptionConflict

    parts = [None] if drafter is None else [part.strip() for part in drafter.split(",")]
    if "" in parts or (len(parts) > 1 and "none" in parts):
        raise OptionConflict(
            f"--drafter is one name or several with commas between them, 'none' by itself, got {drafter!r}"
        )
    found = (resolve(target, part)[1] for part in parts)
    return [place for place in found if place is not None]


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
    always: bool = False,
    **options: Any,
) -> Decoder:
    """A decoder for names given on the command line.

    Args:
        always: a single drafter drafts at every step, whether that pays or not: to test it, or to show it.

    Raises:
        AnydraftError: what `anydraft.load` raises, and for options that have no effect.
    """
    from anydraft.errors import OptionConflict

    drafters = resolve_drafters(target, drafter)
    target, _ = resolve(target, None)
    if any_target and set(drafters) <= {"lookup"}:
        raise OptionConflict("--any-target concerns trained drafters only; leave it out")
    if not drafters and draft_tokens is not None:
        raise OptionConflict("--draft-tokens has no effect with --drafter none; leave one of them out")
    if len(drafters) > 1 and draft_tokens is not None:
        raise OptionConflict("--draft-tokens is for one drafter; of several the best is chosen, so leave it out")
    for name in (target, *drafters):
        _require_folder(name)
    warm_up()
    import torch
    import transformers

    from anydraft.loading import load
    from anydraft.pacing import Steady

    transformers.utils.logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    if always and len(drafters) == 1 and draft_tokens is None:
        options["pacing"] = Steady()
    names = " and ".join([target, *(name for name in drafters if name != "lookup")])
    with status(f"loading {names}"):
        return load(
            target,
            drafters if len(drafters) > 1 else next(iter(drafters), None),
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
    from anydraft.pacing import Fixed, Pacing, Steady

    if name in (EMBEDDED, EMBEDDED_REDRAFTER):
        name = str(models.path("redrafter"))
    _require_folder(name)
    with status(f"loading {name}"):
        drafter = trained_drafter(decoder.target, load_network(name), verification=decoder.verification)
    # What a pacing has learned of one drafter's speed is wrong for another.
    pacing: Pacing | None = decoder.pacing if isinstance(decoder.pacing, Fixed) else None
    if isinstance(decoder.pacing, Steady):
        pacing = Steady()
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
