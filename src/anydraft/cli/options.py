"""Options that several commands share, with one wording and one meaning each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SAMPLING = "Sampling"
MODELS = "Models"
OUTPUT = "Output"


def _remember_debug(ctx: typer.Context, value: bool) -> bool:
    if value:
        ctx.find_root().ensure_object(dict)["debug"] = True
    return value


Target = Annotated[str, typer.Argument(help="Hub name or folder of the target, or 'embedded'.")]
Assistant = Annotated[str, typer.Argument(help="Hub name or folder of the assistant, or 'embedded'.")]
Drafter = Annotated[
    str | None,
    typer.Option(
        "--drafter",
        "-d",
        help="Hub name or folder of an assistant or a trained drafter (ReDrafter, Medusa, EAGLE); 'embedded' for the "
        "embedded assistant, 'embedded-redrafter', 'lookup', or 'none' for plain decoding. Several with commas between "
        "them: at every step the one that pays best. Default: 'embedded' for the embedded target, else 'lookup'.",
        rich_help_panel=MODELS,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16 or float16; default: the checkpoint's.", rich_help_panel=MODELS),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, ...; default: a GPU if there is one.", rich_help_panel=MODELS)
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact/--no-exact", help="One shape for all passes: same tokens in bfloat16 too.", rich_help_panel=MODELS
    ),
]
DraftTokens = Annotated[
    int | None, typer.Option(help="Fixed draft length; default: what pays best, measured.", rich_help_panel=MODELS)
]
AnyTarget = Annotated[
    bool,
    typer.Option(
        "--any-target",
        help="Use a trained drafter with another target of the same sizes (a fine-tune of its own).",
        rich_help_panel=MODELS,
    ),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with a model.", rich_help_panel=MODELS)
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.", rich_help_panel=MODELS)]
Temperature = Annotated[float, typer.Option("--temperature", "-t", help="0 is greedy.", rich_help_panel=SAMPLING)]
TopP = Annotated[float, typer.Option(help="Nucleus sampling; 1 is off.", rich_help_panel=SAMPLING)]
TopK = Annotated[int, typer.Option(help="Only the k likeliest; 0 is off.", rich_help_panel=SAMPLING)]
MinP = Annotated[
    float, typer.Option(help="Only what has this share of the likeliest; 0 is off.", rich_help_panel=SAMPLING)
]
Seed = Annotated[int | None, typer.Option(help="Of the noise; default: a new one.", rich_help_panel=SAMPLING)]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", "-m", help="Longest answer, in tokens.", rich_help_panel=SAMPLING)
]
Stop = Annotated[
    list[str] | None, typer.Option(help="Text after which an answer ends; may be repeated.", rich_help_panel=SAMPLING)
]
Json = Annotated[
    bool, typer.Option("--json", help="JSON on standard output and nothing else there.", rich_help_panel=OUTPUT)
]
ShowStats = Annotated[
    bool, typer.Option("--stats/--no-stats", help="A line of figures on standard error.", rich_help_panel=OUTPUT)
]
Color = Annotated[
    bool, typer.Option("--color/--no-color", help="Colour tokens by who proposed them.", rich_help_panel=OUTPUT)
]
Debug = Annotated[
    bool,
    typer.Option("--debug", callback=_remember_debug, help="Show the traceback of errors.", rich_help_panel=OUTPUT),
]
PromptFile = Annotated[Path | None, typer.Option("--prompt-file", "-f", help="Read the prompt from a file.")]
