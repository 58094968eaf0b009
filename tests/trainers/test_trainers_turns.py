"""Attempts of several turns as one row: the tokens as sampled, what the environment said masked, log-probabilities that
are those of the row, and templates that rewrite earlier turns refused.
"""

import math
import os

import pytest

from verbal.errors import TrainError
from verbal.trainers.weights import open_weights, turns_of

from .corridor import CHATML, FORGETFUL, byte_model, corridor, walker

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch")
pytest.importorskip("trl")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return byte_model(tmp_path_factory.mktemp("bytes"))


def walked(rollouts, samples, task="c0"):
    """The attempts of a group and their tokens."""
    (made,) = rollouts.run(rollouts.groups(0, [task], samples))
    return [(m.attempt, rollouts.weights.tokens(m.attempt)) for m in made]


def policy_steps(attempt):
    return [s for s in attempt.steps if s.author == "policy"]


def scored(weights, tokens):
    """Log-probabilities of a completion under the network."""
    ids = torch.tensor([[*tokens.prompt, *tokens.completion]])
    with torch.no_grad():
        logits = weights.network.eval()(ids).logits[0, len(tokens.prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens.completion)[:, None])[:, 0].tolist()


def test_three_turns_are_one_row_of_the_tokens_that_were_sampled(tiny, tmp_path):
    with corridor(tiny, tmp_path, max_tokens=2) as rollouts:
        rows = walked(rollouts, 12)
        weights, exact = rollouts.weights, 0
        for attempt, tokens in rows:
            steps = policy_steps(attempt)
            assert len(steps) == len(tokens.turns) == 3
            assert tokens.prompt == weights.prompt_ids(turns_of(steps[0].prompt))
            own = [i for i, m in zip(tokens.completion, tokens.mask, strict=True) if m]
            assert own == [i for s in steps for i in s.token_ids]
            for start, step in zip(tokens.turns, steps, strict=True):
                assert tokens.completion[start : start + len(step.token_ids)] == list(step.token_ids)
            again = scored(weights, tokens)
            for i, mask in enumerate(tokens.mask):
                assert mask or math.isnan(tokens.logprobs[i])
                if not math.isnan(tokens.logprobs[i]):
                    assert tokens.logprobs[i] == pytest.approx(again[i], abs=1e-4)
            last = weights.prompt_ids(turns_of(steps[-1].prompt))
            read = [*tokens.prompt, *tokens.completion[: tokens.turns[-1]]] == last
            assert read is not math.isnan(tokens.logprobs[tokens.turns[-1]])
            exact += read
        assert 0 < exact < len(rows)  # random bytes are often no text, and are then read back in other tokens
        assert all(not math.isnan(t.logprobs[0]) for _, t in rows)


def test_what_stands_between_turns_is_what_the_template_and_the_environment_say(tiny, tmp_path):
    with corridor(tiny, tmp_path, walker()) as rollouts:
        ((attempt, tokens),) = walked(rollouts, 1)
        weights = rollouts.weights
        text = weights.tokenizer.decode([*tokens.prompt, *tokens.completion])
        assert text == (
            "<|im_start|>user\ncorridor 0, 3 doors. Door 0?<|im_end|>\n<|im_start|>assistant\nI go right<|im_end|>\n"
            "<|im_start|>user\nYou went right. Door 1?<|im_end|>\n<|im_start|>assistant\nI go left<|im_end|>\n"
            "<|im_start|>user\nYou went left. Door 2?<|im_end|>\n<|im_start|>assistant\nI go left<|im_end|>"
        )
        masked = [i if m else None for i, m in zip(tokens.completion, tokens.mask, strict=True)]
        words = weights.tokenizer.decode([i for i in masked if i is not None])
        assert words == "I go right<|im_end|>I go left<|im_end|>I go left<|im_end|>"
        assert all(v == -0.5 for v, m in zip(tokens.logprobs, tokens.mask, strict=True) if m)
        whole = weights._ids(
            [*turns_of(attempt.steps[-1].prompt), {"role": "assistant", "content": "I go left"}], False
        )
        assert [*tokens.prompt, *tokens.completion] == whole[:-1]  # the template's last newline is nobody's


