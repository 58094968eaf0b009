"""Our environments in TRL's protocol, and one step of its GRPOTrainer over conversations by its own code."""

from __future__ import annotations

import inspect
import json
import pickle

import pytest

from verbal.apps.social import Social
from verbal.apps.social.conversation import Conversation
from verbal.apps.social.scenarios import scenario_of
from verbal.apps.social.speaker import good_script
from verbal.errors import ConfigError, DataError, TrainError, UnknownName
from verbal.store import Store
from verbal.trainers.environments import AppEnvironment, environment_factory

TASKS = {t.id: t for t in Social().tasks()}
FIRST = "donation-treasurer"


@pytest.fixture
def factory(tmp_path):
    with environment_factory("social", store=tmp_path / "v.db") as made:
        yield made


def test_it_has_what_trl_looks_for(factory) -> None:
    from transformers.utils.chat_template_utils import get_json_schema

    environment = factory()
    public = [n for n, _ in inspect.getmembers(type(environment), inspect.isfunction) if not n.startswith("_")]
    assert public == ["get_reward", "reply", "reset"], "everything else public would become a tool"
    schema = get_json_schema(environment.reply)["function"]
    assert schema["parameters"]["required"] == ["text"] and schema["description"].startswith("Gives your answer")
    rows = factory.rows()
    assert [r["task"] for r in rows] == [t.id for t in TASKS.values() if t.split == "train"]
    assert rows[0]["prompt"] == [{"role": "user", "content": ""}]


def test_a_good_talk_is_rewarded_and_kept_and_silence_is_not(factory, tmp_path) -> None:
    one, two = factory(), factory()
    prompt = one.reset(prompt=[{"role": "user", "content": ""}], task=FIRST)
    assert "Get Ines to give 200 euros" in prompt and TASKS[FIRST].info["hidden"]["secret"] not in prompt
    assert two.reset(task=FIRST) == prompt
    heard = [one.reply(text=line) for line in good_script(scenario_of(TASKS[FIRST]))]
    assert "To be honest" in " ".join(heard) and one.reply("More?") == "It is over: nothing more is heard."
    assert (one.get_reward(), two.get_reward()) == (1.0, 0.0)
    assert one.reset(task=FIRST) == prompt and one.get_reward() == 0.0, "the same object, another rollout"
    with Store(tmp_path / "v.db") as store:
        kept = {a.sample: a for a in store.attempts("trl")}
        assert len(kept) == 3 and kept[0].answer == TASKS[FIRST].gold
        assert [s.author for s in kept[0].steps][:2] == ["policy", "user"]
        assert len(kept[0].steps[2].prompt) == 3
        assert store.feedback([kept[0].id])[kept[0].id][0].value == 1.0


def test_what_was_begun_is_closed_with_the_factory(tmp_path, monkeypatch) -> None:
    closed = []

    async def aclose(self) -> None:
        closed.append(self)

    monkeypatch.setattr(Conversation, "aclose", aclose)
    with environment_factory("social", store=tmp_path / "w.db") as made:
        one, two = made(), made()
        one.reset(task=FIRST), two.reset(task=FIRST), one.reset(task=FIRST)
        assert len(closed) == 1
    assert len({id(c) for c in closed}) == 3, "each once, those that never ended too"


def test_another_process_goes_on_counting(factory, tmp_path) -> None:
    environment = factory()
    environment.reset(task=FIRST)
    environment.get_reward()
    factory.close()
    factory.close()
    again = pickle.loads(pickle.dumps(factory))()
    again.reset(task=FIRST)
    assert again.get_reward() == 0.0
    again._opened.close()
    with Store(tmp_path / "v.db") as store:
        assert [a.sample for a in store.attempts("trl")] == [0, 1]


