"""The embedded pair: a small Python-writing target and its assistant, with different tokenizers.

They come with the package, so that `anydraft demo` and the documentation need no download. Any name that the
command line takes for a model may be "embedded".
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from anydraft.errors import OptionConflict, UnsupportedModel

__all__ = ["FOLDERS", "Role", "path"]

Role = Literal["target", "assistant"]
FOLDERS: dict[str, str] = {"target": "pycode-12m", "assistant": "pycode-2m"}
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


def path(role: Role) -> Path:
    """Folder of an embedded model, as `anydraft.load` takes it.

    Raises:
        OptionConflict: a role that is neither "target" nor "assistant".
        UnsupportedModel: files are missing from this installation.
    """
    if role not in get_args(Role):
        raise OptionConflict(f"the embedded pair has a 'target' and an 'assistant', got {role!r}")
    folder = Path(__file__).resolve().parent / FOLDERS[role]
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise UnsupportedModel(
            f"the embedded {role} {FOLDERS[role]} is incomplete in this installation ({', '.join(missing)} missing); "
            "install anydraft from a wheel, or name a model of your own"
        )
    return folder
