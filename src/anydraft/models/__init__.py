"""The embedded models: a small Python-writing target and two drafters for it.

They come with the package, so that `anydraft demo` and the documentation need no download. The assistant has another
tokenizer than the target; the ReDrafter was trained on the target's own answers. On the command line a target may be
"embedded", and a drafter "embedded" (the assistant) or "embedded-redrafter".
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from anydraft.errors import OptionConflict, UnsupportedModel

__all__ = ["FOLDERS", "Role", "path"]

Role = Literal["target", "assistant", "redrafter"]
FOLDERS: dict[str, str] = {"target": "pycode-12m", "assistant": "pycode-2m", "redrafter": "pycode-redrafter"}
WEIGHTS = ("config.json", "model.safetensors")
NEEDED: dict[str, tuple[str, ...]] = {
    "target": (*WEIGHTS, "tokenizer.json"),
    "assistant": (*WEIGHTS, "tokenizer.json"),
    "redrafter": WEIGHTS,
}


def path(role: Role) -> Path:
    """Folder of an embedded model, as `anydraft.load` takes it.

    Raises:
        OptionConflict: a role that no embedded model has.
        UnsupportedModel: files are missing from this installation.
    """
    if role not in get_args(Role):
        raise OptionConflict(f"the embedded models are a 'target', an 'assistant' and a 'redrafter', got {role!r}")
    folder = Path(__file__).resolve().parent / FOLDERS[role]
    missing = [name for name in NEEDED[role] if not (folder / name).is_file()]
    if missing:
        raise UnsupportedModel(
            f"the embedded {role} {FOLDERS[role]} is incomplete in this installation ({', '.join(missing)} missing); "
            "install anydraft from a wheel, or name a model of your own"
        )
    return folder
