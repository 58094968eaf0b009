"""The embedded model's own view in training: rows to packs, packs to tensors, and back to answers."""

import os
from random import Random

import pytest

from verbal.contracts import Example
from verbal.errors import TrainError
from verbal.trainers.sft import SFT

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at its import, which is still to come
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

SCHEMA = """CREATE TABLE shop (
  shop_id INTEGER PRIMARY KEY, -- 1 to 20
  city TEXT, -- one of 'Berlin', 'Lyon', 'Porto'
  staff INTEGER -- 2 to 40
);
CREATE TABLE sale (
  sale_id INTEGER PRIMARY KEY, -- 1 to 900
  status TEXT, -- one of 'K1', 'K2', 'K3'
  amount REAL, -- 1.5 to 900.0
  shop_id INTEGER,
  FOREIGN KEY (shop_id) REFERENCES shop (shop_id)
);"""
QUESTIONS = [
    ("How many blimey sales are there?", "SELECT COUNT(*) FROM sale WHERE status = 'K2'"),
    ("How many gadzook sales are there?", "SELECT COUNT(*) FROM sale WHERE status = 'K3'"),
    ("What is the average amount of blimey sales?", "SELECT AVG(amount) FROM sale WHERE status = 'K2'"),
    ("List the cities of shops.", "SELECT city FROM shop"),
]


def prompt(question, schema=SCHEMA):
    head = f"# Role: solver\nWrite one query.\n\n## Schema\n{schema}\n\n## Values\nnone\n\n## Hints\nnone\n\n"
    return [{"role": "user", "content": f"{head}## Tried\nnone\n\n## Question\n{question}\n\n## Answer\n"}]


