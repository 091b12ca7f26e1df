"""Builds a kernel in C with the machine's own compiler, once, and loads it.

What was built is kept in the user's cache folder under a name that depends on the source, the flags, the compiler and
the processor. It is loaded only from a folder that nobody else can write to. Where there is no compiler or no such
folder, nothing is lost but speed: the caller is told why.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

COMPILERS = ("cc", "gcc", "clang")
"""Tried in this order where the environment names none (`CC`)."""
SECONDS = 120.0
"""How long a compiler may take."""


class CannotBuild(Exception):
    """Why there is no kernel."""


def built(source: Path, flags: tuple[str, ...], processor: str = "") -> ctypes.CDLL:
    """The library made of a file in C, from the cache or new.

    Args:
        processor: what it is built for, in any words; what was built for another one is not taken.

    Raises:
        CannotBuild: there is no compiler, it failed, or what it made cannot be kept or loaded.
    """
    try:
        compiler = _compiler()
        state = os.stat(os.path.realpath(compiler[0]))  # another version of it makes another file
        parts = [*compiler, *flags, processor, str(state.st_size), str(state.st_mtime_ns)]
        recipe = hashlib.sha256(b"\0".join([source.read_bytes(), *map(os.fsencode, parts)]))
        place = _folder() / f"{source.stem}-{recipe.hexdigest()[:20]}.so"
        if place.exists():
            try:
                return ctypes.CDLL(str(place))
            except OSError as failure:
                logger.info("%s cannot be loaded and is built anew: %s", place, failure)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            made = Path(scratch) / place.name
            _compile([*compiler, *flags, "-o", str(made), str(source)])
            os.replace(made, place)  # in one step, for others may be building it as well
        return ctypes.CDLL(str(place))
    except (OSError, RuntimeError, ValueError) as failure:  # no home folder; quotes in CC that do not end
        raise CannotBuild(f"{source.name} cannot be built: {failure}") from failure


def cache_folder() -> Path:
    """Where kernels are kept: `XDG_CACHE_HOME`, where that is a whole path, or ~/.cache, and there anydraft/kernels."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "anydraft" / "kernels"


def _folder() -> Path:
    """The cache folder, made where it is not there, and refused where others could write into it."""
    folder = cache_folder()
    for place in (folder.parent, folder):
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        state = place.stat()
        if state.st_uid != os.getuid() or stat.S_IMODE(state.st_mode) & 0o022:
            raise CannotBuild(
                f"others may write into {place}, so nothing is loaded from there; name another cache folder in the "
                "environment variable XDG_CACHE_HOME"
            )
    return folder


def _compiler() -> list[str]:
    """The command that compiles C."""
    named = shlex.split(os.environ.get("CC", ""))
    for name in named[:1] or COMPILERS:
        found = shutil.which(name)
        if found:
            return [found, *named[1:]]
    wanted = f"CC={named[0]!r} is not a program" if named else f"there is no C compiler ({', '.join(COMPILERS)})"
    raise CannotBuild(f"{wanted}; install one, or name one in the environment variable CC")


def _compile(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as failure:
        raise CannotBuild(f"{command[0]} took more than {SECONDS} s") from failure
    if result.returncode:
        said = result.stderr.decode(errors="replace").strip().splitlines()
        raise CannotBuild(f"{command[0]} failed: {(said or [f'status {result.returncode}'])[0]}")
    logger.info("built %s with %s", command[-1], command[0])
