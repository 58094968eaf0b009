"""What a training will take, computed before torch is loaded: memory of one card, and time where an earlier one tells.

All sizes come from the model's config.json; no weight is loaded. GB are 2^30 bytes, as cards are sold.

Bytes, with P parameters, Q trained ones (P, or those of the adapters), rows B and tokens T in memory at once, hidden
size H, MLP size I, query and key-value sizes q and k, L layers, vocabulary V, rank r:

    weights      4 P; 2 P under an adapter; in 4 bits 0.516 each in linear layers and 2 each elsewhere
    adapter      4 Q
    gradients    4 Q
    optimizer    8 Q: two moments of AdamW
    cast         2 x linear layers: the bfloat16 copies that autocast makes of float32 weights
    activations  B T L (24 H + 6 q + 4 k + 8 I); 18 H and 2 r for each matrix more with an adapter; in float32 20 H and
                 twice the rest. With checkpointing B T L 4 H (2 H with an adapter), and one layer in full
    logits       one tile of 4096 x 32768 (TRL projects no more at once), 4 B T H, and 4 V H where the head is trained
    reference    the weights once more: DPO, KTO, a KL term or a teacher, without an adapter
    actor        the weights once more: who attempts, where the reflector is trained
    generation   4 k L for each token, and 4 V for each token written (its scores are kept), of B answers at once
    allowance    0.7 GB (CUDA, libraries) and 5 % (fragments)

Sources: 16 bytes for each trained parameter, ZeRO (arXiv 1910.02054, section 3.1); 4.127 bits for each 4-bit weight,
QLoRA (arXiv 2305.14314, section 3); activations counted as Korthikanti et al. do (arXiv 2205.05198, section 4.1) on the
modules of transformers 5, and compared with what autograd keeps in tests/trainers/test_trainers_estimate.py.
Differs: left out are biases, norms of queries and keys, and the router's activations of a mixture of experts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verbal.contracts import Example
from verbal.errors import TrainError, VerbalError
from verbal.models.embedded.ast import Unsupported
from verbal.models.embedded.codec import encode
from verbal.models.embedded.read import read_prompt

from .adapters import Adapter, adapter_for
from .shapes import Shape, config_file, shape_of

__all__ = ["CARD_GB", "Load", "estimate", "memory_of"]

CARD_GB = 24.0
"""The card that a training is compared with: what a large consumer card has."""
_GB = 2**30
_NF4 = 4.127 / 8
_TILE = (4096, 32768)
_CONTEXT, _FRAGMENTS = 0.7, 0.05
_CHARS = 3.0
"""Characters of a token, on the careful side (English has about 4, SQL and numbers fewer)."""
_TURN = 8
"""Tokens that a chat template adds to a message."""
_LOOKED_AT = 4096
_ANSWER = 64
"""Slot tokens of a long query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is in memory at once while training."""

    rows: int
    """Sequences of one forward and backward pass."""
    least: int = 1
    """Sequences of one row: 2 for a pair."""
    tokens: int
    """Of the longest one."""
    adapter: Adapter
    half: bool = True
    """bfloat16 arithmetic."""
    checkpointing: bool = False
    reference: bool = False
    actor: bool = False
    answers: int = 0
    """Answers that are written at once by the weights under training; 0: none."""
    reply: int = 0
    """Tokens of such an answer."""


def estimate(
    method: Any, examples: Sequence[Example], model: str, *, card_gb: float = CARD_GB, near: str | Path | None = None
) -> dict[str, Any]:
    """What training will take, as plain JSON types.

    parameters (int; None when no config.json is at hand), memory_gb (peak of one card: all parts, but only the larger
    of activations + logits and generation), memory_parts (name -> GB), seconds (None when no earlier training tells),
    note (whether it fits a card, what to lower if not, where the seconds come from).

    Args:
        method: A training method; its options are read by name, what it lacks has the value of the Hugging Face path.
        examples: Its rows; the longest of (a sample of) them counts.
        model: As the method takes it.
        card_gb: Memory of the card it is compared with.
        near: Folder whose subfolders hold papers of earlier trainings; None: the one the model stands in.
    """
    try:
        shape = shape_of(model)
        if phases := getattr(method, "phases", None):
            return _in_phases(phases(), examples, model, card_gb, near)
    except TrainError as error:
        return {"parameters": None, "memory_gb": None, "memory_parts": {}, "seconds": None, "note": error.what}
    small = model == "embedded" or model.startswith("embedded:")
    load = _load_of(method, examples, shape, small)
    parts = memory_of(shape, load)
    seconds, source = _seconds(method, len(examples), model, Path(near) if near else config_file(model).parent.parent)
    told = "on the CPU" if small else _fit_note(shape, load, card_gb)
    return {
        "parameters": shape.parameters,
        "memory_gb": round(_peak(parts), 2),
        "memory_parts": {name: round(value, 3) for name, value in parts.items()},
        "seconds": seconds,
        "note": f"{_shape_note(load)}: {told}; {source}",
    }


def _in_phases(
    methods: Sequence[Any], examples: Sequence[Example], model: str, card_gb: float, near: str | Path | None
) -> dict[str, Any]:
    """What methods take that train one after the other, each on the rows of its `phase` (the last on those of `rl`)."""
    names = [str(method.name) for method in methods]
    kept = [[e for e in examples if e.columns.get("phase", p) == p] for p in (*names[:-1], "rl")]
    found = [estimate(m, rows, model, card_gb=card_gb, near=near) for m, rows in zip(methods, kept, strict=True)]
    most = max(found, key=lambda one: float(one["memory_gb"]))
    times = [one["seconds"] for one in found]
    return {
        **most,
        "seconds": None if None in times else sum(times),
        "note": "; ".join(f"phase {name}: {one['note']}" for name, one in zip(names, found, strict=True)),
    }


def memory_of(shape: Shape, load: Load) -> dict[str, float]:
    """GB by part (see the head of this file); parts that are 0 are left out."""
    rank, four_bit = load.adapter.rank, load.adapter.quantization is not None
    trained = shape.adapters(rank) if rank else shape.parameters
    rest = shape.parameters - shape.linear
    each = 2.0 if rank and load.half else 4.0
    weights = _NF4 * shape.linear + 2.0 * rest if four_bit else each * shape.parameters
    tokens = load.rows * load.tokens
    width = 2.0 if load.half else 4.0
    tile = min(tokens, _TILE[0]) * min(shape.vocab, _TILE[1]) * width
    head = 0.0 if rank else 4.0 * shape.vocab * shape.hidden
    parts = {
        "weights": weights,
        "adapter": 4.0 * trained if rank else 0.0,
        "gradients": 4.0 * trained,
        "optimizer": 8.0 * trained,
        "cast": 2.0 * shape.linear if load.half and not rank else 0.0,
        "reference": weights if load.reference and not rank else 0.0,
        "actor": each * shape.parameters if load.actor else 0.0,
        "activations": _activations(shape, load, tokens),
        "logits": tile + 4.0 * tokens * shape.hidden + head,
        "generation": _generation(shape, load, width),
    }
    found = {name: value / _GB for name, value in parts.items() if value}
    return {**found, "allowance": _CONTEXT + _FRAGMENTS * _peak(found)}


def _activations(shape: Shape, load: Load, tokens: int) -> float:
    """Bytes that autograd keeps from forward to backward."""
    q, kv = shape.heads * shape.head, shape.kv_heads * shape.head
    inner = shape.active * shape.inner + shape.shared
    wide = (8 if shape.gated else 6) * inner
    rank, width = load.adapter.rank, 1 if load.half else 2
    small = 2 * rank * len(shape.matrices) if rank else 0
    stream = (18 if rank and load.half else 24) if load.half else 20
    layer = stream * shape.hidden + width * (6 * q + 4 * kv + wide + small) + 4 * shape.heads
    if not load.checkpointing:
        return float(tokens * shape.layers * layer)
    kept = (2 if rank and load.half else 4) * shape.hidden
    return float(tokens * (shape.layers * kept + layer))


def _generation(shape: Shape, load: Load, width: float) -> float:
    """Bytes of the cache and the scores while answers are written."""
    cache = 2 * width * shape.kv_heads * shape.head * shape.layers * load.tokens
    return load.answers * (cache + 4.0 * shape.vocab * load.reply)


def _peak(parts: Mapping[str, float]) -> float:
    """The most at one time: training and generation take turns."""
    both = parts.get("activations", 0.0) + parts.get("logits", 0.0)
    still = sum(v for k, v in parts.items() if k not in ("activations", "logits", "generation"))
    return still + max(both, parts.get("generation", 0.0))


def _load_of(method: Any, examples: Sequence[Example], shape: Shape, small: bool) -> Load:
    def option(name: str, default: Any = None) -> Any:
        value = getattr(method, name, None)
        return default if value is None else value

    columns = set(examples[0].columns) if examples else set()
    group, reply = option("group", 0), option("max_tokens", 0) if option("group") else 0
    whole = option("slots", group) * option("tasks", 1) if group else option("batch") or _batch(len(examples), small)
    rows = option("micro_batch", whole)
    count = _slots if small else _tokens
    longest = max((count(e, group > 0) for e in _sample(examples, 64 if small else _LOOKED_AT)), default=0) + reply
    tokens = max(1, min(longest, option("max_length", longest), shape.context or longest))
    paired, least = "chosen" in columns or "label" in columns, 2 if "chosen" in columns else 1
    reference = paired or bool(group and option("beta", 0)) or option("teacher") in ("base", "ema")
    if small:
        alone = Adapter(rank=0)
        return Load(rows=rows, tokens=tokens, adapter=alone, half=False, reference=reference)
    return Load(
        rows=rows * least,
        least=least,
        tokens=tokens,
        adapter=adapter_for(shape.parameters, lora_rank=option("lora_rank"), quantization=option("quantization")),
        half=option("precision", "auto") != "float32" and option("device", "auto") != "cpu",
        checkpointing=bool(option("gradient_checkpointing", False)),
        reference=reference,
        actor=getattr(method, "actor", None) == "",
        answers=group,
        reply=reply,
    )


def _batch(rows: int, small: bool) -> int:
    """Rows of a step where the method says none: as `trainers/slots.py` and `trainers/huggingface.py` choose."""
    return max(4, min(32, rows // 4)) if small else 16


def _sample(examples: Sequence[Example], most: int) -> Iterator[Example]:
    for at in range(0, len(examples), max(1, math.ceil(len(examples) / most))):
        yield examples[at]


def _tokens(example: Example, prompt_only: bool) -> int:
    """Tokens of the longest conversation of a row."""

    def size(*names: str) -> int:
        messages = [m for name in names for m in example.columns.get(name) or () if isinstance(m, Mapping)]
        return sum(math.ceil(len(str(m.get("content", ""))) / _CHARS) + _TURN for m in messages)

    if prompt_only:
        return size("prompt")
    return max(size("prompt", name) for name in ("completion", "chosen", "rejected", "messages"))


def _slots(example: Example, prompt_only: bool) -> int:
    """Tokens of a row as the embedded model reads it; 0 for one that it cannot read."""
    try:
        read = encode(read_prompt([(m["role"], m["content"]) for m in example.columns["prompt"]]))
    except (Unsupported, VerbalError, KeyError):
        return 0
    return len(read.tokens) + (0 if prompt_only else _ANSWER)


def _fit_note(shape: Shape, load: Load, card_gb: float) -> str:
    """Whether it fits, or the fewest changes after which it would."""
    if (need := _peak(memory_of(shape, load))) <= card_gb:
        return f"{need:.1f} GB fit one card of {card_gb:g} GB"
    done: list[str] = []
    for change, lighter in _lighter(load):
        done.append(change)
        if (now := _peak(memory_of(shape, lighter))) <= card_gb:
            return f"{need:.1f} GB do not fit one card of {card_gb:g} GB; {now:.1f} GB would: {', '.join(done)}"
    more = "take a smaller model, or several cards with accelerate (docs/accelerate.md)"
    return f"{need:.1f} GB do not fit one card of {card_gb:g} GB, nor would {now:.1f} GB with {', '.join(done)}: {more}"


def _lighter(load: Load) -> Iterator[tuple[str, Load]]:
    """Ways to need less, each on top of those before, the cheapest first."""
    if load.rows > load.least:
        load = replace(load, rows=load.least)
        yield "micro_batch = 1", load
    if not load.checkpointing:
        load = replace(load, checkpointing=True)
        yield "gradient_checkpointing = true", load
    if not load.adapter.rank:
        load = replace(load, adapter=adapter_for(0, lora_rank=16))
        yield "lora_rank = 16", load
    if load.adapter.quantization is None:
        load = replace(load, adapter=Adapter(rank=load.adapter.rank, quantization="nf4"))
        yield 'quantization = "nf4"', load
    if load.tokens > 1024:
        yield "max_length = 1024", replace(load, tokens=1024)


def _shape_note(load: Load) -> str:
    adapter = f"LoRA of rank {load.adapter.rank}" if load.adapter.rank else "all weights"
    if load.adapter.quantization:
        adapter += f" over {load.adapter.quantization}"
    more = ", gradient checkpointing" if load.checkpointing else ""
    rows = "1 row" if load.rows == 1 else f"{load.rows} rows"
    return f"{adapter}, {rows} of {load.tokens} tokens at once{more}"


def _seconds(method: Any, rows: int, model: str, folder: Path) -> tuple[float | None, str]:
    """Seconds, from the last training of the same method, weights and batch whose papers stand in `folder`."""
    kept = []
    for path in folder.glob("*/verbal.json"):
        try:
            papers = json.loads(path.read_text(encoding="utf-8"))
            options = papers["options"]
            same = all(options.get(k) == getattr(method, k, None) for k in ("batch", "group", "tasks", "lora_rank"))
            if same and (papers["method"], papers["base"]) == (getattr(method, "name", ""), model):
                kept.append((path.stat().st_mtime, float(papers["seconds"]) / max(1, int(papers["steps"])), papers))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not finished, or of another version
            continue
    if not kept:
        return None, "how long it takes is not known before a first training of this method and model"
    _, step, papers = max(kept, key=lambda found: found[0])
    steps = getattr(method, "steps", None) or math.ceil(papers["steps"] * rows / max(1, papers["rows"]))
    return round(step * steps, 1), f"{step:.2g} s a step, as in the last training of this kind"
