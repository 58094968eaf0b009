"""What a newcomer waits for: `make install`, `make demo` and `make test` in an empty clone of the last commit.

    .venv/bin/python bench/clone.py [--skip-tests]

Writes bench/results/clone.json (seconds of each, number of tests, coverage) and bench/results/demo.json (the demo's own
results). The demo and the tests are timed after the installation, as whole commands.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("verbal/", "memory/", "critics/", "trainers/", "apps/")


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-tests", action="store_true")
    options = parser.parse_args()
    results = ROOT / "bench" / "results"
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "verbal"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        found: dict[str, Any] = {"install_seconds": timed(clone, "install")[0]}
        found["demo_seconds"] = timed(clone, "demo")[0]
        shutil.copy(clone / "runs" / "demo" / "results.json", results / "demo.json")
        if not options.skip_tests:
            found["test_seconds"], printed = timed(clone, "test")
            counted = re.search(r"(\d+) passed(?:, (\d+) skipped)?", printed)
            found["tests_passed"] = int(counted[1]) if counted else None
            found["tests_skipped"] = int(counted[2] or 0) if counted else None
            found["coverage_seconds"], _ = timed(clone, "coverage")
            found |= coverage(clone / "coverage.json")
    (results / "clone.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def timed(clone: Path, target: str) -> tuple[float, str]:
    """Seconds and output of one make target; a failure ends the bench."""
    began = time.perf_counter()
    done = subprocess.run(["make", target], cwd=clone, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"make {target} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return round(time.perf_counter() - began, 1), done.stdout


def coverage(path: Path) -> dict[str, float]:
    """Share of statements covered: in all, and in each of the hub and the rooms."""
    files = json.loads(path.read_text(encoding="utf-8"))["files"]
    by_room = {}
    for room in ROOMS:
        parts = [f["summary"] for name, f in files.items() if name.startswith(room)]
        by_room[room.rstrip("/")] = round(share(parts), 4)
    return {"coverage": round(share([f["summary"] for f in files.values()]), 4), "coverage_by_room": by_room}


def share(parts: list[dict[str, Any]]) -> float:
    """Covered statements of all statements."""
    return sum(p["covered_lines"] for p in parts) / max(sum(p["num_statements"] for p in parts), 1)


if __name__ == "__main__":
    main()
