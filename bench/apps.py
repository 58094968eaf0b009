"""The figures of what people touch in one file: bench/results/apps.json.

    python bench/apps.py [--venv DIR] [--run]

Counts are of tests that ran and passed: the gateway under the SDKs (tests/apps/test_gateway_sdk_*.py) and the page in
a browser (test_browser_*.py, chromium). Starts are cold processes, the median of some: `verbal ui` until a browser has
the page and knows who it is (`ui_start.py`), `verbal --help` until it has ended. The rest is what `gateway.py` and
`load.py` wrote; `--run` runs them before (`--venv` is the first one's). A figure that was not measured is null, and
`missing` says why.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

from ui_start import measure

HERE = Path(__file__).resolve().parent
ROOT, RESULTS = HERE.parent, HERE / "results"
READ = {
    "gateway_rps": "gateway",
    "gateway_p50_ratio_litellm": "gateway",
    "gateway_p95_ratio_litellm": "gateway",
    "gateway_p50_added_ms": "gateway",
    "capture_lost": "gateway",
    "load_users": "load",
    "load_errors": "load",
}
"""Figure -> its bench; the key is the same there."""
KEYS = (
    "gateway_rps", "gateway_p50_ratio_litellm", "gateway_p95_ratio_litellm", "gateway_p50_added_ms", "capture_lost",
    "sdk_tests", "browser_tests", "axe_violations", "load_users", "load_errors", "ui_start_s", "help_ms",
)  # fmt: skip
"""Figures of the file, in order."""
GOALS = {
    "gateway_rps": ("at least", 500), "gateway_p95_ratio_litellm": ("at most", 1), "capture_lost": ("at most", 0),
    "axe_violations": ("at most", 0), "load_users": ("at least", 50), "load_errors": ("at most", 0),
    "ui_start_s": ("at most", 3), "help_ms": ("at most", 300),
}  # fmt: skip
"""What is asked for."""


def ran(pattern: str) -> dict[str, str]:
    """Test -> passed, failed or skipped, of the test files of a pattern."""
    files = sorted(str(p) for p in (ROOT / "tests" / "apps").glob(pattern))
    if not files:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"--junit-xml={report}", *files]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        if not report.is_file():
            return {}
        found = {}
        for case in xml.parse(report).iter("testcase"):
            kinds = {child.tag for child in case}
            verdict = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            found[f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"] = verdict
        return found


def tests() -> tuple[dict[str, Any], dict[str, str]]:
    """Counts of the tests, and why one is missing."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for key, pattern in (("sdk_tests", "test_gateway_sdk_*.py"), ("browser_tests", "test_browser_*.py")):
        verdicts = ran(pattern)
        passed = [name for name, verdict in verdicts.items() if verdict == "passed"]
        failed = [name for name, verdict in verdicts.items() if verdict == "failed"]
        found[key] = len(passed) or None
        if not passed:
            skipped = f"{len(verdicts)} tests of {pattern} were skipped (no chromium, or no SDK)"
            missing[key] = skipped if verdicts and not failed else f"no test of {pattern} passed"
        found[f"{key}_failed"] = failed
    looks = {n: v for n, v in verdicts.items() if n.startswith("test_browser_looks::") and "by_everybody" in n}
    found["axe_violations"] = 0 if looks and set(looks.values()) == {"passed"} else None
    if found["axe_violations"] is None:
        others = ", ".join(sorted(f"{n} {v}" for n, v in looks.items() if v != "passed")) or "no test that asks axe ran"
        missing["axe_violations"] = others
    return found, missing


def help_ms(times: int = 11) -> float:
    """Milliseconds of `verbal --help` as a process; the first one, which pays for a cold disk, is left out."""
    taken = []
    for _ in range(times + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "verbal.cli", "--help"], stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - began)
    return round(1000 * statistics.median(taken[1:]), 1)


def read() -> tuple[dict[str, Any], dict[str, str]]:
    """What the other benches wrote, and why a figure of theirs is missing."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for key, bench in READ.items():
        path = RESULTS / f"{bench}.json"
        made = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        found[key] = made.get(key) if made else None
        if made is None:
            missing[key] = f"bench/{bench}.py was not run"
        elif found[key] is None:
            missing[key] = str((made.get("missing") or {}).get(key) or f"bench/{bench}.py did not measure it")
    return found, missing


def run_others(venv: str) -> None:
    """Runs the benches that are read."""
    given = ["--venv", venv, "--install"] if venv else []
    subprocess.run([sys.executable, HERE / "gateway.py", *given], check=True)
    subprocess.run([sys.executable, HERE / "load.py"], check=True)


def main() -> None:
    """Measures, collects, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="run gateway.py and load.py before")
    parser.add_argument("--venv", default=os.environ.get("VERBAL_LITELLM_VENV", ""), help="LiteLLM's, for gateway.py")
    asked = parser.parse_args()
    if asked.run:
        run_others(asked.venv)
    found, missing = read()
    found["help_ms"] = help_ms()
    try:
        found["ui_start_s"] = measure(5, [])["ui_start_s"]
    except (SystemExit, OSError, subprocess.SubprocessError) as error:
        found["ui_start_s"], missing["ui_start_s"] = None, f"verbal ui did not start: {error}"
    counted, why = tests()
    found, missing = found | counted, missing | why
    failed = [name for key in ("sdk_tests", "browser_tests") for name in found[f"{key}_failed"]]
    figures = {key: found[key] for key in KEYS}
    missed = {k: figures[k] for k, goal in GOALS.items() if figures[k] is not None and not met(figures[k], *goal)}
    result = {**figures, **({"missing": missing} if missing else {})}
    (RESULTS / "apps.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({**result, "goals_missed": missed, "tests_failed": failed}, indent=2))


def met(value: float, side: str, goal: float) -> bool:
    """Whether a figure is what is asked for."""
    return value >= goal if side == "at least" else value <= goal


if __name__ == "__main__":
    main()
