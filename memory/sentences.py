"""Vectors from a sentence-transformers model on this machine: a name on the Hugging Face Hub, or a folder.

The package (and torch with it) is imported and the model loaded at the first text. With HF_HUB_OFFLINE set nothing is
downloaded: what is not in the cache is an error that says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from verbal.errors import ConfigError, MissingExtra, ModelError

from .embedders import unit_vectors

_YES = ("1", "ON", "YES", "TRUE")


class SentenceTransformersEmbedder:
    """Texts to unit vectors by a sentence-transformers model.

    A text longer than the model reads is cut from its end, by the library. Code that comes with a model is not run.

    Args:
        model: Name of a model, such as `sentence-transformers/all-MiniLM-L6-v2`, or its folder.
        device: Where it runs, such as `cuda`; the library chooses when not given.
        batch: Texts that are embedded together.
        dimensions: Length to which the vectors are cut, for models trained for it.

    Raises:
        MissingExtra: sentence-transformers is not installed. ConfigError: no such folder, or a number below 1.
    """

    blocking: ClassVar[bool] = True

    def __init__(
        self, model: str, *, device: str | None = None, batch: int = 32, dimensions: int | None = None
    ) -> None:
        for option, value in (("batch", batch), ("dimensions", dimensions)):
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(
                    f"{option} {value!r}", where=f"embedder sentences/{model}", todo="give a number from 1"
                )
        if importlib.util.find_spec("sentence_transformers") is None:
            raise MissingExtra.of("sentence_transformers", "embed")
        folder = Path(model).expanduser()
        if not folder.is_dir() and (model.startswith((".", "/", "~")) or folder.exists()):
            todo = "give a folder that sentence-transformers saved, or the name of a model"
            raise ConfigError(f"no folder {model!r}", where="embedder sentences", todo=todo)
        self._source = str(folder) if folder.is_dir() else model
        shown = f"{folder.resolve().name}-{_digest(folder)}" if folder.is_dir() else model
        self.name = f"sentences/{shown}" + (f"/{dimensions}" if dimensions else "")
        self._device, self._batch, self._dimensions = device, batch, dimensions
        self._model: Any = None
        self._size = 0
        self._lock = threading.RLock()

    @property
    def dimension(self) -> int:
        """Length of the vectors; the model is loaded for it.

        Raises:
            ConfigError: the model cannot be loaded.
        """
        with self._lock:
            if not self._size:
                self._size = len(self.embed(["dimension"])[0])
            return self._size

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """One unit vector per text.

        Raises:
            ConfigError: the model cannot be loaded. ModelError: it broke, or its vectors are wrong.
        """
        return self._encode("encode_document", texts)

    def embed_query(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """One unit vector per text that searches: with the model's own prompt for questions, where it has one."""
        return self._encode("encode_query", texts)

    def _encode(self, method: str, texts: Sequence[str]) -> list[tuple[float, ...]]:
        if not texts:
            return []
        clean = [t.encode("utf-8", "replace").decode("utf-8") for t in texts]
        with self._lock:
            encode = getattr(self._loaded(), method)
            try:
                rows = encode(clean, batch_size=self._batch, show_progress_bar=False, convert_to_numpy=True)
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                what = f"sentence-transformers failed: {type(error).__name__}: {error}"
                raise ModelError(what, where=f"embedder {self.name}", todo="take another model or device") from error
            vectors = unit_vectors(list(rows), len(clean), dimension=self._size or None, where=f"embedder {self.name}")
            self._size = len(vectors[0])
            return vectors

    def _loaded(self) -> Any:
        if self._model is None:
            from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found, unused-ignore]

            offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES
            try:
                self._model = SentenceTransformer(
                    self._source, device=self._device, truncate_dim=self._dimensions, local_files_only=offline
                )
            except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
                first = (str(error).splitlines() or [""])[0]
                what = f"the model {self._source!r} cannot be loaded: {type(error).__name__}: {first}"
                todo = "check name or folder" + (
                    "; it is not downloaded, because HF_HUB_OFFLINE is set: unset it once, or give a folder"
                    if offline
                    else "; without a network, give the folder of a model"
                )
                raise ConfigError(what, where=f"embedder {self.name}", todo=todo) from error
        return self._model


def _digest(folder: Path) -> str:
    """Twelve hexadecimal digits over the names and bytes of a model's files; what only people read is left out."""
    found = hashlib.blake2b(digest_size=6)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = path.relative_to(folder).parts
        if path.suffix == ".md" or any(p.startswith((".", "__pycache__")) for p in parts):
            continue
        found.update("/".join(parts).encode("utf-8", "surrogateescape") + b"\0")
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "blake2b").digest())
    return found.hexdigest()


__all__ = ["SentenceTransformersEmbedder"]
