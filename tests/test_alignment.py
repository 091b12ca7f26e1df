from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_texts import ALL, EXACT, NAMES, TEXTS, datas, encoder_of, texts, tokenizer_of

from anydraft.text import alignment
from anydraft.text.alignment import DraftContext, PlainEncoder, to_target

few = settings(max_examples=25, deadline=None)


class NaiveContext:
    """The slow twin of DraftContext: everything is compared and encoded again each time."""

    def __init__(self, encoder: PlainEncoder, prompt: bytes = b"", prefix: tuple[int, ...] = ()) -> None:
        self.encoder, self.prompt, self.prefix = encoder, prompt, list(prefix)
        self.data = b""
        self.tokens = list(prefix)
        if prompt:
            self.sync(prompt)

    def sync(self, new: bytes) -> int:
        self.data += new
        encode = self.encoder.encode_opening if self.prompt else self.encoder.encode
        before, self.tokens = self.tokens, self.prefix + list(encode(self.data).ids)
        return common(before, self.tokens)


def common(left: list[int], right: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def split(data: bytes, rng: random.Random, longest: int = 12) -> list[bytes]:
    parts = []
    while data:
        size = rng.randint(1, longest)
        parts.append(data[:size])
        data = data[size:]
    return parts


def covered(context: DraftContext) -> bytes:
    """Committed bytes as the tokens' spans have them."""
    spans = context.spans
    data = context.committed_bytes
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    return (data[: spans[-1][1]] if spans else b"") + context.pending


# -- encoding -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@few
@given(data=datas)
def test_no_input_raises_and_spans_cover_it(name: str, data: bytes) -> None:
    encoder = encoder_of(name)
    for encoding in (encoder.encode(data), encoder.encode_opening(data)):
        assert len(encoding.ids) == len(encoding.ends)
        assert all(a <= b for a, b in zip((0, *encoding.ends), encoding.ends, strict=False))
        assert data[: encoding.ends[-1] if encoding.ends else 0] + encoding.pending == data


@pytest.mark.parametrize("name", NAMES)
def test_many_are_encoded_as_one_by_one(name: str) -> None:
    encoder = encoder_of(name)
    data = [*ALL.values(), *(piece for piece in encoder.table.table[:600] if piece)]
    fresh = [encoder._encode(text) for text in data]
    assert encoder.encode_many(data) == fresh
    assert [encoder.encode(text) for text in data] == fresh
    assert [encoder.encode(text) for text in data] == fresh  # from its memory


@pytest.mark.parametrize("name", EXACT)
def test_openings_are_what_the_tokenizer_makes_of_a_prompt(name: str) -> None:
    tokenizer, encoder = tokenizer_of(name), encoder_of(name)
    for text in ["hello world", "def f(x):\n    return 1", " x", "Hello, I'm 12.\n\nYes"]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert list(encoder.encode_opening(text.encode()).ids) == ids


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=60, deadline=None)
@given(data=datas, more=datas)
def test_text_may_be_cut_at_safe_boundaries(name: str, data: bytes, more: bytes) -> None:
    encoder = encoder_of(name)
    boundaries = {encoder.safe_boundary(data, at) for at in range(len(data) + 1)}
    assert encoder.safe_boundary(data, 0) == 0
    whole = data + more  # what is safe stays so
    ids = encoder.encode(whole).ids
    for s in boundaries:
        assert encoder.encode(whole[:s]).ids + encoder.encode(whole[s:]).ids == ids, (s, whole)


@pytest.mark.parametrize("name", [name for name in EXACT if name not in ("toy-unsplit", "toy-unigram")])
@pytest.mark.parametrize("label", ["code", "prose", "cjk", "hangul", "right to left"])
def test_boundaries_are_frequent_enough(name: str, label: str) -> None:
    encoder, data = encoder_of(name), TEXTS[label].encode() * 3
    distances = [at - encoder.safe_boundary(data, at) for at in range(len(data))]
    assert sum(distances) / len(distances) < 12


