"""llama.cpp as a contender: a process of another Python environment that decodes on request and sleeps in between.

Its time is taken where it runs, from before the prompt is read until the last token is there, so that sending token ids
to and fro costs it nothing. Before and after each of its runs there is a short pause, untimed: the threads of either
engine wait for more work for a few milliseconds before they sleep, and would take the other's processor meanwhile.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self, cast

import numpy as np
import torch
from transformers import PreTrainedModel

from anydraft.bench.measure import Run, Task

WORKER = Path(__file__).with_name("llamacpp_worker.py")
PAUSE = 0.05  # seconds for threads to fall asleep
TRIALS = 3


class LlamaCpp:
    """A GGUF model in a process of its own; use it as a context manager.

    Attributes:
        about: what the process says of itself: versions, system info.
    """

    def __init__(self, python: str, model: Path, *, threads: int, context: int, repack: bool = True) -> None:
        """Start the process and wait until the model is there.

        Args:
            python: the interpreter of an environment with llama-cpp-python.
            context: tokens, prompt and answer together.
            repack: let llama.cpp lay out weights for this processor; bfloat16 ones have no such layout.

        Raises:
            ValueError: it could not start; says why.
        """
        command = [python, "-I", str(WORKER), str(model), "--threads", str(threads), "--context", str(context)]
        command += [] if repack else ["--no-repack"]
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (see close)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for this process, which then ends that one
            )
        except OSError as error:
            self._errors.close()
            raise ValueError(f"cannot run {python!r}: {error}; give a Python that has llama-cpp-python") from error
        self._requests = cast(IO[str], self._process.stdin)
        self._answers = cast(IO[str], self._process.stdout)
        try:
            self.about = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request, wait for its answer; ValueError with the process's own words where it fails."""
        with contextlib.suppress(BrokenPipeError):  # the answer's absence says why
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            words = self._errors.read().strip()[-2000:] or "it said nothing"
            raise ValueError(f"the llama.cpp process ended ({self._process.returncode}): {words}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(f"llama.cpp: {answer['error']}")
        return answer

    def logits(self, ids: Sequence[int], *, flash: bool = False) -> torch.Tensor:
        """Logits after every token, float32 (tokens, vocabulary)."""
        found = base64.b64decode(self.ask(ids=list(ids), logits=True, flash=flash)["logits"])
        return torch.from_numpy(np.frombuffer(found, dtype="<f4").reshape(len(ids), -1).copy())

    def idle_load(self, ids: Sequence[int], seconds: float = 0.5) -> float:
        """Processors that its threads keep busy once an answer is given and the pause is over; 0 is well-behaved."""
        self.ask(ids=list(ids), n=4)
        time.sleep(PAUSE)
        before = self.ask(cpu=True)["cpu_seconds"]
        time.sleep(seconds)
        return float(self.ask(cpu=True)["cpu_seconds"] - before) / seconds

    def flash_trials(self, ids: Sequence[int], n: int, trials: int = TRIALS) -> dict[bool, float]:
        """Seconds of the quickest of some runs with flash attention and without, in turn, after one that warms up."""
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(1 + trials):
            for flash, taken in seconds.items():
                time.sleep(PAUSE)
                taken.append(self.ask(ids=list(ids), n=n, flash=flash)["seconds"])
        return {flash: min(taken[1:]) for flash, taken in seconds.items()}

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LlamaCppContender:
    """Plain decoding by llama.cpp; sampling is by temperature alone, with its own random numbers."""

    def __init__(self, name: str, engine: LlamaCpp, *, flash: bool) -> None:
        self.name = name
        self.engine = engine
        self.flash = flash

    def prepare(self, temperature: float) -> None:
        """Nothing: every request says all."""

    def run(self, prompt: Sequence[int], task: Task) -> Run:
        """Decode once, with a pause before and after."""
        time.sleep(PAUSE)
        answer = self.engine.ask(
            ids=list(prompt), n=task.max_new_tokens, temperature=task.temperature, seed=task.seed, flash=self.flash
        )
        time.sleep(PAUSE)
        tokens = answer["tokens"]
        first = answer["seconds_first_token"]
        return Run(
            tokens=tokens,
            seconds=answer["seconds"],
            passes=len(tokens),
            seconds_first_token=first,
            seconds_prefill=first,
            seconds_verify=answer["seconds"] - first,
        )


@torch.inference_mode()
def agreement(
    scores: dict[str, list[torch.Tensor]], model: PreTrainedModel, prompts: Sequence[Sequence[int]]
) -> dict[str, dict[str, float]]:
    """How near each engine's logits are to those of a reference model on the same prompts.

    Args:
        scores: by engine, logits (tokens, vocabulary) of each prompt.
        model: the reference, best in float32.

    Returns:
        By engine: `positions`, `same_choice` (share of them where the likeliest token is the reference's), `mean` and
        `largest` difference of log probabilities (mean weighted by the reference's probabilities), in nats.
    """
    references = [
        model(torch.tensor([list(prompt)], device=model.device)).logits[0].float().cpu() for prompt in prompts
    ]
    truth = torch.cat(references).log_softmax(-1)
    found = {}
    for name, parts in scores.items():
        mine = torch.cat([part.float().cpu() for part in parts]).log_softmax(-1)
        apart = (mine - truth).abs()
        likely = truth.exp() > 1e-4  # the tail of a distribution is noise in bfloat16
        found[name] = {
            "positions": float(len(truth)),
            "same_choice": float((mine.argmax(-1) == truth.argmax(-1)).double().mean()),
            "mean": float((apart * truth.exp()).sum(-1).mean()),
            "largest": float(apart[likely].max()),
        }
    return found
