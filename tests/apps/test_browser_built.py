"""The built page of the web app belongs to its sources and needs nothing from elsewhere. Told without Node."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[2] / "apps" / "web"
LEFT_OUT = {"node_modules", "README.md"}
FIRST_FILE = 400_000
"""Bytes of the script that the page starts with."""


def files_below(folder: Path, *left_out: str) -> list[str]:
    """Paths, sorted by their bytes, as build/manifest.ts has them."""
    found = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return sorted((p for p in found if not {*p.split("/")} & {*LEFT_OUT, *left_out}), key=str.encode)


def digest_of(folder: Path, files: list[str]) -> str:
    """One digest of names and contents."""
    made = hashlib.sha256()
    for name in files:
        content = (folder / name).read_bytes()
        made.update(f"{name}\0{len(content)}\0".encode() + content)
    return made.hexdigest()


@pytest.mark.parametrize("part", ["source", "page"])
def test_the_page_is_built_from_these_sources(part: str) -> None:
    told = json.loads((WEB / "page" / "manifest.json").read_text(encoding="utf-8"))
    name = "sources" if part == "source" else part
    files = files_below(WEB / part, *(() if part == "source" else ("manifest.json",)))
    found = {"files": len(files), "sha256": digest_of(WEB / part, files)}
    assert found == told[name], f"apps/web/{part} has changed since the page was built: make page"


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = (WEB / "page" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!/assets/)""", text)
    assert "<style" not in text and not re.search(r"<script(?![^>]* src=)", text)
    for sheet in (WEB / "page" / "assets").glob("*.css"):
        assert "url(" not in (style := sheet.read_text(encoding="utf-8")) and "@import" not in style


def test_the_page_starts_with_a_small_script() -> None:
    (entry,) = re.findall(r'<script[^>]* src="/(assets/[^"]+)"', (WEB / "page" / "index.html").read_text())
    assert (WEB / "page" / entry).stat().st_size < FIRST_FILE
    for script in (WEB / "page" / "assets").glob("*.js"):
        assert "new Function(" not in script.read_text(encoding="utf-8")


def test_bundled_packages_are_named_with_their_licences() -> None:
    text = (WEB / "page" / "licenses.txt").read_text(encoding="utf-8")
    locked = json.loads((WEB / "source" / "package.json").read_text())["dependencies"]
    for name in locked:
        assert re.search(rf"^{re.escape(name)} \d", text, re.MULTILINE), name
    assert "carries no licence file" not in text


def test_the_lock_names_no_download_address() -> None:
    lock = (WEB / "source" / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock and '"integrity"' in lock
