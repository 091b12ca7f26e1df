"""Writes a Llama model as a GGUF file, so that llama.cpp can be measured on the same weights.

bfloat16 weights are copied bit by bit; vectors (norm weights) become float32, as llama.cpp wants them. Two things
differ from the checkpoint. llama.cpp rotates neighbouring channels of a head together, transformers those half a head
apart, so the rows of the query and key projections change places; attention sums over channels and does not notice.
And there is no tokenizer in the file: token ids go in and out. `precision="q8_0"` rounds the matrices to blocks of 32
eight-bit numbers with a scale (8.5 bits a weight): smaller and faster, and no longer the same model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from anydraft.errors import UnsupportedModel
from anydraft.packing import plain_parameters

Precision = Literal["bf16", "q8_0"]


def export_gguf(model: PreTrainedModel, path: Path, *, precision: Precision = "bf16", name: str = "anydraft") -> None:
    """Write the model to `path`.

    Raises:
        UnsupportedModel: not of plain Llama form (another type, scaled rope, biases).
        ImportError: the gguf package is missing; names the extra.
    """
    gguf = _gguf()
    config = model.config
    theta, head_dim = _checked(model)
    kinds = gguf.GGMLQuantizationType
    matrix = {"bf16": kinds.BF16, "q8_0": kinds.Q8_0}[precision]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_file_type({"bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[precision])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for own, parameter in plain_parameters(model):  # a tied head comes once; llama.cpp ties it again
        weight = parameter.detach().cpu()
        count = heads.get(own.split(".")[-2])
        if count is not None:
            weight = interleaved(weight, count)
        known = names.get_name(own, try_suffixes=(".weight",))
        if known is None:
            raise UnsupportedModel(f"only plain Llama form can be written as GGUF; this model also has {own}")
        if weight.ndim == 1:
            writer.add_tensor(known, weight.float().numpy())
        elif precision == "bf16":
            bits = weight.to(torch.bfloat16).contiguous().view(torch.uint8)
            writer.add_tensor(known, bits.numpy(), raw_dtype=matrix)
        else:
            writer.add_tensor(known, gguf.quants.quantize(weight.float().numpy(), matrix), raw_dtype=matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key projection, (heads * head_dim, width), with the channels rotated together side by side."""
    halves = weight.view(heads, 2, -1, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def _checked(model: PreTrainedModel) -> tuple[float, int]:
    """The rope's base and the head dimension; raises UnsupportedModel."""
    config = model.config
    if config.model_type != "llama":
        raise UnsupportedModel(f"only type 'llama' can be written as GGUF, got {config.model_type!r}")
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise UnsupportedModel(f"only rope_type 'default' can be written as GGUF, got {rope['rope_type']!r}")
    biases = [name for name, _ in model.named_parameters() if name.endswith(".bias")]
    if biases:
        raise UnsupportedModel(f"only models without biases can be written as GGUF, this one has {biases[0]}")
    return float(rope["rope_theta"]), config.head_dim or config.hidden_size // config.num_attention_heads


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ImportError("writing GGUF files needs the gguf package; pip install 'anydraft[bench]'") from error
    return gguf
