"""Training of the embedded model from nothing: synthetic packs, Muon on matrices, AdamW on the rest.

Needs torch and transformers (the `train` extra); both are imported inside the functions that use them.
Source: K. Jordan et al., Muon (2024), in torch as `torch.optim.Muon`.
"""

from __future__ import annotations

import json
import multiprocessing
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verbal.models.embedded.corpus.packs import IGNORED, Pack, packs

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

Report = Callable[[str], None]
"""Where progress lines go."""


@dataclass(frozen=True, slots=True)
class Size:
    """Shape of the network; the defaults give about two million parameters."""

    hidden: int = 160
    layers: int = 6
    heads: int = 5
    inner: int = 432


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn; give `minutes` (wall clock) or `steps` (repeatable), not both."""

    minutes: float = 0.0
    steps: int = 0
    batch: int = 5
    """Packs a step."""
    length: int = 384
    """Tokens a pack."""
    lr: float = 5e-3
    warmup: int = 100
    constant: float = 0.4
    """Share of the run at the full learning rate; then it falls in a straight line to zero."""
    threads: int = 1
    bf16: bool = True


def train(
    out: str | Path,
    minutes: float = 45.0,
    seed: int = 0,
    *,
    steps: int = 0,
    size: Size | None = None,
    start: str | Path | None = None,
    schedule: Schedule | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Train a model, write it to the folder `out` and give back a summary (steps, tokens, seconds, curve).

    Args:
        out: folder for the model; made if needed.
        minutes: wall-clock length of the run, warm-up and decay included; not used when `steps` is given.
        seed: of weights and data; with `steps`, the same seed gives the same run.
        steps: number of steps instead of minutes.
        size: shape of the network.
        start: folder of a model to go on from instead of random weights.
        schedule: everything else; its `minutes` and `steps` are replaced by the arguments above.
        report: gets one line of progress every 50 steps.
    """
    import torch

    from verbal.models.embedded import hf

    plan = schedule or Schedule()
    plan = Schedule(**(asdict(plan) | {"minutes": 0.0 if steps else minutes, "steps": steps}))
    torch.manual_seed(seed)
    torch.set_num_threads(plan.threads)
    model = _model(size or Size(), start)
    model.set_attn_implementation("eager")  # on a CPU, twice as fast as sdpa with a mask
    optimizers = _optimizers(model, plan.lr)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    report(f"{parameters:,} parameters, seed {seed}, {f'{steps} steps' if steps else f'{minutes} minutes'}")
    began, cpu = time.monotonic(), time.process_time()
    step, tokens, curve = _run(model, optimizers, plan, seed, Path(out), report)
    summary = {
        "parameters": parameters, "seed": seed, "steps": step, "tokens": tokens, "batch": plan.batch,
        "length": plan.length, "lr": plan.lr, "constant": plan.constant, "bf16": plan.bf16, "start": bool(start),
        "wall_seconds": round(time.monotonic() - began), "core_seconds": round(time.process_time() - cpu),
        "curve": curve,
    }  # fmt: skip
    hf.save(model, Path(out))
    (Path(out) / "training.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _run(
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    plan: Schedule,
    seed: int,
    out: Path,
    report: Report,
) -> tuple[int, int, list[tuple[int, float]]]:
    """Steps made, tokens read, and the loss of every 50 steps; every 1,000 steps the weights are kept in `out/last`."""
    from verbal.models.embedded import hf

    began = time.monotonic()
    curve: list[tuple[int, float]] = []
    tokens = step = 0
    total = 0.0
    with Stream(seed, plan.length) as stream:
        while True:
            part = step / plan.steps if plan.steps else (time.monotonic() - began) / (60 * plan.minutes)
            if part >= 1:
                return step, tokens, curve
            rate = min(1.0, (step + 1) / plan.warmup, max(0.0, (1 - part) / (1 - plan.constant)))
            batch = [next(stream) for _ in range(plan.batch)]
            loss = _step(model, optimizers, batch, rate, plan)
            step += 1
            tokens += sum(len(pack.ids) for pack in batch)
            total += loss
            if step % 50 == 0:
                curve.append((step, round(total / 50, 4)))
                report(
                    f"step {step} loss {total / 50:.4f} rate {rate:.2f} tokens {tokens / 1e6:.2f}M "
                    f"{time.monotonic() - began:.0f}s"
                )
                total = 0.0
            if step % 1000 == 0:
                hf.save(model, out / "last")


def _model(size: Size, start: str | Path | None) -> LlamaForCausalLM:
    from verbal.models.embedded import hf

    model: LlamaForCausalLM = (
        hf.load(start) if start is not None else hf.fresh(size.hidden, size.layers, size.heads, size.inner)
    )
    return model


def _optimizers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    import torch

    matrices = [
        p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name and "lm_head" not in name
    ]
    chosen = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _step(
    model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], batch: list[Pack], rate: float, plan: Schedule
) -> float:
    import torch
    from torch.nn import functional

    ids_BT, positions_BT, mask_BTT, targets_BT = tensors(batch)
    seen = torch.zeros(mask_BTT.shape, dtype=torch.bfloat16 if plan.bf16 else torch.float32)
    seen_B1TT = seen.masked_fill(~mask_BTT, -1e4)[:, None]
    with torch.autocast("cpu", torch.bfloat16, enabled=plan.bf16):
        hidden_BTD = model.model(
            input_ids=ids_BT, position_ids=positions_BT, attention_mask=seen_B1TT, use_cache=False
        ).last_hidden_state
        wanted_BT = targets_BT != IGNORED
        logits_NV = model.lm_head(hidden_BTD[wanted_BT])
    loss = functional.cross_entropy(logits_NV.float(), targets_BT[wanted_BT])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.setdefault("full", group["lr"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def tensors(batch: list[Pack]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch of packs as ids, positions, attention mask (True = sees) and targets.

    Shapes: B packs, T tokens of the longest; ids_BT, positions_BT, mask_BTT, targets_BT.
    """
    import torch

    longest = max(len(pack.ids) for pack in batch)

    def padded(rows: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])

    groups_BT = padded([pack.groups for pack in batch], 0)
    segments_BT = padded([pack.segments for pack in batch], 0)
    same_group = groups_BT[:, :, None] == groups_BT[:, None, :]
    same_segment = segments_BT[:, :, None] == segments_BT[:, None, :]
    schema = (segments_BT == 0)[:, None, :]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    mask_BTT = causal & same_group & (same_segment | schema)
    return (
        padded([pack.ids for pack in batch], 0), padded([pack.positions for pack in batch], 0), mask_BTT,
        padded([pack.targets for pack in batch], IGNORED),
    )  # fmt: skip


class Stream:
    """Packs made by a second process, so that training need not wait for them; the order is that of `packs(seed)`."""

    def __init__(self, seed: int, length: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._queue: multiprocessing.Queue[Pack] = context.Queue(64)
        self._process = context.Process(target=_produce, args=(seed, length, self._queue), daemon=True)

    def __enter__(self) -> Stream:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
        self._queue.close()

    def __iter__(self) -> Iterator[Pack]:
        return self

    def __next__(self) -> Pack:
        while True:
            try:
                return self._queue.get(timeout=5)
            except queue.Empty:
                if not self._process.is_alive():
                    raise RuntimeError(
                        f"the corpus process ended with code {self._process.exitcode}; its error is printed above"
                    ) from None


def _produce(seed: int, length: int, out: multiprocessing.Queue[Pack]) -> None:
    for pack in packs(seed, length):
        out.put(pack)
