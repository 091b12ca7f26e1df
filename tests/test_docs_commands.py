"""What the documentation shows exists: commands with their options, files, Python, the words of the reference, figures.

Commands are read from the pages and parsed by the very parsers that would run them, without running them.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from scripts import loaded
from typer import Typer
from typer.main import get_command

import anydraft
from anydraft import pacing
from anydraft.cli.app import app
from anydraft.pacing import Measured, PacingReport

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "benchmarks" / "README.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHELL = ("sh", "bash", "shell", "")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# Commands. ---------------------------------------------------------------------------------------


@cache
def script(path: str) -> Any:
    """The command of a benchmark script, which is imported and not run."""
    file = ROOT / path
    assert file.is_file(), f"there is no {path}"
    module = loaded(file)
    if hasattr(module, "app"):
        return get_command(module.app)
    alone = Typer()  # `typer.run(main)` makes such a one
    alone.command()(module.main)
    return get_command(alone)


@cache
def commands() -> dict[str, Any]:
    return dict(get_command(app).commands)  # type: ignore[attr-defined]


def options(command: Any) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}


@cache
def make_targets() -> set[str]:
    return set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))


def shown(page: Path) -> Iterator[str]:
    """Lines of shell fences and of inline code that start one of our programs."""
    text = page.read_text()
    for language, body in FENCE.findall(text):
        if language in SHELL:
            yield from body.replace("\\\n", " ").splitlines()
    text = FENCE.sub("", text)
    yield from (line.strip() for line in text.replace("\\\n", " ").splitlines() if line.startswith("    "))
    yield from INLINE.findall(text)


def check(line: str) -> None:
    """Parse one shown line if it is a command of ours. What a reader fills in (TARGET, DIR) passes as a name."""
    if not re.match(r"(\w+=\S+ )*(anydraft|python|make|accelerate|torchrun) ", line):
        return
    words = [word for word in shlex.split(line, comments=True) if word != "..."]
    while "=" in words[0]:
        words.pop(0)
    if words[0] == "make":
        assert set(words[1:]) <= make_targets(), line
        return
    if words[0] == "python" and words[1].startswith("benchmarks/"):
        command, given = script(words[1]), words[2:]
    else:
        if "-m" in words:  # accelerate launch ... -m anydraft train ...
            words = words[words.index("-m") + 1 :]
        if words[0] != "anydraft" or not words[1][0].islower():
            return
        assert words[1] in commands(), f"there is no such command: {line}"
        command, given = commands()[words[1]], words[2:]
    unknown = [word for word in given if re.match(r"--?[a-z]", word) and word.split("=")[0] not in options(command)]
    assert not unknown, f"{unknown} in: {line}"
    with command.make_context("shown", [], resilient_parsing=True) as context:
        _, left, _ = command.make_parser(context).parse_args(list(given))
    assert not left, f"{left} in: {line}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist_with_their_options(page: Path) -> None:
    for line in shown(page):
        check(line)


def test_the_check_of_commands_sees_mistakes() -> None:
    for line in (
        "anydraft generat TARGET hello",
        "anydraft generate TARGET hello --drafters x",
        "anydraft generate TARGET hello again",
        "anydraft generate TARGET hello --temperature",
        "python benchmarks/uag.py --enlarged 1",
        "torchrun --nproc-per-node 4 -m anydraft train redrafter TARGET --step 5",
        "make tests",
    ):
        with pytest.raises(Exception, match=r"."):
            check(line)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_and_files_named_in_the_text_exist(page: Path) -> None:
    scripts = [script(name_of(path)) for path in sorted((ROOT / "benchmarks").glob("*.py"))]
    known = set().union(*map(options, (*commands().values(), *scripts)))
    for code in INLINE.findall(FENCE.sub("", page.read_text())):
        if re.match(r"--[a-z]", code):
            assert code.split()[0].split("=")[0] in known, code
        if re.fullmatch(r"(tests|benchmarks|src|recipes|docs)/[\w./-]+", code):
            assert (ROOT / code).exists(), code


# Python. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_is_python(page: Path) -> None:
    for language, body in FENCE.findall(page.read_text()):
        if language == "python":
            ast.parse(body)


def test_the_reference_is_complete() -> None:
    text = (DOCS / "api.md").read_text()
    words = set(re.findall(r"[A-Za-z_]\w*", " ".join(INLINE.findall(text) + [body for _, body in FENCE.findall(text)])))
    missing = set(anydraft.__all__) - words
    kinds = (anydraft.SamplingParams, anydraft.Generation, anydraft.Step, anydraft.Stats)
    missing |= {field.name for kind in kinds for field in fields(kind)} - words
    missing |= set(signature(anydraft.load).parameters) - words
    missing |= {f"anydraft {name}" for name in commands() if f"`anydraft {name}" not in text}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_statistics_named_in_the_text_exist(page: Path) -> None:
    known = {*dir(anydraft.Stats), *(field.name for field in fields(anydraft.Stats))}
    assert not set(re.findall(r"\bstats\.([a-z]\w*)", " ".join(INLINE.findall(page.read_text())))) - known - {"py"}


def own_numbers(module: dict[str, Any]) -> set[str]:
    """Constants that a module defines itself, each a number."""
    assigned: set[str] = set()
    for node in ast.parse(Path(module["__file__"]).read_text()).body:
        if isinstance(node, ast.Assign):
            names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            public = [name for name in names if name.isupper() and name[0] != "_"]
            assigned.update(name for name in public if isinstance(module[name], int | float))
    return assigned


def test_constants_of_pacing_are_those_of_the_code() -> None:
    text = (DOCS / "pacing.md").read_text()
    numbers = text.partition("### The numbers")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in numbers.splitlines() if "`" in line]
    defaults = {name: parameter.default for name, parameter in signature(Measured).parameters.items()}
    modules = [import_module(f"anydraft.pacing.{found.name}") for found in iter_modules(pacing.__path__)]
    homes = {home.__name__.rpartition(".")[2]: vars(home) for home in modules}
    known = {(home, name) for home, all_names in homes.items() for name in own_numbers(all_names)}
    described: set[tuple[str, str]] = set()
    for _, shown_values, names in rows:
        found = []
        for said, name in re.findall(r"(?:(\w+)\.)?([A-Z]{2,}(?:_[A-Z]+)*)", names):
            (place,) = [pair for pair in known if pair[1] == name and said in ("", pair[0])]  # else say `home.NAME`
            described.add(place)
            found.append(homes[place[0]][name])
        found += [defaults[name] for name in re.findall(r"(\w+)=", names)]
        assert [float(value) for value in shown_values.split(",")] == [float(value) for value in found], names
    assert not known - described
    assert {name for name, default in defaults.items() if default is not None} <= set(re.findall(r"(\w+)=", numbers))


def test_the_report_of_pacing_is_described() -> None:
    text = (DOCS / "pacing.md").read_text()
    words = [*(field.name for field in fields(PacingReport)), "chosen", "to_dict"]
    assert not [word for word in words if f"`{word}" not in text]
    shown_line = PacingReport(
        steps={"lookup": 2, "plain": 1}, expected_tokens={"lookup": 4.0}, expected_speedup={"lookup": 3.0}
    )
    assert str(shown_line) in text


def test_tables_of_uag_are_the_measured_figures() -> None:
    text = (DOCS / "benchmarks" / "uag.md").read_text()
    for stem in ("uag-415m-humaneval", "uag-embedded-humaneval"):
        for run in json.loads((DOCS / "benchmarks" / f"{stem}.summary.json").read_text()):
            rate = run["tokens_per_second"]
            assert f"| {rate['value']:.1f} [{rate['low']:.1f}, {rate['high']:.1f}] |" in text, run["contender"]
