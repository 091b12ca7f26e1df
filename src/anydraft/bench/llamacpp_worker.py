"""Answers for llama.cpp: a process of an environment of its own that holds a GGUF model and decodes on request.

    python -I llamacpp_worker.py MODEL.gguf --threads 2 --context 1024

Needs llama-cpp-python and nothing else, of this package neither. A request is a line of JSON on the standard input, an
answer one on the standard output; the first answer, unasked, says what runs here.

    {"ids": [...], "n": 64}        -> {"tokens": [...], "seconds": ..., "seconds_first_token": ...}
    {"ids": [...], "logits": true} -> {"logits": base64 of float32 (len(ids), vocabulary)}
    {"cpu": true}                  -> {"cpu_seconds": ...} of all threads so far

`temperature` (0: the likeliest token), `seed` and `flash` (attention) may be added. Seconds are of wall time from
before the prompt is read until the last token is there; llama.cpp's C interface is called directly, because the Python
class above it copies scores at every token.
"""

import argparse
import base64
import ctypes
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import llama_cpp as api  # type: ignore[import-not-found,unused-ignore]

ERROR = 4  # ggml's log level


class Engine:
    """A model and two contexts for it, with flash attention and without."""

    def __init__(self, path: str, threads: int, context: int, repack: bool) -> None:
        api.llama_backend_init()
        options = api.llama_model_default_params()
        options.use_extra_bufts = repack
        self.model = api.llama_model_load_from_file(path.encode(), options)
        if not self.model:
            raise SystemExit(f"llama.cpp could not load {path}")
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.contexts = {flash: self._context(threads, context, flash) for flash in (False, True)}

    def _context(self, threads: int, context: int, flash: bool) -> Any:
        options = api.llama_context_default_params()
        options.n_ctx = options.n_batch = context
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        made = api.llama_init_from_model(self.model, options)
        if not made:
            raise SystemExit(f"llama.cpp could not make a context of {context} tokens")
        return made

    def decode(self, ids: Sequence[int], n: int, temperature: float, seed: int, flash: bool) -> dict[str, Any]:
        """The next `n` tokens; nothing ends them earlier."""
        context = self.contexts[flash]
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        if temperature > 0:
            api.llama_sampler_chain_add(chain, api.llama_sampler_init_temp(temperature))
            api.llama_sampler_chain_add(chain, api.llama_sampler_init_dist(seed))
        else:
            api.llama_sampler_chain_add(chain, api.llama_sampler_init_greedy())
        prompt = (api.llama_token * len(ids))(*ids)
        last = (api.llama_token * 1)()
        one = api.llama_batch_get_one(last, 1)
        start = time.perf_counter()
        api.llama_memory_clear(api.llama_get_memory(context), False)
        self._pass(context, api.llama_batch_get_one(prompt, len(ids)))
        tokens = [api.llama_sampler_sample(chain, context, -1)]
        first = time.perf_counter()
        while len(tokens) < n:
            last[0] = tokens[-1]
            self._pass(context, one)
            tokens.append(api.llama_sampler_sample(chain, context, -1))
        seconds = time.perf_counter() - start
        api.llama_sampler_free(chain)
        return {"tokens": tokens, "seconds": seconds, "seconds_first_token": first - start}

    def logits(self, ids: Sequence[int], flash: bool) -> dict[str, Any]:
        """The logits after every token."""
        context = self.contexts[flash]
        batch = api.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for place, token in enumerate(ids):
            batch.token[place] = token
            batch.pos[place] = place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = True
        api.llama_memory_clear(api.llama_get_memory(context), False)
        self._pass(context, batch)
        found = ctypes.string_at(api.llama_get_logits(context), 4 * len(ids) * self.vocabulary)
        api.llama_batch_free(batch)
        return {"logits": base64.b64encode(found).decode()}

    def _pass(self, context: Any, batch: Any) -> None:
        status = api.llama_decode(context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")


def described() -> dict[str, Any]:
    """Versions, and which instructions llama.cpp was built to use here."""
    library = getattr(api.llama_cpp, "_lib", None)
    about: dict[str, Any] = {"llama_cpp_python": api.__version__, "python": sys.version.split()[0]}
    for name in ("ggml_version", "ggml_commit"):
        function = getattr(library, name, None)
        if function is not None:
            function.restype = ctypes.c_char_p
            about[name] = function().decode()
    return about | {"system_info": api.llama_print_system_info().decode().strip()}


def _log(level: int, text: bytes, _: Any) -> None:
    if level == ERROR:
        sys.stderr.write(text.decode("utf-8", "replace"))


def main() -> None:
    """Load, say what runs here, answer until the input ends."""
    parser = argparse.ArgumentParser(description="llama.cpp on token ids, by lines of JSON")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--no-repack", dest="repack", action="store_false")
    given = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed here is no answer

    callback = api.llama_log_callback(_log)  # must outlive the calls
    api.llama_log_set(callback, ctypes.c_void_p(0))
    engine = Engine(given.model, given.threads, given.context, given.repack)

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    answer(described() | {"vocabulary": engine.vocabulary})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request.get("cpu"):
                answer({"cpu_seconds": time.process_time()})
                continue
            flash = bool(request.get("flash", False))
            if len(request["ids"]) + request.get("n", 0) > given.context:
                raise ValueError(f"more than the context of {given.context} tokens was asked for")
            if request.get("logits"):
                answer(engine.logits(request["ids"], flash))
            else:
                temperature, seed = float(request.get("temperature", 0)), int(request.get("seed", 0))
                answer(engine.decode(request["ids"], request["n"], temperature, seed, flash))
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
