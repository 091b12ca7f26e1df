"""The documentation builds without a warning, its links lead somewhere, and its figures are sound."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "benchmarks" / "README.md"]
FIGURES = sorted((DOCS / "figures").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


# The site. ---------------------------------------------------------------------------------------


class Links(HTMLParser):
    """What a built page refers to, and which anchors it has."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.anchors |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.targets.append(found["href"])
        if tag in ("img", "script") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.loaded.append(found["href"])
        if tag == "img" and not found.get("alt"):
            self.unnamed.append(found.get("src", "?"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The built site, and what mkdocs said."""
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed: pip install 'anydraft[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},  # about mkdocs' successor, not about these pages
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


@cache
def read(page: Path) -> Links:
    links = Links()
    links.feed(page.read_text())
    return links


def test_it_builds_without_a_warning(site: tuple[Path, str]) -> None:
    said = [line for line in site[1].splitlines() if line.strip() and not line.startswith("INFO")]
    assert not said


def test_links_anchors_and_images_resolve(site: tuple[Path, str]) -> None:
    folder, _ = site
    pages = [page for page in folder.rglob("*.html") if page.name != "404.html"]
    assert len(pages) >= 12
    wrong = []
    for page in pages:
        links = read(page)
        wrong += [f"{page}: {src} has no alt text" for src in links.unnamed]
        for target in (*links.targets, *links.loaded):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            there = there / "index.html" if there.is_dir() else there
            if not there.is_file():
                wrong.append(f"{page.relative_to(folder)}: {target}")
            elif parts.fragment and unquote(parts.fragment) not in read(there).anchors | {"__"}:
                wrong.append(f"{page.relative_to(folder)}: no anchor {target}")
    assert not wrong


def test_a_reader_loads_nothing_from_elsewhere(site: tuple[Path, str]) -> None:
    for page in site[0].rglob("*.html"):
        assert not [src for src in read(page).loaded if urlsplit(src).netloc], page


# Figures. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.stem)
def test_figures_are_well_formed_described_and_used(figure: Path) -> None:
    root = ET.parse(figure).getroot()
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    ids = {element.get("id"): "".join(element.itertext()).strip() for element in root}
    for label in (root.get("aria-labelledby") or "").split():
        assert len(ids[label]) > 3, label
    assert root.find(f"{SVG}title") is not None
    assert len(root.findtext(f"{SVG}desc") or "") > 80
    width, height = (float(root.get(side) or 0) for side in ("width", "height"))
    for text in root.iter(f"{SVG}text"):  # rotated ones have no place of their own
        assert text.get("transform") or (0 < float(text.get("x", 0)) < width and 0 < float(text.get("y", 0)) < height)
    assert any(f"figures/{figure.name}" in page.read_text() for page in PAGES)


def test_there_is_a_figure_for_each_idea() -> None:
    ideas = re.split(r"^## \d", (DOCS / "how-it-works.md").read_text(), flags=re.M)[1:]
    assert len(ideas) == 6
    assert all(idea.count("](figures/") == 1 for idea in ideas)