def test_bad_input_is_named(factory, tmp_path) -> None:
    environment = factory()
    with pytest.raises(DataError, match="not reset"):
        environment.reply("x")
    with pytest.raises(DataError, match="not reset"):
        environment.get_reward()
    with pytest.raises(DataError, match="no column `task`"):
        environment.reset()
    with pytest.raises(DataError, match="names no task"):
        environment.reset(task="well-accountant")
    with pytest.raises(TrainError, match="sealed"):
        environment_factory("social", split="test")
    with pytest.raises(UnknownName):
        environment_factory("socal")
    with pytest.raises(UnknownName):
        environment_factory("social", split="exam", store=tmp_path / "w.db").rows()
    with environment_factory("social", store=tmp_path / "u.db", overrides=["app.options.user=model"]) as asks:
        talk = asks()
        talk.reset(task=FIRST)
        with pytest.raises(ConfigError, match="asks the model that TRL trains"):
            talk.reply("Hello.")
    roles = ["app.options.user=model", "model.roles.user=rules:social"]
    with environment_factory("social", store=tmp_path / "m.db", overrides=roles) as plays:
        talk = plays()
        talk.reset(task=FIRST)
        assert talk.reply("I hear you. What matters to you?") == "Fine."


def test_sql_is_an_environment_too(tmp_path) -> None:
    with environment_factory("reflect", store=tmp_path / "v.db") as made:
        task = next(t for t in made._opened().tasks.values() if t.gold)
        right, wrong = made(), made()
        for environment, sql in ((right, task.gold), (wrong, "SELECT 1")):
            assert "## Schema" in environment.reset(task=task.id)
            assert environment.reply(f"```sql\n{sql}\n```")
        assert (right.get_reward(), wrong.get_reward()) == (1.0, 0.0)


@pytest.fixture(scope="module")
def toy():
    """A random Qwen2 over bytes, with the chat template of Qwen3, which knows tools."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl.chat_template_utils import qwen3_chat_template

    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    raw = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=marks[0], eos_token=marks[2], additional_special_tokens=marks,
        padding_side="left", chat_template=qwen3_chat_template,
    )  # fmt: skip
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=8192, pad_token_id=0, eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    return Qwen2ForCausalLM(config), tokenizer


def test_a_step_of_trls_trainer(factory, toy, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from transformers.trainer_callback import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    network, tokenizer = toy
    turns = [*good_script(scenario_of(TASKS[FIRST])), None]

    class Says(GRPOTrainer):  # type: ignore[misc]
        """What a trained model would say: two of four rollouts follow the good script, a line each turn."""

        def _generate_single_turn(self, prompt_ids, *args, **options):
            texts = []
            for i, ids in enumerate(prompt_ids):
                said = tokenizer.decode(ids).count("<tool_response>\n")
                line = turns[said] if len(prompt_ids) < 4 or i < 2 else None
                call = json.dumps({"name": "reply", "arguments": {"text": line}})
                texts.append(f"<tool_call>\n{call}\n</tool_call><|im_end|>" if line else "Done.<|im_end|>")
            return [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts], None

    trainer = Says(
        model=network,
        train_dataset=factory.dataset().select([0]),
        processing_class=tokenizer,
        environment_factory=factory,
        args=GRPOConfig(
            str(tmp_path / "out"), per_device_train_batch_size=4, num_generations=4, max_completion_length=3000,
            max_steps=1, learning_rate=1e-2, beta=0.0, bf16=False, use_cpu=True, gradient_checkpointing=False,
            report_to="none", disable_tqdm=True, save_strategy="no", dataloader_pin_memory=False,
            max_tool_calling_iterations=6,
        ),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    before = network.lm_head.weight.detach().clone()
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "reward" in entry)
    assert log["rewards/AppEnvironment/mean"] == 0.5 == log["reward"] and log["reward_std"] > 0
    assert log["tools/failure_frequency"] == 0.0 and log["tools/call_frequency"] == (len(turns) - 1) / 2
    assert not network.lm_head.weight.equal(before), "the rewarded talk moved the weights"
    with Store(tmp_path / "v.db") as store:
        values = [store.feedback([a.id])[a.id][0].value for a in store.attempts("trl")]
    assert sorted(values) == [0.0, 0.0, 1.0, 1.0] and AppEnvironment.__name__ == "AppEnvironment"
