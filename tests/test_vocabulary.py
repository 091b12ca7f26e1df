from __future__ import annotations

import dataclasses
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_texts import EXACT, encoder_of, tokenizer_of

from anydraft.errors import OptionConflict
from anydraft.text import stored as stored_module
from anydraft.text import vocabulary
from anydraft.text.alignment import PlainEncoder
from anydraft.text.stored import cache_root
from anydraft.text.token_bytes import TokenBytes
from anydraft.text.vocabulary import TargetSegments, VocabularyMap, report

DRAFT = TokenBytes.from_table([b"a", b"b", b"ab", None, b"c", b"ab", b"", b"\xe2"], special=[3])
TARGET = TokenBytes.from_table([b"ab", b"x", b"c", b"c", b"a", None, b"", b"\xe2", None, None], special=[5])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYDRAFT_CACHE", str(tmp_path / "cache"))


def files() -> list[Path]:
    return sorted((cache_root() / "vocabulary").glob("*"))


def test_tokens_are_paired_by_bytes_the_lowest_id_standing_for_its_twins() -> None:
    found = VocabularyMap.between(DRAFT, TARGET)
    assert found.draft_to_target.tolist() == [4, -1, 0, -1, 2, -1, -1, 7]
    assert found.target_to_draft.tolist() == [2, -1, 4, -1, 0, -1, -1, 7, -1, -1]
    assert found.draft_to_target.dtype == found.target_to_draft.dtype == np.int32
    assert found.shared == 4
    assert not found.same


pieces = st.lists(st.none() | st.binary(min_size=0, max_size=2), max_size=30)


@settings(max_examples=60, deadline=None)
@given(left=pieces, right=pieces)
def test_the_map_is_injective_and_byte_exact(left: list[bytes | None], right: list[bytes | None]) -> None:
    draft, target = TokenBytes.from_table(left), TokenBytes.from_table(right)
    found = VocabularyMap.between(draft, target)
    for d, t in enumerate(found.draft_to_target.tolist()):
        if t >= 0:
            assert draft.bytes_of(d) == target.bytes_of(t)
            assert found.target_to_draft[t] == d
    paired = {draft.bytes_of(d) for d in np.flatnonzero(found.draft_to_target >= 0)}
    common = {piece for piece in left if piece} & {piece for piece in right if piece}
    assert paired - {b""} == common
    assert (found.target_to_draft >= 0).sum() == found.shared


def test_the_same_vocabulary_passes_as_it_is_whatever_its_padding() -> None:
    padded = TokenBytes.from_table([*DRAFT.table, None, None], special=[3])
    found = VocabularyMap.between(DRAFT, padded)
    assert found.same
    assert found.draft_to_target.tolist() == list(range(8))  # twins and special tokens too
    assert found.target_to_draft.tolist() == [*range(8), -1, -1]


def test_special_tokens_are_paired_by_role() -> None:
    plain = VocabularyMap.between(DRAFT, TARGET)
    roles = plain.with_roles({3: 5, 4: 0})  # the second names ordinary tokens that are taken
    assert roles.draft_to_target[3] == 5
    assert roles.target_to_draft[5] == 3
    assert roles.shared == plain.shared + 1
    assert plain.draft_to_target[3] == -1


def test_a_letter_is_not_paired_with_its_byte_token() -> None:
    raw, level = encoder_of("toy-unigram").table, encoder_of("toy-llama3").table
    found = VocabularyMap.between(raw, level)
    letter = tokenizer_of("toy-unigram").token_to_id("e")
    assert found.draft_to_target[letter] == level.ids[b"e"]
    assert found.draft_to_target[tokenizer_of("toy-unigram").token_to_id("<0x65>")] == -1
    assert found.draft_to_target[tokenizer_of("toy-unigram").token_to_id("<0xFF>")] == level.byte_ids[255]


# -- on disk -------------------------------------------------------------------------


def test_a_map_is_read_back_and_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = VocabularyMap.between(DRAFT, TARGET)
    assert len(files()) == 1
    monkeypatch.setattr(vocabulary, "_match", None)
    again = VocabularyMap.between(DRAFT, TARGET)
    assert again.draft_to_target.tolist() == first.draft_to_target.tolist()
    with pytest.raises(TypeError):
        VocabularyMap.between(TARGET, DRAFT)  # another pair, another file


