"""The two tokenizers, trained anew from the corpus: nothing in the pair depends on a blob of unknown origin.

The target's is a byte-level BPE, the assistant's a SentencePiece-like BPE with `▁` for a space and byte fallback:
two families that share neither ids nor boundaries, which is what the universal drafter is for.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

Role = Literal["target", "assistant"]
CONTEXT = 2048
TARGET_SPLIT = r"\p{N}|[^\r\n\p{L}\p{N}]?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ASSISTANT_SPLIT = r"\n|▁?[A-Za-z]+|▁?\d|▁?[^A-Za-z\d▁\n]+|▁+"


def train_target(texts: Iterable[str], size: int = 8192) -> PreTrainedTokenizerFast:
    """A byte-level BPE: single digits, words with one leading character, punctuation, newlines, runs of spaces."""
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(TARGET_SPLIT), "isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end, model_max_length=CONTEXT
    )


def train_assistant(texts: Iterable[str], size: int = 2048) -> PreTrainedTokenizerFast:
    """A BPE over characters with `▁` for a space, single digits and byte fallback; opens every text with `<s>`."""
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(ASSISTANT_SPLIT), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in specials],
        limit_alphabet=160,  # rarer characters are what the byte fallback is for
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bytes_made_plain(tokenizer),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        model_max_length=CONTEXT,
    )


def bytes_made_plain(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with its byte tokens no longer special: ids stay, and decoding does not skip rare characters.

    The trainer puts a token into the vocabulary ahead of the merges only if it is called special.
    """
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(content))


def load(folder: Path) -> Tokenizer:
    """The bare tokenizer of a folder written by `save_pretrained`."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise ValueError(f"{path} does not exist; run the `tokenizers` command first, or name a model's folder")
    return Tokenizer.from_file(str(path))


def end_of_text(tokenizer: Tokenizer) -> int:
    """The id that closes a text: `</s>` of the assistant's tokenizer, `<|endoftext|>` of the target's."""
    for token in ("</s>", "<|endoftext|>"):
        if (found := tokenizer.token_to_id(token)) is not None:
            return int(found)
    raise ValueError("the tokenizer has neither </s> nor <|endoftext|>")
