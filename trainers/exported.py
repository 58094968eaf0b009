"""Rows of an exported folder, as a method takes them, without holding them in memory.

`verbal export` (or anybody) writes JSONL or Parquet; `datasets` turns it once into Arrow files in its cache and maps
those into memory, so a training set may be larger than the machine's memory. Only what is looked at is read.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from verbal.contracts import Example
from verbal.errors import ConfigError, DataError, MissingExtra

from .examples import Row
from .traces import Span, Trace

__all__ = ["Exported", "Table", "rows_from_export"]

_PAPERS = ("task", "attempts", "origin", "critic", "value", "oracle", "models", "runs", "licences", "off_policy",
           "token_ids", "logprobs", "mask")  # fmt: skip
"""Columns of an export that say where a row came from; all others are TRL's."""
_AT_ONCE = 512


class Table(Sequence[Mapping[str, Any]]):
    """Some columns of the rows, read when looked at.

    Args:
        dataset: A memory-mapped `datasets.Dataset`.
        digest: SHA-256 of the files it came from.
    """

    def __init__(self, dataset: Any, digest: str) -> None:
        self.dataset, self.digest = dataset, digest

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, at: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> Table: ...
    def __getitem__(self, at: int | slice) -> Mapping[str, Any] | Table:
        if isinstance(at, slice):
            return Table(self.dataset.select(range(*at.indices(len(self)))), f"{self.digest}[{at}]")
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return dict(self.dataset[at % len(self)])

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for batch in self.dataset.iter(_AT_ONCE):
            names = list(batch)
            for values in zip(*batch.values(), strict=True):
                yield dict(zip(names, values, strict=True))


class Exported(Sequence[Example]):
    """The rows of an export as examples with their provenance; each is made when it is looked at.

    Args:
        table: All columns.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> Exported: ...
    def __getitem__(self, at: int | slice) -> Example | Exported:
        return Exported(self.table[at]) if isinstance(at, slice) else _example(self.table[at])

    def __iter__(self) -> Iterator[Example]:
        return map(_example, self.table)

    def columns(self, *names: str) -> Table:
        """Those columns only.

        Raises:
            DataError: one of them is missing, or empty somewhere.
        """
        found = self.table.dataset
        if missing := [n for n in names if n not in found.column_names]:
            what = f"the export has the columns {sorted(found.column_names)}, not {', '.join(missing)}"
            raise DataError(what, where="columns", todo="export the format that this method trains on")
        for name in names:
            if empty := sum(c.null_count for c in found.data.column(name).chunks):
                raise DataError(f"{name} is empty in {empty} of {len(found)} rows", where=name, todo="export again")
        return Table(found.select_columns(list(names)), self.table.digest)


def rows_from_export(folder: str | Path, *, cache: str | Path | None = None) -> Exported:
    """The rows of a folder that `verbal export` wrote (JSONL or Parquet), or that `Dataset.save_to_disk` did.

    Args:
        folder: With `*.jsonl`, `*.parquet`, or `dataset_info.json`.
        cache: Where the Arrow files of JSONL and Parquet are kept; None: the cache of `datasets` (HF_DATASETS_CACHE).

    Raises:
        ConfigError: no such folder, or nothing of that kind in it. DataError: a file cannot be read.
        MissingExtra: datasets is not installed.
    """
    place = Path(folder)
    try:
        datasets: Any = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise MissingExtra.of("datasets", "train") from error
    if not place.is_dir():
        raise ConfigError(f"there is no folder {str(place)!r}", where="--from-export", todo="make one: verbal export")
    files = sorted(place.glob("*.jsonl")) or sorted(place.glob("*.parquet"))
    saved = (place / "dataset_info.json").is_file()
    if not files and not saved:
        todo = "give a folder written by verbal export"
        raise ConfigError(f"no rows in {str(place)!r}: no .jsonl, no .parquet", where="--from-export", todo=todo)
    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        if saved:
            found, files = datasets.load_from_disk(str(place)), sorted(place.glob("*.arrow"))
        else:
            kind = "json" if files[0].suffix == ".jsonl" else "parquet"
            found = datasets.load_dataset(
                kind, data_files=[str(f) for f in files], split="train", cache_dir=str(cache) if cache else None
            )
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        what = f"the rows cannot be read: {str(error).strip().splitlines()[0]}"
        raise DataError(what, where=str(place), todo="export again") from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    if not len(found):
        raise DataError("the export has no rows", where=str(place), todo="export again")
    return Exported(Table(found, _digest(files)))


def _digest(files: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _example(record: Mapping[str, Any]) -> Example:
    """The row of a record; without provenance where the export has none (rows that others wrote)."""
    columns = {k: v for k, v in record.items() if k not in _PAPERS}
    attempts = tuple(record.get("attempts") or ())
    if not {"task", "origin", "oracle"} <= record.keys():
        return Example(columns=columns, attempts=attempts)
    ids, logprobs = record.get("token_ids"), record.get("logprobs")
    trace = Trace(
        token_ids=None if ids is None else tuple(ids),
        logprobs=None if logprobs is None else tuple(logprobs),
        off_policy=record.get("off_policy") or "",
        mask=tuple(Span(**span) for span in record.get("mask") or ()),
    )
    return Row(
        columns=columns,
        attempts=attempts,
        task=record["task"] or "",
        origin=record["origin"],
        critic=record.get("critic") or "",
        value=record.get("value"),
        oracle=bool(record["oracle"]),
        models=tuple(record.get("models") or ()),
        runs=tuple(record.get("runs") or ()),
        licences=tuple(record.get("licences") or ()),
        trace=trace,
    )
