"""One thread and no network: the suite runs anywhere, and two runs agree."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import settings
from transformers.generation import GenerationMixin  # noqa: F401
from transformers.utils import logging

torch.set_num_threads(1)
logging.set_verbosity_error()
settings.register_profile("anydraft", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("anydraft")

# What the libraries made on import is there to stay: without this the collector walks over all of it again and again,
# which takes a fifth of the time of tests that make many small objects.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Commands and benchmarks set the threads of their process, which here is that of the tests after them."""
    yield
    torch.set_num_threads(1)
