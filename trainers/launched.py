"""One of the processes of a training that `launch` started: reads the job, trains, and tells the first line by line.

Run by accelerate or torch, never by hand.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verbal.errors import VerbalError
from verbal.parts import make_part

from . import processes
from .exported import rows_from_export

__all__ = ["main"]


def main(job_file: str) -> int:
    """Trains as the job says; 0 when it is done."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in job["options"].items()}
    try:
        method = make_part("trainers", str(job["method"]), **options)
        with tempfile.TemporaryDirectory(prefix="verbal-rows-") as cache:
            figures = method.train(
                rows_from_export(job["rows"], cache=cache),
                job["model"],
                job["out"],
                seed=job["seed"],
                on_progress=_progress,
                resume=job["resume"],
            )
    except VerbalError as error:
        _say("error", {"what": error.what, "where": error.where, "todo": error.todo})
        return 1
    if processes.is_first():
        _say("done", figures)
    return 0


def _progress(done: int, total: int, figures: Mapping[str, float]) -> None:
    if processes.is_first():
        _say("progress", [done, total, dict(figures)])


def _say(kind: str, told: Any) -> None:
    # One write a line: several processes share the pipe.
    sys.stdout.write(json.dumps({"verbal": [kind, told]}, default=str) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
