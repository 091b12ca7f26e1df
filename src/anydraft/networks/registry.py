"""Which network a checkpoint holds, told from its config."""

from __future__ import annotations

import os
from typing import Any

import torch

from anydraft.errors import BrokenCheckpoint
from anydraft.networks.apple import APPLE_MODEL_TYPE
from anydraft.networks.eagle import EagleNetwork
from anydraft.networks.files import read_config, read_weights
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


def load_network(name_or_path: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> DrafterNetwork:
    """The network under a folder or hub name, of whatever kind.

    Raises:
        BrokenCheckpoint: nothing readable there, or no drafter's network.
    """
    content = read_config(name_or_path)
    found = _class_of(content)
    if found is None:
        raise BrokenCheckpoint(
            f"{name_or_path} is a {content.get('model_type')!r}, not a trained drafter ({', '.join(OF_TYPE)})"
        )
    return found.from_content(content, read_weights(name_or_path), dtype=dtype)


def load_if_network(name_or_path: str | os.PathLike[str]) -> DrafterNetwork | None:
    """The network under a folder or hub name; None when it is something else (a language model, say).

    Raises:
        BrokenCheckpoint: the config is a network's, and the rest cannot be read.
    """
    try:
        content = read_config(name_or_path)
    except BrokenCheckpoint:
        return None
    found = _class_of(content)
    return None if found is None else found.from_content(content, read_weights(name_or_path))


def _class_of(content: dict[str, Any]) -> type[DrafterNetwork] | None:
    return OF_TYPE.get(str(content.get("model_type")))
