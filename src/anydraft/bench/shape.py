"""The sizes of a Llama-form model: how they grow together, and which make a given number of parameters."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

from transformers import PreTrainedModel

from anydraft.errors import UnsupportedModel

# Not qwen3: its norms over the head dimension share the epsilon of those over the width.
FAMILIES = ("llama", "mistral", "qwen2")
WIDTH_PER_LAYER = 96  # the proportion of width to depth that `Shape.reaching` aims at


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Width, depth, heads and MLP channels of a model."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Self:
        """Read a model's shape; UnsupportedModel for one that is not of Llama form."""
        config = model.config
        if config.model_type not in FAMILIES:
            raise UnsupportedModel(
                f"cannot enlarge a model of type {config.model_type!r}; possible are {', '.join(FAMILIES)}"
            )
        heads = config.num_attention_heads
        return cls(
            width=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            intermediate=config.intermediate_size,
        )

    @property
    def group(self) -> int:
        """Query heads that share one key and value head."""
        return self.heads // self.kv_heads

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer's matrices."""
        attention = 2 * self.width * (self.heads + self.kv_heads) * self.head_dim
        return attention + 3 * self.width * self.intermediate

    def grown(
        self,
        *,
        width: int | None = None,
        layers: int | None = None,
        heads: int | None = None,
        kv_heads: int | None = None,
        intermediate: int | None = None,
    ) -> "Shape":
        """The shape with these sizes; heads and MLP channels that are not given follow the width.

        The number of query heads per kv head stays unless both are given. Raises ValueError for a shape that
        cannot hold a model of this one.
        """
        width = self.width if width is None else width
        factor = max(1.0, width / self.width)
        if kv_heads is None:
            kv_heads = round(self.kv_heads * factor) if heads is None else heads // self.group
        grown = Shape(
            width=width,
            layers=self.layers if layers is None else layers,
            heads=kv_heads * self.group if heads is None else heads,
            kv_heads=kv_heads,
            head_dim=self.head_dim,
            intermediate=round(self.intermediate * factor) if intermediate is None else intermediate,
        )
        grown._check_holds(self)
        return grown

    def reaching(self, parameters: float, *, vocabulary: int) -> "Shape":
        """The shape with at least so many parameters whose width / layers is nearest to 96.

        The width is a whole multiple of this one, the depth the least that reaches `parameters`. `vocabulary`
        is the number of rows as wide as the model: tokens, twice where embedding and head are not tied.
        """
        candidates: list[Shape] = []
        for multiple in range(1, 1 + math.ceil(parameters / (vocabulary * self.width))):
            wide = self.grown(width=self.width * multiple)
            needed = math.ceil((parameters - vocabulary * wide.width) / wide.layer_parameters)
            if candidates and needed < self.layers:  # as deep as the model and still too large
                break
            candidates.append(dataclasses.replace(wide, layers=max(self.layers, needed)))
        return min(candidates, key=lambda shape: abs(math.log(shape.width / shape.layers / WIDTH_PER_LAYER)))

    def _check_holds(self, small: "Shape") -> None:
        for name in ("width", "layers", "heads", "kv_heads", "intermediate"):
            least, given = getattr(small, name), getattr(self, name)
            if given < least:
                raise ValueError(f"{name} must be >= the model's own {least}, got {given}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads must be a multiple of kv_heads, got {self.heads} and {self.kv_heads}")
        if self.group < small.group:
            raise ValueError(
                f"heads={self.heads} with kv_heads={self.kv_heads} leaves {self.group} query heads to a kv "
                f"head, but the model's own groups have {small.group} and must stay together"
            )