def test_unknown_text_has_explicit_spans() -> None:
    encoder = encoder_of("toy-t5")
    data = "The {price}  was 漢字 5".encode()
    ids, ends, pending = encoder.encode(data)
    unknown = tokenizer_of("toy-t5").token_to_id("<unk>")
    starts = (0, *ends)
    assert {data[starts[i] : ends[i]].strip() for i, token in enumerate(ids) if token == unknown} >= {"漢字".encode()}
    assert ends[-1] == len(data)
    assert not pending
    bare = encoder_of("toy-characters")
    assert bare.encode("aé".encode()).pending == "é".encode()
    assert bare.encode("aéb".encode()).ends == (1, 4)


def test_a_half_character_waits_if_it_cannot_be_written() -> None:
    context = DraftContext(encoder_of("toy-t5"))
    context.sync("The é".encode()[:-1])
    assert context.pending.endswith("é".encode()[:1])
    context.sync("é".encode()[1:])
    assert context.pending == b""
    whole = DraftContext(encoder_of("toy-t5"))
    whole.sync("The é".encode())
    assert context.tokens == whole.tokens


# -- the draft's context ------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_incremental_equals_everything_at_once(name: str) -> None:
    encoder = encoder_of(name)
    for label, data in ALL.items():
        rng = random.Random(label)
        context, naive = DraftContext(encoder), NaiveContext(encoder)
        for part in split(data, rng):
            before = context.tokens
            valid = context.sync(part)
            naive.sync(part)
            assert before[:valid] == context.tokens[:valid]
            if name in EXACT:
                assert context.tokens == naive.tokens, (label, context.committed_bytes)
                assert valid == common(before, context.tokens)
        assert context.committed_bytes == data
        assert covered(context) == data


@pytest.mark.parametrize("name", EXACT)
@few
@given(data=datas, cuts=st.lists(st.integers(1, 9), max_size=80), prompt=texts)
def test_incremental_equals_everything_at_once_on_any_text(
    name: str, data: bytes, cuts: list[int], prompt: str
) -> None:
    encoder = encoder_of(name)
    start = prompt.encode()
    context, naive = DraftContext(encoder, start, [3, 1]), NaiveContext(encoder, start, (3, 1))
    for size in [*cuts, len(data)]:
        part, data = data[:size], data[size:]
        before = context.tokens
        valid = context.sync(part)
        naive.sync(part)
        assert context.tokens == naive.tokens
        assert valid == common(before, context.tokens)
        assert len(context) == len(context.tokens)
    assert covered(context) == context.committed_bytes == naive.data


def test_the_prompt_and_the_text_after_it_are_one_text() -> None:
    for name in EXACT:
        encoder = encoder_of(name)
        context = DraftContext(encoder, b"I say hel", [7])
        context.sync(b"lo")
        assert context.tokens == [7, *encoder.encode_opening(b"I say hello").ids]
        opaque = DraftContext(encoder, b"", [7, 8])
        opaque.sync(b"hello")
        assert opaque.tokens == [7, 8, *encoder.encode(b"hello").ids]


@pytest.mark.parametrize("name", EXACT)
@few
@given(data=datas, seed=st.integers(0, 10**6))
def test_proposals_stay_as_far_as_they_were_committed(name: str, data: bytes, seed: int) -> None:
    encoder, rng = encoder_of(name), random.Random(seed)
    table = encoder.table
    context = DraftContext(encoder, b"", [5])
    ordinary = [i for i in range(table.size) if table.bytes_of(i)]
    written = 0
    while written < len(data):
        right = list(encoder.encode(data[written : written + rng.randint(0, 20)]).ids)
        wrong = [rng.choice(ordinary) for _ in range(rng.randint(0, 3))]
        special = rng.sample(sorted(table.special), k=min(len(table.special), rng.randint(0, 1)))
        before = context.tokens
        context.extend(right[: rng.randint(0, len(right))] + rng.choice([wrong, special, wrong + special]))
        assert context.tokens[: len(before)] == before
        proposed = context.tokens
        step = rng.choice([0, 1, 2, 5, 13])
        new = data[written : written + step]
        written += len(new)
        valid = context.sync(new)
        assert proposed[:valid] == context.tokens[:valid]
        assert valid == common(proposed, context.tokens)
        assert not set(context.tokens[1:]) & table.special
        assert context.committed_bytes == data[:written]
        assert covered(context) == data[:written]
        if all(table.byte_ids[byte] >= 0 for byte in data[:written]):
            assert table.join(context.tokens[1:]) + context.pending == data[:written]


