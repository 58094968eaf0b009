"""A training in several processes, out of this one: rows and options go to a folder, `accelerate` starts the processes.

    launch(method, examples, model, out, config="fsdp")

starts `accelerate launch --config_file FSDP.YAML -m verbal.trainers.launched JOB.JSON`. Each process builds the method
from its options, reads the rows memory-mapped and trains its share of every batch; the first one writes. The batch is
the method's, whatever the number of processes: two of them with `micro_batch` 4 do what one does with 8.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verbal.contracts import Example
from verbal.errors import ConfigError, MissingExtra, TrainError, UnknownName

from .examples import Row

__all__ = ["CONFIGS", "config_path", "launch"]

CONFIGS = Path(__file__).parent / "accelerate"
"""Configurations that come with the package: `cpu`, `ddp`, `fsdp`, `zero2`, `zero3`."""
_TAIL = 12


def config_path(config: str) -> Path:
    """The file of a configuration: one of ours by name, or a file of one's own.

    Raises:
        UnknownName: neither.
    """
    for path in (CONFIGS / f"{config}.yaml", Path(config)):
        if path.is_file():
            return path
    raise UnknownName.of("accelerate configuration", config, [p.stem for p in CONFIGS.glob("*.yaml")])


def launch(
    method: Any,
    examples: Sequence[Example],
    model: str,
    out: str,
    *,
    config: str,
    seed: int = 0,
    on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Trains as `method.train` does, in the processes of an accelerate configuration; gives its papers.

    Args:
        method: One that trains in several processes (`several_processes`), a dataclass of its options.
        examples: Its rows.
        model: A Hugging Face folder or name.
        out: Folder of the weights.
        config: See `config_path`.
        seed: As of `train`.
        on_progress: As of `train`.
        resume: As of `train`.

    Raises:
        ConfigError: a method or model that trains in one process only. MissingExtra: accelerate is not installed.
        TrainError: as of `train`, or a process ended without a word (the end of what it wrote is told).
    """
    path = config_path(config)
    if not getattr(method, "several_processes", False):
        todo = "leave --accelerate out, or train with sft"
        raise ConfigError(f"{method.name} trains in one process", where="--accelerate", todo=todo)
    if model == "embedded" or model.startswith("embedded:"):
        raise ConfigError("the embedded model trains in one process", where="--accelerate", todo="leave it out")
    for package in ("accelerate", "torch", "trl", "datasets"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra.of(package, "train")
    with tempfile.TemporaryDirectory(prefix="verbal-launch-") as folder:
        place = Path(folder)
        job = {
            "method": method.name, "options": asdict(method), "rows": str(_write_rows(examples, place)),
            "cache": str(place / "cache"), "model": model, "out": str(Path(out).absolute()), "seed": seed,
            "resume": resume,
        }  # fmt: skip
        (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
        return _followed(_command(path, place / "job.json"), on_progress)


def _write_rows(examples: Sequence[Example], place: Path) -> Path:
    """The rows as a folder that each process maps, one line a row."""
    folder = place / "rows"
    folder.mkdir()
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for row in examples:
            plain = row.record() if isinstance(row, Row) else {**row.columns, "attempts": row.attempts}
            file.write(json.dumps(plain, ensure_ascii=False) + "\n")
    return folder


def _command(config: Path, job: Path) -> list[str]:
    """What starts the processes. Accelerate starts one only where there is no accelerator, so torch starts those."""
    work = ["-m", "verbal.trainers.launched", str(job)]
    told = config.read_text(encoding="utf-8")
    if re.search(r"^use_cpu: *true", told, re.MULTILINE):
        found = re.search(r"^num_processes: *(\d+)", told, re.MULTILINE)
        count = found[1] if found else "1"
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", count, *work]
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), *work]


def _followed(command: Sequence[str], on_progress: Callable[..., None] | None) -> dict[str, Any]:
    """Runs the processes to their end and gives what the first one said last."""
    environment = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
        env=environment,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    heard: list[str] = []
    listener = threading.Thread(target=heard.extend, args=(process.stderr,), daemon=True)
    listener.start()
    figures: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    try:
        for line in process.stdout:
            if not line.startswith('{"verbal": '):
                continue
            kind, told = json.loads(line)["verbal"]
            if kind == "progress" and on_progress is not None:
                on_progress(*told)
            elif kind == "done":
                figures = told
            elif kind == "error":
                error = error or told
    finally:
        if process.poll() is None and figures is None:
            process.terminate()  # the launcher ends its processes
        code = process.wait()
        listener.join()
        process.stdout.close()
        process.stderr.close()
    if error is not None:
        raise TrainError(error["what"], where=error["where"], todo=error["todo"])
    if code or figures is None:
        tail = "\n    ".join("".join(heard).strip().splitlines()[-_TAIL:])
        raise TrainError(f"a process of the training ended with code {code}", where=tail, todo="see the lines above")
    return figures
