"""Shared noise: Gumbel variables that are a pure function of (seed, position, token).

Drawing from p is taking argmax(log p + g) with g i.i.d. Gumbel. With g fixed by (seed, position, token) the
target's choice depends on nothing a drafter did, so any draft is lossless by construction, and a drafter that
adds the *same* g to its own scores agrees with the target far more often than one that draws by itself
(drafter-invariant speculative decoding, arXiv 2408.07978).

Guarantees: the same numbers for one token as for the whole vocabulary, on every device up to the rounding of
`log`; position = index of the new token in its request, so batches and restarts do not matter.
The generator is a counter-based 32-bit integer hash (two rounds of the "lowbias32" mixer) that runs where the logits
are: in torch operations, and on a CPU in numpy's, which make the same integers in less time. It does *not* aim at
cryptographic quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

_MASK = 0xFFFFFFFF
_M1, _M2 = 0x7FEB352D, 0x846CA68B
_SPREAD = 0x9E3779B1
_ROUND = tuple((np.uint32(shift), np.uint32(factor)) for shift, factor in ((16, _M1), (15, _M2)))
_LAST, _POSITIVE = np.uint32(16), np.uint32(0x7FFFFFFF)  # scalars of numpy take a while to make
_BELOW_ONE = 1 - 2.0**-24


def _signed(word: int) -> int:
    word &= _MASK
    return word - (1 << 32) if word >= 1 << 31 else word


def mix64(*words: int) -> int:
    """Hash integers of any size into one 64-bit key (splitmix64 finaliser, order matters)."""
    state = 0x9E3779B97F4A7C15
    for word in words:
        while True:
            state = (state ^ (word & 0xFFFFFFFFFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
            state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
            state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
            state ^= state >> 31
            word = abs(word) >> 64
            if word == 0:
                break
    return state


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """Permute 32-bit words in place ("lowbias32"); `>>` is arithmetic on int32, hence the masks."""
    x ^= (x >> 16) & 0xFFFF
    x *= _M1
    x ^= (x >> 15) & 0x1FFFF
    x *= _signed(_M2)
    x ^= (x >> 16) & 0xFFFF
    return x


def _mixed_numpy(x: npt.NDArray[np.uint32], shifted: npt.NDArray[np.uint32]) -> None:
    """`_mixed` for unsigned words, whose shifts need no masks; `shifted` is room for as many."""
    for shift, factor in _ROUND:
        np.right_shift(x, shift, out=shifted)
        np.bitwise_xor(x, shifted, out=x)
        np.multiply(x, factor, out=x)
    np.right_shift(x, _LAST, out=shifted)
    np.bitwise_xor(x, shifted, out=x)


def _halves(keys: Sequence[int], dimensions: int) -> list[npt.NDArray[np.uint32]]:
    """The lower and upper 32 bits of keys, each (keys, 1, ...)."""
    found = [np.array([key >> shift & _MASK for key in keys], np.uint32) for shift in (0, 32)]
    return [half.reshape(-1, *[1] * dimensions) for half in found]


def words(keys: Sequence[int], index: torch.Tensor) -> npt.NDArray[np.int32]:
    """31 random bits for each key and entry of `index` (int32 on a CPU, any shape), (keys, *index.shape) int32."""
    low, high = _halves(keys, index.dim())
    x = index.numpy().view(np.uint32) * np.uint32(_SPREAD) ^ low
    shifted = np.empty_like(x)
    _mixed_numpy(x, shifted)
    np.bitwise_xor(x, high, out=x)
    _mixed_numpy(x, shifted)
    np.bitwise_and(x, _POSITIVE, out=x)
    return x.view(np.int32)


def words_torch(keys: Sequence[int], index: torch.Tensor) -> torch.Tensor:
    """`words` in torch operations, on any device."""
    low, high = (torch.from_numpy(half.view(np.int32)).to(index.device) for half in _halves(keys, index.dim()))
    x = index * _signed(_SPREAD) ^ low
    _mixed(x)
    x ^= high
    _mixed(x)
    x &= 0x7FFFFFFF
    return x


def uniform(keys: Sequence[int], index: torch.Tensor) -> torch.Tensor:
    """Uniform numbers in (0, 1) for each key and entry of `index` (int32, any shape), (keys, *index.shape) float32.

    31 random bits each; float32 keeps their relative precision near 0, which is where Gumbel maxima come from.
    """
    if index.device.type != "cpu":
        return uniform_torch(keys, index)
    u = words(keys, index).astype(np.float32)
    u += np.float32(0.5)
    u *= np.float32(2.0**-31)
    np.minimum(u, np.float32(_BELOW_ONE), out=u)
    return torch.from_numpy(u)


def uniform_torch(keys: Sequence[int], index: torch.Tensor) -> torch.Tensor:
    """`uniform` in torch operations, on any device."""
    return words_torch(keys, index).to(torch.float32).add_(0.5).mul_(2.0**-31).clamp_(max=_BELOW_ONE)


@lru_cache(maxsize=16)
def _arange(size: int, device: torch.device) -> torch.Tensor:
    return torch.arange(size, dtype=torch.int32, device=device)


class Noise:
    """The Gumbel noise of one sequence: `noise.at(position)` is a float32 vector over the target's vocabulary.

    Vectors of some positions in a row are made together, for between passes of a model the time goes into the number
    of operations. They are kept while the position is near (a draft and its verification use the same ones); memory is
    bounded by `KEEP` vectors.
    """

    KEEP = 96
    TOGETHER, NUMBERS = 8, 1 << 16
    """Most positions whose vectors are made together, and most numbers, if that is more than one vector."""

    def __init__(self, seed: int, vocab_size: int, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.vocab_size = vocab_size
        self.device = torch.device(device)
        self._together = max(1, min(self.TOGETHER, self.NUMBERS // vocab_size))
        self._blocks: dict[int, tuple[torch.Tensor, ...]] = {}

    def at(self, position: int) -> torch.Tensor:
        """Gumbel noise of all tokens at a position, (vocab,) float32 on the noise's device."""
        number, place = divmod(position, self._together)
        block = self._blocks.get(number)
        if block is None:
            while (len(self._blocks) + 1) * self._together > self.KEEP:
                del self._blocks[min(self._blocks)]
            first = number * self._together
            keys = [mix64(self.seed, each) for each in range(first, first + self._together)]
            block = self._blocks[number] = gumbel(keys, _arange(self.vocab_size, self.device)).unbind()
        return block[place]

    def own(self, position: int, size: int, stream: int = 1) -> torch.Tensor:
        """Noise for `size` tokens that have no counterpart in the target's vocabulary, (size,) float32."""
        return gumbel([mix64(self.seed, position, stream, 0x0D0)], _arange(size, self.device))[0]


def gumbel(keys: Sequence[int], index: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel variables for each key and entry of `index` (int32), (keys, *index.shape) float32.

    -log E with E = -log(1 - u) exponential.
    """
    return uniform(keys, index).neg_().log1p_().neg_().log_().neg_()
