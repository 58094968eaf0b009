"""Training in several processes: two with half a batch each do what one does with the whole."""

import re
from pathlib import Path

import pytest

from verbal.contracts import Example
from verbal.errors import ConfigError, TrainError, UnknownName
from verbal.trainers.grpo import GRPO
from verbal.trainers.launch import CONFIGS, _command, config_path, launch
from verbal.trainers.sft import SFT

from .tiny_models import letter_rows, tiny_llama

pytest.importorskip("torch")
pytest.importorskip("trl")


@pytest.mark.parametrize("name", ["cpu", "ddp", "fsdp", "zero2", "zero3"])
def test_accelerate_reads_each_configuration(name):
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    text = (CONFIGS / f"{name}.yaml").read_text()
    found = load_config_from_file(str(config_path(name)))
    assert isinstance(found, ClusterConfig) and found.num_processes == 2
    sort = {"cpu": "MULTI_CPU", "ddp": "MULTI_GPU", "fsdp": "FSDP"}.get(name, "DEEPSPEED")
    assert found.distributed_type.value == sort
    assert "offload_optimizer_device: cpu" not in text and "offload_params: true" not in text
    if name.startswith("zero"):
        assert found.deepspeed_config["zero_stage"] == int(name[-1])
        assert found.deepspeed_config["offload_optimizer_device"] == "none"


def test_accelerate_takes_what_a_configuration_says_of_fsdp():
    """A key that accelerate does not know is passed over in silence, so each must be an argument of its launcher."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    known = {a.dest for a in launch_command_parser()._actions}
    for name in ("fsdp", "zero2", "zero3"):
        found = load_config_from_file(str(config_path(name)))
        assert set(found.fsdp_config) | set(found.deepspeed_config) <= known


def test_the_command_is_that_of_accelerate_where_there_are_cards(tmp_path):
    job = tmp_path / "job.json"
    assert _command(config_path("fsdp"), job)[1:] == [
        "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "fsdp.yaml"), "-m",
        "verbal.trainers.launched", str(job),
    ]  # fmt: skip
    assert _command(config_path("cpu"), job)[2:6] == ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def test_what_trains_in_one_process_is_refused(tmp_path):
    rows = letter_rows(8)
    with pytest.raises(UnknownName, match="fdsp") as caught:
        launch(SFT(), rows, "any", str(tmp_path / "out"), config="fdsp")
    assert "did you mean 'fsdp'" in caught.value.todo
    with pytest.raises(ConfigError, match="grpo trains in one process"):
        launch(GRPO(), rows, "any", str(tmp_path / "out"), config="cpu")
    with pytest.raises(ConfigError, match="embedded model trains in one process"):
        launch(SFT(), rows, "embedded", str(tmp_path / "out"), config="cpu")


def test_two_processes_train_as_one_does(tmp_path):
    """Also told: progress of the first process, and what a process refuses."""
    import torch
    from safetensors.torch import load_file

    model, rows, seen = tiny_llama(tmp_path / "tiny"), letter_rows(24), []
    method = SFT(device="cpu", epochs=2, batch=8, learning_rate=1e-2)
    one = method.train(rows, model, str(tmp_path / "one"), seed=3)
    two = launch(
        method, rows, model, str(tmp_path / "two"), config="cpu", seed=3, on_progress=lambda *s: seen.append(s)
    )
    same = ("steps", "rows", "tokens", "rows_sha256", "base", "seed", "options", "attempts")
    assert [one[k] for k in same] == [two[k] for k in same]
    assert [s[:2] for s in seen] == [(i, 6) for i in range(1, 7)] and seen[-1][2]["loss"] > 0
    losses = [[p["loss"] for p in papers["curve"]] for papers in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0][-1] < losses[0][0]
    a, b = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(p.name for p in (tmp_path / "two").iterdir())


@pytest.fixture
def alone(tmp_path):
    """A configuration of one's own: one process."""
    path = tmp_path / "alone.yaml"
    path.write_text(re.sub("num_processes: 2", "num_processes: 1", (CONFIGS / "cpu.yaml").read_text()))
    return str(path)


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_no_process_is_left_when_progress_stops_the_training(tmp_path, alone):
    model = tiny_llama(tmp_path / "tiny")

    def stop(done, total, figures):
        raise KeyboardInterrupt

    method = SFT(device="cpu", epochs=200, batch=8)
    with pytest.raises(KeyboardInterrupt):
        launch(method, letter_rows(8), model, str(tmp_path / "out"), config=alone, on_progress=stop)
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path) in _read(p)]
    assert left == [] and not (tmp_path / "out" / "verbal.json").exists()


def _read(path):
    try:
        return path.read_text()
    except OSError:
        return ""


def test_what_a_process_refuses_is_told(tmp_path, alone):
    pairs = [Example(columns={"prompt": [], "chosen": []}, attempts=("a1",))]
    with pytest.raises(TrainError, match=r"the export has the columns.*not completion") as caught:
        launch(SFT(device="cpu"), pairs, "any", str(tmp_path / "out"), config=alone)
    assert "format" in caught.value.todo
