"""The embedded model, trained through TRL on its own view of a prompt: slots instead of names.

Each row's prompt text is read back into fields and encoded with stable slots (the same column and the same word always
get the same slot, otherwise nothing could be learnt about a term), and its answer is encoded against that prompt.
Questions about one schema share its tokens in a pack and do not see each other, as in the model's first training.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
import transformers

from verbal.errors import TrainError, VerbalError
from verbal.models.embedded import hf
from verbal.models.embedded.ast import Unsupported
from verbal.models.embedded.codec import Answer, encode, encode_answer
from verbal.models.embedded.corpus.packs import IGNORED, Pack, packs
from verbal.models.embedded.model import SHIPPED
from verbal.models.embedded.read import fences, read_prompt
from verbal.models.embedded.vocabulary import INDEX, VOCABULARY

from .fit import Progress, Run, fit, quiet
from .muon import MuonAdamW

if TYPE_CHECKING:
    from .sft import SFT

__all__ = ["Encoded", "collate", "encode_rows", "folder_of", "optimizer_of", "steps_of", "train_embedded"]

_STEPS, _EPOCHS, _RATE, _BATCH, _PACK, _BLOCK, _BLEND = 72, 4.0, 1.2e-2, 32, 512, 16, 0.8
"""Measured on the demo (`bench/distill.py`): at least so many steps and epochs, peak rate, rows of a step, tokens of
a pack, rows of one schema in a row, and share of the trained weights in the result."""
_EMBEDDING = 5 / 6
"""Rate of the embeddings over that of the matrices."""
_WORD = 14.0
"""And of the word slots over that of other embeddings: what an unknown word means here is all that is new."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row in token ids."""

    schema: tuple[int, ...]
    """What the prompt says of the database."""
    question: tuple[int, ...]
    """The rest of the prompt and the answer."""
    answer: int
    """How many of the last tokens are the answer."""


