"""The columns of exported rows: what each means, and its type in Parquet."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from verbal.errors import MissingExtra

__all__ = ["COLUMNS", "as_parquet", "records_of"]

COLUMNS = {
    "prompt": ("messages", "list of messages (`role`, `content`): the task as asked, without hints and earlier tries; "
               "in `retrospective` what the reflector was asked"),
    "completion": ("messages", "list of messages: an answer (which formats say right, `label` or `reward` tells)"),
    "chosen": ("messages", "list of messages: an answer that was right"),
    "rejected": ("messages", "list of messages: an answer that was not"),
    "label": ("bool", "whether the answer was right"),
    "reward": ("float", "the critic's value of the answer; in `retrospective` after - before, null without a retry"),
    "spans": ("spans", "labels of pieces of the completion: `start`, `end` (characters), `value`, `critic`"),
    "privileged_context": ("text", "words the author had read and the student does not see"),
    "first": ("messages", "list of messages: the answer that was criticised"),
    "critique": ("text", "what was said of the first answer, read by the author of the refined one"),
    "first_reward": ("float", "the critic's value of the first answer"),
    "before": ("float", "what the attempt returned that is reflected on"),
    "after": ("float", "what the retries returned that read the reflection; null when there was none"),
    "failed": ("int", "first tries at the question, all of which failed"),
    "near_prompt": ("messages", "list of messages: a request near the lesson's scope"),
    "near_completion": ("messages", "list of messages: its answer without the lesson"),
    "outside_prompt": ("messages", "list of messages: a request outside the lesson's scope"),
    "outside_completion": ("messages", "list of messages: its answer without the lesson"),
    "held_out": ("bool", "true for the tenth that is for evaluation"),
    "task": ("text", "id of the task"),
    "attempts": ("texts", "ids of the attempts it came from"),
    "origin": ("text", "`sampled` (first try), `refined` (retry), `correction` (a user's), `group` (a critic's pair), "
               "`reflection`, `scope` or `task`"),
    "critic": ("text", "who judged it"),
    "value": ("float", "the critic's value of the right answer; null where a person or a group comparison decided"),
    "oracle": ("bool", "true when a gold answer decided"),
    "models": ("texts", "who wrote the answers"),
    "runs": ("texts", "runs of the attempts"),
    "licences": ("texts", "licences that the tasks name"),
    "off_policy": ("text", "why the answer is no sample from the prompt with known log-probabilities; empty if it is"),
    "token_ids": ("ints", "tokens of the completion as sampled"),
    "logprobs": ("floats", "their log-probabilities when sampled, nats"),
    "mask": ("mask", "the prompt the author saw: spans of characters (`message`, `start`, `end`) that the row keeps or "
             "discards (`keep`); empty where nothing was discarded"),
}  # fmt: skip
"""Name -> (type, meaning)."""


def records_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Records of rows, without the tokens and log-probabilities where no row has them."""
    unused = {c for c in ("token_ids", "logprobs") if all(row[c] is None for row in rows)}
    return [{k: v for k, v in row.items() if k not in unused} for row in rows]


def as_parquet(records: Sequence[Mapping[str, Any]]) -> bytes:
    """The records as a Parquet file.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        pa = importlib.import_module("pyarrow")
        writer = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise MissingExtra.of("pyarrow", "train") from error
    text, float_, int_, bool_ = pa.string(), pa.float64(), pa.int64(), pa.bool_()
    place = [("start", int_), ("end", int_)]
    types = {"text": text, "float": float_, "int": int_, "bool": bool_, "texts": pa.list_(text)}
    types |= {"ints": pa.list_(int_), "floats": pa.list_(float_)}
    types["messages"] = pa.list_(pa.struct([("role", text), ("content", text)]))
    types["spans"] = pa.list_(pa.struct([*place, ("value", float_), ("critic", text)]))
    types["mask"] = pa.list_(pa.struct([("message", int_), *place, ("keep", bool_)]))
    schema = pa.schema([(name, types[COLUMNS[name][0]]) for name in records[0]])
    sink = pa.BufferOutputStream()
    writer.write_table(pa.Table.from_pylist(list(records), schema=schema), sink)
    return bytes(sink.getvalue())
