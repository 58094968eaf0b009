"""Memory and time before a training: counted against real modules, and what a 24 GB card does for 1.5 billion."""

import json
from dataclasses import dataclass

import pytest

from verbal.contracts import Example
from verbal.errors import ConfigError, TrainError
from verbal.trainers.adapters import Adapter, adapter_for
from verbal.trainers.estimate import Load, estimate, memory_of
from verbal.trainers.grpo import GRPO
from verbal.trainers.sft import SFT
from verbal.trainers.shapes import shape_of

QWEN_15 = {
    "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
    "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
}  # fmt: skip
"""config.json of Qwen2.5-1.5B, what matters of it."""
SIZES = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 1,
}  # fmt: skip
ROWS = [
    Example(
        columns={
            "prompt": [{"role": "user", "content": "x" * 5000}],
            "completion": [{"role": "assistant", "content": "y" * 900}],
        },
        attempts=(f"a{i}",),
    )
    for i in range(50)
]


@dataclass
class Pairs:
    """A method of pairs, with the options that the estimate reads."""

    name: str = "dpo"
    batch: int = 8
    micro_batch: int = 2
    lora_rank: int | None = None
    gradient_checkpointing: bool = False


@pytest.fixture
def folder(tmp_path):
    def write(**config):
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        return str(tmp_path / "model")

    return write


@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Qwen3", "Mistral", "Gemma", "Qwen3Moe"])
def test_parameters_are_those_of_the_module(name, folder):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    moe = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32} if name == "Qwen3Moe" else {}
    config = getattr(transformers, f"{name}Config")(**SIZES, **moe, pad_token_id=0)
    with torch.device("meta"):
        network = getattr(transformers, f"{name}ForCausalLM")(config)
    assert shape_of(folder(**config.to_dict())).parameters == pytest.approx(network.num_parameters(), rel=2e-3)
    if not moe:
        from peft import LoraConfig, get_peft_model

        adapted = get_peft_model(network, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        assert shape_of(folder(**config.to_dict())).adapters(8) == adapted.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize(
    ("rank", "half", "checkpointing"),
    [(0, True, False), (0, False, False), (8, True, False), (0, True, True), (8, True, True)],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_activations_are_what_autograd_keeps(rank, half, checkpointing, folder):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    rows, tokens = 2, 96

    def kept(layers):
        network = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**{**SIZES, "num_hidden_layers": layers}))
        if rank:
            from peft import LoraConfig, get_peft_model

            network = get_peft_model(network.to(torch.bfloat16), LoraConfig(r=rank, target_modules="all-linear"))
        if checkpointing:
            network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            network.enable_input_require_grads()
        body = network.train().base_model.model.model if rank else network.train().model
        weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        found, alive = {}, []

        def pack(tensor):
            storage, shape = tensor.untyped_storage(), set(tensor.shape)
            if storage.data_ptr() not in weights and shape & {tokens, rows * tokens}:  # not a cast of a weight
                found[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)
            return tensor

        ids = torch.zeros(rows, tokens, dtype=torch.long)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), torch.autocast("cpu", enabled=half):
            body(input_ids=ids, use_cache=False)
        return sum(found.values())

    shape = shape_of(folder(model_type="qwen2", **SIZES))
    load = Load(rows=rows, tokens=tokens, adapter=Adapter(rank=rank), half=half, checkpointing=checkpointing)
    counted = memory_of(shape, load)["activations"] * 2**30
    if checkpointing:  # autograd keeps the inputs of blocks; one block is computed again while gradients pass it
        plain = Load(rows=rows, tokens=tokens, adapter=Adapter(rank=rank), half=half)
        counted -= memory_of(shape, plain)["activations"] * 2**30 / shape.layers
    assert kept(4) - kept(2) == pytest.approx(counted, rel=0.02)


def test_one_card_of_24_gb_does_for_a_billion_and_a_half(folder):
    model = folder(**QWEN_15)
    adapted = estimate(SFT(batch=16, micro_batch=1), ROWS, model)
    assert adapted["parameters"] == 1_543_656_960  # the card says 1.54 B
    assert adapted["memory_gb"] < 12 and "fit one card of 24 GB" in adapted["note"]
    assert "LoRA of rank 16, 1 row of" in adapted["note"]
    parts = adapted["memory_parts"]
    assert parts["weights"] == pytest.approx(2 * 1_543_656_960 / 2**30, abs=1e-3)
    assert parts["adapter"] == parts["gradients"] == parts["optimizer"] / 2
    assert adapted["memory_gb"] == pytest.approx(sum(parts.values()), abs=0.02)
    batched = estimate(SFT(micro_batch=8, gradient_checkpointing=True), ROWS, model)
    assert batched["memory_gb"] < 12
    four_bit = estimate(SFT(micro_batch=8, gradient_checkpointing=True, quantization="nf4"), ROWS, model)
    assert four_bit["memory_gb"] < batched["memory_gb"] - 1.5 and "over nf4" in four_bit["note"]
    group = GRPO(group=8, tasks=8, micro_batch=2, lora_rank=16, gradient_checkpointing=True)
    rolled = estimate(group, ROWS, model)
    assert rolled["memory_gb"] < 24 and rolled["memory_parts"]["generation"] > 1


