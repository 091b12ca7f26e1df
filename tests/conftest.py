"""One thread and no network: the suite runs anywhere, and two runs agree."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from hypothesis import settings
from transformers.utils import logging

torch.set_num_threads(1)
logging.set_verbosity_error()
settings.register_profile("anydraft", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("anydraft")
