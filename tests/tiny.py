"""Tiny random models of many architectures, toy tokenizers, and decoders made of them. No downloads."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from anydraft.decoder import Decoder
from anydraft.drafters.protocol import Drafter
from anydraft.growth import Bounds
from anydraft.pacing import Fixed
from anydraft.target import Target
from anydraft.text.encoder import PlainEncoder

VOCAB = 160
PAD, BOS, EOS = 0, 1, 2

# Wide initial weights spread the logits, so that the best two never lie within rounding of each other.
SPECIAL = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    **SPECIAL,
}
HEADS = {**LLAMA, "head_dim": 8}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.3, **SPECIAL}
UNTIED = {"tie_word_embeddings": False}  # else a random model repeats its last token for ever
NEOX = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", HEADS),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {**HEADS, "sliding_window": 8, "query_pre_attn_scalar": 8, **UNTIED},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {**HEADS, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"], **UNTIED},
    ),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", LLAMA),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", HEADS),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**HEADS, "sliding_window": None}),
    "mistral-window": ("MistralConfig", "MistralForCausalLM", {**HEADS, "sliding_window": 8}),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {**HEADS, "num_local_experts": 4}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT),
    "gpt-neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", NEOX),
    "phi": ("PhiConfig", "PhiForCausalLM", NEOX),
    "gpt-bigcode": ("GPTBigCodeConfig", "GPTBigCodeForCausalLM", GPT),
    "starcoder2": ("Starcoder2Config", "Starcoder2ForCausalLM", LLAMA),
    "opt": (
        "OPTConfig",
        "OPTForCausalLM",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "init_std": 0.3,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 256,
            **SPECIAL,
        },
    ),
    "cohere": ("CohereConfig", "CohereForCausalLM", {**LLAMA, "logit_scale": 1.0}),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", LLAMA),
}
ARCHITECTURES = list(MODELS)


def make(name: str, vocab: int = VOCAB, seed: int = 0, **changes: Any) -> tf.PreTrainedModel:
    """A new tiny model with random weights; `changes` go into its config."""
    config, model, options = MODELS[name]
    torch.manual_seed(seed)
    return getattr(tf, model)(getattr(tf, config)(vocab_size=vocab, **{**options, **changes})).float().eval()


@cache
def model(name: str, vocab: int = VOCAB, seed: int = 0) -> tf.PreTrainedModel:
    """The same, shared between tests: nothing may modify it (test_untouched sees to that)."""
    return make(name, vocab, seed)


@cache
def relative(name: str, noise: float = 0.02, vocab: int = VOCAB) -> tf.PreTrainedModel:
    """A copy of a model with disturbed weights: an assistant that is right now and then."""
    twin = copy.deepcopy(model(name, vocab))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter += noise * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return twin


@cache
def target(name: str, vocab: int = VOCAB, **options: Any) -> Target:
    """A probed target without a tokenizer."""
    return Target(model(name, vocab), byte_level() if vocab == VOCAB else None, **options)


def decoder(
    of: Target | str,
    drafter: Drafter | None = None,
    *,
    depth: int = 5,
    width: int = 3,
    nodes: int = 12,
    **options: Any,
) -> Decoder:
    """A decoder that always drafts within the same bounds."""
    of = target(of) if isinstance(of, str) else of
    return Decoder(of, drafter, pacing=Fixed(Bounds(depth, width, nodes)), **options)


# Toy tokenizers. ------------------------------------------------------------------------------

TEXT = (
    "Once upon a time there was a little girl who had a red hat. She went into the wood and saw a big bear. "
    'The bear said, "Hello, little girl! Do you want to play with me?" They played the whole day, and then '
    "they went home. for i in range(10):\n    print(i, x[i] == 0)\n    return {'a': 1.5}\n\n"
    "naïve café, 1234 and 5678; it's, isn't it? Élan ½ 🙂 👍\n"
)


def _fast(tokenizer: Tokenizer) -> tf.PreTrainedTokenizerFast:
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


@cache
def byte_level(size: int = 150, complete: bool = False) -> tf.PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2's; unless `complete`, it knows only the bytes of TEXT."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if complete else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return _fast(tokenizer)


@cache
def pieces(size: int = 400) -> tf.PreTrainedTokenizerFast:
    """BPE over characters with a space sign and byte fallback, as Llama-2's."""
    sign = "▁"
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(sign), normalizers.Replace(" ", sign)])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>", *bytes_],
        show_progress=False,
        limit_alphabet=60,
        max_token_length=6,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    data = json.loads(tokenizer.to_str())
    data["model"]["byte_fallback"] = True
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    data["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": sign}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    return _fast(Tokenizer.from_str(json.dumps(data)))


