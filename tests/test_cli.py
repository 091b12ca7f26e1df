"""The program: each command's output, JSON, exit status, and errors in one paragraph."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_pair import run, write_pair
from rich.console import Console

import anydraft
from anydraft.cli.demo_view import show_heat
from anydraft.cli.fates import coloured, lost
from anydraft.cli.race import Heat, Lap
from anydraft.generation import Step
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.recurrent import RecurrentConfig, RecurrentNetwork
from anydraft.stats import Stats
from anydraft.text.token_bytes import TokenBytes
from anydraft.tree import DraftTree

SHORT = ("-m", 12)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_pair(tmp_path_factory.mktemp("pair"))


def plain(target: str, prompt: str, **options: Any) -> Any:
    return anydraft.load(target, drafter=None).generate(prompt, **options)


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from anydraft.cli.app import app\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0 and 'verify' in result.stdout, result.output\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version() -> None:
    assert run("--version").stdout == f"anydraft {anydraft.__version__}\n"


def test_generate_streams_the_text_and_nothing_else(pair: tuple[str, str]) -> None:
    target, assistant = pair
    result = run("generate", target, "Once upon", "-d", assistant, *SHORT)
    assert result.exit_code == 0
    assert result.stdout == plain(target, "Once upon", max_new_tokens=12).text + "\n"
    assert "passes" in result.stderr
    assert "acceptance" in result.stderr
    assert run("generate", target, "Once upon", "-d", "none", "--no-stats", *SHORT).stderr == ""


def test_generate_json_per_answer(pair: tuple[str, str]) -> None:
    target, assistant = pair
    options = ("-t", 0.8, "--top-p", 0.9, "--seed", 5, "-n", 2, "--json")
    result = run("generate", target, "Once upon", "-d", assistant, *options, *SHORT)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    expected = plain(target, "Once upon", max_new_tokens=12, temperature=0.8, top_p=0.9, seed=5, n=2)
    assert [answer["tokens"] for answer in answers] == [answer.tokens for answer in expected]
    assert [answer["text"] for answer in answers] == [answer.text for answer in expected]
    assert answers[0]["stats"]["num_passes"] >= 1
    assert result.stderr == ""


def test_generate_shows_several_answers_in_order(pair: tuple[str, str]) -> None:
    options = ("-t", 1, "--seed", 3, "-n", 3)
    result = run("generate", pair[0], "She", "-d", pair[1], *options, *SHORT)
    expected = plain(pair[0], "She", max_new_tokens=12, temperature=1.0, seed=3, n=3)
    assert result.stdout == "\n---\n".join(answer.text for answer in expected) + "\n"
    assert "seed 3" in result.stderr


def test_a_seed_that_was_drawn_is_told(pair: tuple[str, str]) -> None:
    first = run("generate", pair[0], "She", "-d", "none", "-t", 1, *SHORT)
    seed = first.stderr.rsplit("seed ", 1)[1].strip()
    again = run("generate", pair[0], "She", "-d", pair[1], "-t", 1, "--seed", seed, *SHORT)
    assert again.stdout == first.stdout


def test_generate_reads_files_and_standard_input(pair: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Once upon")
    expected = plain(pair[0], "Once upon", max_new_tokens=12).text + "\n"
    common = ("-d", "lookup", "--no-stats", *SHORT)
    assert run("generate", pair[0], "-f", tmp_path / "prompt.txt", *common).stdout == expected
    assert run("generate", pair[0], "-", *common, input="Once upon").stdout == expected
    assert run("generate", pair[0], *common, input="Once upon").stdout == expected


def test_colour_marks_what_the_drafter_proposed(pair: tuple[str, str]) -> None:
    common = ("generate", pair[0], "the red hat the red hat", "-d", pair[0], "--no-stats", *SHORT)
    with_color, without = run(*common, "--color").stdout, run(*common).stdout
    assert "\x1b[32m" in with_color  # the model drafts for itself, so most tokens are accepted
    assert with_color.replace("\x1b[32m", "").replace("\x1b[0m", "") == without


def test_interrupted_keeps_what_is_there(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("generate", pair[0], "Once upon", "-d", "none", "--no-stats", *SHORT).stdout
    stream = anydraft.Decoder.stream

    def interrupted(self: anydraft.Decoder, *args: Any, **options: Any) -> Iterator[Step]:
        for count, step in enumerate(stream(self, *args, **options)):
            if count == 4:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(anydraft.Decoder, "stream", interrupted)
    result = run("generate", pair[0], "Once upon", "-d", "none", *SHORT)
    assert result.exit_code == 130
    assert result.stderr == ""
    begun = result.stdout.rstrip("\n")
    assert begun
    assert whole.startswith(begun)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", "./no/such/folder", "hi"), "no folder './no/such/folder'"),
        (("generate", "TARGET", "hi", "-t", -1), "temperature must be >= 0"),
        (("generate", "TARGET", "hi", "--top-p", 0.5), "temperature is 0"),
        (("generate", "TARGET", ""), "prompt is empty"),
        (("generate", "TARGET", "hi", "-f", "file"), "given twice"),
        (("generate", "TARGET", "-f", "no-such-file"), "cannot read --prompt-file"),
        (("generate", "TARGET", "hi", "-m", 100000), "context"),
        (("generate", "TARGET", "hi", "--dtype", "float7"), "float7"),
        (("generate", "TARGET", "hi", "-d", "none", "--draft-tokens", 3), "--draft-tokens"),
        (("inspect", "TARGET", "lookup"), "name an assistant"),
        (("verify", "TARGET", "-d", "none"), "compared with itself"),
        (("verify", "TARGET", "--prompts", "no-such-file"), "cannot read the prompts"),
        (("demo", "-o", "picture.bmp"), ".svg"),
        (("chat", "TARGET", "--chat-template", "no-such-file"), "cannot read --chat-template"),
    ],
)
def test_bad_input_is_one_paragraph(pair: tuple[str, str], arguments: tuple[object, ...], words: str) -> None:
    result = run(*(pair[0] if a == "TARGET" else a for a in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_unknown_hub_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise OSError("We couldn't find it.\nSecond line")

    monkeypatch.setattr("anydraft.pretrained.AutoModelForCausalLM.from_pretrained", refuse)
    result = run("generate", "no-such-model", "hi")
    assert result.exit_code == 2
    assert "cannot load the target 'no-such-model'" in result.stderr


def test_debug_shows_the_traceback(pair: tuple[str, str]) -> None:
    with pytest.raises(anydraft.AnydraftError, match="temperature"):
        run("generate", pair[0], "hi", "-t", -1, "--debug")


def test_embedded_names(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from anydraft import models

    for role, folder in zip(("target", "assistant"), pair, strict=True):
        monkeypatch.setitem(models.FOLDERS, role, folder)  # an absolute path replaces the package's own
    result = run("generate", "embedded", "She", "--json", *SHORT)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["text"] == plain(pair[0], "She", max_new_tokens=12).text
    monkeypatch.setitem(models.FOLDERS, "target", str(tmp_path))
    assert "config.json" in run("generate", "embedded", "She").stderr
    with pytest.raises(anydraft.OptionConflict, match="judge"):
        models.path("judge")  # type: ignore[arg-type]


def test_inspect(pair: tuple[str, str], tmp_path: Path) -> None:
    result = run("inspect", *pair, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["kind"] == "universal"
    assert found["structure"] == "tree"
    assert 0 < found["overlap"]["target_token_share"] <= 1
    assert set(found["timing"]["pass_seconds"]) == {"1", "4", "8", "16"}
    (tmp_path / "text.txt").write_text("Once upon a time")
    shown = run("inspect", *pair, "--no-measure", "--text", tmp_path / "text.txt").stdout
    assert "different tokenizers" in shown
    assert "verdict: " in shown


@pytest.fixture(scope="module")
def redrafter(pair: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a ReDrafter with random weights; it holds no tokenizer."""
    torch.manual_seed(0)
    identity = TargetIdentity.of(anydraft.load(pair[0], drafter=None).target.model)
    folder = tmp_path_factory.mktemp("redrafter") / "network"
    RecurrentNetwork(RecurrentConfig(target=identity)).save_pretrained(folder)
    return str(folder)