def test_damaged_files_are_replaced() -> None:
    wanted = VocabularyMap.between(DRAFT, TARGET).draft_to_target.tolist()
    path = files()[0]
    good = path.read_bytes()
    key = str(np.load(path)["key"])
    spoiled = random.Random(0)
    damages = [b"", b"garbage", good[: len(good) // 2], good[:-30]]
    for _ in range(20):
        at = spoiled.randrange(len(good))
        damages.append(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
    for damage in damages:
        path.write_bytes(damage)
        assert VocabularyMap.between(DRAFT, TARGET).draft_to_target.tolist() == wanted
    there, back = np.full(8, -1, np.int32), np.full(10, -1, np.int32)
    wrong = [
        {"draft_to_target": there[:-1], "target_to_draft": back},
        {"draft_to_target": there + 50, "target_to_draft": back},
        {"draft_to_target": there.astype(np.int64), "target_to_draft": back},
        {"draft_to_target": there},
        {"draft_to_target": there, "target_to_draft": back, "more": back},
    ]
    for arrays in wrong:
        np.savez(path.open("wb"), key=np.array(key), **arrays)
        assert VocabularyMap.between(DRAFT, TARGET).draft_to_target.tolist() == wanted
    np.savez(path.open("wb"), key=np.array("another"), draft_to_target=there, target_to_draft=back)
    assert VocabularyMap.between(DRAFT, TARGET).draft_to_target.tolist() == wanted
    assert path.read_bytes() == good
    assert len(files()) == 1  # nothing temporary is left


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = VocabularyMap.between(DRAFT, TARGET).draft_to_target.tolist()
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert VocabularyMap.between(DRAFT, TARGET, blocked / "x").draft_to_target.tolist() == wanted

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    assert VocabularyMap.between(DRAFT, TARGET, tmp_path / "full").draft_to_target.tolist() == wanted
    assert not list((tmp_path / "full").glob("*"))


def test_the_root_is_the_users_cache_or_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_root().name == "cache"
    monkeypatch.delenv("ANYDRAFT_CACHE")
    assert cache_root() == Path.home() / ".cache" / "anydraft"


def test_a_new_version_reads_no_old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    VocabularyMap.between(DRAFT, TARGET)
    monkeypatch.setattr(stored_module, "VERSION", stored_module.VERSION + 1)
    VocabularyMap.between(DRAFT, TARGET)
    assert len(files()) == 2


# -- overlap -------------------------------------------------------------------------


def test_overlap_by_count_and_by_use() -> None:
    counts = report(DRAFT, TARGET)
    assert (counts.shared, counts.draft_size, counts.target_size, counts.same) == (4, 7, 7, False)
    assert counts.target_token_share is None
    with pytest.raises(OptionConflict, match="PlainEncoder"):
        report(DRAFT, TARGET, "text")
    draft, target = encoder_of("toy-unigram"), encoder_of("toy-llama3")
    text = "The price was 1,234 dollars\n  é"
    used = report(draft, target, text)
    found = VocabularyMap.between(draft.table, target.table)
    ids = target.encode(text.encode()).ids
    paired = [i for i in ids if found.target_to_draft[i] >= 0]
    assert 0 < len(paired) < len(ids)
    assert used.target_token_share == pytest.approx(len(paired) / len(ids))
    assert used.target_byte_share == pytest.approx(len(target.table.join(paired)) / len(text.encode()))
    assert dataclasses.replace(used, shared=0) != used
    same = report(target, target, text)
    assert same.same
    assert same.draft_token_share == same.target_byte_share == 1.0
    assert report(draft, target, "").draft_byte_share == 0.0


# -- segments ------------------------------------------------------------------------


SEGMENTED = [
    ("toy-unigram", "toy-llama3"),
    ("toy-llama3", "toy-unigram"),
    ("toy-characters", "toy-unigram"),
    ("toy-t5", "toy-llama3"),
]


@pytest.mark.parametrize(("draft", "target"), SEGMENTED)
def test_segments_write_what_the_target_token_writes(draft: str, target: str) -> None:
    encoder, table = encoder_of(draft), encoder_of(target).table
    segments = TargetSegments(encoder, table)
    assert segments.offsets.shape == (table.size + 1,)
    covered = 0
    for token in range(table.size):
        ids = segments.of(token)
        piece = table.bytes_of(token)
        if ids:
            assert encoder.table.join(ids) == piece
            assert ids == encoder.encode(piece or b"").ids
            covered += 1
        elif piece and draft in EXACT:
            assert any(encoder.table.byte_ids[byte] < 0 for byte in piece)
    assert covered > 0.3 * table.size


def test_segments_are_kept_until_the_draft_tokenizer_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, table = PlainEncoder(tokenizer_of("toy-unigram")), encoder_of("toy-characters").table
    values = TargetSegments(encoder, table).values
    monkeypatch.setattr(encoder, "encode_many", None)
    assert TargetSegments(encoder, table).values.tolist() == values.tolist()
    path = files()[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TypeError):
        _ = TargetSegments(encoder, table).values
    with pytest.raises(TypeError):
        _ = TargetSegments(encoder, DRAFT).values


def test_large_vocabularies() -> None:
    rng = np.random.default_rng(0)
    left = [rng.bytes(4) for _ in range(10_000)]
    right = [left[i] if i % 2 else rng.bytes(5) for i in rng.permutation(10_000)]
    found = VocabularyMap.between(TokenBytes.from_table(left), TokenBytes.from_table(right))
    assert found.shared == len(set(left) & set(right))