# Prompts. -------------------------------------------------------------------------------------


def prompt(length: int, seed: int = 0, vocab: int = VOCAB) -> list[int]:
    """Random token ids, special ones left out."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randint(3, min(vocab, 150), (length,), generator=generator).tolist()


RAGGED = [prompt(11, 1), prompt(3, 2), prompt(19, 3), prompt(1, 4)]
"""A batch of four: lengths on both sides of a window of 8, and a prompt of one token."""


# Models whose logits are a known function of the tokens they see. -------------------------------

Rule = Callable[[tuple[int, ...]], torch.Tensor]
"""The tokens read so far to the logits (vocab,) of the next one."""


class ToyConfig(tf.PreTrainedConfig):
    model_type = "toy"


class ToyModel(tf.PreTrainedModel, tf.GenerationMixin):
    """Asks a rule. It keeps the token ids themselves as keys and their positions as values, so that what the
    engine does with caches, masks and positions decides what the rule sees.
    """

    config_class = ToyConfig
    _supports_sdpa = True

    def __init__(self, rule: Rule, vocab: int, context: int = 512) -> None:
        super().__init__(ToyConfig(vocab_size=vocab, max_position_embeddings=context, **SPECIAL))
        self.embedding = torch.nn.Embedding(vocab, 1)
        self.rule = rule
        self.eval()

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embedding

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
    ) -> tf.modeling_outputs.CausalLMOutputWithPast:
        rows, width = input_ids.shape
        if past_key_values is None:
            contexts = [[tuple(row[: i + 1]) for i in range(width)] for row in input_ids.tolist()]
        else:
            assert position_ids is not None
            assert attention_mask is not None
            keys, values = past_key_values.update(
                input_ids[:, None, :, None].double(), position_ids[:, None, :, None].double(), 0
            )
            seen = attention_mask[:, 0] > -1
            contexts = [
                [self._context(keys[r, 0, :, 0][seen[r, w]], values[r, 0, :, 0][seen[r, w]]) for w in range(width)]
                for r in range(rows)
            ]
        logits = torch.stack([torch.stack([self.rule(context) for context in row]) for row in contexts])
        return tf.modeling_outputs.CausalLMOutputWithPast(logits=logits)

    def _context(self, tokens: torch.Tensor, positions: torch.Tensor) -> tuple[int, ...]:
        read = sorted(zip(positions.tolist(), tokens.tolist(), strict=True))
        if [position for position, _ in read] != list(range(len(read))):
            return (PAD,)  # a padding node; a real one must see every position once
        return tuple(int(token) for _, token in read)


class Parrot:
    """A rule that goes on as TEXT does after the longest suffix it knows, with some spread around it."""

    def __init__(self, tokenizer: Any, vocab: int, strength: float = 8.0) -> None:
        self.encoder = PlainEncoder(tokenizer)
        self.vocab = vocab
        self.strength = strength
        self.text = TEXT.encode()
        self._known: dict[tuple[int, ...], torch.Tensor] = {}

    def __call__(self, context: tuple[int, ...]) -> torch.Tensor:
        key = context[-6:]
        if key not in self._known:
            generator = torch.Generator().manual_seed(hash(key) % (1 << 40))
            logits = torch.randn(self.vocab, generator=generator)
            read = self.encoder.table.join(key)
            for size in range(min(len(read), 12), 0, -1):
                at = self.text.find(read[-size:])
                if at >= 0 and at + size < len(self.text):
                    ids = self.encoder.encode(self.text[at + size : at + size + 24]).ids
                    logits[ids[0]] += self.strength
                    break
            self._known[key] = logits
        return self._known[key]


@cache
def parrot(kind: str = "byte-level", strength: float = 8.0) -> ToyModel:
    """A model that talks like TEXT in the tokens of one of the toy tokenizers."""
    tokenizer, vocab = tokenizer_of(kind)
    return ToyModel(Parrot(tokenizer, vocab, strength), vocab)


def tokenizer_of(kind: str) -> tuple[tf.PreTrainedTokenizerFast, int]:
    """A toy tokenizer and the size of a (padded) vocabulary for it."""
    tokenizer = {"byte-level": byte_level, "whole bytes": lambda: byte_level(330, True), "pieces": pieces}[kind]()
    return tokenizer, len(tokenizer) + 5


@cache
def parrot_target(kind: str = "byte-level", **options: Any) -> Target:
    """A probed target that talks like TEXT."""
    return Target(parrot(kind), tokenizer_of(kind)[0], **options)


STORIES = ["Once upon", 'The bear said, "', "for i in range(10):\n  ", "naïve caf", "x", "Do you want to pl"]
