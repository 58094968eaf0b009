"""A training that goes wrong stops with words, values and evidence. The errors are forced, on a tiny model."""

import importlib.util
import json
import math
import os
import shutil

import pytest

from verbal.errors import ConfigError, MissingExtra, TrainError
from verbal.trainers.sft import SFT

from .tiny_models import letter_rows, tiny_llama

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at its import, which is still to come
torch = pytest.importorskip("torch")
pytest.importorskip("trl")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def broken(monkeypatch, change):
    """Lets the next training open weights that `change` was done to."""
    from verbal.trainers import huggingface

    opened = huggingface.opened

    def changed(*asked):
        weights, tokenizer = opened(*asked)
        change(weights)
        return weights, tokenizer

    monkeypatch.setattr(huggingface, "opened", changed)


def poison(weights):
    weights.get_output_embeddings().weight.data[:] = math.nan


def explode(weights):
    weights.get_output_embeddings().weight.register_hook(lambda grad: grad * math.inf)


@pytest.mark.parametrize(("change", "what", "kept"), [(poison, "loss", 2), (explode, "gradient", 4)])
def test_what_is_no_number_stops_it_and_its_rows_are_kept(tiny, tmp_path, monkeypatch, change, what, kept):
    broken(monkeypatch, change)
    out = tmp_path / "out"
    with pytest.raises(TrainError, match=f"the {what} became") as caught:
        SFT(device="cpu", batch=4, micro_batch=2).train(letter_rows(), tiny, str(out))
    assert f"{kept} rows in {out / 'offending_batch.json'}" in caught.value.where
    assert "learning rate 2e-05" in caught.value.where and "lower the learning rate" in caught.value.todo
    found = json.loads((out / "offending_batch.json").read_text())
    assert (found["step"], found["what"], len(found["rows"])) == (1, what, kept)
    row = found["rows"][0]
    assert row["input_text"].startswith("<user>") and len(row["labels"]) == len(row["input_ids"])
    assert not (out / "verbal.json").exists()
    monkeypatch.undo()
    SFT(device="cpu", epochs=1).train(letter_rows(), tiny, str(out))
    assert not (out / "offending_batch.json").exists()


def grab(weights):
    """Lets the second layer ask for more memory than any machine has."""
    weights.model.layers[1].register_forward_pre_hook(lambda *_: torch.empty(10**14))


def test_memory_that_is_out_says_what_to_lower(tiny, tmp_path, monkeypatch):
    broken(monkeypatch, grab)
    with pytest.raises(TrainError, match=r"memory ran out while training: .*allocate") as caught:
        SFT(device="cpu", batch=4).train(letter_rows(), tiny, str(tmp_path / "out"))
    assert caught.value.where == "micro_batch 4, max_length 2048, lora_rank 0, gradient_checkpointing False"
    for words in ("micro_batch to 2", "gradient_checkpointing = true", "max_length to 1024", "lora_rank = 16"):
        assert words in caught.value.todo


def test_a_gpu_that_is_full_is_told_alike_and_other_errors_stay_as_they_are():
    from verbal.trainers.guards import is_out_of_memory, memory_guard

    seen = {"micro_batch": 1, "max_length": None, "lora_rank": 16, "gradient_checkpointing": True}
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
    with pytest.raises(TrainError, match=r"Tried to allocate 2\.00 GiB\.") as caught, memory_guard(seen):
        raise full
    assert caught.value.__cause__ is full
    assert caught.value.todo.startswith('set quantization = "nf4"')
    with pytest.raises(TrainError, match="memory ran out"), memory_guard(seen):
        raise MemoryError
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), TrainError("ours, out of memory")):
        with pytest.raises(type(other)) as caught, memory_guard(seen):
            raise other
        assert caught.value is other
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."))


