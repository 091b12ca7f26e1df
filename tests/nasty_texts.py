"""Tokenizers of every kind (real ones if at hand, toys always) and texts that go wrong elsewhere."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path

from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from anydraft.text.alignment import PlainEncoder

_ROOT = Path(__file__).resolve().parents[1]
_FILES = {
    path.parent.name: path
    for folder in (
        _ROOT.parent / "shared/tokenizers",
        _ROOT.parent / "shared/models",
        _ROOT / "src/anydraft/models",
    )
    for path in sorted(folder.glob("*/tokenizer.json"))
}

CODE = '''
class Reader(object):
    """Reads `path` -> list[str]; raises ValueError."""

    def __init__(self, path: str, *, limit=0x1F):
        self.path, self._limit = path, limit

    async def read(self, n: int = 1234567) -> dict:
        if (n := len(self.path)) != 0 and not self._limit:
            return {"key": [1, 2.50, 3e-10], 'it\\'s': f"{n!r:>10}\\n"}  ### done
\t\twhile True:  # tabs
\t\t\tx[i]->y; a::b(); z != ~w ^ v || u && t
\t\t\tbreak
        for i in range(16):
                print(i, end="")
'''.replace("break", "break   ")

PROSE = (
    "It's not that I don't know; we've been walking, haven't we? (She said so!) \"Well...\" -- he'd go.\n"
    "The price was 1,234,567.89 dollars on 2024-01-31 at 12:34:56, i.e. 50% more.\n\n"
    "Éa naïve café, Straße, œuvre, ½ cup. Ünïcödé å ¬ · é ½ ß.\n"
)

TEXTS: dict[str, str] = {
    "empty": "",
    "space": " ",
    "newline": "\n",
    "half a word": "hel",
    "ends in spaces": "foo bar   ",
    "ends in newlines": "foo bar\n\n",
    "a": "a" * 200,
    "ab": "ab" * 100,
    "the": "the the the " * 12,
    "zeros": "0000" * 12,
    "rule": "=" * 80 + "\n" + "-" * 80,
    "json": '{"id": 1, "name": "x"},\n' * 8,
    "csv": "1,2,,foo\r\n" * 8,
    "indentation": "\n".join(" " * n + "x" for n in range(1, 21)),
    "tabs": "\n".join("\t" * n + "y = 1" for n in range(6)) + "\t \t z",
    "line ends": "a\r\nb\nc\r\n\r\nd \r\n \n  \n\n\ne\rf\x0bg\x0ch",
    "odd spaces": "a\u00a0b\u00a0\u00a0 c\u200bd\u200d e\u3000f \u2003g\u2028h\u0085i",
    "space signs": "▁ ▁▁a ▁b▁c▁\n▁",
    "byte signs": "Ġa ĠĠ Ċ Âł â Ķ",
    "literal tokens": "<0x0A><0x0a></s><s> <unk> <|im_end|>\n<|endoftext|> [PAD] <|user|> hi<|end|> </s> x",
    "bytes or characters": "å ¬ · é ½ Î Ã © ð",
    "combining": "e\u0301 a\u030a \u1e9b\u0323 ﬁ Å Ａ ﷺ o\u0302\u0323",
    "hangul": "\u1112\u1161\u11ab\u1100\u1173\u11af 한글 테스트입니다.",
    "emoji": "👨‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽👍🏿 ❤️ 🙂🙂 a🙂b",
    "cjk": "他说，「你好吗？」我很好。漢字かな交じり文、カタカナ。",
    "right to left": "مرحبا بالعالم ١٢٣ שלום עולם! \u202bx\u202c",
    "thai": "สวัสดีชาวโลก ภาษาไทย๑๒๓",
    "replacement": "a\ufffdb \ufffd\ufffd",
    "control": "\x00\x01 \x7f\x1b[0m a\x1cb",
    "digits": "1234567890123 12 1 123456 7,890 0x1F 3.14159265358979323846264338327950288419716939937510",
    "dates": "2024-01-31T12:34:56Z 31/12/1999 v1.2.3-rc4",
    "urls": "https://www.example.com/a_b/c-d?q=1&r=%20x#frag user@host.org C:\\dir\\file.txt",
    "camel": "camelCaseIdentifier HTMLParser snake_case_name __init__ XMLHttpRequest2",
    "base64": base64.b64encode(bytes(range(120))).decode(),
    "latex": "\\frac{a}{b} $\\alpha_{i}^2$ \\begin{align} x &= y \\\\ \\end{align}",
    "operators": ":= -> ### !?abc !!\n\n  x ..\n.a ;;\n \n\tb %% ??a 'x' 'Tis isn't I'LL",
    "code": CODE,
    "prose": PROSE,
}

BROKEN: dict[str, bytes] = {
    "lone continuation": b"abc \x80 def\xbf\xbf\xbf",
    "half an emoji": "hi 🙂".encode()[:-2],
    "half, then text": "hi 🙂".encode()[:-2] + b" there",
    "overlong": b"\xc0\x80 \xed\xa0\x80 \xf5\xff\xfe end",
    "cut sign": "a▁".encode()[:-1],
    "cut, then sign": "é".encode()[:1] + "▁▁x".encode(),
    "all bytes": bytes(range(256)),
}

ALL: dict[str, bytes] = {name: text.encode() for name, text in TEXTS.items()} | BROKEN

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def _train(tokenizer: Tokenizer, trainer: object) -> Tokenizer:
    tokenizer.train_from_iterator([*TEXTS.values(), CODE * 3, PROSE * 3], trainer)
    return tokenizer


def _byte_level(splitter: pre_tokenizers.PreTokenizer | None, size: int) -> Tokenizer:
    """Byte-level BPE that knows the texts well: its tokens reach as far as its word rules let them."""
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = level if splitter is None else pre_tokenizers.Sequence([splitter, level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    return _train(tokenizer, trainer)


def _llama3() -> Tokenizer:
    return _byte_level(pre_tokenizers.Split(Regex(LLAMA3), "isolated"), 1200)


def _deepseek() -> Tokenizer:
    rules = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+")
    parts = [pre_tokenizers.Split(Regex(rule), "isolated") for rule in rules]
    return _byte_level(pre_tokenizers.Sequence([*parts, pre_tokenizers.Digits(individual_digits=True)]), 1000)


def _unsplit() -> Tokenizer:
    return _byte_level(None, 900)


def _spaces() -> Tokenizer:
    """Added tokens for runs of spaces and an added word, as GPT-NeoX has; normalises."""
    tokenizer = _byte_level(pre_tokenizers.Split(Regex(LLAMA3), "isolated"), 700)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_tokens([AddedToken(" " * n, normalized=False) for n in range(12, 1, -1)])
    tokenizer.add_tokens([AddedToken("return x", normalized=False, rstrip=True), "\n\n\n", "Ġa"])
    return tokenizer


def _unigram() -> Tokenizer:
    """SentencePiece Unigram with byte fallback and a space of its own before the first word."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer = _train(tokenizer, trainer)
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((f"<0x{b:02X}>", -20.0) for b in range(256))]
    learned = [tokenizer.id_to_token(i) for i in range(3, tokenizer.get_vocab_size())]
    tokenizer.model = models.Unigram(
        pieces + [(piece, -5.0 - 0.01 * i) for i, piece in enumerate(learned)], unk_id=0, byte_fallback=True
    )
    return tokenizer