def test_the_end_of_a_turn_that_was_cut_is_the_templates_and_masked(tiny, tmp_path):
    with corridor(tiny, tmp_path, walker(), limit=2) as rollouts:
        ((attempt, tokens),) = walked(rollouts, 1)
        eos = rollouts.weights.tokenizer.eos_token_id
        steps = policy_steps(attempt)
        assert all(eos not in s.token_ids for s in steps)
        end = tokens.turns[0] + len(steps[0].token_ids)
        assert (tokens.completion[end], tokens.mask[end]) == (eos, 0)
        last = rollouts.weights.prompt_ids(turns_of(steps[-1].prompt))
        assert [*tokens.prompt, *tokens.completion[: tokens.turns[-1]]] == last
        assert not any(math.isnan(v) for v, m in zip(tokens.logprobs, tokens.mask, strict=True) if m)


def test_turns_that_were_read_in_other_tokens_have_no_log_probabilities(tiny, tmp_path):
    with corridor(tiny, tmp_path, walker()) as rollouts:
        ((attempt, tokens),) = walked(rollouts, 1)
        first, *others = attempt.steps
        spelled = [i for c in first.text for i in rollouts.weights.tokenizer(c)["input_ids"]]
        ids = (*spelled, rollouts.weights.tokenizer.eos_token_id)
        assert list(ids) != list(first.token_ids)
        odd = attempt.replace(steps=(first.replace(token_ids=ids, logprobs=(-0.5,) * len(ids)), *others))
        made = rollouts.weights.tokens(odd)
        known = [not math.isnan(v) for v in made.logprobs]
        assert known == [bool(m) and i < made.turns[1] for i, m in enumerate(made.mask)]
        assert [i for i, m in zip(made.completion, made.mask, strict=True) if m] == [
            *ids, *(i for s in others for i in s.token_ids)
        ]  # fmt: skip
        assert rollouts.weights.tokens(attempt.replace(steps=(first.replace(token_ids=None), *others))) is None
        unknown = rollouts.weights.tokens(attempt.replace(steps=(first.replace(logprobs=None), *others)))
        assert unknown.logprobs is None and unknown.completion == tokens.completion


def test_a_template_that_rewrites_earlier_turns_is_refused(tmp_path):
    model = byte_model(tmp_path / "model", FORGETFUL)
    with corridor(model, tmp_path / "out", walker()) as rollouts:
        with pytest.raises(TrainError, match="does not begin with the turn before it") as told:
            walked(rollouts, 1)
        assert "chat template" in str(told.value) and "keeps earlier turns" in str(told.value)


def test_a_template_whose_answers_begin_otherwise_once_they_are_there_is_refused(tmp_path):
    thinking = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think>' }}{% endif %}")
    model = byte_model(tmp_path / "model", thinking)
    with corridor(model, tmp_path / "out", walker()) as rollouts, pytest.raises(TrainError, match="turn before it"):
        walked(rollouts, 1)


def test_siblings_that_begin_alike_do_not_go_on_alike(tiny, tmp_path):
    with corridor(tiny, tmp_path, max_tokens=1) as rollouts:
        attempts = [a for a, _ in walked(rollouts, 12)]
        later = {tuple(s.token_ids for s in a.steps[1:]) for a in attempts}
        assert len(later) == len(attempts)


def test_a_reply_ends_at_any_token_that_ends_one_for_this_model(tiny, tmp_path):
    """A sibling that ends first is padded to the longest; padding is no turn."""
    with corridor(tiny, tmp_path, max_tokens=40) as rollouts:
        network = rollouts.weights.network
        ends = list(range(0, 330, 2))  # half of all tokens, so that nearly every reply ends early
        network.generation_config.eos_token_id = ends
        for attempt, _ in walked(rollouts, 8):
            for step in policy_steps(attempt):
                assert [i in ends for i in step.token_ids] == [False] * (len(step.token_ids) - 1) + [True]


def test_prompts_of_one_turn_are_as_before(tiny):
    weights = open_weights(tiny)
    messages = [{"role": "user", "content": "corridor 1"}]
    prompt = weights.prompt_ids(messages)
    assert weights.tokenizer.decode(prompt).endswith("<|im_start|>assistant\n")
    assert weights.tokenizer.decode(weights.answer_ids(messages, "left")) == "left<|im_end|>"
