"""The texts keep up with the code: Python in them runs, links lead somewhere, cited papers are indexed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("bench/*.md")]
)
HOUSE = ("verbal", "memory", "critics", "trainers", "apps", "prompts")
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PAPER = re.compile(r"arXiv[: ]\s*(\d{4}\.\d{4,5})")

BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{i}")
    for path in TEXTS
    for i, block in enumerate(_BLOCK.findall(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_in_the_texts_runs(block: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{block}\n{done.stderr}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    links = [link for link in _LINK.findall(path.read_text(encoding="utf-8")) if "://" not in link]
    missing = [link for link in links if not (path.parent / link.partition("#")[0]).exists()]
    assert missing == []


def papers(texts: list[Path]) -> set[str]:
    """Numbers of the arXiv papers that files cite."""
    return {number for path in texts for number in _PAPER.findall(path.read_text(encoding="utf-8"))}


def test_every_cited_paper_is_in_the_index() -> None:
    kinds = (".py", ".toml", ".md")
    cited = papers([p for top in HOUSE for p in (ROOT / top).rglob("*") if p.suffix in kinds and p.is_file()])
    assert cited, "the pattern finds nothing any more"
    assert sorted(cited - papers([ROOT / "docs" / "papers.md"])) == []


def test_files_named_in_the_index_exist() -> None:
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    named = [n for n in re.findall(r"`([\w/]+\.(?:py|md))`", text) if "/" in n]
    assert len(named) > 5
    assert [n for n in named if not (ROOT / n).is_file()] == []


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 100


@pytest.mark.parametrize("command", ["demo", "test", "check", "bench", "links", "clean"])
def test_make_knows_the_commands_of_the_house(command: str) -> None:
    done = subprocess.run(["make", "-n", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
