"""Where a step's time goes: passes with packed and with plain weights, and what of decoding is no model forward.

    python benchmarks/hot_path.py
    python benchmarks/hot_path.py --enlarge 400e6 --rounds 15 --out hot_path.json

Both targets hold the same weights and take turns, pass by pass; figures are medians over the rounds. Then the same
prompt is decoded plainly, with the embedded assistant (another tokenizer) and with the embedded ReDrafter, by both in
turn. Times inside of the models' forwards are taken by wrapping them, so the rest is this engine's own: masks, caches,
verification, building drafts, converting text. See benchmarks/README.md for what an enlarged target can show.
"""

import copy
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import anydraft
from anydraft import Decoder, Generation, models
from anydraft.bench.enlarge import enlarge_to
from anydraft.bench.enlarge_network import enlarge_network
from anydraft.bench.passes import PassTimer
from anydraft.bench.provenance import provenance
from anydraft.lm import chain
from anydraft.networks.registry import load_network
from anydraft.packing import pack, packed_bytes
from anydraft.pretrained import load_model, load_tokenizer
from anydraft.target import Target

WIDTHS = (1, 4, 6, 8, 12, 16, 32)
PROMPT = 'def merge(first, second):\n    """Merge two sorted lists into one."""\n'
FORMS = ("packed", "plain weights")
PARTS = ("target", "drafter", "other")


