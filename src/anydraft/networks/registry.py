"""Which network a checkpoint holds, told from its config."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from anydraft.errors import BrokenCheckpoint
from anydraft.networks.apple import APPLE_MODEL_TYPE
from anydraft.networks.eagle import EagleNetwork
from anydraft.networks.files import read_config
from anydraft.networks.medusa import MedusaNetwork
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.recurrent import RecurrentNetwork

NETWORKS: dict[str, type[DrafterNetwork]] = {
    network.kind: network for network in (RecurrentNetwork, MedusaNetwork, EagleNetwork)
}
OF_TYPE: dict[str, type[DrafterNetwork]] = {
    **{f"anydraft-{kind}": network for kind, network in NETWORKS.items()},
    APPLE_MODEL_TYPE: RecurrentNetwork,
}


def network_class(name_or_path: str | os.PathLike[str]) -> type[DrafterNetwork] | None:
    """Class of the network under a folder or hub name; None when it is something else (a language model, say)."""
    try:
        content = read_config(name_or_path)
    except BrokenCheckpoint:
        return None
    return OF_TYPE.get(str(content.get("model_type")))


def load_network(name_or_path: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> DrafterNetwork:
    """The network under a folder or hub name, of whatever kind.

    Raises:
        BrokenCheckpoint: nothing readable there, or no drafter's network.
    """
    content = read_config(name_or_path)
    found = OF_TYPE.get(str(content.get("model_type")))
    if found is None:
        raise BrokenCheckpoint(
            f"{name_or_path} is a {content.get('model_type')!r}, not a trained drafter ({', '.join(OF_TYPE)})"
        )
    return found.from_pretrained(Path(name_or_path) if Path(name_or_path).is_dir() else str(name_or_path), dtype=dtype)
