"""The forward pass of a Llama-architecture model in numpy, with key/value cache, and sampling of tokens.

Enough for small models on a CPU: float32, rotary positions in halves, grouped heads, tied or untied output.
Source: Touvron et al., LLaMA (arXiv 2302.13971); Su et al., RoFormer (arXiv 2104.09864).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
"""Array of floating-point numbers (float32 in practice)."""

Cache = list[tuple[Array, Array]]
"""Keys and values of each layer, shape (key/value heads, tokens, width)."""


def read_safetensors(path: Path) -> dict[str, Array]:
    """The tensors of a safetensors file (F32, F16 or BF16) as float32.

    Raises:
        ValueError: when the file is no safetensors file or holds another type of number.
    """
    raw = path.read_bytes()
    if len(raw) < 8 or 8 + struct.unpack("<Q", raw[:8])[0] > len(raw):
        raise ValueError(f"{path} is not a whole safetensors file ({len(raw)} bytes)")
    size = struct.unpack("<Q", raw[:8])[0]
    header: dict[str, Any] = json.loads(raw[8 : 8 + size])
    found: dict[str, Array] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        data = raw[8 + size + start : 8 + size + end]
        if entry["dtype"] == "BF16":
            bits = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
            flat = bits.view(np.float32)
        elif entry["dtype"] in ("F32", "F16"):
            flat = np.frombuffer(data, {"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(np.float32)
        else:
            raise ValueError(f"{path}: tensor {name} has type {entry['dtype']}; F32, F16 or BF16 expected")
        found[name] = flat.reshape(entry["shape"])
    return found


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Array
    out: Array
    gate_up: Array
    down: Array
    before: Array
    after: Array


class Network:
    """One model, read from a Hugging Face folder (config.json, model.safetensors), or of tensors in memory."""

    def __init__(self, folder: str | Path, tensors: Mapping[str, Array] | None = None) -> None:
        """Reads configuration and weights.

        Args:
            folder: Of config.json, and of the weights when no tensors are given.
            tensors: The weights by the names that a file of them has, such as those of a training under way.

        Raises:
            OSError: when a file is missing.
            ValueError: when it is no Llama model or a tensor is missing.
        """
        where = Path(folder)
        config = json.loads((where / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type", "llama") != "llama":
            raise ValueError(f"{where}: model type {config.get('model_type')!r}, llama expected")
        tensors = read_safetensors(where / "model.safetensors") if tensors is None else tensors
        self.heads: int = config["num_attention_heads"]
        self.groups: int = config.get("num_key_value_heads") or self.heads
        self.context: int = config.get("max_position_embeddings", 2048)
        self.epsilon = np.float32(config.get("rms_norm_eps", 1e-6))
        try:
            self.embedding = tensors["model.embed_tokens.weight"]
            self.output = tensors.get("lm_head.weight", self.embedding)
            self.norm = tensors["model.norm.weight"]
            self.layers = [_layer(tensors, f"model.layers.{n}.") for n in range(config["num_hidden_layers"])]
        except KeyError as error:
            raise ValueError(f"{where}: no tensor {error.args[0]!r}") from error
        self.width: int = config.get("head_dim") or self.embedding.shape[1] // self.heads
        rope = config.get("rope_parameters") or {}
        theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
        angles = np.outer(np.arange(self.context), theta ** (-np.arange(0, self.width, 2) / self.width))
        self.cos, self.sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def _normed(self, x: Array, weight: Array) -> Array:
        scale: Array = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        return x / scale * weight

    def _turned(self, x: Array, first: int, same: bool) -> Array:
        """Rotary positions: rows are consecutive tokens from `first`, or (`same`) all at `first`."""
        half = self.width // 2
        last = first + (1 if same else x.shape[-2])
        cos, sin = self.cos[first:last], self.sin[first:last]
        one, two = x[..., :half], x[..., half:]
        turned: Array = np.concatenate((one * cos - two * sin, two * cos + one * sin), axis=-1)
        return turned

    def _heads_of(self, x: Array, layer: _Layer) -> tuple[Array, Array, Array]:
        rows = x.shape[0]
        joined = (x @ layer.qkv).reshape(rows, self.heads + 2 * self.groups, self.width).transpose(1, 0, 2)
        return np.split(joined, (self.heads, self.heads + self.groups))  # type: ignore[return-value]

    def _shared(self, x: Array) -> Array:
        """Key/value heads repeated to one for each query head."""
        return x if self.groups == self.heads else np.repeat(x, self.heads // self.groups, axis=-3)

    def _mixed(self, x: Array, layer: _Layer) -> Array:
        gate, up = np.split(self._normed(x, layer.after) @ layer.gate_up, 2, axis=-1)
        active: Array = gate / (1.0 + np.exp(-gate)) * up
        return x + active @ layer.down

    def read(self, ids: Sequence[int], past: Cache | None = None) -> tuple[Array, Cache]:
        """Reads tokens behind what `past` holds: scores of the next token, shape (vocabulary,), and the new cache.

        Raises:
            ValueError: when there is no token, or more than the context holds.
        """
        before = past[0][0].shape[-2] if past else 0
        if not ids or before + len(ids) > self.context:
            raise ValueError(f"{before + len(ids)} tokens, between 1 and {self.context} expected")
        x = self.embedding[list(ids)]
        rows = len(ids)
        hidden = np.triu(np.full((rows, before + rows), -np.inf, np.float32), before + 1)
        cache: Cache = []
        for number, layer in enumerate(self.layers):
            q, k, v = self._heads_of(self._normed(x, layer.before), layer)
            q, k = self._turned(q, before, False), self._turned(k, before, False)
            if past:
                k, v = np.concatenate((past[number][0], k), 1), np.concatenate((past[number][1], v), 1)
            cache.append((k, v))
            weights = _softmax(q @ self._shared(k).swapaxes(1, 2) / np.float32(self.width**0.5) + hidden)
            seen = (weights @ self._shared(v)).transpose(1, 0, 2).reshape(rows, -1)
            x = self._mixed(x + seen @ layer.out, layer)
        return self._normed(x[-1], self.norm) @ self.output.T, cache

    def grow(self, past: Cache, rows: int, room: int) -> Tails:
        """Space for `rows` continuations of `room` tokens of what `past` holds."""
        shape = (rows, self.groups, room, self.width)
        own = [(np.empty(shape, np.float32), np.empty(shape, np.float32)) for _ in self.layers]
        return Tails(past, own, 0)

    def step(self, tokens: npt.NDArray[np.int64], tails: Tails) -> Array:
        """Adds one token to each continuation: scores of the next, shape (rows, vocabulary)."""
        x = self.embedding[tokens]
        rows, place = len(tokens), tails.length
        position = tails.past[0][0].shape[-2] + place
        size = np.float32(self.width**0.5)
        for number, layer in enumerate(self.layers):
            q, k, v = self._heads_of(self._normed(x, layer.before), layer)
            q, k = self._turned(q, position, True), self._turned(k, position, True)
            own_k, own_v = tails.own[number]
            own_k[:, :, place], own_v[:, :, place] = k.transpose(1, 0, 2), v.transpose(1, 0, 2)
            old_k, old_v = (self._shared(part) for part in tails.past[number])
            new_k, new_v = (self._shared(part[:, :, : place + 1]) for part in tails.own[number])
            far = (q @ old_k.swapaxes(1, 2)).transpose(1, 0, 2)
            near = (new_k @ q.transpose(1, 0, 2)[..., None])[..., 0]
            weights = _softmax(np.concatenate((far, near), -1) / size)
            split = far.shape[-1]
            seen = (weights[..., :split].transpose(1, 0, 2) @ old_v).transpose(1, 0, 2)
            seen = seen + (weights[..., None, split:] @ new_v)[..., 0, :]
            x = self._mixed(x + seen.reshape(rows, -1) @ layer.out, layer)
        tails.length += 1
        return self._normed(x, self.norm) @ self.output.T


@dataclass(slots=True)
class Tails:
    """Continuations of one prompt: what they share and what each has of its own."""

    past: Cache
    own: Cache
    length: int

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all continuations but these."""
        self.own = [(k[list(rows)], v[list(rows)]) for k, v in self.own]


