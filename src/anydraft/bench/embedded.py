"""The embedded models as benchmarks take them: a target of any size, and good and bad drafters for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoTokenizer

from anydraft import models
from anydraft.bench.bad_drafters import RandomDrafter, WrongDrafter
from anydraft.bench.enlarge import enlarge_to
from anydraft.bench.enlarge_network import enlarge_network
from anydraft.drafters import AssistantDrafter, LookupDrafter
from anydraft.drafters.named import model_drafter
from anydraft.drafters.protocol import Drafter
from anydraft.drafters.trained import trained_drafter
from anydraft.grouped import group_queries
from anydraft.lm import LanguageModel
from anydraft.networks.registry import load_network
from anydraft.packing import pack
from anydraft.pretrained import load_model
from anydraft.target import Target


class Embedded:
    """The embedded target and drafters for it, made once.

    Args:
        dtype: of all.
        enlarge: parameters that the target is enlarged to, with the same answers; 0 leaves it as it is.
        mismatched: folder of an assistant that fits badly, for a drafter of that name.
        seed: of the target's further weights.
    """

    def __init__(self, dtype: torch.dtype, enlarge: float, mismatched: Path | None, seed: int) -> None:
        place = str(models.path("target"))
        self.dtype = dtype
        self.tokenizer = AutoTokenizer.from_pretrained(place)
        small = load_model(place, role="target", dtype=dtype, device="cpu", packed=False)
        large = enlarge_to(small, enlarge, seed=seed) if enlarge else small
        size = f"{large.num_parameters() / 1e6:.0f} M parameters"
        self.name = f"embedded target{' enlarged to' if enlarge else ','} {size}"
        network = load_network(models.path("redrafter"), dtype=dtype)
        network.attach(small)
        self.network = network if large is small else enlarge_network(network, large)
        self.twin = copy.deepcopy(large)
        for model in (large, self.twin):
            pack(model)
            group_queries(model)
        self.target = Target(large, self.tokenizer)
        self._makers: dict[str, Callable[[], Drafter | None]] = {
            "wrong": lambda: WrongDrafter(self.tokenizer.pad_token_id or 0),
            "random": lambda: RandomDrafter(self.target.vocab_size),
            "expensive": self._as_costly,
            "mismatched": self._assistant(mismatched),
            "uag": self._assistant(models.path("assistant")),
            "redrafter": lambda: trained_drafter(self.target, self.network),
            "lookup": LookupDrafter,
        }

    def drafters(self, name: str) -> list[Drafter]:
        """New drafters of a name ("lookup+redrafter" are two); none where there is nothing to make one from.

        Args:
            name: one or more of wrong, random, expensive, mismatched, uag, redrafter, lookup, with "+" between them.
        """
        return [drafter for part in name.split("+") if (drafter := self._makers[part]()) is not None]

    def _assistant(self, place: Path | None) -> Callable[[], Drafter | None]:
        if place is None:
            return lambda: None
        model = load_model(place, role="assistant", dtype=self.dtype, device="cpu")
        tokenizer = AutoTokenizer.from_pretrained(place)
        return lambda: model_drafter(self.target, model, tokenizer)

    def _as_costly(self) -> Drafter:
        twin = LanguageModel(self.twin)
        return AssistantDrafter(twin, vocab_size=self.target.vocab_size, eos_token_ids=self.target.eos_token_ids)
