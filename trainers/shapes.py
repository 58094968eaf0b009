"""The shape of a language model as its config.json tells it: sizes and counts, without loading a weight."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbal.errors import TrainError
from verbal.models.embedded.model import SHIPPED

__all__ = ["Shape", "config_file", "shape_of"]

_PLAIN = {"gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "opt", "phi", "starcoder2", "bloom", "falcon"}
"""Model types whose MLP is two matrices; in all others a gate makes it three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder-only transformer."""

    layers: int
    hidden: int
    inner: int
    """Of the MLP, or of one expert."""
    heads: int
    kv_heads: int
    head: int
    """Size of one head."""
    vocab: int
    context: int | None
    """Tokens it reads at most, where it says."""
    tied: bool
    """Whether the head is the embedding."""
    gated: bool
    experts: int
    """0: an ordinary MLP."""
    active: int
    """Experts that one token passes; 1 for an ordinary MLP."""
    shared: int
    """Inner size of an expert that every token passes, 0 for none."""

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of every linear layer of one block."""
        q, kv = self.heads * self.head, self.kv_heads * self.head
        wide = [(self.hidden, self.inner)] * (2 if self.gated else 1) + [(self.inner, self.hidden)]
        always = [(self.hidden, self.shared)] * 2 + [(self.shared, self.hidden)] if self.shared else []
        router = [(self.hidden, self.experts)] if self.experts else []
        attention = [(self.hidden, q), (self.hidden, kv), (self.hidden, kv), (q, self.hidden)]
        return tuple(attention + wide * max(1, self.experts) + always + router)

    @property
    def linear(self) -> int:
        """Parameters in linear layers of all blocks: what adapters go on and 4 bits keep."""
        return self.layers * sum(i * o for i, o in self.matrices)

    @property
    def embeddings(self) -> int:
        """Parameters of the embedding, and of the head where it is one of its own."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All of them but biases: at most a thousandth is missing."""
        return self.linear + self.embeddings + self.hidden * (2 * self.layers + 1)

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA of a rank on every linear layer but the head: rank x (in + out) each."""
        return self.layers * sum(rank * (i + o) for i, o in self.matrices)


def config_file(model: str) -> Path:
    """The config.json of a model as a method takes it: `embedded`, `embedded:FOLDER`, a folder, or a downloaded name.

    Raises:
        TrainError: there is none on this machine.
    """
    name = model.removeprefix("hf:")
    if name == "embedded" or name.startswith("embedded:"):
        name = name.partition(":")[2] or str(SHIPPED)
    path = Path(name) / "config.json"
    if path.is_file():
        return path
    try:
        found = importlib.import_module("huggingface_hub").try_to_load_from_cache(name, "config.json")
    except (ImportError, ValueError):  # not installed, or no name of a repository
        found = None
    if isinstance(found, str):
        return Path(found)
    todo = "give the folder of a model, or download it first"
    raise TrainError(f"there is no config.json of the model {model!r} on this machine", where="model", todo=todo)


def shape_of(model: str) -> Shape:
    """The shape of a model.

    Raises:
        TrainError: no config.json, or one that does not tell the sizes of a decoder-only transformer.
    """
    path = config_file(model)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        told = {**told, **told.get("text_config", {})}
        return _shape(told)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{path.name} does not tell the sizes of a decoder-only transformer ({type(error).__name__}: {error})"
        raise TrainError(what, where=str(path), todo="take another model, or train without an estimate") from error


def _shape(told: Mapping[str, Any]) -> Shape:
    def size(*names: str) -> int | None:
        return next((int(told[name]) for name in names if isinstance(told.get(name), int)), None)

    hidden, layers = size("hidden_size", "n_embd", "d_model"), size("num_hidden_layers", "n_layer", "num_layers")
    heads, vocab = size("num_attention_heads", "n_head", "num_heads"), size("vocab_size")
    if not hidden or not layers or not heads or not vocab:
        raise KeyError("hidden_size, num_hidden_layers, num_attention_heads or vocab_size")
    experts = size("num_local_experts", "num_experts", "n_routed_experts") or 0
    inner = size("intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    kind = str(told.get("model_type", ""))
    return Shape(
        layers=layers,
        hidden=hidden,
        inner=(size("moe_intermediate_size") or inner) if experts else inner,
        heads=heads,
        kv_heads=size("num_key_value_heads") or heads,
        head=size("head_dim") or hidden // heads,
        vocab=vocab,
        context=size("max_position_embeddings", "n_positions", "max_seq_len"),
        tied=bool(told.get("tie_word_embeddings", kind in ("gpt2", "gemma", "gemma2", "gemma3_text"))),
        gated=kind not in _PLAIN,
        experts=experts,
        active=size("num_experts_per_tok", "num_experts_per_token") or 2 if experts else 1,
        shared=size("shared_expert_intermediate_size") or 0 if experts else 0,
    )
