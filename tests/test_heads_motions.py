"""The built-in clips: reproducible, loopable, within anatomical limits, with the timing of people."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from next3d.errors import InputError
from next3d.heads import Motion, load_head
from next3d.heads.motions import CLIPS

FPS = 50.0


@pytest.fixture(scope="module")
def head():
    return load_head("builtin")


def coefficient(motion: Motion, head, name: str) -> torch.Tensor:
    return motion.params.expression[:, head.expression_names.index(name)]


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_every_clip_is_plausible(head, name):
    motion = Motion.clip(name, head, fps=FPS, seed=3)
    assert motion.seconds == pytest.approx(CLIPS[name].seconds)
    vector = motion.params.vector()
    assert torch.equal(vector, Motion.clip(name, head, fps=FPS, seed=3).params.vector())
    if name not in ("turn",):  # its poses are given; only the eyes wander
        assert not torch.equal(vector, Motion.clip(name, head, fps=FPS, seed=4).params.vector())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no angle beyond its limits
        head.clamp(motion.params)
    assert motion.params.expression.max() <= 1
    assert motion.params.expression.min() >= 0
    # It ends where it begins, so that it loops, and nothing jumps but eyes and lids.
    assert (vector[-1] - vector[0]).abs().max() < 0.06
    assert motion.params.neck.diff(dim=0).norm(dim=-1).max() * FPS < math.radians(220)
    assert motion.params.jaw.diff(dim=0).norm(dim=-1).max() * FPS < math.radians(280)


def test_blinks_close_quickly_and_open_more_slowly(head):
    lids = coefficient(Motion.clip("blink", head, fps=FPS, seconds=20.0), head, "eyeBlinkLeft")
    closed = (lids > 0.95).int()
    starts = (closed.diff() == 1).nonzero()[:, 0] + 1
    assert 4 <= len(starts) <= 12
    for start in starts.tolist():
        peak = start + int(lids[start : start + 4].argmax())
        rise = (lids[max(0, peak - 8) : peak] > 0.2).sum() / FPS
        fall = (lids[peak : peak + 18] > 0.2).sum() / FPS
        assert 0.04 <= rise <= 0.16
        assert rise < fall <= 0.34


def test_talking_opens_and_closes_at_the_rate_of_speech(head):
    motion = Motion.clip("talk", head, fps=FPS, seconds=12.0)
    jaw = motion.params.jaw[:, 0]
    velocity = jaw.diff()
    peaks = ((velocity[:-1] > 0) & (velocity[1:] <= 0) & (jaw[1:-1] > 0.02)).sum() / 12
    assert 2.0 < peaks < 6.0
    assert 0.12 < jaw.max() < 0.4
    assert jaw.min() >= 0
    assert (jaw < 0.01).float().mean() > 0.1  # there are pauses
    assert coefficient(motion, head, "mouthPucker").max() > 0.2
    assert coefficient(motion, head, "mouthPressLeft").max() > 0.1


def test_eyes_arrive_before_the_head(head):
    motion = Motion.clip("gaze", head, fps=FPS)
    eyes, neck = motion.params.eyes, motion.params.neck
    assert torch.allclose(eyes[:, :3], eyes[:, 3:], atol=1e-6)  # both look the same way
    eye_speed, neck_speed = eyes[:, 1].diff().abs(), neck[:, 1].diff().abs()
    assert eye_speed.max() > 4 * neck_speed.max()
    assert neck[:, 1].abs().max() > math.radians(8)
    assert eyes[:, 1].max() > math.radians(8)
    assert eyes[:, 1].min() < -math.radians(8)
    assert eyes[:, 0].max() > math.radians(5)
    assert eyes[:, 0].min() < -math.radians(5)


def test_turning_shows_both_profiles(head):
    neck = Motion.clip("turn", head).params.neck
    degrees = neck * 180 / math.pi
    assert degrees[:, 1].max() > 35
    assert degrees[:, 1].min() < -35
    assert degrees[:, 0].max() > 12
    assert degrees[:, 0].min() < -12
    assert degrees[:, 2].abs().max() > 12


def test_expressions_visit_each_expression(head):
    motion = Motion.clip("expressions", head, fps=FPS)
    for name in ("mouthSmileLeft", "browInnerUp", "mouthFrownLeft", "browDownRight", "noseSneerLeft", "mouthPucker"):
        assert coefficient(motion, head, name).max() > 0.6, name
    left, right = coefficient(motion, head, "eyeBlinkLeft"), coefficient(motion, head, "eyeBlinkRight")
    assert ((left > 0.9) & (right < 0.3)).any()  # the wink


def test_length_and_rate_are_free(head):
    motion = Motion.clip("talk", head, seconds=2.0, fps=30)
    assert len(motion) == 60
    assert motion.fps == 30
    assert len(Motion.clip("blink", head, seconds=0.1)) == 2
    for arguments in ({"seconds": 0}, {"seconds": math.nan}, {"fps": -1}):
        with pytest.raises(InputError, match="positive"):
            Motion.clip("talk", head, **arguments)
    with pytest.raises(InputError, match="choose talk"):
        Motion.clip("sing", head)