def test_demo(pair: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "demo.svg"
    models = ("--target", pair[0], "--assistant", pair[1])
    result = run("demo", *models, "-o", out, "-m", 6)
    assert result.exit_code == 0, result.stderr
    assert "identical: yes" in result.stdout
    assert "tokens per pass" in result.stdout
    assert "<svg" in out.read_text()
    found = json.loads(run("demo", *models, "--no-picture", "-m", 4, "-t", 0, "--json").stdout)
    assert found["identical"] is True
    assert found["picture"] is None
    assert len(found["races"][0]["heats"]) == 3
    assert list(found["races"][0]["drafters"]) == ["universal"]


def test_demo_of_two_drafters(pair: tuple[str, str], redrafter: str, tmp_path: Path) -> None:
    out = tmp_path / "demo.png"
    models = ("--target", pair[0], "--assistant", pair[1], "--redrafter", redrafter)
    shown = run("demo", *models, "-o", out, "-m", 6)
    assert shown.exit_code == 0, shown.stderr
    for name in ("plain decoding", "UAG", "ReDrafter", "identical: yes"):
        assert name in shown.stdout
    assert out.read_bytes().startswith(b"\x89PNG")
    race = json.loads(run("demo", *models, "--no-picture", "-m", 4, "-t", 1, "--json").stdout)["races"][0]
    assert list(race["drafters"]) == ["universal", "redrafter"]
    for score in race["drafters"].values():
        assert score["identical"] is True
        assert score["stats"]["num_tokens"] == race["plain"]["num_tokens"] == 12
    for heat in race["heats"]:
        assert all(part["tokens"] == heat["tokens"] for part in heat["drafters"].values())


def test_demo_takes_drafters_by_name(
    pair: tuple[str, str], redrafter: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from anydraft import models

    for role, folder in zip(("target", "assistant", "redrafter"), (*pair, redrafter), strict=True):
        monkeypatch.setitem(models.FOLDERS, role, folder)
    short = ("--no-picture", "-m", 4, "-t", 0, "--json")
    for options, names in (
        ((), ["universal", "redrafter"]),
        (("--assistant", "none", "--redrafter", "embedded"), ["redrafter"]),
        (("--redrafter", "none"), ["universal"]),
        (("--assistant", redrafter, "--redrafter", redrafter), ["redrafter", "redrafter 2"]),
    ):
        assert list(json.loads(run("demo", *options, *short).stdout)["races"][0]["drafters"]) == names
    assert "needs a drafter" in run("demo", "--assistant", "none", *short).stderr
    monkeypatch.setitem(models.FOLDERS, "redrafter", str(tmp_path))
    assert "redrafter" in run("demo", "--redrafter", "embedded", *short).stderr


@pytest.mark.parametrize(("width", "rows"), [(80, 3), (160, 1)])
def test_demo_panels_fit_the_console(width: int, rows: int) -> None:
    table = TokenBytes([b"a", b"b\n"], {})
    step = Step(0, [0, 1, 0], "", ["universal", "target", "target"], DraftTree((0,), (-1,)), [0], None)
    lap = Lap([step], Stats(num_tokens=3, num_passes=1))
    console = Console(width=width, record=True, file=io.StringIO())
    show_heat(Heat("x = ", 0.0, None, lap, {"universal": lap, "redrafter": lap}), table, console)
    lines = console.export_text().splitlines()
    assert sum("╭" in line for line in lines) == rows
    assert sum(line.count("x = ab") for line in lines) == 3
    assert max(map(len, lines)) <= width


def test_a_trained_drafter_needs_no_tokenizer(
    pair: tuple[str, str], redrafter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anydraft import models

    wanted = plain(pair[0], "She", max_new_tokens=12).text
    assert run("generate", pair[0], "She", "-d", redrafter, *SHORT).stdout == wanted + "\n"
    assert run("chat", pair[0], "-d", redrafter, "-t", 0, *SHORT, input="hi\n").exit_code == 0
    assert run("verify", pair[0], "-d", redrafter, "--limit", 1, "--samples", 0, *SHORT).exit_code == 0
    monkeypatch.setitem(models.FOLDERS, "redrafter", redrafter)
    assert run("generate", pair[0], "She", "-d", "embedded-redrafter", *SHORT).stdout == wanted + "\n"


def test_demo_without_matplotlib(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("demo", "--target", pair[0], "--assistant", pair[1])
    assert result.exit_code == 2
    assert "anydraft[bench]" in result.stderr


def test_fates() -> None:
    pieces = {1: b"a", 2: b"b", 3: b"c", 4: "\u00e9".encode()[:1], 5: "\u00e9".encode()[1:], 6: b"\x1b\n"}
    tree = DraftTree(tokens=(1, 2, 6, 3), parents=(-1, 0, 1, 0))
    step = Step(0, [1, 4], "", ["universal", "target"], tree, [0], None)
    last = Step(0, [5], "", ["target"], DraftTree.EMPTY, [], "length")
    assert lost(step) == [2, 6]
    text = coloured([step, last], pieces.get)
    assert text.plain == "ab␛⏎é"
    assert coloured([step, last], pieces.get, rejected=False).plain == "aé"
    styles = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert styles["a"] == "green"
    assert "strike" in str(styles["b␛⏎"])
