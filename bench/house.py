"""What starting costs: time and memory of `import verbal` and `verbal --help`, beside an empty interpreter.

    .venv/bin/python bench/house.py [--runs 20] [--out bench/results/house.json]

Each figure is a whole process, byte code compiled before; the median of the runs counts, the least and the most are
printed beside it. Memory is the peak resident set of the process (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "python": "pass",
    "import": "import verbal",
    "help": "import sys; sys.argv[1:] = ['--help']; from verbal.cli import main; main()",
}
"""Name of a figure -> what the interpreter runs."""

# A process knows its own peak; what its parent is told of it includes the parent's size before the program was loaded.
_PEAK = """
import sys
try:
    {code}
except SystemExit:
    pass
sys.stderr.write(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def run(code: str) -> str:
    """What a process wrote to its standard error; its standard output is thrown away."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{code!r} failed: {done.stderr}")
    return done.stderr


def milliseconds(code: str) -> float:
    """Wall time of one process, from its start to its end."""
    start = time.perf_counter()
    run(code)
    return (time.perf_counter() - start) * 1000


def megabytes(code: str) -> float:
    """Peak resident memory of one process, in MiB."""
    return int(run(_PEAK.format(code=code)).split()[-2]) / 1024


def main() -> None:
    """Prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "house.json")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    print(f"{'':8}{'median ms':>10}{'least':>8}{'most':>8}{'MB':>8}   ({options.runs} runs each)")
    for name, code in COMMANDS.items():
        run(code)
        times = [milliseconds(code) for _ in range(options.runs)]
        figures[f"{name}_ms"] = round(statistics.median(times), 1)
        figures[f"{name}_mb"] = round(statistics.median(megabytes(code) for _ in range(3)), 1)
        print(f"{name:8}{figures[f'{name}_ms']:10}{min(times):8.1f}{max(times):8.1f}{figures[f'{name}_mb']:8}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
