from __future__ import annotations

import json
import subprocess
import sys
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal import doctor as module
from verbal.doctor import Finding, doctor, fits


def by_area(found: list[Finding], area: str) -> list[Finding]:
    return [f for f in found if f.area == area]


async def test_this_machine(tmp_path: Path) -> None:
    found = await doctor(folder=tmp_path / "not" / "yet")
    assert {f.area for f in found} >= {"python", "package", "sqlite", "disk", "weights", "extra"}
    assert by_area(found, "python")[0].level == by_area(found, "disk")[0].level == "ok"
    names = " ".join(f.what for f in by_area(found, "package"))
    assert f"openai {version('openai')}" in names and f"aiohttp {version('aiohttp')}" in names
    assert json.loads(json.dumps([f.to_dict() for f in found]))[0]["area"] == "python"
    assert not (tmp_path / "not").exists()


@pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning")
async def test_models_are_checked_side_by_side(
    openai_server: Any, servers: Any, keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    (tmp_path / "broken.py").write_text(
        "class Broken:\n    name = 'b/x'\n    async def check(self):\n        raise KeyError('Bearer abcdefgh')\n"
        "    async def aclose(self): pass\n"
    )
    url = f"{openai_server.url}/v1"
    specs = [
        f"http/tiny-1@{url}",
        f"http/tiny-9@{url}",
        "http/m@http://127.0.0.1:9/v1",
        "openai/gpt-4o",
        "nonsense",
        "nonsense/model",
        f"{tmp_path}/broken.py:Broken",
        f"scripted:{tmp_path}/absent.jsonl",
    ]
    found = by_area(await doctor(specs, folder=tmp_path), "model")
    assert [f.level for f in found] == ["ok"] + ["error"] * 7
    said = [f"{f.what} {f.todo}" for f in found]
    for text, part in zip(
        said,
        ["ready", "tiny-1", "127.0.0.1:9", "OPENAI_API_KEY", "http/MODEL@", "nonsense", "KeyError", "absent.jsonl"],
        strict=True,
    ):
        assert part in text, text
    assert keys not in str(said) and "abcdefgh" not in str(said)


async def test_a_model_that_hangs_is_a_finding(openai_server: Any, servers: Any) -> None:
    openai_server.models_answer = servers.hangs
    (found,) = by_area(await doctor([f"http/m@{openai_server.url}/v1"], timeout=0.1), "model")
    assert found.level == "error" and "0.1 s" in found.what


async def test_a_sick_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"litellm": "1.82.8", "openai": "1.0", "torch": "2.13.0+cpu", "trl": "2.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise module.metadata.PackageNotFoundError(name)
        return versions[name]

    required = ["litellm>=1.84,<2", "openai<4,>=2.20", "numpy>=2", 'trl<1.17; extra == "train"', 'ray; extra == "ray"']
    monkeypatch.setattr(module.metadata, "version", lambda n: "0.1.0" if n == "verbal" else version(n))
    monkeypatch.setattr(module.metadata, "requires", lambda _: required)
    monkeypatch.setattr(sqlite := module.sqlite3, "sqlite_version_info", (3, 8, 0))
    assert sqlite.sqlite_version_info == (3, 8, 0)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(0, 0, 2**20))
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "doctor.py"))
    found = await doctor(folder=tmp_path)
    text = {(f.area, f.level): f"{f.what} {f.todo}" for f in found}
    assert "malicious" in next(f.what for f in found if "litellm" in f.what)
    assert "openai 1.0, but <4,>=2.20" in text["package", "warning"]
    assert "numpy is not installed" in text["package", "error"]
    assert "trl 2.0 (needs <1.17)" in text["extra", "warning"] and "verbal[ray]" in text["extra", "ok"]
    assert "OMP_NUM_THREADS=1" in text["threads", "warning"]
    assert "older than 3.35" in text["sqlite", "error"] and "1 MB" in text["disk", "warning"]
    assert "weights are not there" in text["weights", "warning"]

    def refuse(**_: Any) -> Any:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(module.tempfile, "NamedTemporaryFile", refuse)
    found = await doctor(folder=tmp_path)
    assert "Read-only file system" in by_area(found, "disk")[0].what


async def test_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise module.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.metadata, "requires", missing)
    (found,) = by_area(await doctor(), "package")
    assert found.level == "warning" and "pip install -e ." in found.todo


@pytest.mark.parametrize(
    ("version", "wanted", "good"),
    [
        ("1.106.2", ">=1.84,<2", True),
        ("2.0", "<2,>=1.84", False),
        ("2.13.0+cpu", ">=2.9,<3", True),
        ("1.83.99", ">=1.84", False),
        ("9", "", True),
        ("1.4.5", "~=1.4.2", True),
        ("1.5", "~=1.4.2", False),
        ("1.0", "==1.0.0", True),
        ("1.0", "!=1.0", False),
    ],
)
def test_bounds(version: str, wanted: str, good: bool) -> None:
    assert fits(version, wanted) is good


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_bounds_agree_with_packaging(have: list[int], need: list[int]) -> None:
    specifiers = pytest.importorskip("packaging.specifiers")
    version, bound = ".".join(map(str, have)), ".".join(map(str, need))
    for operator in (">=", "<=", "<", ">", "==", "!="):
        assert fits(version, operator + bound) == (version in specifiers.SpecifierSet(operator + bound))


def test_the_doctor_is_light() -> None:
    code = """
import asyncio, sys
from verbal.doctor import doctor
asyncio.run(doctor(["scripted:absent.jsonl", "openai/x", "http/x@ftp://y"]))
heavy = {"litellm", "anthropic", "torch", "numpy", "chromadb", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""
    env = {"PATH": "/usr/bin:/bin", "OPENAI_API_KEY": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
