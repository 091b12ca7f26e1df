"""Builds a kernel in C with the machine's own compiler, once, and loads it.

What was built is kept in the user's cache folder under a name that depends on the source, the flags and the compiler.
Where there is no compiler, or the folder cannot be written, nothing is lost but speed: the caller is told why.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

COMPILERS = ("cc", "gcc", "clang")
"""Tried in this order where the environment names none (`CC`)."""
SECONDS = 120
"""How long a compiler may take."""


class CannotBuild(Exception):
    """Why there is no kernel."""


def built(source: Path, flags: tuple[str, ...]) -> ctypes.CDLL:
    """The library made of a file in C, from the cache or new.

    Raises:
        CannotBuild: there is no compiler, it failed, or what it made cannot be kept or loaded.
    """
    compiler = _compiler()
    text = source.read_bytes()
    recipe = hashlib.sha256(b"\0".join([text, *(part.encode() for part in (*compiler, *flags))]))
    recipe.update(_identity(compiler[0]))
    name = f"{source.stem}-{recipe.hexdigest()[:20]}.so"
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = folder / name
        if place.exists():
            try:
                return ctypes.CDLL(str(place))
            except OSError as failure:
                logger.warning("%s cannot be loaded and is built anew: %s", place, failure)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / name
            _compile([*compiler, *flags, "-o", str(made), str(source)])
            os.replace(made, place)  # in one step, for others may be building it as well
        return ctypes.CDLL(str(place))
    except (OSError, RuntimeError) as failure:  # RuntimeError: no home folder
        raise CannotBuild(f"{source.name} cannot be built: {failure}") from failure


def cache_folder() -> Path:
    """Where kernels are kept: `XDG_CACHE_HOME` or ~/.cache, and there anydraft/kernels."""
    named = os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "anydraft" / "kernels"


def _compiler() -> list[str]:
    """The command that compiles C."""
    named = shlex.split(os.environ.get("CC", ""))
    for name in named[:1] or COMPILERS:
        found = shutil.which(name)
        if found:
            return [found, *named[1:]]
    wanted = f"CC={named[0]!r} is not a program" if named else f"there is no C compiler ({', '.join(COMPILERS)})"
    raise CannotBuild(f"{wanted}; install one, or name one in the environment variable CC")


def _identity(compiler: str) -> bytes:
    """What changes when a compiler does."""
    state = os.stat(os.path.realpath(compiler))
    return f"{state.st_size} {state.st_mtime_ns}".encode()


def _compile(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as failure:
        raise CannotBuild(f"{command[0]} took more than {SECONDS} s") from failure
    if result.returncode:
        first = (result.stderr.strip().splitlines() or [f"status {result.returncode}"])[0]
        raise CannotBuild(f"{command[0]} failed: {first}")
    logger.info("built %s with %s", command[-1], command[0])
