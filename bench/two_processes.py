"""Whether two processes train as one: SFT of a tiny Llama, one with batch 8 against two with 4 each (gloo, CPU).

Largest differences of losses and weights, in float32, over the same rows and seeds; needs no network and no GPU.

    python bench/two_processes.py
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from verbal.trainers.launch import launch
from verbal.trainers.sft import SFT

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "trainers"))
from tiny_models import letter_rows, tiny_llama

RESULT = Path(__file__).parent / "results" / "accelerate.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 4], help="of LoRA; 0: all weights")
    asked = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_llama(Path(folder) / "tiny")
        for rank in asked.ranks:
            method = SFT(device="cpu", epochs=asked.epochs, batch=8, learning_rate=1e-2, lora_rank=rank)
            for seed in asked.seeds:
                runs.append(compared(method, model, Path(folder) / f"{rank}-{seed}", seed))
                print(json.dumps(runs[-1]), flush=True)
    figures = {
        "max_abs_loss_difference": max(r["max_abs_loss_difference"] for r in runs),
        "max_abs_weight_difference": max(r["max_abs_weight_difference"] for r in runs),
        "steps": runs[0]["steps"],
        "runs": runs,
        "note": "one process, batch 8, against two processes (gloo, CPU), batch 4 each; float32; same rows and seeds",
    }
    RESULT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in figures.items() if k != "runs"}, indent=1))


def compared(method: SFT, model: str, folder: Path, seed: int) -> dict[str, Any]:
    """The figures of one seed."""
    rows = letter_rows(24)
    began = time.perf_counter()
    one = method.train(rows, model, str(folder / "one"), seed=seed)
    middle = time.perf_counter()
    two = launch(method, rows, model, str(folder / "two"), config="cpu", seed=seed)
    ended = time.perf_counter()
    pairs = zip(one["curve"], two["curve"], strict=True)
    a, b, before = (load_file(Path(f) / "model.safetensors") for f in (folder / "one", folder / "two", model))
    return {
        "seed": seed,
        "lora_rank": method.lora_rank,
        "steps": one["steps"],
        "max_abs_loss_difference": max(abs(p["loss"] - q["loss"]) for p, q in pairs),
        "max_abs_weight_difference": max(float((a[k] - b[k]).abs().max()) for k in a),
        "max_abs_weight_change": max(float((a[k] - before[k]).abs().max()) for k in a),
        "loss_first": one["loss_first"],
        "loss_last": one["loss_last"],
        "seconds_one": round(middle - began, 1),
        "seconds_two": round(ended - middle, 1),
    }


if __name__ == "__main__":
    main()
