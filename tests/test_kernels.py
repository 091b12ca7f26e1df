"""Products of a few rows by a kernel of our own: the same as a plain loop's, and built with what a machine has."""

from __future__ import annotations

import ctypes
import logging
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from anydraft import layout, onednn, packing
from anydraft.kernels import build, openmp, streamed
from anydraft.kernels.streamed import FLAGS, Kernel, Streamed, few_rows

needs_kernel = pytest.mark.skipif(few_rows() is None, reason="no kernel here: other CPU, or no C compiler")
needs_onednn = pytest.mark.skipif(onednn.missing() is not None, reason=str(onednn.missing()))
SOURCE = Path(streamed.__file__).with_name("few_rows.c")


def kernel() -> Kernel:
    found = few_rows()
    assert found is not None
    return found


def as_torch(weight: torch.Tensor) -> Streamed:
    """The weight for the kernel, where torch adds up in a way that is known."""
    laid = streamed.streamed(weight)
    if laid is None:
        pytest.skip("torch adds up otherwise here")
    return laid


def looped(weight: torch.Tensor, rows: torch.Tensor, bias: torch.Tensor | None, chunk: int) -> torch.Tensor:
    """The product number by number, as the instruction for pairs adds up: the second of a pair first, no digit lost.

    A product of two bfloat16 and a float32 are exact in float64, which is rounded to float32 after each addition.
    """
    w, x = weight.double().numpy(), rows.double().numpy()
    total = np.zeros((len(x), len(w)), np.float32)
    for start in range(0, w.shape[1], chunk):
        part = np.zeros_like(total)
        for k in range(start, min(start + chunk, w.shape[1]), 2):
            for place in (k + 1, k):
                part = (part + x[:, None, place] * w[None, :, place]).astype(np.float32)
        total = total + part if start else part
    if bias is not None:
        total = total + bias.float().numpy()
    return torch.from_numpy(total).bfloat16()


