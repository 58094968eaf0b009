"""What our trainers rely on in TRL, one test a hook, on a toy model: an upgrade that changes one fails here, by name.

A failing message tells the hook and which of our files name it. Nine contracts and, at the end, what must not be used.
"""

import copy
import importlib.util
import math
import os
import re
import tomllib
from functools import partial
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at its import, which may be still to come
torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

WRITTEN_FOR = ">=1.16,<1.17"
"""The versions of TRL that these tests describe. Widen it in pyproject.toml only after they passed on the new one."""
TRAINERS = Path(__file__).resolve().parent.parent.parent / "trainers"
G, T = 4, 6
"""Completions of a prompt, and their most tokens."""


def holds(condition, hook, what):
    """Fails with the hook that changed and the files of ours that name it."""
    if not condition:
        name = hook.rpartition(".")[2]
        ours = [f"trainers/{p.name}" for p in sorted(TRAINERS.glob("*.py")) if name in p.read_text(encoding="utf-8")]
        pytest.fail(
            f"TRL {trl.__version__} changed {hook}: {what} no longer holds\n"
            f"  where: {', '.join(ours) or 'no file of ours yet'}\n"
            f"  to do: adapt these files, or keep trl{WRITTEN_FOR}",
            pytrace=False,
        )


@pytest.fixture(scope="module")
def toy():
    """A random Qwen2 of two layers and its word-level tokenizer, both in memory."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = ["<pad>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Qwen2ForCausalLM(config), tokenizer
    torch.set_num_threads(before)


@pytest.fixture
def grpo(toy, tmp_path, monkeypatch):
    """A function that makes a GRPO trainer over a copy of the toy model, with our fixed completions."""
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func warns; these tests are the answer to that

    def make(rollout=None, reward=None, *, prompts=2, base=GRPOTrainer, **config):
        options = {
            "per_device_train_batch_size": prompts * G, "num_generations": G, "max_completion_length": T,
            "max_steps": 1, "learning_rate": 1e-2, "beta": 0.0, "loss_type": "dr_grpo", "scale_rewards": "none",
            "bf16": False, "use_cpu": True, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True,
            "save_strategy": "no", "logging_strategy": "no", "dataloader_pin_memory": False, "shuffle_dataset": False,
        }  # fmt: skip

        class Quiet(base):
            def _send_telemetry(self):
                return None

        model, tokenizer = toy
        trainer = Quiet(
            model=copy.deepcopy(model),
            reward_funcs=reward or (lambda completions, **_: [float(i % G) for i in range(len(completions))]),
            args=GRPOConfig(output_dir=str(tmp_path), **{**options, **config}),
            train_dataset=Dataset.from_list([{"prompt": f"{chr(97 + i)} b", "row": i} for i in range(prompts)]),
            processing_class=tokenizer,
            rollout_func=rollout or fixed,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    return make


def completions(n):
    """`n` answers whose tokens tell which it is, of lengths that differ."""
    return [[3 + i % 20] * (2 + i % 3) + [1] for i in range(n)]


def fixed(prompts, trainer, **extra):
    """A rollout of one completion an entry, and other columns."""
    made = completions(len(prompts))
    return {
        "prompt_ids": [trainer.processing_class(p)["input_ids"] for p in prompts],
        "completion_ids": made,
        "logprobs": [[-1.0] * len(ids) for ids in made],
        **{name: make(made) for name, make in extra.items()},
    }


def watching(seen, edit=None):
    """A GRPO trainer that keeps what reaches the two methods we override; `edit` may change the scored rows."""
    from trl import GRPOTrainer

    class Watching(GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            if edit is not None:
                edit(inputs, output)
            seen.setdefault("scored", []).append({"inputs": inputs, "output": dict(output)})
            return output

        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            seen.setdefault("losses", []).append({"inputs": inputs, "loss": loss.detach().clone()})
            return loss

    return Watching


def gradients(trainer):
    """The gradients of the first step, flat, before the optimiser uses and drops them."""
    from transformers import TrainerCallback

    found = []

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            found.append(torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None]))

    trainer.args.max_grad_norm = 0.0
    trainer.add_callback(Keep())
    trainer.train()
    return found[0]


def test_1_a_rollout_gets_each_prompt_g_times_in_a_row_and_must_answer_each(grpo):
    hook = "GRPOTrainer.rollout_func"
    seen = []

    def rollout(prompts, trainer):
        seen.append(list(prompts))
        return fixed(prompts, trainer)

    grpo(rollout).train()
    holds(seen == [["a b"] * G + ["b b"] * G], hook, "G consecutive copies of a prompt in one call")
    for short in ({"completion_ids": 1}, {"prompt_ids": 1, "completion_ids": 1, "logprobs": 1}):
        trainer = grpo(lambda prompts, t, s=short: {k: v[s.get(k, 0) :] for k, v in fixed(prompts, t).items()})
        try:
            trainer.train()
        except (ValueError, RuntimeError, IndexError):
            continue
        holds(False, hook, "an error when a rollout answers fewer entries than it was given")
    with pytest.raises(ValueError, match="logprobs"):
        grpo(lambda prompts, t: {"prompt_ids": [], "completion_ids": []}).train()


def test_2_a_tensor_added_to_the_scored_rows_reaches_the_loss_with_its_row(grpo):
    seen = {}

    def edit(inputs, output):
        output["tag"] = torch.arange(len(inputs), dtype=torch.float32)

    config = {"per_device_train_batch_size": G, "steps_per_generation": 2, "gradient_accumulation_steps": 2}
    grpo(base=watching(seen, edit), **config).train()
    batches = [entry["inputs"] for entry in seen["losses"]]
    hook = "GRPOTrainer._generate_and_score_completions"
    holds(len(batches) == 2 and all("tag" in b and b["tag"].shape == (G,) for b in batches), hook, "extra (B,) tensors")
    together = [(3 + i % 20, int(i)) for b in batches for i in b["tag"].tolist()]
    found = [(int(ids[0]), int(i)) for b in batches for ids, i in zip(b["completion_ids"], b["tag"], strict=True)]
    holds(
        found == together and sorted(i for _, i in found) == list(range(2 * G)), hook, "slicing together with its row"
    )
    extra = seen["scored"][0]["inputs"]
    holds([row["row"] for row in extra] == [0] * G + [1] * G, hook, "one dict of columns for each row, in order")


def test_2_other_keys_of_a_rollout_become_columns_of_the_reward_and_of_the_rows(grpo):
    seen = {}

    def reward(completions, note, row, **_):
        seen["columns"] = note, row
        return [float(i) for i in range(len(completions))]

    grpo(partial(fixed, note=lambda made: [f"n{i}" for i in range(len(made))]), reward, base=watching(seen)).train()
    notes = [f"n{i}" for i in range(2 * G)]
    holds(seen["columns"] == (notes, [0] * G + [1] * G), "GRPOTrainer.rollout_func", "extra keys as columns of rewards")
    rows = [row.get("note") for row in seen["scored"][0]["inputs"]]
    holds(rows == notes, "GRPOTrainer._generate_and_score_completions", "extra keys in the rows, after super()")


def test_3_a_reward_of_none_leaves_its_group_and_gets_advantage_0(grpo):
    seen, rewards = {}, [1.0, 0.0, 0.0, 0.0, None, None, None, 1.0]
    config = {"num_generations": 8, "per_device_train_batch_size": 8, "prompts": 1}
    grpo(reward=lambda completions, **_: rewards, base=watching(seen), **config).train()
    advantages = seen["scored"][0]["output"]["advantages"].tolist()
    expected = [0.6, -0.4, -0.4, -0.4, 0, 0, 0, 0.6]
    holds(advantages == pytest.approx(expected, abs=1e-6), "GRPOTrainer._calculate_rewards", "None as no reward")
    seen.clear()
    config["scale_rewards"] = "group"
    grpo(reward=lambda completions, **_: [0.0] * 7 + [1.0], base=watching(seen), **config).train()
    low, high = seen["scored"][0]["output"]["advantages"][[0, 7]].tolist()
    holds((round(low, 4), round(high, 4)) == (-0.3535, 2.4742), "GRPOTrainer._calculate_rewards", "sample std + 1e-4")


def test_4_env_mask_arrives_as_tool_mask_and_takes_tokens_out_of_the_loss(grpo):
    seen = {}

    def masked(made):
        return [[int(k % 2 == i % 2) for k in range(len(ids))] for i, ids in enumerate(made)]

    grpo(partial(fixed, env_mask=masked), base=watching(seen)).train()
    output, loss = seen["scored"][0]["output"], seen["losses"][0]["loss"]
    hook = "GRPOTrainer.rollout_func"
    holds("tool_mask" in output, hook, "env_mask arriving as tool_mask")
    width = output["completion_ids"].shape[1]
    made = [m + [1] * (width - len(m)) for m in masked(completions(2 * G))]
    holds(output["tool_mask"].tolist() == made, hook, "env_mask unchanged, padded with 1")
    counts = output["completion_mask"] * output["tool_mask"]
    expected = -(output["advantages"][:, None] * counts).sum() / (2 * G * T)
    holds(torch.allclose(loss, expected, atol=1e-6), "GRPOTrainer._compute_loss", "a loss over tool_mask == 1 only")


def test_5_advantages_of_each_token_are_accepted(grpo):
    seen = {}

    def edit(inputs, output):
        generator = torch.Generator().manual_seed(0)
        output["advantages"] = torch.randn(output["completion_ids"].shape, generator=generator)

    grpo(base=watching(seen, edit)).train()
    batch, loss = seen["losses"][0]["inputs"], seen["losses"][0]["loss"]
    expected = -(batch["advantages"] * batch["completion_mask"]).sum() / (2 * G * T)
    holds(batch["advantages"].dim() == 2, "GRPOTrainer._compute_loss", "advantages (B, T)")
    holds(torch.allclose(loss, expected, atol=1e-6), "GRPOTrainer._compute_loss", "advantages (B, T), token by token")


@pytest.mark.parametrize(
    ("accumulation", "per_generation", "iterations", "stored"),
    [(2, 2, 1, False), (1, 1, 1, False), (1, 2, 1, True), (1, 1, 2, True)],
)
def test_6_old_log_probabilities_are_stored_only_where_weights_move_in_between(
    grpo, accumulation, per_generation, iterations, stored
):
    seen = {}
    config = {"gradient_accumulation_steps": accumulation, "steps_per_generation": per_generation}
    config |= {"num_iterations": iterations, "per_device_train_batch_size": 2 * G // per_generation}
    grpo(base=watching(seen), **config).train()
    found = "old_per_token_logps" in seen["losses"][0]["inputs"]
    what = f"old log-probabilities {'stored' if stored else 'left out (ratio exactly 1)'} with {config}"
    holds(found == stored, "GRPOTrainer._compute_loss", what)


def test_7_shaped_rows_are_the_same_gradient_as_weighted_advantages(grpo):
    """The oracle of Critique-GRPO: -A f(p) on refined rows is an aligned update with advantages A Psi(p)."""
    from verbal.trainers import losses

    seen, base = {}, watching({})

    class Both(base):
        def _compute_loss(self, model, inputs):
            ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
            mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
            found = self._get_per_token_logps_and_entropies(
                model, ids, mask, inputs["completion_ids"].shape[1], compute_entropy=True
            )
            three = len(found) == 3 and all(x.shape == inputs["completion_ids"].shape for x in found[:2])
            holds(three, "GRPOTrainer._get_per_token_logps_and_entropies", "(log-probabilities, entropies, other)")
            logps, weights = found[0], inputs["advantages"][:, None]
            refined = torch.arange(len(ids)) % 3 == 0
            token = losses.critique_grpo(logps, logps.detach(), weights.expand_as(logps), refined, gamma=0.1)
            own = losses.aggregate(token, inputs["completion_mask"], "length", length=T)
            parameters = list(model.parameters())
            seen["shaped"] = torch.autograd.grad(own, parameters)
            slope = losses.shaped_slope(logps.detach().exp(), 0.1)
            edited = {**inputs, "advantages": torch.where(refined[:, None], weights * slope, weights)}
            loss = super()._compute_loss(model, edited)
            seen["weighted"] = torch.autograd.grad(loss, parameters, retain_graph=True)
            return loss

    grpo(base=Both).train()
    gap = max(float((a - b).abs().max()) for a, b in zip(seen["shaped"], seen["weighted"], strict=True))
    size = max(float(a.abs().max()) for a in seen["shaped"])
    holds(gap < 1e-5 * size and size > 0, "GRPOTrainer._compute_loss", f"equal gradients (they differ by {gap:g})")


def test_8_equal_rewards_are_no_gradient_and_others_are_one(grpo):
    equal = gradients(grpo(reward=lambda completions, **_: [1.0] * len(completions)))
    hook = "GRPOTrainer._compute_loss"
    holds(equal.numel() > 0 and float(equal.abs().max()) == 0.0, hook, "a gradient of exactly 0 for equal rewards")
    holds(float(gradients(grpo()).abs().max()) > 0, hook, "a gradient where rewards differ")


def test_9_dpo_takes_terms_of_its_own_before_the_rest_goes_to_super(toy, tmp_path):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    model, tokenizer = toy
    seen = {}

    class Scoped(DPOTrainer):
        def _send_telemetry(self):
            return None

        def _compute_loss(self, model, inputs, return_outputs=False):
            found = [(weight, inputs.pop(f"{name}_ids")) for name, weight in (("near", 0.1), ("outside", 0.2))]
            result = super()._compute_loss(model, inputs, return_outputs)
            loss = result[0] if return_outputs else result
            seen["terms"] = sum(weight * model(input_ids=ids, labels=ids).loss for weight, ids in found)
            seen["loss"] = loss.detach()
            total = loss + seen["terms"]
            seen["total"] = float(total.detach())
            return (total, result[1]) if return_outputs else total

    class Collate:
        def __init__(self, pad):
            self.inner = DataCollatorForPreference(pad_token_id=pad)

        def __call__(self, rows):
            extra = {name: torch.tensor([row[name] for row in rows]) for name in ("near_ids", "outside_ids")}
            return {**self.inner(rows), **extra}

    rows = [
        {"prompt": "a b", "chosen": " c d", "rejected": " e f", "near_ids": [3, 4, 5], "outside_ids": [6, 7, 8]}
        for _ in range(2)
    ]
    arguments = DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=2, max_steps=1, beta=0.1, bf16=False, use_cpu=True,
        gradient_checkpointing=False, remove_unused_columns=False, report_to="none", disable_tqdm=True,
        save_strategy="no", dataloader_pin_memory=False, logging_steps=1,
    )  # fmt: skip
    trainer = Scoped(
        model=copy.deepcopy(model), ref_model=copy.deepcopy(model), args=arguments, processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows), data_collator=Collate(0),
    )  # fmt: skip
    trainer.train()
    hook = "DPOTrainer._compute_loss"
    holds(float(seen["loss"]) == pytest.approx(math.log(2), abs=1e-5), hook, "ln 2 before the first step")
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    holds(logged == pytest.approx(seen["total"], abs=1e-4), hook, "the returned sum as the loss that is trained")
    holds(float(seen["terms"].detach()) > 0.5, hook, "tensors of other columns through the collator")


def test_what_was_removed_stays_unused_and_what_is_experimental_says_so():
    from trl import GRPOConfig

    stable = ("SFTTrainer", "DPOTrainer", "GRPOTrainer", "RLOOTrainer", "KTOTrainer", "RewardTrainer")
    holds(all(hasattr(trl, name) for name in stable), "trl.trainer", f"the stable {', '.join(stable)}")
    gone = ("ppo", "grpo_with_replay_buffer", "gspo_token", "minillm", "nash_md", "prm", "bco", "xpo")
    back = [name for name in gone if importlib.util.find_spec(f"trl.experimental.{name}")]
    holds(not back, "trl.experimental", f"the absence of {', '.join(back)}")
    for name in ("sdpo", "sdft"):
        holds(importlib.util.find_spec(f"trl.experimental.{name}"), f"trl.experimental.{name}", "its place")
    holds("max_prompt_length" not in GRPOConfig.__dataclass_fields__, "GRPOConfig", "no max_prompt_length")
    for path in TRAINERS.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if re.search(r"(from|import) trl\.experimental|\"trl\.experimental", text):
            head = text.split('"""')[1]
            assert "experimental" in head, f"{path.name} uses trl.experimental and its docstring does not say so"
        assert not re.search(rf"trl\.experimental\.({'|'.join(gone)})\b", text), f"{path.name} uses what TRL removed"


def test_the_defaults_we_set_ourselves_are_still_what_was_read():
    """Not ours to rely on, but ours to know: trl_mapping's traps 2, 3 and 5."""
    fields = trl.GRPOConfig.__dataclass_fields__
    read = {"loss_type": "dapo", "scale_rewards": "group", "beta": 0.0, "use_bias_correction_kl": True,
            "num_generations": 8, "temperature": 1.0, "remove_unused_columns": False}  # fmt: skip
    found = {name: fields[name].default for name in read}
    holds(found == read, "GRPOConfig", f"defaults {read} (found {found})")


def test_the_bound_of_trl_is_the_one_these_tests_were_written_for(root):
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (bound,) = [r for r in extras["train"] if re.match(r"trl\b", r)]
    assert bound == f"trl{WRITTEN_FOR}", "run these tests on the new version, then change both"
    from packaging.specifiers import SpecifierSet

    assert trl.__version__ in SpecifierSet(WRITTEN_FOR), f"installed: {trl.__version__}"


def test_a_contract_that_breaks_names_the_hook_and_our_files():
    with pytest.raises(pytest.fail.Exception, match=r"changed SFTTrainer\.training_step(.|\n)*trainers/guards\.py"):
        holds(False, "SFTTrainer.training_step", "this")