def test_committed_proposals_are_kept_even_if_another_cut_is_usual() -> None:
    encoder = encoder_of("toy-llama3")
    context = DraftContext(encoder)
    odd = [encoder.table.ids[letter.encode()] for letter in " walking"]
    context.sync(b"I am")
    start = len(context)
    context.extend(odd)
    assert context.drafted == b" walking"
    assert context.sync(b" walking") == start + len(odd)
    assert context.tokens[start:] == odd
    assert context.drafted == b""
    assert context.sync(b" now") == start + len(odd)  # a safe boundary: the letters stay
    assert context.tokens[: start + len(odd)][start:] == odd


def test_a_draft_longer_than_what_was_committed_is_cut_inside_a_token() -> None:
    encoder = encoder_of("toy-llama3")
    context = DraftContext(encoder)
    context.sync(b"the price")
    context.extend(encoder.encode(b" was the same").ids)
    context.sync(b" wa")
    assert context.tokens == list(encoder.encode(b"the price wa").ids)
    assert context.committed_bytes == b"the price wa"


def test_proposals_must_begin_with_what_is_pending() -> None:
    context = DraftContext(encoder_of("toy-characters"))
    context.sync("aé".encode())
    context.extend([ord("b") - 32])
    assert context.drafted == b""
    assert context.sync(b"") == 1
    assert context.committed_bytes == "aé".encode()


def test_restarts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "LONGEST_RESTART", 32)
    encoder = encoder_of("toy-unsplit")
    context = DraftContext(encoder)
    longest = 0
    encode = encoder.encode

    def watched(data: bytes) -> alignment.Encoding:
        nonlocal longest
        longest = max(longest, len(data))
        return encode(data)

    monkeypatch.setattr(encoder, "encode", watched)
    data = b"aaaaabaaaaaaab" * 60
    for part in split(data, random.Random(1)):
        context.sync(part)
        assert covered(context) == context.committed_bytes
    assert encoder.table.join(context.tokens) == data
    assert longest < 32 + 12 + max(len(piece or b"") for piece in encoder.table.table)


@pytest.mark.parametrize("name", ["toy-llama3", "toy-unigram", "toy-bert"])
@pytest.mark.parametrize("keep", [1, 2, 7, 16])
def test_sliding_keeps_the_newest_tokens_and_the_first(name: str, keep: int) -> None:
    encoder = encoder_of(name)
    context = DraftContext(encoder, b"The price was", [3, 4, 5, 6])
    assert not context.slide(100)
    context.sync(b" 1,234 dollars and then we went walking home again")
    context.extend([9, 9])
    before = context.tokens
    assert context.slide(keep)
    assert context.tokens == [3, *before[len(before) - keep + 1 :]]
    assert len(context) == keep
    committed = context.committed_bytes
    context.sync(" and é".encode())
    assert context.committed_bytes == committed + " and é".encode()
    assert covered(context) == context.committed_bytes


