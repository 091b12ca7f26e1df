from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from nasty_texts import ALL, EXACT, LOSSY, NAMES, datas, encoder_of, tokenizer_of
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from anydraft.errors import TokenizerMismatch
from anydraft.text.alignment import PlainEncoder
from anydraft.text.token_bytes import TokenBytes, adjacent_bytes


@pytest.mark.parametrize("name", EXACT)
def test_tokens_write_back_the_text_they_came_from(name: str) -> None:
    encoder = encoder_of(name)
    assert encoder.table.lossless
    for label, data in ALL.items():
        ids, ends, pending = encoder.encode(data)
        assert encoder.table.join(ids) + pending == data or label in ("overlong", "all bytes"), label
        assert (ends[-1] if ends else 0) + len(pending) == len(data), label


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=40, deadline=None)
@given(data=datas)
def test_round_trip_of_any_text(name: str, data: bytes) -> None:
    encoder = encoder_of(name)
    ids, ends, pending = encoder.encode(data)
    assert (ends[-1] if ends else 0) + len(pending) == len(data)
    if all(encoder.table.byte_ids[byte] >= 0 for byte in data):
        assert encoder.table.join(ids) == data


@pytest.mark.parametrize("name", EXACT)
def test_the_table_agrees_with_decode_where_decode_is_faithful(name: str) -> None:
    tokenizer, table = tokenizer_of(name), encoder_of(name).table
    anchor = table.ids[b"a"]
    before = tokenizer.decode([anchor], skip_special_tokens=False)
    for token in range(0, table.size, 7):
        piece = table.bytes_of(token)
        shown = tokenizer.decode([anchor, token], skip_special_tokens=False)
        if piece is not None and b"\xe2\x96\x81" not in piece and "�" not in shown:
            assert shown.encode() == before.encode() + piece, token


def test_byte_tokens_write_bytes_even_if_flagged_special() -> None:
    raw = tokenizer_of("toy-unigram")
    flagged = Tokenizer.from_str(raw.to_str())
    flagged.add_special_tokens([f"<0x{byte:02X}>" for byte in range(256)])
    table = TokenBytes.of(flagged)
    assert table.bytes_of(table.byte_ids[10]) == b"\n"
    assert {table.names[i] for i in table.special} == {"<unk>", "<s>", "</s>"}
    assert table.ids[b"e"] not in table.fallback  # the letter, not the byte


def test_special_tokens_have_no_bytes_and_holes_neither() -> None:
    vocabulary = {"a": 0, "b": 1, "ab": 4, "<s>": 5, "</s>": 7}
    raw = Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    raw.add_special_tokens(["<s>"])
    raw.add_tokens(["</s>"])
    table = TokenBytes.of(raw)
    assert table.table == [b"a", b"b", None, None, b"ab", None, None, b"</s>"]
    assert table.special == {5}
    assert table.bytes_of(99) is None
    assert table.bytes_of(-1) is None
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>")
    assert TokenBytes.of(fast).special == {5, 7}
    assert TokenBytes.of(fast).bytes_of(7) is None


def test_equality_ignores_padding_only() -> None:
    table = TokenBytes.from_table([b"a", b"b", None, b"ab"], special=[4])
    padded = TokenBytes.from_table([b"a", b"b", None, b"ab", None, None, None], special=[4])
    assert table.same_as(padded)
    assert table.digest == padded.digest
    others = [
        TokenBytes.from_table([b"b", b"a", None, b"ab"], special=[4]),
        TokenBytes.from_table([b"a", b"b", None, b"ab", b"c"], special=[5]),
        TokenBytes.from_table([b"a", b"b", None, b"ab"], special=[2]),
        TokenBytes.from_table([b"ab", b"", None, b"ab"], special=[4]),
    ]
    for other in others:
        assert not table.same_as(other)
        assert table.digest != other.digest


def test_pairs_equal_those_found_one_by_one() -> None:
    table = TokenBytes.from_table([b"abc", None, b"", b"x", b"ca", b"\xff\x00"], special=[6])
    naive = np.zeros((256, 256), dtype=bool)
    for piece in table.table:
        for left, right in zip(piece or b"", (piece or b"")[1:], strict=False):
            naive[left, right] = True
    assert (adjacent_bytes(table.table) == naive).all()
    assert not adjacent_bytes([None]).any()


@pytest.mark.parametrize("name", LOSSY)
def test_tokenizers_that_change_text_say_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table = TokenBytes.of(tokenizer_of(name))
    assert table.lossless == (name == "toy-characters")  # which knows little, but that exactly
    assert bool(caplog.records) == (not table.lossless)
    assert (table.reason is None) == table.lossless
    assert not table.complete


def test_normalising_is_no_loss_where_every_byte_has_a_token(caplog: pytest.LogCaptureFixture) -> None:
    encoder = PlainEncoder(tokenizer_of("toy-spaces"))
    data = "ﬁ e\u0301 Ａ  return x  y".encode()
    assert encoder.table.join(encoder.encode(data).ids) == data
    assert not caplog.records


@pytest.mark.parametrize("name", [name for name in NAMES if tokenizer_of(name).get_vocab_size() < 9000])
def test_the_tokenizer_is_only_read(name: str) -> None:
    tokenizer = tokenizer_of(name)
    before = tokenizer.to_str()
    encoder = PlainEncoder(tokenizer)
    encoder.encode("hel lo▁".encode())
    encoder.encode_opening(b"hello")
    encoder.encode_many([b"a", b"\xff"])
    assert tokenizer.to_str() == before


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(TokenizerMismatch, match="object"):
        TokenBytes.of(object())
