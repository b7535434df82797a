"""Training is a pure function of config and data: over resumes, kills and numbers of processes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from next3d.errors import InputError
from next3d.training import checkpoints
from next3d.training.config import TrainingConfig
from next3d.training.trainer import Diverged, Trainer
from training_run import HEAD, noise, tiny_config, trainer


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def last(out: Path) -> checkpoints.Checkpoint:
    saved = checkpoints.load_newest(out / "checkpoints")
    assert saved is not None
    return saved


def assert_same_run(one: Path, other: Path) -> None:
    """Every tensor and every line of the log, to the bit."""
    a, b = last(one), last(other)
    assert a.state["step"] == b.state["step"]
    assert a.tensors.keys() == b.tensors.keys()
    different = [name for name in a.tensors if not torch.equal(a.tensors[name], b.tensors[name])]
    assert not different
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


JUDGED = {"adversarial_weight": 0.1, "field_fraction": 0.25}  # reconstruction with a discriminator beside it


@pytest.mark.parametrize(("stage", "reconstruct"), [("adversarial", {}), ("reconstruct", {}), ("reconstruct", JUDGED)])
def test_resume_is_bit_exact(tmp_path: Path, stage: str, reconstruct: dict):
    # 20 steps with a log line every 3 and checkpoints every 10: the sums of an unfinished line are resumed too.
    augment = {"enabled": True, "initial": 0.3}
    config = tiny_config(stage=stage, total_steps=20, log_every=3, augment=augment, reconstruct=reconstruct)
    trainer(config, tmp_path / "whole").run()
    half = trainer(config, tmp_path / "halves")
    while half.step < 10:
        half.one_step()
        if half.step % 3 == 0:
            half._write_metrics(0.0)
    half.save()
    half.one_step()  # lost work, as after a kill
    half.folder.log("metrics", 12, {"lost": 1.0})
    half.folder.close()
    trainer(config, tmp_path / "halves", resume=True).run()
    assert_same_run(tmp_path / "whole", tmp_path / "halves")


def launch(out: Path, config: TrainingConfig, die_at: int = 0, die_rank: int = 0) -> subprocess.CompletedProcess:
    (out.parent / f"{out.name}.json").write_text(json.dumps(dataclasses.asdict(config)))
    tests = Path(__file__).parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(tests)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    command = [sys.executable, str(tests / "training_run.py"), str(out), str(die_at), str(die_rank)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_kill_9_and_resume_is_bit_exact(tmp_path: Path):
    config = tiny_config(total_steps=20, checkpoint_every=5)
    trainer(config, tmp_path / "whole").run()
    killed = launch(tmp_path / "killed", config, die_at=13)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert last(tmp_path / "killed").state["step"] == 10
    resumed = launch(tmp_path / "killed", config)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_two_processes_train_as_one_even_if_one_is_killed(tmp_path: Path):
    # Sums in another order differ in the last bit, and this tiny game doubles a difference every step or so at full
    # speed; at a fifth of it, what is left after 20 steps would be a real difference.
    slow = {"generator_learning_rate": 5e-4, "discriminator_learning_rate": 4e-4}
    config = tiny_config(total_steps=20, checkpoint_every=8, optimizer=slow)
    trainer(config, tmp_path / "one").run()
    two = dataclasses.replace(config, devices=2)
    broken = launch(tmp_path / "two", two, die_at=11, die_rank=1)
    assert broken.returncode != 0
    assert last(tmp_path / "two").state["step"] == 8
    again = launch(tmp_path / "two", two)
    assert again.returncode == 0, again.stderr
    one, other = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two"))
    assert len(one) == len(other) == 20
    for a, b in zip(map(json.loads, one), map(json.loads, other), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], abs=1e-4), (a["step"], name)


@pytest.mark.parametrize("stage", ["adversarial", "reconstruct"])
def test_accumulation_changes_nothing(tmp_path: Path, stage: str):
    config = tiny_config(stage=stage, total_steps=4, checkpoint_every=4, reconstruct=JUDGED)
    trainer(config, tmp_path / "one").run()
    trainer(dataclasses.replace(config, accumulate=2), tmp_path / "rounds").run()
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "rounds")]
    for a, b in zip(*(map(json.loads, run) for run in lines), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture):
    config = tiny_config(total_steps=4, checkpoint_every=2)
    trainer(config, tmp_path / "run").run()
    newest = checkpoints.available(tmp_path / "run" / "checkpoints")[-1]
    data = bytearray((newest / checkpoints.TENSORS).read_bytes())
    data[-1] ^= 1
    (newest / checkpoints.TENSORS).write_bytes(data)
    again = trainer(config, tmp_path / "run", resume=True)
    again.folder.close()
    assert again.step == 2
    assert "damaged" in (message := capsys.readouterr().err)
    assert "going back" in message
    # A checkpoint cut short is as bad as one with a flipped bit; and one of another version is refused.
    (newest / checkpoints.TENSORS).write_bytes(data[:100])
    assert last(tmp_path / "run").state["step"] == 2
    state = json.loads((newest / checkpoints.STATE).read_text())
    (newest / checkpoints.STATE).write_text(json.dumps({**state, "version": 99}))
    with pytest.raises(InputError, match="version 99"):
        checkpoints.load_newest(tmp_path / "run" / "checkpoints")


def test_only_the_last_checkpoints_stay(tmp_path: Path):
    trainer(tiny_config(total_steps=5, checkpoint_every=1, keep_checkpoints=2), tmp_path / "run").run()
    names = [path.name for path in checkpoints.available(tmp_path / "run" / "checkpoints")]
    assert names == ["step-00000004", "step-00000005"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(tmp_path: Path, number: signal.Signals):
    run = trainer(tiny_config(total_steps=100, checkpoint_every=50), tmp_path / "run")
    step = run.one_step

    def one_step() -> dict[str, float]:
        if run.step == 2:
            os.kill(os.getpid(), number)
        return step()

    run.one_step = one_step  # type: ignore[method-assign]
    assert run.run() == number.name
    assert last(tmp_path / "run").state["step"] == 3


def test_nan_stops_with_the_batch_saved(tmp_path: Path):
    run = trainer(tiny_config(), tmp_path / "run")
    run.one_step()
    with torch.no_grad():
        run.stage.generator.volume.decoder[0].weight.fill_(torch.nan)
    with pytest.raises(Diverged, match=r"step 1 .seed 0.*generator/loss"):
        run.one_step()
    run.folder.close()
    failure = tmp_path / "run" / "failure-step-00000001-rank-0"
    record = json.loads((failure / "failure.json").read_text())
    assert (record["step"], record["seed"], record["first_sample"]) == (1, 0, 4)
    from safetensors.torch import load_file

    assert load_file(failure / "batch.safetensors")["image"].shape == (4, 3, 32, 32)


def test_a_run_is_not_overwritten(tmp_path: Path):
    trainer(tiny_config(total_steps=1), tmp_path / "run").run()
    with pytest.raises(InputError, match="--resume"):
        trainer(tiny_config(total_steps=1), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 6, "discriminator": {"minibatch_group": 4}}, "minibatch groups of 4"),
        ({"batch": 5, "accumulate": 2}, "multiple of 2"),
        ({"generator": {"head": "builtin"}}, "all three must be the same"),
        ({"discriminator": {"resolution": 64}}, "must be the same"),
        ({"total_steps": 0}, "--total-steps must be at least 1"),
        ({"stage": "reconstruct", "batch": 3}, "--reconstruct.views 2"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        trainer(tiny_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wrong_datasets_are_refused(tmp_path: Path):
    config = tiny_config()
    data = noise(config)
    data.images = data.images[:0]
    with pytest.raises(InputError, match="empty"):
        Trainer(config, data, HEAD, tmp_path / "run")
    larger = tiny_config(generator={"superres": dataclasses.replace(config.generator.superres, resolution=64)})
    with pytest.raises(InputError, match=r"32².*64²"):
        Trainer(larger, noise(config), HEAD, tmp_path / "run")
    with pytest.raises(InputError, match="latent"):
        Trainer(tiny_config(stage="reconstruct"), noise(config), HEAD, tmp_path / "run")
