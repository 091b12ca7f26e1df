"""From a trained network to a drafter: which class decodes with which kind."""

from __future__ import annotations

from collections.abc import Callable

from anydraft.drafters.eagle import EagleDrafter
from anydraft.drafters.medusa import MedusaDrafter
from anydraft.drafters.protocol import Drafter
from anydraft.drafters.recurrent import RecurrentDrafter
from anydraft.hidden import LastHidden
from anydraft.networks.network import DrafterNetwork
from anydraft.target import Target
from anydraft.verify import Verification

DRAFTERS: dict[str, Callable[..., Drafter]] = {
    "redrafter": RecurrentDrafter,
    "medusa": MedusaDrafter,
    "eagle": EagleDrafter,
}


def trained_drafter(
    target: Target, network: DrafterNetwork, *, verification: Verification = "exact", any_target: bool = False
) -> Drafter:
    """A drafter that decodes with a copy of a trained network, on the target's device and in its precision.

    Raises:
        WrongTarget: the network belongs to another target.
        UnsupportedModel: the target has no body whose hidden states could be read.
    """
    LastHidden(target.model)
    own = network.copied(target.device, target.dtype).attach(target.model, any_target=any_target).eval().prepare()
    return DRAFTERS[network.kind](own, target, verification=verification)
