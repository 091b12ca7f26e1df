"""A benchmark's summary with everything that can happen to a contender: made up, and the same on every call."""

import random
from typing import Any

NASTY = "</script><script>window.hacked = 1</script>\x00\x1b[31m \u202eabc <b>&amp;\ud800"
CODE = '''    """Return the n-th Fibonacci number."""
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def main() -> None:
    for n in range(10):
        print(f"{n}: {fibonacci(n)}")


if __name__ == "__main__":
    main()
'''

CONTENDERS = (  # name, engine, speedup, tau, proposers
    ("anydraft", "anydraft", None, 1.0),
    ("anydraft-lookup", "anydraft", 1.04, 1.21),
    ("anydraft-uag pycode-2m", "anydraft", 1.62, 2.31),
    ("anydraft-redrafter", "anydraft", 2.14, 2.87),
    ("anydraft-lookup+redrafter", "anydraft", 2.41, 3.02),
    ("anydraft-medusa", "anydraft", 0.83, 1.32),
    ("transformers", "transformers", None, 1.0),
    ("transformers-assisted", "transformers", 1.18, 2.02),
)


def interval(value: float, spread: float) -> dict[str, float]:
    return {"value": value, "low": value * (1 - spread), "high": value * (1 + spread)}


def row(name: str, engine: str, speedup: float | None, tau: float, temperature: float, batch: int) -> dict[str, Any]:
    gain = (speedup or 1.0) * (1 - 0.12 * temperature) * (1 - 0.03 * batch) if speedup else 1.0
    speed = (212.0 if engine == "anydraft" else 131.0) * gain * batch**0.7
    drafts = speedup is not None and engine == "anydraft"
    shares = {"prefill": 0.03, "draft": 0.22, "convert": 0.05 * ("uag" in name), "target": 0.6, "verify": 0.04}
    if not drafts:
        shares = {"prefill": 0.03, "draft": 0.0, "convert": 0.0, "target": 0.9, "verify": 0.02}
    shares["other"] = 1 - sum(shares.values())
    if engine == "transformers":
        shares = {"prefill": 0.05, "other": 0.95}
    return {
        "contender": name,
        "engine": engine,
        "temperature": temperature,
        "batch": batch,
        "prompts": 12,
        "errors": [],
        "failures": [],
        "tokens_per_second": interval(speed, 0.05),
        "speedup": interval(gain, 0.08) if speedup else None,
        "speedup_transformers": interval(speed / (131.0 * batch**0.7), 0.06) if name != "transformers" else None,
        "tau": interval(tau, 0.06),
        "cost": interval(tau / gain, 0.04) if speedup else None,
        "acceptance": [0.72 * tau / 3 * 0.78**depth for depth in range(8)] if drafts else [],
        "reached": [int(900 * 0.62**depth) for depth in range(8)] if drafts else [],
        "seconds_per_token": {part: share / speed for part, share in shares.items()},
        "acceptance_rate": 0.41 if drafts else None,
        "first_token": 0.031,
        "peak_memory": 734_003_200 if engine == "anydraft" else None,
        "equal": [12, 12] if drafts else None,
        "first_difference": None,
    }


def failed(temperature: float, batch: int) -> dict[str, Any]:
    return {
        "contender": "anydraft-eagle",
        "engine": "anydraft",
        "temperature": temperature,
        "batch": batch,
        "prompts": 0,
        "errors": [f"BrokenCheckpoint: my-eagle/model.safetensors holds no tensor 'fc.weight' {NASTY}"],
        "failures": [],
        "tokens_per_second": None,
        "speedup": None,
        "speedup_transformers": None,
        "tau": None,
        "cost": None,
        "acceptance": [],
        "reached": [],
        "seconds_per_token": {},
        "first_token": None,
        "peak_memory": None,
        "equal": None,
        "first_difference": None,
    }


def example(contender: str, temperature: float, proposers: tuple[str, ...]) -> dict[str, Any]:
    draw = random.Random(f"{contender} {temperature}")
    words = [CODE[start : start + 3] for start in range(0, len(CODE), 3)]
    steps: list[dict[str, Any]] = []
    while words:
        count = draw.choice((0, 1, 2, 4, 6))
        by = draw.choice(proposers)
        pieces = [{"text": words.pop(0), "proposer": by} for _ in range(min(count, len(words)))]
        if words:
            pieces.append({"text": words.pop(0), "proposer": "target"})
        steps.append({"pieces": pieces, "rejected": ["return", " n", "\n", "\t"] if draw.random() < 0.4 else []})
    return {
        "contender": contender,
        "temperature": temperature,
        "prompt": "def fibonacci(n: int) -> int:\n",
        "steps": steps,
    }


def summary() -> dict[str, Any]:
    places = [(temperature, batch) for temperature in (0.0, 1.0) for batch in (1, 4)]
    rows = [row(*contender, *place) for place in places for contender in CONTENDERS]
    rows += [failed(*place) for place in places]
    medusa = next(one for one in rows if one["contender"] == "anydraft-medusa")
    medusa["equal"] = [11, 12]
    medusa["first_difference"] = {
        "prompt_id": "HumanEval/7",
        "row": 0,
        "text": "from typing import List",
        "position": 41,
        "plain": 17,
        "drafted": 23,
        "plain_text": " for",
        "drafted_text": "\n",
        "margin": {"best": 17, "second": 23, "gap": 0.0004},
    }
    medusa["failures"] = ["HumanEval/3: RuntimeError: nan in scores; plain decoding went on"]
    return {
        "title": "Drafters for pycode-12m on HumanEval",
        "provenance": {
            "command": "anydraft bench target --drafter lookup --drafter pycode-2m --prompts humaneval --temperature 0",
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "date": "2026-11-22T10:00:00+00:00",
            "versions": {"anydraft": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.3.1"},
            "cpu": "Intel(R) Xeon(R) Processor",
            "threads": 2,
            "cores": 2,
            "dtype": "bfloat16",
            "seed": 0,
            "load_average": 0.31,
            "accelerator": None,
        },
        "measured": [432, 432],
        "memory": "weights of target and drafter, and the tensors of a run at their highest",
        "rows": rows,
        "examples": [
            example("anydraft-redrafter", 0.0, ("redrafter",)),
            example("anydraft-redrafter", 1.0, ("redrafter",)),
            example("anydraft-uag pycode-2m", 0.0, ("universal",)),
            example("anydraft-lookup+redrafter", 0.0, ("lookup", "redrafter")),
        ],
    }
