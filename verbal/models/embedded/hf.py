"""The embedded model as an ordinary Hugging Face folder: LlamaForCausalLM and a word-level fast tokenizer.

`AutoModelForCausalLM` and `AutoTokenizer` load such a folder and TRL trains it on slot text, where one word is one
token; the result loads back into the numpy forward pass. torch and transformers are imported inside the functions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verbal.models.embedded.vocabulary import INDEX, SPECIAL, VOCABULARY

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

CONTEXT = 1024
"""Longest prompt and answer together, in tokens."""


def fresh(hidden: int = 160, layers: int = 6, heads: int = 5, inner: int = 432, seed: int | None = None) -> Any:
    """A LlamaForCausalLM of this shape with random weights and tied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if seed is not None:
        torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        pad_token_id=INDEX["<pad>"],
        bos_token_id=INDEX["<bos>"],
        eos_token_id=INDEX["<eos>"],
    )
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, folder: str | Path) -> None:
    """Writes the model in bf16, its configuration and its tokenizer to a folder; the model itself stays as it is."""
    import torch
    from safetensors.torch import save_file

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    unwrapped: Any = getattr(model, "module", model)
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in unwrapped.state_dict().items()
        if not name.endswith("lm_head.weight")
    }
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    settings = {**unwrapped.config.to_diff_dict(), "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"}
    (target / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_tokenizer(target)


def load(folder: str | Path) -> Any:
    """The LlamaForCausalLM in a folder, in float32 for training.

    Raises:
        OSError: when the folder holds no such model.
        ValueError: when its vocabulary is not this codec's.
    """
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    if model.config.vocab_size != len(VOCABULARY):
        raise ValueError(f"{folder}: {model.config.vocab_size} tokens, but the codec has {len(VOCABULARY)}")
    return model


def write_tokenizer(folder: Path) -> None:
    """Writes tokenizer.json and its configuration: words are split at spaces, one word is one token."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    tokenizer = Tokenizer(WordLevel(dict(INDEX), unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "pad_token": "<pad>",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
