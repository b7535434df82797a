"""Reenactment: relative motion keeps the avatar's own rest, drivers of every kind are read or refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from next3d.cli.main import main
from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams, Motion, load_head
from next3d.tracking.reenact import neutral_frame, read_motion, relative_motion, track_driver

MEDIA = Path(__file__).parents[2] / "shared" / "media"


def driver() -> Motion:
    """A driver who holds a smile, nods, and opens the mouth; frame 3 is the quietest."""
    time = torch.arange(10.0)
    expression = torch.zeros(10, 50)
    expression[:, 7] = 0.4 + 0.05 * (time - 3).abs()
    jaw = torch.stack([0.05 + 0.03 * (time - 3).abs(), torch.zeros(10), torch.zeros(10)], 1)
    camera = Camera.orbit(0.3 + 0.02 * (time - 3), 0.1 + 0 * time)
    return Motion(HeadParams(expression=expression, jaw=jaw), 25.0, camera, torch.ones(10))


def test_the_quietest_frame_is_neutral_and_becomes_the_avatars_rest() -> None:
    motion = driver()
    assert neutral_frame(motion) == 3
    relative = relative_motion(motion)
    assert relative.params.expression[3].abs().max() == 0
    assert relative.params.jaw[3].abs().max() == 0
    assert relative.params.jaw[8, 0] == pytest.approx(0.15, abs=1e-6)
    assert relative.camera is not None
    torch.testing.assert_close(relative.camera.label[3], Camera.orbit().label, atol=1e-5, rtol=0)
    # A head that the driver turned by 0.1 between frames 3 and 8 turns the avatar by as much.
    assert motion.camera is not None
    for i in (0, 8):
        driver_turn = motion.camera.world2cam[i] @ motion.camera.cam2world[3]
        avatar_turn = relative.camera.world2cam[i] @ relative.camera.cam2world[3]
        torch.testing.assert_close(avatar_turn, driver_turn, atol=1e-5, rtol=0)
    assert relative_motion(motion, neutral=5).params.jaw[5].abs().max() == 0
    with pytest.raises(InputError, match="frames 0 to 9"):
        relative_motion(motion, neutral=10)


def test_motions_of_every_kind_are_read(tmp_path: Path) -> None:
    head = load_head("builtin")
    driver().save(tmp_path / "ours.npz")
    assert len(read_motion(tmp_path / "ours.npz", head)) == 10
    (tmp_path / "take.csv").write_text("jawOpen\n0.5\n0.7\n")
    assert read_motion(tmp_path / "take.csv", head).params.jaw[1, 0] > 0
    np.savez(tmp_path / "vhap.npz", expr=np.zeros((2, 100)), jaw_pose=np.zeros((2, 3)))
    with pytest.raises(InputError, match="FLAME's parameters"):
        read_motion(tmp_path / "vhap.npz", head)
    (tmp_path / "text.txt").write_text("x")
    for name, message in (("text.txt", "a motion is"), ("absent.npz", "absent.npz")):
        with pytest.raises(InputError, match=message):
            read_motion(tmp_path / name, head)
    with pytest.raises(InputError, match="give a video"):
        track_driver(tmp_path / "text.txt", head)


@pytest.mark.slow
@pytest.mark.skipif(not MEDIA.is_dir(), reason="the example portraits and clip are not here")
def test_a_photo_drives_an_avatar_beside_it(tmp_path: Path) -> None:
    from next3d.io.video import read_video

    out = tmp_path / "a.mp4"
    photo = str(MEDIA / "s5.jpg")
    main(["animate", "--model", "untrained:tiny", "--driver", photo, "--seconds", "0.2", "--out", str(out)])
    frames = [frame.image for frame in read_video(out)]
    assert len(frames) == 5
    height, width = frames[0].shape[:2]
    assert width == 2 * height  # the driver, then the avatar
    assert np.abs(frames[0][:, :height].astype(int) - frames[4][:, :height]).mean() < 2  # a photo stands still