@needs_kernel
@settings(max_examples=60, deadline=None)
@given(
    outs=st.integers(1, 100),
    pairs=st.integers(1, 40),
    count=st.integers(1, 60),
    chunk=st.sampled_from([2, 8, 26, 64]),
    bias=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_as_a_plain_loop(outs: int, pairs: int, count: int, chunk: int, bias: bool, threads: int, seed: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    weight, rows = (torch.randn(n, 2 * pairs, generator=numbers).bfloat16() for n in (outs, count))
    # What takes the first row's product away again leaves the digits of the sum that had been rounded away.
    added = -looped(weight, rows[:1], None, chunk)[0] if bias else None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        product = Streamed(weight, kernel(), alone=chunk, among=chunk)(rows, added)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(product, looped(weight, rows, added, chunk))


@needs_kernel
def test_one_row_may_be_added_up_otherwise() -> None:
    weight, row = torch.randn(400, 64).bfloat16(), torch.randn(1, 64).bfloat16()
    opposite = -looped(weight, row, None, 64)[0]
    laid = Streamed(weight, kernel(), alone=8, among=64)
    alone, among = laid(row, opposite), laid(row.expand(2, -1).contiguous(), opposite)
    assert torch.equal(alone, looped(weight, row, opposite, 8))
    assert torch.equal(among[:1], looped(weight, row, opposite, 64))
    assert not torch.equal(alone, among[:1])


@needs_kernel
@pytest.mark.parametrize("shape", [(512, 1536), (1536, 4096), (1000, 768), (40, 5000), (64, 2048)])
@pytest.mark.parametrize("biased", [True, False])
def test_as_torch_at_any_number_of_rows(shape: tuple[int, int], biased: bool) -> None:
    weight, bias = torch.randn(shape).bfloat16(), torch.randn(shape[0]).bfloat16() if biased else None
    laid = as_torch(weight)
    rows = torch.randn(140, shape[1]).bfloat16()
    for count in (*range(1, 20), 31, 32, 33, 48, 49, 100, 140):
        assert torch.equal(laid(rows[:count], bias), F.linear(rows[:count], weight, bias)), count


@needs_kernel
def test_views_of_any_kind() -> None:
    weight = torch.randn(96, 2048).bfloat16()  # rows of this length are spread before they are multiplied
    laid = as_torch(weight)
    states = torch.randn(9, 3, 4096).bfloat16()
    for view in (
        states[..., :2048], states[:, 1, ::2], states[..., 1:2049], states[:1, :1, 5:2053],
        torch.randn(2048, 5).bfloat16().T, states[0, 0, :2048],
    ):  # fmt: skip
        assert torch.equal(laid(view), F.linear(view, weight)), (view.shape, view.stride())
    assert laid(states[:0, :, :2048]).shape == (0, 3, 96)


@needs_kernel
def test_the_weight_can_be_had() -> None:
    for outs in (32, 33, 63, 95):
        weight = torch.randn(outs, 130).bfloat16()
        laid = Streamed(weight, kernel(), alone=130, among=130)
        assert torch.equal(laid.dense(), weight)
        assert laid.dense().is_contiguous()
        assert laid.nbytes == 2 * 130 * 32 * -(-outs // 32)


@needs_kernel
def test_special_numbers_pass() -> None:
    weight, rows = torch.ones(40, 8).bfloat16(), torch.ones(3, 8).bfloat16()
    rows[0, 0], rows[1, 3] = float("inf"), float("nan")
    product = Streamed(weight, kernel(), alone=8, among=8)(rows)
    assert product[0].isposinf().all()
    assert product[1].isnan().all()
    assert (product[2] == 8).all()


@needs_kernel
def test_from_several_threads() -> None:
    weight, rows = torch.randn(256, 512).bfloat16(), torch.randn(6, 512).bfloat16()
    laid = as_torch(weight)
    expected, wrong = laid(rows), []
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def work() -> None:
        torch.set_num_threads(2)  # each has a team of its own
        wrong.extend(index for index in range(200) if not torch.equal(laid(rows), expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.set_num_threads(before)
    assert not wrong


@needs_kernel
def test_sums_that_are_not_those_of_torch_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(96, 300).bfloat16()
    genuine = Streamed.__call__
    monkeypatch.setattr(
        Streamed, "__call__", lambda self, rows, bias=None: genuine(self, rows, bias) + (len(rows) == 24) * 1e-3
    )
    streamed._chunks.cache_clear()
    try:
        assert streamed.streamed(weight) is None
        assert type(layout.laid_out(weight)) is onednn.LaidOut
    finally:
        streamed._chunks.cache_clear()


@needs_kernel
def test_a_layer_of_other_results_goes_to_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(300, 96, bias=False)).bfloat16().eval()
    monkeypatch.setattr(packing, "helps", lambda layers, laid, always: type(laid) is not Streamed)
    assert packing.pack(model) == 1
    assert type(model[0].laid) is onednn.LaidOut
    packing.unpack(model)
    monkeypatch.setattr(packing, "helps", lambda layers, laid, always: False)
    assert packing.pack(model) == 0


@needs_kernel
def test_what_does_not_fit_is_refused() -> None:
    laid = Streamed(torch.randn(64, 10).bfloat16(), kernel())
    rows = torch.randn(3, 10).bfloat16()
    for wrong in (torch.randn(3, 20).bfloat16(), torch.randn(4, 5).bfloat16(), rows.float(), rows.to("meta")):
        with pytest.raises(RuntimeError, match="64 x 10 in bfloat16 on the CPU cannot be multiplied with"):
            laid(wrong)
    for bias in (torch.zeros(64), torch.zeros(63).bfloat16(), torch.zeros(64, 1).bfloat16()):
        with pytest.raises(RuntimeError, match="has no bias of"):
            laid(rows, bias)


@needs_kernel
def test_under_another_default_device() -> None:
    streamed._chunks.cache_clear()
    weight, rows = torch.randn(96, 310).bfloat16(), torch.randn(3, 310).bfloat16()
    with torch.device("meta"):
        laid = layout.laid_out(weight)
        assert laid is not None
        product = laid(rows)
    assert torch.equal(product, F.linear(rows, weight))


@needs_kernel
def test_traced_models_multiply_plainly() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(128, 96)).bfloat16().eval()
    assert packing.pack(model) == 1
    rows, others = torch.randn(3, 128).bfloat16(), torch.randn(3, 128).bfloat16()
    with torch.no_grad():  # with gradients it would multiply plainly anyway
        traced = torch.jit.trace(model, rows, check_trace=False)
        assert torch.equal(traced(others), model(others))


@needs_onednn
def test_without_the_kernel_weights_are_laid_out_for_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "few_rows", lambda: None)
    weight, rows = torch.randn(96, 300).bfloat16(), torch.randn(5, 300).bfloat16()
    laid = layout.laid_out(weight)
    assert type(laid) is onednn.LaidOut
    assert torch.equal(laid(rows), F.linear(rows, weight))


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in place of the compiler: it counts its calls and hands them on."""
    monkeypatch.delenv("CC", raising=False)
    try:
        real = build._compiler()[0]
    except build.CannotBuild as reason:
        pytest.skip(str(reason))
    script = tmp_path / "counting cc"
    script.write_text(f'#!/bin/sh\necho call >> "{tmp_path}/calls"\nexec {real} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", f"'{script}' -DNOTHING=1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return script


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "seven.c"
    path.write_text("int seven(void) { return 7; }\n")
    return path


SHARED = ("-shared", "-fPIC")


def calls(compiler: Path) -> int:
    return len((compiler.parent / "calls").read_text().splitlines())


def test_it_is_built_once_and_anew_for_another_source(compiler: Path, source: Path) -> None:
    assert build.built(source, SHARED).seven() == 7
    assert build.built(source, SHARED).seven() == 7
    assert calls(compiler) == 1
    kept = list(build.cache_folder().iterdir())
    assert [path.suffix for path in kept] == [".so"]
    assert build.cache_folder().is_relative_to(compiler.parent / "cache")
    assert not stat.S_IMODE(build.cache_folder().stat().st_mode) & 0o077
    source.write_text("int seven(void) { return 8; }\n")
    assert build.built(source, SHARED).seven() == 8
    build.built(source, (*SHARED, "-O1"))
    assert calls(compiler) == 3


def test_what_is_broken_in_the_cache_is_built_anew(compiler: Path, source: Path) -> None:
    build.cache_folder().mkdir(parents=True)
    build.built(source, SHARED)
    (kept,) = build.cache_folder().iterdir()
    other = source.with_name("copy.c")
    other.write_bytes(source.read_bytes())
    (build.cache_folder() / kept.name.replace("seven", "copy")).write_bytes(b"half a file")
    assert build.built(other, SHARED).seven() == 7
    assert calls(compiler) == 2


def test_a_compiler_that_fails_or_is_not_there_says_so(
    compiler: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.write_text("int seven(void) { return nothing_known; }\n")
    with pytest.raises(build.CannotBuild, match=r"failed: .*seven"):
        build.built(source, SHARED)
    assert list(build.cache_folder().iterdir()) == []
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(build.CannotBuild, match="CC='no-such-compiler' is not a program; install one"):
        build.built(source, SHARED)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(source.parent))
    with pytest.raises(build.CannotBuild, match=r"no C compiler \(cc, gcc, clang\)"):
        build.built(source, SHARED)


def test_a_compiler_that_hangs_is_given_up(compiler: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(build, "SECONDS", 0.2)
    with pytest.raises(build.CannotBuild, match="took more than"):
        build.built(source, SHARED)


def test_nothing_is_loaded_from_where_others_write(compiler: Path, source: Path) -> None:
    build.built(source, SHARED)
    for place in (build.cache_folder(), build.cache_folder().parent):
        place.chmod(0o777)
        with pytest.raises(build.CannotBuild, match=r"others may write into .*XDG_CACHE_HOME"):
            build.built(source, SHARED)
        place.chmod(0o700)
    assert build.built(source, SHARED).seven() == 7


def test_odd_surroundings_say_so(compiler: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/folder")
    assert build.cache_folder() == Path.home() / ".cache" / "anydraft" / "kernels"
    with pytest.raises(build.CannotBuild, match=r"nothing\.c"):
        build.built(source.with_name("nothing.c"), SHARED)
    monkeypatch.setenv("CC", "cc 'half a quote")
    with pytest.raises(build.CannotBuild, match="quotation"):
        build.built(source, SHARED)
    compiler.write_text("#!/bin/sh\nprintf '\\377 odd' >&2\nexit 3\n")
    monkeypatch.setenv("CC", f"'{compiler}'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(source.parent / "cache"))
    with pytest.raises(build.CannotBuild, match=r"failed: .* odd"):
        build.built(source, SHARED)


def test_another_processor_has_its_own(compiler: Path, source: Path) -> None:
    for processor in ("avx512", "avx512 more", "avx512"):
        build.built(source, SHARED, processor)
    assert calls(compiler) == 2


def test_a_cache_that_cannot_be_written_says_so(
    compiler: Path, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    with pytest.raises(build.CannotBuild, match="taken"):
        build.built(source, SHARED)


def test_why_there_is_no_kernel_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "anydraft.kernels.streamed")

    def without(reason: str) -> None:
        few_rows.cache_clear()
        assert few_rows() is None
        assert reason in caplog.messages[-1]

    try:
        monkeypatch.setattr(streamed, "of_torch", lambda: openmp.OpenMP(1, 2, 3))
        for flags in (set(), streamed.NEEDED - {"avx512_bf16"}, streamed.NEEDED | {"amx_bf16"}):
            monkeypatch.setattr(streamed, "_processor", lambda flags=flags: flags)
            without("need no other")
        monkeypatch.setattr(streamed, "_processor", lambda: streamed.NEEDED | {"sse2"})

        def fails(source: Path, flags: tuple[str, ...], processor: str) -> ctypes.CDLL:
            raise build.CannotBuild("there is no C compiler")

        monkeypatch.setattr(streamed, "built", fails)
        without("there is no C compiler")
        monkeypatch.setattr(streamed, "of_torch", lambda: None)
        without("torch's OpenMP")
    finally:
        monkeypatch.undo()
        few_rows.cache_clear()


def test_the_openmp_is_the_one_of_torch() -> None:
    found = openmp.of_torch()
    if found is None:
        pytest.skip("torch runs its threads otherwise here")
    assert all(found)
    threads = ctypes.CFUNCTYPE(ctypes.c_int)(found.threads)
    assert threads() == 1  # outside of a parallel part


def test_the_source_compiles_without_warnings(compiler: Path, tmp_path: Path) -> None:
    if not streamed._processor() >= streamed.NEEDED:
        pytest.skip("for another processor")
    strict = ("-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "kernel.so"))
    build._compile([*build._compiler(), *FLAGS, *strict, str(SOURCE)])
