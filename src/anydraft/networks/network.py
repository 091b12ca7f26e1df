"""DrafterNetwork: what all trained drafters share. Their target, their files, and the form in which they are trained.

Files are `config.json` and `model.safetensors`, as people know them from transformers. They are written beside their
final place and moved there whole.
"""

from __future__ import annotations

import copy
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import HfApi
from safetensors.torch import save
from torch.nn.functional import embedding
from transformers import PreTrainedModel

from anydraft.errors import BrokenCheckpoint, OptionConflict, UnsupportedModel
from anydraft.hidden import frozen
from anydraft.networks.config import NetworkConfig
from anydraft.networks.files import CONFIG, WEIGHTS, read_config, read_weights, write_whole
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.packed import Level, Packed
from anydraft.packing import pack


class DrafterNetwork(torch.nn.Module, ABC):
    """A network that drafts from the target's last hidden state.

    Attributes:
        kind: "redrafter", "medusa" or "eagle".
        embedding: (V, H) the target's input embeddings, after `attach`; not a parameter, never saved.
        target_head: (V, H) weight of the target's LM head, likewise.
        vocabulary: (V',) target ids of the rows of the network's head; None when it has all of them in order.
    """

    kind: ClassVar[str]
    config_class: ClassVar[type[NetworkConfig]]
    config: NetworkConfig
    embedding: torch.Tensor
    target_head: torch.Tensor
    vocabulary: torch.Tensor | None

    def __init__(self, config: NetworkConfig, vocabulary: torch.Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        size = config.vocabulary_size
        if vocabulary is not None and len(vocabulary) != size:
            raise OptionConflict(f"{len(vocabulary)} token ids do not fit vocabulary_size={size}")
        if vocabulary is None and size is not None:
            vocabulary = torch.arange(size)
        self.register_buffer("vocabulary", None if vocabulary is None else vocabulary.long().clone())
        self._check_vocabulary()

    @property
    def reads_context(self) -> bool:
        """Whether a draft depends on more of the text before than the newest hidden state."""
        return False

    @abstractmethod
    def levels(self, batch: Packed, depth: int) -> Iterator[Level]:
        """Predictions of depth 1 to `depth` along the batch's own tokens (teacher forcing)."""

    def attach(self, model: PreTrainedModel, *, any_target: bool = False) -> Self:
        """Take the target's embeddings and head, which the network shares but does not own.

        Raises:
            WrongTarget: the network was trained for another target.
            UnsupportedModel: the target's embeddings or head are offloaded.
        """
        self.config.target.require(TargetIdentity.of(model), any_target=any_target)
        table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        if table.is_meta or head.is_meta:
            raise UnsupportedModel(
                "the target's embeddings or LM head are offloaded, and a trained drafter reads them; load the target "
                "with a device_map that keeps both in memory"
            )
        # Around Module.__setattr__, so that they are neither parameters nor buffers.
        object.__setattr__(self, "embedding", frozen(table))
        object.__setattr__(self, "target_head", frozen(head))
        return self

    @property
    def attached(self) -> bool:
        """Whether a target was attached."""
        return getattr(self, "target_head", None) is not None

    def embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        """The target's embeddings (..., H) of token ids (...), brought to where the ids are."""
        return embedding(tokens.to(self.embedding.device), self.embedding).to(tokens.device)

    @torch.no_grad()
    def copied(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same network elsewhere; this one stays as it is. Weights that need no conversion are shared."""
        memo: dict[int, Any] = {id(value): value for value in vars(self).values() if isinstance(value, torch.Tensor)}
        for parameter in self.parameters():
            moved = parameter.detach().to(device, dtype)
            memo[id(parameter)] = torch.nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for buffer in self.buffers():
            memo[id(buffer)] = buffer.to(device, dtype if buffer.is_floating_point() else None, copy=True)
        return copy.deepcopy(self, memo)

    def prepare(self) -> Self:
        """Pack the weights for decoding (`packing.py`), in place; only for a copy of one's own, not for training."""
        pack(self, drafter=True)
        return self

    @abstractmethod
    def bytes_per_step(self) -> int:
        """Bytes of weights read to draft one level of one branch, those of the target included."""

    @property
    def num_parameters(self) -> int:
        """Parameters of its own."""
        return sum(parameter.numel() for parameter in self.parameters())

    def config_dict(self) -> dict[str, Any]:
        """Content of `config.json`."""
        return {"model_type": f"anydraft-{self.kind}", **self.config.to_dict()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Content of `model.safetensors`."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config and weights; on a full disk nothing half-written is left and an older checkpoint stays.

        Raises:
            OSError: the files could not be written.
        """
        weights = save(self.tensors(), metadata={"format": "pt"})
        text = json.dumps(self.config_dict(), indent=2) + "\n"
        write_whole(Path(folder), {WEIGHTS: weights, CONFIG: text.encode()})

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, dtype: torch.dtype | None = None, revision: str | None = None
    ) -> Self:
        """Load a network; `attach` it to its target before use.

        Args:
            name_or_path: a folder written by `save_pretrained`, or a hub name.
            dtype: of the weights; by default as stored.

        Raises:
            BrokenCheckpoint: files are missing, truncated, or do not fit the config.
        """
        content = read_config(name_or_path, revision)
        return cls.from_content(content, read_weights(name_or_path, revision), dtype=dtype)

    @classmethod
    def from_content(
        cls, content: dict[str, Any], tensors: dict[str, torch.Tensor], *, dtype: torch.dtype | None = None
    ) -> Self:
        """A network from the contents of its two files, weights in `dtype` or as stored.

        Raises:
            BrokenCheckpoint: tensors are missing, too many, or of other shapes than the config says.
        """
        config = cls.config_of(content)
        if config.repeated > len(tensors):
            raise BrokenCheckpoint(
                f"{WEIGHTS} does not fit {CONFIG}: {config.repeated} layers or heads, and only {len(tensors)} tensors"
            )
        try:
            # Without memory or time for sizes that turn out not to be those of the tensors.
            with torch.device("meta"):
                network = cls(config)
        except (RuntimeError, TypeError, OverflowError) as problem:
            raise BrokenCheckpoint(f"{CONFIG} does not describe a network: {problem}") from problem
        network.fill(tensors)
        return network.to(dtype).eval() if dtype is not None else network.eval()

    @classmethod
    def config_of(cls, content: dict[str, Any]) -> NetworkConfig:
        """The config from the content of `config.json`.

        Raises:
            BrokenCheckpoint: it is of another kind, or keys are unknown or missing.
        """
        kind = content.get("model_type")
        if kind != f"anydraft-{cls.kind}":
            raise BrokenCheckpoint(f"{CONFIG} is of a {kind!r}, not of an 'anydraft-{cls.kind}'")
        return cls.config_class.from_dict(content)

    def fill(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take weights by name, in their own precision.

        Raises:
            BrokenCheckpoint: tensors are missing, too many, or of other shapes than the config says.
        """
        mine = self.state_dict()
        missing, extra = sorted(set(mine) - set(tensors)), sorted(set(tensors) - set(mine))
        shapes = [
            f"{name} is {tuple(tensors[name].shape)} instead of {tuple(mine[name].shape)}"
            for name in mine
            if name in tensors and tensors[name].shape != mine[name].shape
        ]
        wrong = [f"missing {name}" for name in missing] + [f"unknown {name}" for name in extra] + shapes
        if wrong:
            raise BrokenCheckpoint(f"{WEIGHTS} does not fit {CONFIG}: {'; '.join(wrong)}")
        self.load_state_dict(tensors, assign=True)
        self._check_vocabulary()

    def _check_vocabulary(self) -> None:
        ids, size = self.vocabulary, self.config.target.vocab_size
        if ids is None or ids.is_meta:
            return
        if ids.is_floating_point() or int(ids.min()) < 0 or int(ids.max()) >= size:
            raise BrokenCheckpoint(f"the reduced vocabulary holds ids outside the target's vocabulary of {size}")
        if len(set(ids.tolist())) < len(ids):
            raise BrokenCheckpoint("the reduced vocabulary holds an id twice")

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Upload config and weights to the Hugging Face hub; returns the commit's address."""
        if not repo_id:
            raise OptionConflict("push_to_hub needs a repository id such as 'name/drafter'")
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder))
