"""Start-up: what `import verbal` loads. No clock here (bench/house.py measures); modules are counted instead."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

_EXTRA = {"numpy", "pydantic", "sqlglot", "aiohttp", "tenacity", "rich", "typer", "sqlite3", "asyncio"}


def loaded_by(code: str) -> set[str]:
    """Top-level modules a fresh interpreter has after `code`, beyond those it starts with."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    tail = "import json, sys; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    found = []
    for text in (tail, f"{code}\n{tail}"):
        done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=True)
        found.append(set(json.loads(done.stdout)))
    return found[1] - found[0]


def test_import_verbal_loads_the_standard_library_only() -> None:
    foreign = {m for m in loaded_by("import verbal") if m not in sys.stdlib_module_names}
    assert foreign == {"verbal"}


def test_import_verbal_loads_nothing_slow_of_it_either() -> None:
    assert loaded_by("import verbal") & _EXTRA == set()


@pytest.mark.parametrize(
    "module", ["verbal.types", "verbal.errors", "verbal.contracts", "verbal.parts", "verbal.prompt", "verbal.recipe"]
)
def test_records_contracts_and_recipes_need_no_package(module: str) -> None:
    foreign = {m for m in loaded_by(f"import {module}") if m not in sys.stdlib_module_names}
    assert foreign == {"verbal"}