def _layer(tensors: Mapping[str, Array], prefix: str) -> _Layer:
    def joined(*names: str) -> Array:
        return np.ascontiguousarray(np.concatenate([tensors[f"{prefix}{name}.weight"] for name in names]).T)

    return _Layer(
        qkv=joined("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        out=joined("self_attn.o_proj"),
        gate_up=joined("mlp.gate_proj", "mlp.up_proj"),
        down=joined("mlp.down_proj"),
        before=tensors[f"{prefix}input_layernorm.weight"],
        after=tensors[f"{prefix}post_attention_layernorm.weight"],
    )


def _softmax(x: Array) -> Array:
    powers: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    total: Array = powers.sum(axis=-1, keepdims=True)
    return powers / total


def log_softmax(x: Array) -> Array:
    """Log-probabilities along the last axis."""
    shifted: Array = x - x.max(axis=-1, keepdims=True)
    total: Array = np.exp(shifted).sum(axis=-1, keepdims=True)
    return shifted - np.log(total)


def choose(scores: Array, temperature: float, top_p: float, rng: np.random.Generator) -> int:
    """One token by its scores: the best at temperature 0, else drawn from the `top_p` mass at this temperature."""
    if temperature <= 0:
        return int(scores.argmax())
    weights = _softmax(scores / np.float32(temperature)).astype(np.float64)
    if top_p < 1:
        order = np.argsort(-weights)
        cut = int(np.searchsorted(np.cumsum(weights[order]), top_p)) + 1
        weights[order[cut:]] = 0
    return int(rng.choice(len(weights), p=weights / weights.sum()))
