"""Vectors from one of Chroma's own embedding functions, by the name Chroma knows it by.

`chroma/default` is its MiniLM in ONNX, which Chroma downloads (79 MB) at the first text; without a network, or with
HF_HUB_OFFLINE set, that is an error that says so. Functions of a cloud read their keys as Chroma documents it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from verbal.errors import ConfigError, ModelError, UnknownName
from verbal.models._faults import clip, foreign_fault

from .embedders import unit_vectors

_YES = ("1", "ON", "YES", "TRUE")
# What a vector costs there is not told by Chroma; these run here.
_FREE = ("default", "onnx_mini_lm_l6_v2", "sentence_transformer", "text2vec", "instructor", "open_clip", "ollama")


class ChromaEmbedder:
    """Texts to unit vectors by an embedding function of Chroma's.

    Args:
        function: Its name in Chroma, such as `default`, `ollama` or one that was registered there.
        price: US dollars per million tokens; not given: 0 for what runs on this machine, None (unknown) for the rest.
        options: Its own keyword arguments, such as `model_name`.

    Raises:
        UnknownName: Chroma has no such function. ConfigError: it needs a package, a key or an option.
    """

    blocking: ClassVar[bool] = True

    def __init__(self, function: str = "default", *, price: float | None = None, **options: Any) -> None:
        from chromadb.utils import embedding_functions

        known = embedding_functions.known_embedding_functions
        if function not in known:
            raise UnknownName.of("Chroma embedding function", function, known, where=f"embedder chroma/{function}")
        self.name = f"chroma/{function}" + (f"/{options['model_name']}" if options.get("model_name") else "")
        made = known[function]
        own = made.__module__.startswith("chromadb.")
        self.price = price if price is not None else (0.0 if function in _FREE or not own else None)
        """US dollars per million tokens; None when it is not known."""
        if made is embedding_functions.DefaultEmbeddingFunction:
            made = embedding_functions.ONNXMiniLM_L6_V2  # the default is this one, loaded anew at every call
        try:
            self._function = made(**options)
        except (ValueError, TypeError, ImportError, OSError) as error:
            what = f"Chroma's function {function!r} cannot be made: {clip(str(error))}"
            raise ConfigError(what, where=f"embedder {self.name}", todo="see Chroma's documentation of it") from None
        self._downloads = made is embedding_functions.ONNXMiniLM_L6_V2
        self._size = 0
        self._lock = threading.RLock()

    @property
    def dimension(self) -> int:
        """Length of the vectors; one word is embedded for it before the first text.

        Raises:
            As `embed`.
        """
        with self._lock:
            if not self._size:
                self.embed(["dimension"])
            return self._size

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """One unit vector per text.

        Raises:
            ConfigError: the model is not here and cannot be downloaded. ModelError: the function failed, or its vectors
                are wrong.
        """
        return self._call(self._function, texts)

    def embed_query(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """One unit vector per text that searches; the same as `embed` for functions that make no difference."""
        return self._call(getattr(self._function, "embed_query", self._function), texts)

    def _call(self, function: Any, texts: Sequence[str]) -> list[tuple[float, ...]]:
        if not texts:
            return []
        clean = [t.encode("utf-8", "replace").decode("utf-8") for t in texts]
        with self._lock:
            missing = self._missing()
            if missing is not None and os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES:
                raise self._not_here(missing, "HF_HUB_OFFLINE is set")
            try:
                rows = function(clean)
            # Any package may be behind it, with errors of its own; they are told by what they carry.
            except Exception as error:
                if missing is not None and self._missing() is not None:
                    raise self._not_here(missing, f"{type(error).__name__}: {clip(str(error), 160)}") from None
                raise foreign_fault(error, where=f"embedder {self.name}") from None
            if rows is None:
                raise ModelError("no vectors came", where=f"embedder {self.name}", todo="check the function")
            vectors = unit_vectors(list(rows), len(clean), dimension=self._size or None, where=f"embedder {self.name}")
            self._size = len(vectors[0])
            return vectors

    def _missing(self) -> Path | None:
        """Where the model's files belong, when they are not all there and Chroma would download them."""
        if not self._downloads:
            return None
        folder = Path(self._function.DOWNLOAD_PATH) / self._function.EXTRACTED_FOLDER_NAME
        files = ("config.json", "model.onnx", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json")
        return None if all((folder / name).is_file() for name in (*files, "vocab.txt")) else folder

    def _not_here(self, folder: Path, why: str) -> ConfigError:
        return ConfigError(
            f"the model of Chroma's embedding function is not on this machine, and cannot be downloaded: {why}",
            where=f"embedder {self.name}, files in {folder}",
            todo="embed one text where there is a network and copy that folder here, or take embedder `hashing` or "
            "`sentences/FOLDER`",
        )


__all__ = ["ChromaEmbedder"]