def main(
    target: Annotated[str, typer.Option(help="Folder or hub name, or 'embedded'.")] = "embedded",
    enlarge: Annotated[float, typer.Option(help="Give the target the cost of so many parameters (400e6).")] = 0.0,
    dtype: str = "bfloat16",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    context: Annotated[int, typer.Option(min=1, help="Tokens before the timed passes.")] = 300,
    rounds: Annotated[int, typer.Option(min=1)] = 15,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 128,
    draft_tokens: Annotated[int, typer.Option(min=1)] = 6,
    decode: Annotated[bool, typer.Option(help="Time decoding as well as passes.")] = True,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
) -> None:
    """Time passes and decoding with packed and with plain weights."""
    torch.set_num_threads(threads)
    name = str(models.path("target")) if target == "embedded" else target
    small = load_model(name, role="target", dtype=dtype, packed=False)
    large = enlarge_to(small, enlarge, seed=seed) if enlarge else small
    laid = copy.deepcopy(large)
    started = time.perf_counter()
    layers = pack(laid)
    seconds = time.perf_counter() - started
    tokenizer = load_tokenizer(name)
    targets = {form: Target(model, tokenizer) for form, model in zip(FORMS, (laid, large), strict=True)}
    about = {
        "target": target,
        "parameters": large.num_parameters(),
        "enlarged": bool(enlarge),
        "packed_layers": layers,
        "packed_megabytes": round(packed_bytes(laid) / 1e6, 1),
        "seconds_to_pack": round(seconds, 3),
        "context": context,
        "rounds": rounds,
    }
    report: dict[str, Any] = {
        "provenance": provenance(dtype=large.dtype, seed=seed, **about),
        "passes": passes(targets, context, rounds),
    }
    print(f"{large.num_parameters() / 1e6:.0f} M parameters, {layers} layers packed in {seconds:.2f} s")
    print(show_passes(report["passes"]))
    if decode:
        found = {form: decoders(targets[form], small, dtype, draft_tokens, packed=form == FORMS[0]) for form in FORMS}
        report["decoding"] = decoding(found, max_new_tokens, max(3, rounds // 3))
        print(show_decoding(report["decoding"]))
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n")


def passes(targets: dict[str, Target], context: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of a pass by width, and whether both forms gave the same logits, bit by bit."""
    timers = {form: PassTimer(target, WIDTHS) for form, target in targets.items()}
    for timer in timers.values():
        timer.sweep(context)
    sweeps: dict[str, list[dict[int, float]]] = {form: [] for form in timers}
    for turn in range(rounds):
        for form in list(timers)[:: 1 if turn % 2 else -1]:
            sweeps[form].append(timers[form].sweep(context))
    found = []
    for width in WIDTHS:
        ms = {form: 1e3 * statistics.median(sweep[width] for sweep in sweeps[form]) for form in sweeps}
        pairs = zip(*(sweeps[form] for form in FORMS), strict=True)
        ratio = statistics.median(plain[width] / packed[width] for packed, plain in pairs)
        first, second = (logits(target, width) for target in targets.values())
        found.append({"width": width, "milliseconds": ms, "speedup": ratio, "identical": torch.equal(first, second)})
    return found


def logits(target: Target, width: int) -> torch.Tensor:
    """Of a pass of the given width behind a short context."""
    cache = target.new_cache(1)
    target.prefill(cache, 0, range(10, 42))
    return target.score(cache, [chain(range(50, 50 + width))]).logits


def decoders(target: Target, small: Any, dtype: str, draft_tokens: int, *, packed: bool) -> dict[str, Decoder]:
    """Plain, UAG and ReDrafter on one target; an assistant with packed weights only beside a target with such."""
    name = str(models.path("assistant"))
    assistant = load_model(name, role="assistant", dtype=dtype, packed=None if packed else False)
    network = load_network(str(models.path("redrafter")))
    if target.model.config.hidden_size != small.config.hidden_size:
        network = enlarge_network(network, target.model)
    options: dict[str, Any] = {"tokenizer": target.tokenizer, "draft_tokens": draft_tokens}
    assistant_tokenizer = load_tokenizer(name)
    return {
        "plain": anydraft.load(target.model, None, tokenizer=target.tokenizer),
        "uag": anydraft.load(target.model, assistant, assistant_tokenizer=assistant_tokenizer, **options),
        "redrafter": anydraft.load(target.model, network, **options),
    }


def decoding(found: dict[str, dict[str, Decoder]], max_new_tokens: int, rounds: int) -> list[dict[str, Any]]:
    """Tokens per second and where the time of a pass went, by drafter and form."""
    results = []
    for drafter in found[FORMS[0]]:
        shares: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
        texts = []
        for turn in range(rounds + 1):
            for form in FORMS[:: 1 if turn % 2 else -1]:
                tokens, share = clocked(found[form][drafter], max_new_tokens)
                texts.append(tokens)
                if turn:  # the first one warms up
                    shares[form].append(share)
        results.append(
            {
                "drafter": drafter,
                "identical": all(tokens == texts[0] for tokens in texts),
                **{form: middle(measured) for form, measured in shares.items()},
            }
        )
    return results


def clocked(decoder: Decoder, max_new_tokens: int) -> tuple[list[int], dict[str, float]]:
    """Tokens of one run, and its milliseconds per pass: inside the target, inside the drafter's model, and neither."""
    spent = {"target": 0.0, "drafter": 0.0}
    models_of: list[tuple[Any, str, str]] = [(decoder.target.model, "forward", "target")]
    lm, steps = getattr(decoder.drafter, "lm", None), getattr(decoder.drafter, "_steps", None)
    if lm is not None:
        models_of.append((lm.model, "forward", "drafter"))
    if steps is not None:
        models_of += [(steps, "start", "drafter"), (steps, "step", "drafter")]
    with clocks(models_of, spent):
        result = decoder.generate(PROMPT, max_new_tokens=max_new_tokens, ignore_eos=True)
    assert isinstance(result, Generation)
    stats = result.stats
    per_pass = 1e3 / stats.num_passes
    total = stats.seconds_total * per_pass
    share = {name: seconds * per_pass for name, seconds in spent.items()}
    return result.tokens, {
        **share,
        "other": total - sum(share.values()),
        "total": total,
        "tokens_per_second": stats.num_tokens / stats.seconds_total,
        "tokens_per_pass": stats.num_tokens / stats.num_passes,
    }


@contextmanager
def clocks(places: list[tuple[Any, str, str]], spent: dict[str, float]) -> Iterator[None]:
    """Time the methods (object, method, name) while this lasts, and add their seconds to `spent` by name."""

    def timed(method: Any, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            result = method(*arguments, **options)
            spent[name] += time.perf_counter() - started
            return result

        return call

    for place, method, name in places:
        setattr(place, method, timed(getattr(place, method), name))
    try:
        yield
    finally:
        for place, method, _ in places:
            delattr(place, method)


def middle(measured: list[dict[str, float]]) -> dict[str, float]:
    """Medians by name."""
    return {name: statistics.median(share[name] for share in measured) for name in measured[0]}


def show_passes(found: list[dict[str, Any]]) -> str:
    """As a table."""
    lines = ["| tokens a pass | packed, ms | plain weights, ms | plain / packed | identical |", "|---|---|---|---|---|"]
    for row in found:
        packed, plain = (row["milliseconds"][form] for form in FORMS)
        same = "yes" if row["identical"] else "no"
        lines.append(f"| {row['width']} | {packed:.2f} | {plain:.2f} | {row['speedup']:.2f} | {same} |")
    return "\n".join(lines)


def show_decoding(found: list[dict[str, Any]]) -> str:
    """As a table."""
    lines = [
        "| drafter | weights | tokens/s | tau | pass, ms | target | drafter's model | other | same text |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        for form in FORMS:
            of = row[form]
            shares = " | ".join(f"{of[part]:.2f} ({of[part] / of['total']:.0%})" for part in PARTS)
            lines.append(
                f"| {row['drafter']} | {form} | {of['tokens_per_second']:.0f} | {of['tokens_per_pass']:.2f} | "
                f"{of['total']:.2f} | {shares} | {'yes' if row['identical'] else 'no'} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
