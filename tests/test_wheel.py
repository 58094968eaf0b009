"""The wheel holds exactly the tree, and works where a user has a `memory.py` and a `prompts/` of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("memory", "critics", "trainers", "apps", "prompts")
_ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE", "PYTHON"))}


def run(*command: str | Path, cwd: Path) -> str:
    """What a command printed; its complaint when it failed."""
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=_ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tree() -> list[str]:
    """Files of the checkout that a clone would hold, and those about to be added."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    return [p for p in listed if (ROOT / p).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tree, built in a copy (a build leaves folders behind)."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for path in tree():
        if path.split("/")[0] not in ("tests", "bench", "docs", "examples"):
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, copy / path)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy, cwd=copy)
    (built,) = out.glob("verbal-*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment with the wheel in it.

    What the wheel depends on is lent to it: one line in a .pth file puts our site-packages behind its own. The .pth
    files that lie there (the editable checkout among them) are not read through it.
    """
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--no-compile",
        "--disable-pip-version-check", wheel, cwd=home,
    )  # fmt: skip
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip()
    (Path(site) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working folder whose modules carry the names of our rooms, and break when imported."""
    for room in ROOMS:
        (tmp_path / f"{room}.py").write_text(f"raise SystemExit('imported the {room} of the user')\n", encoding="utf-8")
    (tmp_path / "prompts.py").unlink()
    (tmp_path / "prompts" / "text2sql").mkdir(parents=True)
    (tmp_path / "prompts" / "__init__.py").write_text("raise SystemExit('imported prompts')\n", encoding="utf-8")
    (tmp_path / "prompts" / "text2sql" / "solver.md").write_text("---\npurpose: hijack\n---\nx\n", encoding="utf-8")
    return tmp_path


def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {n for n in archive.namelist() if ".dist-info/" not in n}
    expected = {f"verbal/{p}" for p in tree() if p.split("/")[0] in ROOMS and not p.startswith("apps/web/source/")}
    expected |= {p for p in tree() if p.startswith("verbal/")}
    assert sorted(packed - expected) == [], "in the wheel, not in the tree"
    assert sorted(expected - packed) == [], "in the tree, not in the wheel: see packages and package-data in pyproject"


def test_the_wheel_carries_its_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {n.split("/", 1)[1]: n for n in archive.namelist() if ".dist-info/" in n}
        assert "Apache License" in archive.read(names["licenses/LICENSE"]).decode()
        assert "verbal = verbal.cli:main" in archive.read(names["entry_points.txt"]).decode()
        assert "License-Expression: Apache-2.0" in archive.read(names["METADATA"]).decode()


def test_a_critic_runs_beside_a_hostile_folder(fresh: Path, hostile: Path) -> None:
    code = textwrap.dedent("""
        import asyncio, pathlib, sys
        import verbal
        from verbal.contracts import CriticContext, Observation
        from verbal.parts import make_part, part_names
        from verbal.prompt import load_prompt, prompt_names
        from verbal.types import Attempt, Message, Task
        home = pathlib.Path(sys.prefix).resolve()
        critic = make_part("critics", "self_check")
        task = Task(id="t", kind="text2sql", messages=(Message(role="user", content="How many?"),))
        attempts = [Attempt(id=i, run="r", task="t", answer="SELECT 1") for i in ("good", "bad")]
        info = {"columns": ["n"], "rows": [[1]], "types": ["INTEGER"]}
        seen = {
            "good": Observation(text="1 row", done=True, answer="SELECT 1", info=info),
            "bad": Observation(text="no such table: x", done=True, info={"error": "no such table: x"}),
        }
        found = asyncio.run(critic.evaluate(task, attempts, CriticContext(observations=seen)))
        assert [f.attempt for f in found] == ["good", "bad"], found
        assert found[1].text or found[1].reason, found
        for module in [m for n, m in sys.modules.items() if n.split(".")[0] == "verbal" and getattr(m, "__file__", 0)]:
            assert home in pathlib.Path(module.__file__).resolve().parents, module
        assert load_prompt("text2sql/solver").purpose != "hijack"
        assert "exact" in part_names("memory") and "self_check" in part_names("critics")
        assert not {"memory", "critics", "trainers", "apps", "prompts"} & set(sys.modules)
        print("ran", critic.name, len(prompt_names()))
    """)
    said = run(fresh, "-c", code, cwd=hostile)
    assert said.startswith("ran self_check")


def test_the_command_starts_beside_a_hostile_folder(fresh: Path, hostile: Path) -> None:
    assert "demo" in run(fresh.parent / "verbal", "--help", cwd=hostile)
