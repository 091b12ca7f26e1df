"""What the training loop reads: random windows of the raw corpus, and the target's own texts from their beginning.

A window of a text of the target's starts where the text does, as a request does, and goes on into the next texts. The
loss counts a prompt's tokens less than the target's own (`PROMPT_WEIGHT`): a drafter is asked for the latter.
"""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

PROMPT_WEIGHT = 0.25


class RawWindows:
    """Random windows of one long row of token ids."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids

    def draw(self, rng: np.random.Generator, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and weights, both (rows, length)."""
        if len(self.ids) <= length:
            raise ValueError(f"the corpus has {len(self.ids)} tokens, too few for windows of {length}")
        starts = rng.integers(0, len(self.ids) - length, rows)
        ids = self.ids[starts[:, None] + np.arange(length)]
        return ids.astype(np.int64), np.ones(ids.shape, dtype=np.float32)


class OwnTexts:
    """The texts that `generate` wrote, in the assistant's tokens; new shards join at `refresh`."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.shards: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.ids = np.zeros(0, dtype=np.uint16)
        self.generated = np.zeros(0, dtype=bool)
        self.starts = np.zeros(0, dtype=np.int64)
        self.refresh()

    def refresh(self) -> None:
        """Read the shards that have come since."""
        paths = [path for path in sorted(self.folder.glob("shard-*.jsonl")) if path.name not in self.shards]
        for path in paths:
            self.shards[path.name] = encoded(path, self.tokenizer)
        if not paths:
            return
        parts = [self.shards[name] for name in sorted(self.shards)]
        self.ids = np.concatenate([ids for ids, _ in parts])
        self.generated = np.concatenate([generated for _, generated in parts])
        self.starts = np.flatnonzero(self.ids == self.tokenizer.token_to_id("<s>"))

    def draw(self, rng: np.random.Generator, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and weights, both (rows, length)."""
        starts = self.starts[self.starts + length <= len(self.ids)]
        if not len(starts):
            raise ValueError(f"no texts of the target's own in {self.folder}; run the `generate` command first")
        at = rng.choice(starts, rows)[:, None] + np.arange(length)
        weights = np.where(self.generated[at], 1.0, PROMPT_WEIGHT).astype(np.float32)
        return self.ids[at].astype(np.int64), weights


def encoded(path: Path, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """A shard in the assistant's ids, and which of them the target wrote; prompt and answer are encoded as one text.

    A prompt ends with a newline, which this tokenizer isolates, so that the boundary is the prompt's own length. The
    last token of a text that was cut short may be half of what the target would have written: it is left out.
    """
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    wholes = tokenizer.encode_batch_fast([record["text"] for record in records])
    prompts = tokenizer.encode_batch_fast([record["prompt"] for record in records])
    ids, generated = [], []
    for record, whole, prompt in zip(records, wholes, prompts, strict=True):
        row = [*whole.ids, tokenizer.token_to_id("</s>")] if record["ended"] else whole.ids[:-1]
        ids.append(np.array(row, dtype=np.uint16))
        generated.append(np.arange(len(row)) >= len(prompt.ids))
    return np.concatenate(ids), np.concatenate(generated)
