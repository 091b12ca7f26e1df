"""The findings of `anydraft inspect` for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anydraft.checks.timing import Timing
from anydraft.inspection import Inspection, Side
from anydraft.text.vocabulary import VocabularyReport

KINDS = {
    "assistant": "same tokenizer: token ids pass as they are (assistant)",
    "universal": "different tokenizers: drafts pass as bytes (universal, UAG)",
}


def show(found: Inspection, console: Console | None = None) -> None:
    """Print all findings, the verdict last."""
    console = console or Console(highlight=False)
    console.print(_sides(found.target, found.assistant))
    console.print()
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row("pairing", KINDS.get(found.kind, found.kind))
    facts.add_row("verifies", "trees of drafts" if found.structure == "tree" else "chains of drafts")
    for name, text in _overlap(found.overlap):
        facts.add_row(name, text)
    if found.timing is not None:
        for name, text in _timing(found.timing):
            facts.add_row(name, text)
    console.print(facts)
    console.print()
    for warning in found.warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), warning))
    good = found.timing is not None and found.timing.gain >= 0.95
    console.print(Text.assemble(("verdict: ", "bold green" if good else "bold"), found.verdict))


def _sides(target: Side, assistant: Side) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("target", justify="right")
    table.add_column("assistant", justify="right")
    for name, of in (
        ("model", lambda side: side.model_type),
        ("parameters", lambda side: short(side.parameters)),
        ("weights", lambda side: f"{short(side.weight_bytes)}B {side.dtype}"),
        ("keys and values, 1000 tokens", lambda side: f"{short(side.kv_bytes_per_1000_tokens)}B"),
        ("context", lambda side: f"{side.context_length} tokens" if side.context_length < 1 << 30 else "not stated"),
        ("vocabulary", lambda side: f"{side.tokens} of {side.vocab_size}"),
        ("ends a text", lambda side: ", ".join(f"{name} ({token})" for token, name in side.ends.items()) or "nothing"),
        ("chat template", lambda side: "yes" if side.chat_template else "no"),
    ):
        table.add_row(name, Text(of(target)), Text(of(assistant)))
    return table


def _overlap(overlap: VocabularyReport) -> list[tuple[str, str]]:
    if overlap.same:
        return [("vocabularies", "the same")]
    rows = [
        (
            "overlap by count",
            f"{overlap.shared} tokens write the same bytes: {_share(overlap.shared, overlap.target_size)} of the "
            f"target's, {_share(overlap.shared, overlap.draft_size)} of the assistant's",
        )
    ]
    if overlap.target_token_share is not None and overlap.draft_token_share is not None:
        rows.append(
            (
                "overlap by use",
                f"{overlap.target_token_share:.0%} of the target's tokens in a text ({overlap.target_byte_share:.0%} "
                f"of its bytes), {overlap.draft_token_share:.0%} of the assistant's ({overlap.draft_byte_share:.0%})",
            )
        )
    return rows


def _timing(timing: Timing) -> list[tuple[str, str]]:
    passes = ", ".join(f"{width}: {1000 * seconds:.1f}" for width, seconds in timing.pass_seconds.items())
    return [
        ("target pass", f"{passes} ms, by number of tokens"),
        ("assistant step", f"{1000 * timing.draft_step_seconds:.1f} ms"),
        (
            "greedy text",
            f"{timing.tokens} tokens, {timing.tokens_per_pass:.2f} per pass, acceptance {timing.acceptance_rate:.0%}, "
            f"{timing.drafted_per_pass:.1f} drafted per pass",
        ),
        ("expected gain", f"{timing.gain:.2f} = {timing.tokens_per_pass:.2f} / {timing.cost:.2f} (tau / c)"),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "0%"


def short(count: int) -> str:
    """`12.6 M`, in powers of 1000."""
    value = float(count)
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} T"