# -- drafts as target tokens --------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
@few
@given(drafted=datas, committed=datas, more=datas)
def test_stable_tokens_do_not_depend_on_what_follows(name: str, drafted: bytes, committed: bytes, more: bytes) -> None:
    encoder = encoder_of(name)
    now, later = to_target(encoder, drafted, committed), to_target(encoder, drafted + more, committed)
    assert now.ids[: now.stable] == later.ids[: now.stable]
    if all(encoder.table.byte_ids[byte] >= 0 for byte in drafted):
        assert encoder.table.join(now.ids) + now.pending == drafted
    assert (now.ends[-1] if now.ends else 0) + len(now.pending) == len(drafted)


def test_committed_tokens_are_pinned() -> None:
    encoder = encoder_of("toy-llama3")
    assert to_target(encoder, b"king home", b"we've been wal").ids == encoder.encode(b"king home").ids
    whole = encoder.encode(b"we've been walking").ids
    assert encoder.table.bytes_of(whole[-1]) == b" walking"
    assert to_target(encoder, b"", b"abc") == ((), (), 0, b"")


def _perfect(draft: PlainEncoder, target: PlainEncoder, data: bytes, rng: random.Random) -> tuple[int, int]:
    """Accepted and possible tokens when the drafter knows the text and the target follows its own tokens."""
    truth, ends, _ = target.encode(data)
    context = DraftContext(draft)
    at = done = accepted = possible = 0
    while at < len(truth):
        known = context.committed_bytes
        assert known == data[:done]
        start = done - len(context.pending)
        context.extend(draft.encode(data[start : done + rng.randint(4, 48)]).ids)
        drafted = context.drafted
        assert data.startswith(drafted, done)
        ids, _, stable, _ = to_target(target, drafted, known)
        inside = sum(1 for end in ends[at:] if end <= done + len(drafted))
        # The last one could go on in text that was not drafted.
        good = common(list(ids), list(truth[at:]))
        assert good >= stable
        possible += max(0, inside - 1)
        accepted += min(good, max(0, inside - 1))
        step = min(good + 1, len(truth) - at)  # the target adds one of its own
        at += step
        context.sync(data[done : ends[at - 1]])
        done = ends[at - 1]
    return accepted, possible


@pytest.mark.parametrize("draft", EXACT)
@pytest.mark.parametrize("target", EXACT)
def test_a_perfect_drafter_is_accepted(draft: str, target: str) -> None:
    rng = random.Random(draft + target)
    total = most = 0
    for label, text in rng.sample(sorted(TEXTS.items()), 4):
        accepted, possible = _perfect(encoder_of(draft), encoder_of(target), text.encode(), rng)
        # Where a draft ends inside a run ("aaaa"), more than its last token may be cut otherwise.
        assert possible - accepted <= max(4, 0.01 * possible), (label, accepted, possible)
        total += accepted
        most += possible
    assert most - total <= max(4, 0.01 * most)


@pytest.mark.parametrize("target", EXACT)
def test_the_context_follows_a_target_that_cuts_words_oddly(target: str) -> None:
    other, table, rng = encoder_of("toy-unigram"), encoder_of(target).table, random.Random(target)
    drafter = other if target != "toy-unigram" else encoder_of("toy-llama3")
    for label, data in TEXTS.items():
        context = DraftContext(drafter)
        done = b""
        for token in _odd(encoder_of(target), data.encode(), rng):
            piece = table.bytes_of(token) or b""
            context.extend(drafter.encode(piece).ids[: rng.randint(0, 2)])
            context.sync(piece)
            done += piece
            assert covered(context) == context.committed_bytes == done
        assert drafter.table.join(context.tokens) == done == data.encode(), label


def _odd(encoder: PlainEncoder, data: bytes, rng: random.Random) -> list[int]:
    """Tokens that write the data, many of them cut into smaller ones."""
    result: list[int] = []
    for token in encoder.encode(data).ids:
        piece = encoder.table.bytes_of(token) or b""
        cut = rng.randint(0, len(piece))
        halves = [encoder.table.ids.get(part) for part in (piece[:cut], piece[cut:])]
        result += [half for half in halves if half is not None] if None not in halves else [token]
    return result
