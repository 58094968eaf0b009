"""A random model of some thousand weights as a Hugging Face folder, and rows it can be trained on."""

from __future__ import annotations

from pathlib import Path

from verbal.contracts import Example

TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' <eos> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)


def tiny_llama(folder: Path, *, context: int = 32) -> str:
    """A Llama of two layers and a word-level tokenizer without a pad token, written to the folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<eos>", "<unk>", "<user>", "<assistant>", *"abcdefgh"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<eos>", unk_token="<unk>", chat_template=TEMPLATE
    )
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=context, eos_token_id=0, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def letter_rows(n: int = 8, long: int = 0) -> list[Example]:
    """Rows of three words, and `long` of forty."""
    made = []
    for i in range(n + long):
        words = " ".join("abcdefgh"[(i + k) % 8] for k in range(3 if i < n else 40))
        prompt, completion = [{"role": "user", "content": words}], [{"role": "assistant", "content": words}]
        made.append(Example(columns={"prompt": prompt, "completion": completion}, attempts=(f"a{i}",)))
    return made