def test_the_mixin_serves_a_group_trainer_too(tiny, tmp_path, monkeypatch):
    """Rows of a generation are kept with prompt and completion as text."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from verbal.trainers.fit import quiet
    from verbal.trainers.guards import Guarded

    class Trainer(Guarded, GRPOTrainer):
        def _send_telemetry(self):
            return None

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    weights, tokenizer = AutoModelForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    poison(weights)
    tokenizer.pad_token = tokenizer.eos_token
    config = GRPOConfig(
        output_dir=str(tmp_path / "resume"), per_device_train_batch_size=4, num_generations=4, max_steps=1, bf16=False,
        use_cpu=True, report_to="none", gradient_checkpointing=False, save_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip

    def rollout(prompts, trainer):
        ids = [[4, 5, 0]] * len(prompts)
        return {"prompt_ids": [[6, 7]] * len(prompts), "completion_ids": ids, "logprobs": [[-1.0] * 3] * len(prompts)}

    with quiet():
        trainer = Trainer(
            model=weights, reward_funcs=lambda prompts, **_: [0.0, 1.0, 0.0, 1.0], args=config, rollout_func=rollout,
            train_dataset=Dataset.from_list([{"prompt": "a"}]), processing_class=tokenizer,
        )  # fmt: skip
        with pytest.raises(TrainError, match="the loss became nan at step 1 of 1"):
            trainer.train()
    found = json.loads((tmp_path / "offending_batch.json").read_text())["rows"]
    assert len(found) == 4
    assert (found[0]["prompt_text"], found[0]["completion_text"]) == ("c d", "a b <eos>")
    assert sorted(row["advantages"] for row in found)[0] < 0


def test_a_tokenizer_without_a_pad_token_gets_the_end_of_sequence_and_says_so(tiny, tmp_path):
    papers = SFT(device="cpu", epochs=1, batch=4).train(letter_rows(), tiny, str(tmp_path / "out"))
    assert papers["pad_token"] == "<eos> (the end of sequence, for want of another)"
    assert papers["lora_rank"] == 0
    shutil.copytree(tiny, tmp_path / "endless")
    settings = json.loads((tmp_path / "endless" / "tokenizer_config.json").read_text())
    (tmp_path / "endless" / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": None}))
    with pytest.raises(TrainError, match="neither a pad nor an end-of-sequence token"):
        SFT(device="cpu").train(letter_rows(), str(tmp_path / "endless"), str(tmp_path / "out2"))


def test_rows_longer_than_the_model_reads_are_left_out_and_counted(tiny, tmp_path):
    papers = SFT(device="cpu", epochs=1, batch=4).train(letter_rows(8, long=3), tiny, str(tmp_path / "out"))
    assert (papers["rows"], papers["too_long"]) == (8, 3)
    with pytest.raises(TrainError, match="all 3 rows are longer than 32 tokens, which is all the model reads"):
        SFT(device="cpu").train(letter_rows(0, long=3), tiny, str(tmp_path / "none"))


def test_large_models_get_adapters_unless_told_otherwise(tiny, tmp_path, monkeypatch):
    from verbal.trainers import adapters, huggingface

    assert huggingface.parameters_of(tiny) == 5584
    assert huggingface.parameters_of(str(tmp_path / "nowhere")) == 0
    monkeypatch.setattr(adapters, "LARGE", 5000)
    assert huggingface.adapter_of(SFT(), "embedded").rank == huggingface.adapter_of(object(), "embedded:x").rank == 0
    assert huggingface.adapter_of(object(), f"hf:{tiny}").rank == 16
    assert SFT(device="cpu", epochs=1).train(letter_rows(), tiny, str(tmp_path / "a"))["lora_rank"] == 16
    assert SFT(device="cpu", epochs=1, lora_rank=0).train(letter_rows(), tiny, str(tmp_path / "b"))["lora_rank"] == 0


def test_four_bits_name_what_to_install_or_train(tiny, tmp_path):
    with pytest.raises(ConfigError, match="cannot be trained"):
        SFT(lora_rank=0, quantization="nf4")
    method = SFT(device="cpu", epochs=30, batch=8, learning_rate=5e-2, quantization="nf4", lora_rank=8)
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(MissingExtra, match=r"'bitsandbytes' is not installed(.|\n)*verbal\[qlora\]"):
            method.train(letter_rows(), tiny, str(tmp_path / "out"))
        return
    from transformers import AutoModelForCausalLM

    papers = method.train(letter_rows(), tiny, str(tmp_path / "out"))
    assert papers["quantization"] == "nf4" and papers["loss_last"] < papers["loss_first"]
    before, after = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (tiny, tmp_path / "out"))
    changed = {k for k in before if not torch.equal(before[k].float(), after[k].bfloat16().float())}
    assert before.keys() == after.keys() and changed