def make_row(question, sql, schema=SCHEMA):
    completion = [{"role": "assistant", "content": f"```sql\n{sql}\n```"}]
    return Example(columns={"prompt": prompt(question, schema), "completion": completion}, attempts=(question[:9],))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A random embedded model of a few thousand weights, as a folder."""
    from verbal.models.embedded import hf

    folder = tmp_path_factory.mktemp("small")
    hf.save(hf.fresh(hidden=64, layers=2, heads=2, inner=128, seed=1), folder)
    return f"embedded:{folder}"


async def test_terms_are_learned_without_their_hints_and_answered_without_torch(tmp_path):
    """The shipped weights, four rows, and the model as everybody opens it (numpy)."""
    from verbal.contracts import Sampling
    from verbal.models import open_model
    from verbal.types import Message

    rows = [make_row(*pair) for pair in QUESTIONS]
    papers = SFT(epochs=20, batch=4, rehearsal=0).train(rows, "embedded", str(tmp_path / "out"), seed=2)
    assert (papers["kind"], papers["rows"], papers["steps"], papers["unsupported"]) == ("embedded", 4, 20, {})
    assert papers["loss_last"] < 0.1 < papers["loss_first"]
    before, after = open_model("embedded"), open_model(f"embedded:{tmp_path / 'out'}")
    asked = [[Message(**m) for m in prompt(question)] for question, _ in QUESTIONS]
    wanted = [f"```sql\n{sql}\n```" for _, sql in QUESTIONS]
    assert [(await after.generate(messages, 1, Sampling()))[0].text for messages in asked] == wanted
    assert [(await before.generate(messages, 1, Sampling()))[0].text for messages in asked] != wanted
    await before.aclose()
    await after.aclose()


def test_same_seed_same_weights_with_rehearsal(small, tmp_path):
    from safetensors.torch import load_file

    rows = [make_row(*pair) for pair in QUESTIONS]
    method = SFT(epochs=2, batch=2, rehearsal=1.0)
    figures = [method.train(rows, small, str(tmp_path / name), seed=4) for name in ("one", "two")]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[k], two[k]) for k in one) and figures[0]["loss_last"] == figures[1]["loss_last"]
    plain = SFT(epochs=2, batch=2, rehearsal=0).train(rows, small, str(tmp_path / "three"), seed=4)
    assert figures[0]["tokens"] > plain["tokens"] and figures[0]["steps"] == plain["steps"] == 4


def test_a_stopped_run_resumes_to_the_same_weights(small, tmp_path):
    from safetensors.torch import load_file

    rows = [make_row(*pair) for pair in QUESTIONS]
    method = SFT(epochs=6, batch=2, rehearsal=0.5, save_steps=4)
    method.train(rows, small, str(tmp_path / "one"), seed=4)

    def stop(done, total, loss):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.train(rows, small, str(tmp_path / "two"), seed=4, on_progress=stop)
    seen = []
    progress = lambda done, total, loss: seen.append(done)  # noqa: E731
    method.train(rows, small, str(tmp_path / "two"), seed=4, on_progress=progress, resume=True)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert seen[0] == 5 and all(torch.equal(one[k], two[k]) for k in one)


def test_the_result_lies_between_the_weights_before_and_the_trained_ones(small, tmp_path):
    from verbal.models.embedded import hf
    from verbal.trainers.slots import folder_of

    rows = [make_row(*pair) for pair in QUESTIONS]
    for name, share in (("all", 1.0), ("half", 0.5)):
        SFT(epochs=2, blend=share, rehearsal=0).train(rows, small, str(tmp_path / name))
    before, trained, half = (
        dict(hf.load(folder).named_parameters()) for folder in (folder_of(small), tmp_path / "all", tmp_path / "half")
    )
    for name, weight in half.items():
        torch.testing.assert_close(weight, (before[name] + trained[name]) / 2, rtol=0.02, atol=1e-3)
    assert any(not torch.equal(trained[name], before[name]) for name in trained)


def test_rows_outside_the_limits_are_counted_and_refused_when_none_is_left(small, tmp_path):
    rows = [
        make_row(*QUESTIONS[0]),
        make_row("How many are blue?", "SELECT COUNT(*) FROM sale WHERE status = 'blue moon'"),
    ]
    text = [{"role": "user", "content": "Hello"}]
    rows.append(Example(columns={"prompt": text, "completion": text}, attempts=("x",)))
    papers = SFT(epochs=1).train(rows, small, str(tmp_path / "out"))
    assert papers["rows"] == 1 and sum(papers["unsupported"].values()) == 2
    assert any("blue moon" in reason for reason in papers["unsupported"])
    with pytest.raises(TrainError, match="none of 2 rows fits the embedded model"):
        SFT(epochs=1).train(rows[1:], small, str(tmp_path / "none"))
    with pytest.raises(TrainError, match=r"none of 1 rows fits .*too long"):
        SFT(epochs=1, max_length=10).train(rows[:1], small, str(tmp_path / "long"))
    with pytest.raises(TrainError, match="no embedded model can be loaded"):
        SFT(epochs=1).train(rows[:1], f"embedded:{tmp_path}", str(tmp_path / "lost"))


def random_rows(rng, schemas, n):
    from verbal.trainers.slots import Encoded

    def tokens(k):
        return tuple(rng.randrange(3, 300) for _ in range(k))

    known = [tokens(rng.randrange(5, 200)) for _ in range(schemas)]
    sizes = [(rng.randrange(2, 40), rng.randrange(1, 9)) for _ in range(n)]
    return [Encoded(rng.choice(known), tokens(q + a), a) for q, a in sizes]


@pytest.mark.parametrize(("schemas", "n"), [(1, 1), (1, 30), (5, 30), (30, 30)])
def test_every_row_is_trained_as_often_as_there_are_epochs(schemas, n):
    from verbal.trainers.slots import steps_of

    rows = random_rows(Random(schemas * n), schemas, n)
    steps = list(steps_of(rows, epochs=3, batch=8, rehearsal=0.0, seed=1))
    assert steps == list(steps_of(rows, epochs=3, batch=8, rehearsal=0.0, seed=1))
    assert steps != list(steps_of(rows, epochs=3, batch=8, rehearsal=0.0, seed=2)) or n == 1
    assert len(steps) == -(-3 * n // 8)
    trained = sorted(label for step in steps for label in step["labels"] if label != -100)
    assert trained == sorted(3 * [token for row in rows for token in row.question[-row.answer :]])
    assert max(length for step in steps for length in step["lengths"]) <= 512
    rehearsed = list(steps_of(rows, epochs=1, batch=8, rehearsal=2.0, seed=1))
    assert sum(map(len, (s["input_ids"] for s in rehearsed))) > sum(len(r.question) for r in rows) + 40 * n


def test_packed_questions_give_the_loss_they_give_alone(small):
    """Oracle: each row alone, without packing, mask or shared schema."""
    from verbal.models.embedded import hf
    from verbal.trainers.slots import collate, folder_of, steps_of

    model = hf.load(folder_of(small)).eval()
    rows = random_rows(Random(7), 3, 12)
    (step,) = steps_of(rows, epochs=1, batch=12, rehearsal=0.0, seed=3)
    assert 1 < len(step["lengths"]) < len(rows)
    batch = collate([step])
    labels = batch.pop("labels")
    with torch.no_grad():
        logs = model(**batch).logits.log_softmax(-1)[:, :-1]
        wanted = labels[:, 1:]
        packed = logs.gather(-1, wanted.clamp(min=0)[..., None])[..., 0][wanted != -100]
        alone = []
        for row in rows:
            ids = torch.tensor([[*row.schema, *row.question]])
            each = model(input_ids=ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
            alone.append(each[-row.answer :])
    torch.testing.assert_close(packed.sort().values, torch.cat(alone).sort().values, rtol=1e-4, atol=1e-5)