def test_what_does_not_fit_says_what_to_lower(folder):
    model = folder(**QWEN_15)
    note = estimate(SFT(lora_rank=0), ROWS, model)["note"]
    assert "do not fit one card of 24 GB" in note
    assert "micro_batch = 1, gradient_checkpointing = true, lora_rank = 16" in note
    assert "would: micro_batch = 1;" in estimate(SFT(), ROWS, model)["note"]
    large = {**QWEN_15, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80}
    note = estimate(SFT(), ROWS, folder(**large))["note"]
    assert 'quantization = "nf4"' in note and "nor would" in note and "accelerate" in note


def test_a_reference_is_counted_only_where_there_is_one(folder):
    model = folder(**{**QWEN_15, "num_hidden_layers": 4})
    pair = {"prompt": ROWS[0].columns["prompt"], "chosen": [{"role": "assistant", "content": "y" * 900}]}
    rows = [Example(columns={**pair, "rejected": pair["chosen"]}, attempts=("a",))]
    full = estimate(Pairs(), rows, model)
    assert full["memory_parts"]["reference"] == full["memory_parts"]["weights"] and "4 rows of" in full["note"]
    assert "reference" not in estimate(Pairs(lora_rank=8), rows, model)["memory_parts"]
    assert "reference" in estimate(GRPO(beta=0.04, lora_rank=0), ROWS, model)["memory_parts"]
    assert "reference" not in estimate(GRPO(lora_rank=0), ROWS, model)["memory_parts"]


def test_a_frozen_actor_and_a_teacher_are_counted(folder):
    from verbal.trainers.retroformer import Retroformer
    from verbal.trainers.sdft import SDFT

    model = folder(**{**QWEN_15, "num_hidden_layers": 4})
    parts = estimate(Retroformer(lora_rank=0), ROWS, model)["memory_parts"]
    assert parts["actor"] == parts["weights"]
    assert "actor" not in estimate(Retroformer(actor="hf:other"), ROWS, model)["memory_parts"]
    assert "reference" in estimate(SDFT(teacher="base"), ROWS, model)["memory_parts"]
    assert "reference" not in estimate(SDFT(teacher="live"), ROWS, model)["memory_parts"]


def test_phases_take_what_the_larger_one_takes(folder):
    from verbal.trainers.sft_then_rl import SFTThenRL

    model = folder(**{**QWEN_15, "num_hidden_layers": 4})
    rows = [Example(columns={**r.columns, "phase": p}, attempts=r.attempts) for r in ROWS for p in ("sft", "rl")]
    found = estimate(SFTThenRL(sft_options={"micro_batch": 1}), rows, model)
    alone = [estimate(m, ROWS, model) for m in (SFT(micro_batch=1), GRPO())]
    assert found["memory_gb"] == max(one["memory_gb"] for one in alone)
    assert found["note"].count("phase ") == 2 and found["seconds"] is None


def test_the_embedded_model_needs_little():
    for method in (SFT(), GRPO()):
        found = estimate(method, ROWS, "embedded")
        assert 2_000_000 < found["parameters"] < 2_200_000
        assert found["memory_parts"]["weights"] < 0.01 and "on the CPU" in found["note"]


def test_a_model_that_is_not_here_has_no_estimate_and_says_so(folder, tmp_path):
    found = estimate(SFT(), ROWS, str(tmp_path / "nowhere"))
    assert (found["parameters"], found["memory_gb"], found["seconds"]) == (None, None, None)
    assert "no config.json" in found["note"]
    found = estimate(SFT(), ROWS, folder(model_type="clip", projection_dim=3))
    assert "does not tell the sizes" in found["note"]
    with pytest.raises(TrainError, match="config"):
        shape_of(str(tmp_path / "nowhere"))


def test_time_comes_from_the_last_training_of_the_same_kind(folder, tmp_path):
    model = folder(**{**QWEN_15, "num_hidden_layers": 4})
    assert estimate(SFT(), ROWS, model)["seconds"] is None
    (tmp_path / "first").mkdir()
    papers = {"method": "sft", "base": model, "steps": 10, "rows": 25, "seconds": 30.0, "options": {"batch": None}}
    (tmp_path / "first" / "verbal.json").write_text(json.dumps(papers))
    found = estimate(SFT(), ROWS, model)
    assert found["seconds"] == 60.0 and "3 s a step" in found["note"]
    assert estimate(SFT(batch=4), ROWS, model)["seconds"] is None
    assert estimate(SFT(), ROWS, model, near=tmp_path / "elsewhere")["seconds"] is None


def test_adapters_are_the_default_above_a_billion():
    assert adapter_for(999_999_999).rank == 0 and adapter_for(999_999_999).options() is None
    assert adapter_for(1_500_000_000).options() == {"r": 16, "lora_alpha": 32}
    assert adapter_for(1_500_000_000, lora_rank=0).rank == 0
    assert adapter_for(1_000, lora_rank=4).rank == 4
    assert adapter_for(1_000, quantization="nf4").rank == 16
    for wrong in ({"lora_rank": -1}, {"lora_rank": 0, "quantization": "nf4"}, {"quantization": "int3"}):
        with pytest.raises(ConfigError):
            adapter_for(1_000, **wrong)
