"""HeadParams and Motion: batches, files, and what one does to clips."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams, Motion
from next3d.heads.params import LENGTHS


def swing(frames: int = 50, fps: float = 25.0, **extra) -> Motion:
    """The jaw opens and closes once a second."""
    time = torch.arange(frames) / fps
    jaw = torch.stack([0.2 * (1 - (2 * math.pi * time).cos()), torch.zeros(frames), torch.zeros(frames)], -1)
    return Motion(HeadParams(jaw=jaw), fps, **extra)


def test_missing_fields_are_zero_and_sequences_are_taken():
    params = HeadParams(jaw=(0.25, 0, 0))
    assert params.jaw.dtype == torch.float32
    assert params.batch_shape == ()
    for name, length in LENGTHS.items():
        assert getattr(params, name).shape == (length,)
    assert params.shape.abs().sum() == 0
    assert HeadParams(eyes=np.zeros((4, 2, 6))).batch_shape == (4, 2)


def test_batches_broadcast_index_and_stack():
    params = HeadParams(shape=torch.ones(100), jaw=torch.arange(12.0).reshape(4, 3))
    assert params.batch_shape == (4,)
    assert len(params) == 4
    assert params.shape.shape == (4, 100)
    assert params[1].jaw.tolist() == [3, 4, 5]
    assert params[1:3].batch_shape == (2,)
    stacked = HeadParams.stack([params[0], params[3]])
    assert torch.equal(stacked.jaw, params.jaw[[0, 3]])
    assert HeadParams.cat([params, stacked]).batch_shape == (6,)
    assert torch.equal(HeadParams.from_vector(params.vector()).jaw, params.jaw)
    assert params.replace(neck=(0, 1, 0)).neck[2].tolist() == [0, 1, 0]
    with pytest.raises(InputError, match="no 'nose'"):
        params.replace(nose=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": torch.zeros(99)}, "'shape' has 100 numbers in its last dimension, got 99"),
        ({"eyes": (0, 0, 0)}, "'eyes' has 6 numbers in its last dimension, got 3"),
        ({"jaw": 0.3}, "'jaw' has 3 numbers"),
        ({"jaw": (0, math.nan, 0)}, "'jaw' holds NaN"),
        ({"neck": "left"}, "'neck' must be 3 numbers"),
        ({"jaw": torch.zeros(2, 3), "neck": torch.zeros(3, 3)}, "do not fit together"),
    ],
)
def test_bad_parameters_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        HeadParams(**arguments)


def test_motion_file_round_trip(tmp_path):
    motion = swing(camera=Camera.orbit(torch.linspace(-1, 1, 50)), confidence=torch.linspace(0, 1, 50))
    motion.save(tmp_path / "clip.npz")
    again = Motion.load(tmp_path / "clip.npz")
    assert again.fps == motion.fps
    assert torch.equal(again.params.vector(), motion.params.vector())
    assert torch.equal(again.camera.label, motion.camera.label)
    assert torch.equal(again.confidence, motion.confidence)
    with np.load(tmp_path / "clip.npz") as file:
        assert {*LENGTHS, "fps", "units"} <= set(file.files)
        assert "radians" in str(file["units"])


def test_bad_motion_files(tmp_path):
    with pytest.raises(InputError, match="no motion file"):
        Motion.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match="not a readable motion"):
        Motion.load(tmp_path / "text.npz")
    np.savez(tmp_path / "objects.npz", jaw=np.array([{}]), fps=25)
    with pytest.raises(InputError, match="not a readable motion"):
        Motion.load(tmp_path / "objects.npz")
    np.savez(tmp_path / "short.npz", jaw=np.zeros((5, 2)), fps=25)
    with pytest.raises(InputError, match="'jaw' has 3 numbers"):
        Motion.load(tmp_path / "short.npz")
    np.savez(tmp_path / "no_rate.npz", jaw=np.zeros((5, 3)))
    with pytest.raises(InputError, match="fps"):
        Motion.load(tmp_path / "no_rate.npz")
    np.savez(tmp_path / "other.npz", jaw=np.zeros((5, 3)), fps=25, pose=np.zeros(3))
    with pytest.raises(InputError, match="'pose'"):
        Motion.load(tmp_path / "other.npz")


def test_resampling_keeps_the_movement():
    motion = swing(50)
    finer = motion.resample(60)
    assert len(finer) == 120
    assert finer.seconds == pytest.approx(motion.seconds)
    time = torch.arange(118) / 60  # the last frames hold the clip's end
    assert torch.allclose(finer.params.jaw[:118, 0], 0.2 * (1 - (2 * math.pi * time).cos()), atol=4e-3)
    assert torch.allclose(motion.resample(25).params.jaw, motion.params.jaw)
    cameras = Motion(HeadParams(jaw=torch.zeros(2, 3)), 1, Camera.orbit(torch.tensor([0.0, 0.4]), radius=2.7)).resample(
        2
    )
    expected = Camera.orbit(torch.tensor(0.2)).cam2world[:3, :3]
    assert torch.allclose(cameras.camera.cam2world[1, :3, :3], expected, atol=1e-3)


def test_smoothing_removes_noise_and_trusts_the_confident():
    motion = swing(100)
    generator = torch.Generator().manual_seed(0)
    noisy = Motion(HeadParams(jaw=motion.params.jaw + 0.03 * torch.randn(100, 3, generator=generator)), 25)
    smooth = noisy.smooth(0.06)
    error = (smooth.params.jaw - motion.params.jaw).square().mean().sqrt()
    assert error < 0.5 * (noisy.params.jaw - motion.params.jaw).square().mean().sqrt()
    jaw = torch.zeros(21, 3)
    jaw[10] = 1.0  # an outlier that the tracker does not believe in
    confidence = torch.ones(21)
    confidence[10] = 0
    assert Motion(HeadParams(jaw=jaw), 25, confidence=confidence).smooth(0.1).params.jaw.max() < 1e-2
    turning = Motion(HeadParams(jaw=torch.zeros(30, 3)), 25, Camera.orbit(torch.linspace(-0.5, 0.5, 30)))
    rotation = turning.smooth(0.1).camera.cam2world[:, :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(30, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(30), atol=1e-5)


def test_concatenation_cross_fades():
    still = Motion(HeadParams(jaw=torch.full((25, 3), 0.4)), 25)
    joined = Motion.concatenate([swing(50), still], blend=0.4)
    assert len(joined) == 50 + 25 - 10
    assert torch.equal(joined.params.jaw[:40], swing(50).params.jaw[:40])
    assert joined.params.jaw[-1].tolist() == pytest.approx([0.4] * 3)
    assert joined.params.jaw[:, 0].diff().abs().max() < 0.1
    assert len(Motion.concatenate([swing(50), swing(60, 30)])) == 100
    with pytest.raises(InputError, match="empty"):
        Motion.concatenate([])


def test_retargeting_keeps_the_avatars_shape():
    shape = torch.randn(100, generator=torch.Generator().manual_seed(0))
    motion = swing(10).retarget(shape)
    assert torch.equal(motion.params.shape, shape.expand(10, 100))
    assert torch.equal(motion.params.jaw, swing(10).params.jaw)
    assert torch.equal(swing(10).retarget(HeadParams(shape=shape)).params.shape, motion.params.shape)
    with pytest.raises(InputError, match="one shape"):
        swing(10).retarget(torch.zeros(2, 100))


def test_slices_and_their_rate():
    motion = swing(50, confidence=torch.linspace(0, 1, 50))
    assert len(motion[10:20]) == 10
    assert motion[10:20].confidence[0] == motion.confidence[10]
    assert motion[::2].fps == 12.5
    with pytest.raises(TypeError):
        motion[3]


def test_bad_motions():
    with pytest.raises(InputError, match="frames"):
        Motion(HeadParams())
    with pytest.raises(InputError, match="fps"):
        Motion(HeadParams(jaw=torch.zeros(5, 3)), 0)
    with pytest.raises(InputError, match="needs 5 cameras"):
        swing(5, camera=Camera.orbit(torch.zeros(4)))
    with pytest.raises(InputError, match="fps"):
        swing(5).resample(-1)
