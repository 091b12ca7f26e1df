"""What a measurement was taken with: enough to repeat it, and to see why another machine's numbers differ."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("anydraft", "torch", "transformers", "tokenizers", "safetensors", "numpy")


def provenance(*, dtype: torch.dtype, seed: int, **details: Any) -> dict[str, Any]:
    """Command, commit, versions, processor, threads, dtype, seed and date, and the run's own `details`."""
    return {
        "command": command(),
        "commit": commit(Path(__file__).parent),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "dtype": str(dtype).removeprefix("torch."),
        "seed": seed,
        **details,
    }


def command() -> str:
    """The command line, with paths seen from the working folder; an installed command by its name alone."""
    if Path(sys.argv[0]).suffix != ".py":
        return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    words = (os.path.relpath(word) if os.path.isabs(word) else word for word in sys.argv)
    return shlex.join([Path(sys.executable).name, *words])


def commit(folder: Path) -> str | None:
    """The commit checked out there, with `+changes` where tracked files differ; None outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def version(package: str) -> str | None:
    """The installed version; None where the package is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name, from the kernel where it tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    fields = dict(line.partition(":")[::2] for line in lines)
    names = {name.strip(): value.strip() for name, value in fields.items()}
    return names.get("model name", platform.processor())