def train_embedded(
    method: SFT,
    rows: Sequence[Mapping[str, Any]],
    model: str,
    out: Path,
    *,
    seed: int,
    on_progress: Progress | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Trains the embedded model on rows `prompt` + `completion`, saves it in `out` in its own format.

    Raises:
        TrainError: no row can be encoded.
    """
    encoded, unsupported = encode_rows(rows)
    short = [row for row in encoded if len(row.schema) + len(row.question) <= method.max_length]
    if not short:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in unsupported.items())
        raise TrainError(
            f"none of {len(rows)} rows fits the embedded model ({reasons or 'too long'})",
            where="rows",
            todo="train a Hugging Face model on them instead, or see the limits in the model's card",
        )
    batch = method.batch or max(4, min(_BATCH, len(short) // 4))
    epochs = method.epochs or max(_EPOCHS, _STEPS * batch / len(short))
    steps = list(steps_of(short, epochs=epochs, batch=batch, rehearsal=method.rehearsal, seed=seed))
    run = Run(
        epochs=1,
        batch=1,
        learning_rate=method.learning_rate or _RATE,
        shuffle=False,
        seed=seed,
        device="cpu",
        mixed=_fast_bfloat16() if method.precision == "auto" else method.precision == "bfloat16",
        threads=method.threads,
        save_steps=method.save_steps,
    )
    network, tokenizer = _opened(folder_of(model))
    optimizer = optimizer_of(network, run.learning_rate)
    trained, figures = fit(
        network, tokenizer, steps, out, run,
        collator=collate, optimizer=optimizer, on_progress=on_progress, resume=resume,
    )  # fmt: skip
    _blend(trained, folder_of(model), method.blend or _BLEND)
    hf.save(trained, out)
    left_out = {"too_long": len(encoded) - len(short), "unsupported": unsupported}
    return {**figures, "rows": len(short), "epochs": epochs, **left_out}


def optimizer_of(network: Any, rate: float) -> MuonAdamW:
    """The optimiser that suits the embedded model: Muon at `rate`, and what an unknown word means learns fastest."""
    rates_V = torch.tensor([_WORD if re.fullmatch(r"w\d+", token) else 1.0 for token in VOCABULARY])
    return MuonAdamW(network.named_parameters(), rate, _EMBEDDING * rate, rates_V)


def encode_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Encoded], dict[str, int]]:
    """The rows in token ids, and how many could not be encoded, by reason."""
    found: list[Encoded] = []
    reasons: dict[str, int] = {}
    for row in rows:
        try:
            found.append(_encoded(row))
        except (Unsupported, VerbalError) as error:
            reason = str(error).splitlines()[0][:80]
            reasons[reason] = reasons.get(reason, 0) + 1
    return found, dict(sorted(reasons.items()))


def _encoded(row: Mapping[str, Any]) -> Encoded:
    prompt = encode(read_prompt([(m["role"], m["content"]) for m in row["prompt"]]))
    queries = fences(row["completion"][-1]["content"])
    if prompt.role != "solver" or not queries:
        raise Unsupported(f"role {prompt.role}" if queries else "a completion without a fenced query")
    answer = encode_answer(prompt, Answer(sql=queries[-1]))
    ids = [INDEX[token] for token in (*prompt.tokens, *answer)]
    return Encoded(tuple(ids[: prompt.schema_tokens]), tuple(ids[prompt.schema_tokens :]), len(answer))


def folder_of(model: str) -> Path:
    """The folder of `embedded` (the weights of this package) or `embedded:FOLDER`."""
    return Path(model.partition(":")[2] or SHIPPED)


def _opened(folder: Path) -> tuple[Any, Any]:
    try:
        with quiet():
            return hf.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise TrainError(
            f"no embedded model can be loaded: {first}", where=str(folder), todo="give its folder"
        ) from error


def _blend(trained: Any, base: Path, share: float) -> None:
    """Moves the trained weights a part of the way back, which returns most of the skill that tuning cost.

    Source: Wortsman et al. 2022, Robust fine-tuning of zero-shot models, arXiv 2109.01903, equation 1.
    """
    if share == 1:
        return
    with quiet(), torch.no_grad():
        before = dict(hf.load(base).named_parameters())
        for name, parameter in trained.named_parameters():
            parameter.lerp_(before[name], 1 - share)


def _fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def steps_of(
    rows: Sequence[Encoded], *, epochs: float, batch: int, rehearsal: float, seed: int
) -> Iterator[dict[str, list[int]]]:
    """The optimiser steps of a whole run, in order: `batch` rows in packs, and synthetic ones to rehearse.

    The rows are shuffled anew in each epoch; the same seed gives the same steps.
    """
    rng = Random(seed)
    queue: list[Encoded] = []
    while len(queue) < round(epochs * len(rows)):
        queue += _shuffled(rows, rng)
    synthetic, owed = packs(seed, _PACK), 0.0
    for at in range(0, round(epochs * len(rows)), batch):
        chunk = queue[at : at + batch]
        made = list(_packed(chunk))
        owed += rehearsal * len(chunk)
        while owed >= 1:
            pack = next(synthetic)
            owed -= max(pack.segments)
            made.append(pack)
        yield _joined(made)


def _shuffled(rows: Sequence[Encoded], rng: Random) -> list[Encoded]:
    """The rows in a new order in which `_BLOCK` rows about one schema stand together, so that they share its tokens."""
    by_schema: dict[tuple[int, ...], list[Encoded]] = {}
    for row in rng.sample(list(rows), len(rows)):
        by_schema.setdefault(row.schema, []).append(row)
    blocks = [several[at : at + _BLOCK] for several in by_schema.values() for at in range(0, len(several), _BLOCK)]
    rng.shuffle(blocks)
    return [row for block in blocks for row in block]


def _packed(rows: Sequence[Encoded]) -> Iterator[Pack]:
    """Packs of at most `_PACK` tokens (one row may be longer); rows about the same schema share its tokens."""
    by_schema: dict[tuple[int, ...], list[Encoded]] = {}
    for row in rows:
        by_schema.setdefault(row.schema, []).append(row)
    pack, group, segment = Pack(), 0, 0
    for schema, several in by_schema.items():
        opened = False
        for row in several:
            need = len(row.question) + (0 if opened else len(schema))
            if pack.ids and len(pack.ids) + need > _PACK:
                yield pack
                pack, opened = Pack(), False
            if not opened:
                group += 1
                pack.add(list(schema), 0, group, 0, 0)
                opened = True
            segment += 1
            pack.add(list(row.question), len(schema), group, segment, row.answer)
    yield pack


def _joined(made: Sequence[Pack]) -> dict[str, list[int]]:
    """Packs one after another, as one row of a dataset; `labels` stand where TRL looks for them, one to the right."""
    return {
        "input_ids": [i for pack in made for i in pack.ids],
        "labels": [i for pack in made for i in (IGNORED, *pack.targets[:-1])],
        "positions": [i for pack in made for i in pack.positions],
        "groups": [i for pack in made for i in pack.groups],
        "segments": [i for pack in made for i in pack.segments],
        "lengths": [len(pack.ids) for pack in made],
    }


def collate(steps: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """The tensors of one step: ids_BT, labels_BT, position_ids_BT and attention_mask_B1TT (True: sees).

    A token sees itself and what comes before it in its question and in the schema of that question.
    """
    (step,) = steps
    longest = max(step["lengths"])

    def cut(column: str, fill: int) -> torch.Tensor:
        rows, at = [], 0
        for length in step["lengths"]:
            rows.append([*step[column][at : at + length], *[fill] * (longest - length)])
            at += length
        return torch.tensor(rows)

    groups_BT, segments_BT = cut("groups", 0), cut("segments", 0)
    together_BTT = groups_BT[:, :, None] == groups_BT[:, None, :]
    related_BTT = (segments_BT[:, :, None] == segments_BT[:, None, :]) | (segments_BT == 0)[:, None, :]
    causal_TT = torch.ones(longest, longest, dtype=torch.bool).tril()
    return {
        "input_ids": cut("input_ids", 0),
        "labels": cut("labels", IGNORED),
        "position_ids": cut("positions", 0),
        "attention_mask": (causal_TT & together_BTT & related_BTT)[:, None],
    }
