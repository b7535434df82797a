"""``next3d bench``: complete, consistent figures, on a tiny model; no time is asserted."""

import json

import pytest
import torch

import next3d
from next3d import Camera, HeadParams, InputError
from next3d.bench import PRECISIONS, bench_frame, peak_memory
from next3d.cli.main import main


@pytest.fixture(autouse=True)
def _small_ceiling(monkeypatch):
    """The real one takes seconds."""
    monkeypatch.setattr("next3d.bench.CEILING_SIZE", 32)


@pytest.fixture(scope="module")
def scene():
    model = next3d.load("untrained:tiny")
    mesh = model.head(HeadParams())
    return model, mesh.vertices, mesh.landmarks, Camera.orbit().label[None]


def test_stages_add_up_and_bake_away(scene):
    seen = []
    report = bench_frame(*scene, precision="float32", frames=1, progress=seen.append)
    assert len(seen) == 2 * 1 + 4
    for run in (report.whole, report.baked):
        assert run.ceiling_gflops > 0
        assert 0 < sum(cost.milliseconds for cost in run.stages.values()) <= run.total.milliseconds
        assert sum(cost.gflop for cost in run.stages.values()) == pytest.approx(run.total.gflop, rel=0.01)
        assert all(cost.share >= 0 for cost in run.stages.values())
        assert run.total.share == pytest.approx(
            run.total.gflop / run.total.milliseconds * 1e3 / run.ceiling_gflops, rel=1e-6
        )
    assert {"texture", "styles", "draw the mesh", "rays"} <= set(report.whole.stages)
    assert not {"mapping", "texture", "static planes", "styles"} & set(report.baked.stages)
    assert report.baked.total.gflop < report.whole.total.gflop
    assert report.difference < 0.01  # the same picture
    assert report.rasterization.milliseconds > 0
    assert report.rasterization.faces == len(scene[0].topology.faces)
    model = scene[0]
    assert not any("forward" in vars(module) or "styles" in vars(module) for module in model.modules())


def test_the_count_of_a_frame_is_that_of_its_convolutions(scene):
    """Against the sum over all convolutions and matrix products by their shapes."""
    from torch.utils.flop_counter import FlopCounterMode

    model, vertices, landmarks, label = scene
    report = bench_frame(*scene, precision="bfloat16", frames=1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ws = model.mapping(torch.zeros(1, model.config.mapping.z_dim), label)
        model.synthesis(ws, label, vertices, landmarks)
    assert report.whole.total.gflop == pytest.approx(counter.get_total_flops() / 1e9)
    assert report.difference < 3


def test_command_prints_a_table_and_writes_the_same_figures(tmp_path, capsys):
    path = tmp_path / "figures.json"
    threads = torch.get_num_threads()
    try:
        main(["bench", "--model", "untrained:tiny", "--frames", "1", "--threads", "1", "--json", str(path)])
    finally:
        torch.set_num_threads(threads)
    table = capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert figures["model"] == "untrained:tiny"
    assert figures["machine"]["threads"] == 1
    for kind in ("whole", "baked"):
        for stage, cost in {**figures[kind]["stages"], "frame": figures[kind]["total"]}.items():
            assert f"{stage:<18}{cost['milliseconds']:>9.1f}{cost['gflop']:>9.1f}" in table
    assert f"{figures['speedup']:.2f} times" in table
    assert figures["whole"]["precision"] == "float32"
    assert figures["baked"]["precision"] == "bfloat16"


def test_peak_memory_is_plausible():
    peak = peak_memory(torch.device("cpu"))
    if peak is None:
        pytest.skip("this system does not tell a process its peak memory")
    assert 0.05 < peak < 1000


def test_bad_input(scene, tmp_path, capsys):
    with pytest.raises(InputError, match="float33"):
        bench_frame(*scene, precision="float33")
    with pytest.raises(InputError, match="one frame"):
        bench_frame(*scene, frames=0)
    assert "float32" in PRECISIONS
    (tmp_path / "file").touch()
    for arguments, message in (
        (["--json", str(tmp_path / "file" / "a.json")], "cannot write"),
        (["--landmarks", "points.txt"], "--mesh"),
        (["--threads", "0"], "thread"),
    ):
        with pytest.raises(SystemExit) as error:
            main(["bench", "--model", "untrained:tiny", *arguments])
        assert error.value.code == 2
        assert message in capsys.readouterr().err
