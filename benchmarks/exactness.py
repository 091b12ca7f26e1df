"""Whether the promise holds, counted, and what `exact=True` costs.

    python benchmarks/exactness.py --texts 50 --max-new-tokens 128

Each text is decoded four times at each temperature: plainly and with the assistant, with `exact=True` (one shape
for all passes) and with `exact=False`. A text counts as identical if the drafted tokens are those of plain decoding
*with the same setting*. The cost of exact shapes is plain decoding's time with them over plain decoding's time
without, text by text, the four runs next to each other.
"""

import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import anydraft
from anydraft import Decoder, Generation, models
from anydraft.bench.provenance import provenance
from anydraft.pacing import Steady

# Openings of Python files; combined with each other they give as many texts as are asked for.
IMPORTS = [
    "",
    "import os\nimport sys\n\n\n",
    "from __future__ import annotations\n\n",
    "import json\nfrom pathlib import Path\n\n\n",
    "# -*- coding: utf-8 -*-\n",
    "import numpy as np\n\n",
    "import unittest\n\n\n",
]
STARTS = [
    'def read_lines(path):\n    """Return the lines of a file."""\n',
    "class Stack:\n    def __init__(self):\n",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "for name in os.listdir(folder):\n    if name.endswith('.txt'):\n",
    "class Point:\n    x: float\n    y: float\n\n    def distance(self, other):\n",
    "def main(argv=None):\n    parser = argparse.ArgumentParser()\n",
    "def test_empty():\n    assert ",
    "try:\n    value = int(text)\nexcept ValueError:\n",
]


def main(
    target: Annotated[str, typer.Option(help="Folder or hub name; 'embedded' is the pair's own.")] = "embedded",
    assistant: Annotated[str, typer.Option(help="Folder or hub name, or 'embedded'.")] = "embedded",
    texts: Annotated[int, typer.Option(min=1, max=len(IMPORTS) * len(STARTS))] = 50,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 128,
    temperature: Annotated[list[float], typer.Option(help="May be repeated.")] = [0.0, 1.0],  # noqa: B006
    dtype: str = "bfloat16",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
) -> None:
    """Count identical texts and compare times."""
    torch.set_num_threads(threads)
    names = {
        "target": str(models.path("target")) if target == "embedded" else target,
        "assistant": str(models.path("assistant")) if assistant == "embedded" else assistant,
    }
    prompts = [head + start for start in STARTS for head in IMPORTS][:texts]
    decoders: dict[tuple[bool, bool], Decoder] = {}
    for exact in (True, False):
        for drafted in (False, True):
            decoders[exact, drafted] = anydraft.load(
                names["target"], assistant=names["assistant"] if drafted else None,
                drafter="auto" if drafted else None, dtype=dtype, exact=exact, pacing=Steady(),
            )  # fmt: skip
    for decoder in decoders.values():
        decoder.generate(prompts[0], max_new_tokens=8)
    report: dict[str, Any] = {
        "provenance": provenance(
            dtype=decoders[True, False].target.dtype, seed=seed, target=target, assistant=assistant, texts=len(prompts)
        ),
        "results": [measure(decoders, prompts, max_new_tokens, t, seed) for t in temperature],
    }
    for result in report["results"]:
        print(show(result))
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n")


def measure(
    decoders: dict[tuple[bool, bool], Decoder], prompts: list[str], max_new_tokens: int, temperature: float, seed: int
) -> dict[str, Any]:
    """One temperature: counts of identical texts, tokens per pass and times, with and without exact shapes."""
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    if temperature:
        options["seed"] = seed
    seconds: dict[tuple[bool, bool], list[float]] = {key: [] for key in decoders}
    tau: dict[bool, list[float]] = {True: [], False: []}
    identical = {True: 0, False: 0}
    first_differences: dict[bool, list[int]] = {True: [], False: []}
    for number, prompt in enumerate(prompts):
        said: dict[tuple[bool, bool], list[int]] = {}
        order = list(decoders) if number % 2 else list(decoders)[::-1]
        for key in order:
            answer = decoders[key].generate(prompt, **options)
            assert isinstance(answer, Generation)
            said[key] = answer.tokens
            seconds[key].append(answer.stats.seconds_total / max(1, len(answer.tokens)))
            if key[1]:
                tau[key[0]].append(answer.stats.tokens_per_pass)
        for exact in (True, False):
            plain, drafted = said[exact, False], said[exact, True]
            if plain == drafted:
                identical[exact] += 1
            else:
                pairs = zip(plain, drafted, strict=False)
                first_differences[exact].append(next((i for i, (a, b) in enumerate(pairs) if a != b), -1))
    return {
        "temperature": temperature,
        "texts": len(prompts),
        "max_new_tokens": max_new_tokens,
        "identical": {name(exact): identical[exact] for exact in identical},
        "first_differences": {name(exact): first_differences[exact] for exact in identical},
        "tokens_per_pass": {name(exact): statistics.mean(tau[exact]) for exact in tau},
        "milliseconds_per_token": {
            f"{name(exact)}, {'drafted' if drafted else 'plain'}": 1000 * statistics.median(seconds[exact, drafted])
            for exact, drafted in seconds
        },
        "cost_of_exact_plain": statistics.median(
            a / b for a, b in zip(seconds[True, False], seconds[False, False], strict=True)
        ),
        "speedup": {
            name(exact): statistics.median(
                a / b for a, b in zip(seconds[exact, False], seconds[exact, True], strict=True)
            )
            for exact in (True, False)
        },
    }


def name(exact: bool) -> str:
    """Column heading."""
    return f"exact={exact}"


def show(result: dict[str, Any]) -> str:
    """The two settings side by side."""
    lines = [f"temperature {result['temperature']}, {result['texts']} texts of {result['max_new_tokens']} tokens"]
    lines.append(f"{'':34}{'exact=True':>14}{'exact=False':>14}")
    both = [name(True), name(False)]
    milliseconds = result["milliseconds_per_token"]
    rows: list[tuple[str, list[str]]] = [
        ("texts identical to plain decoding", [f"{result['identical'][n]}/{result['texts']}" for n in both]),
        ("tokens per pass", [f"{result['tokens_per_pass'][n]:.2f}" for n in both]),
        ("ms a token, plain", [f"{milliseconds[f'{n}, plain']:.2f}" for n in both]),
        ("ms a token, drafted", [f"{milliseconds[f'{n}, drafted']:.2f}" for n in both]),
        ("speedup over plain, same setting", [f"{result['speedup'][n]:.2f}" for n in both]),
        ("cost of exact shapes, plain", [f"{result['cost_of_exact_plain']:.2f}", "1.00"]),
    ]
    return "\n".join([*lines, *(f"{label:34}{left:>14}{right:>14}" for label, (left, right) in rows), ""])


if __name__ == "__main__":
    typer.run(main)