def _t5() -> Tokenizer:
    """Unigram without byte fallback that normalises: NFKC, one space for many, an unknown token."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([PROSE] * 3, trainer)
    return tokenizer


def _bert() -> Tokenizer:
    """WordPiece, lower-cased: spaces and case are lost."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    tokenizer.train_from_iterator([PROSE] * 3, trainer)
    return tokenizer


def _characters() -> Tokenizer:
    """One token per printable ASCII character, nothing for others."""
    letters = [chr(c) for c in range(32, 127)]
    return Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))


_TOYS = {
    "toy-llama3": _llama3,
    "toy-deepseek": _deepseek,
    "toy-unsplit": _unsplit,
    "toy-spaces": _spaces,
    "toy-unigram": _unigram,
    "toy-t5": _t5,
    "toy-bert": _bert,
    "toy-characters": _characters,
}
LOSSY = ("toy-t5", "toy-bert", "toy-characters")
NAMES = [*_FILES, *_TOYS]
EXACT = [name for name in NAMES if name not in LOSSY]


@cache
def tokenizer_of(name: str) -> Tokenizer:
    return _TOYS[name]() if name in _TOYS else Tokenizer.from_file(str(_FILES[name]))


@cache
def encoder_of(name: str) -> PlainEncoder:
    return PlainEncoder(tokenizer_of(name))


_PIECES = [
    *(
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u3000",
        "▁",
        "Ġ",
        "a",
        "ab",
        "the",
        " the",
        "Is",
    ),
    *(
        "1",
        "12",
        "1234",
        ".",
        "!?",
        "...",
        "'s",
        "'",
        "_",
        "-",
        "=",
        "==",
        "(",
        ")",
        '"',
        "://",
        "<0x0A>",
        "</s>",
    ),
    *(
        "é",
        "e\u0301",
        "한",
        "\u1112\u1161",
        "漢字",
        "かな",
        "，",
        "。",
        "🙂",
        "👨‍👩‍👧",
        "\ufffd",
        "\x00",
        "return x",
        "ﬁ",
        "م",
        "ก",
    ),
]
texts = st.lists(st.sampled_from(_PIECES), max_size=30).map("".join)
datas = st.one_of(
    texts.map(str.encode),
    st.lists(st.one_of(st.sampled_from(_PIECES).map(str.encode), st.binary(min_size=1, max_size=2)), max_size=25).map(
        b"".join
    ),
)
