"""Videos: what is written can be read back, at its times and upright; sound is copied; no half file is left."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from next3d.errors import InputError
from next3d.io.video import read_video, upright_turn, video_info, write_video


def frames(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Flat colours that get brighter, with the upper left quarter black."""
    pictures = []
    for index in range(count):
        picture = np.full((height, width, 3), 60 + 12 * index, np.uint8)
        picture[: height // 2, : width // 2] = 0
        pictures.append(picture)
    return pictures


def add_sound(target, seconds: float) -> None:
    """Write a file that holds a tone and no picture."""
    with av.open(str(target), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples = (np.sin(np.arange(int(seconds * 16000)) * 0.1) * 8000).astype(np.int16)[None]
        for start in range(0, samples.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(samples[:, start : start + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_frames_come_back_at_their_times(tmp_path):
    pictures = frames(10)
    assert write_video(tmp_path / "a.mp4", pictures, fps=25, progress=False) == 10
    info = video_info(tmp_path / "a.mp4")
    assert (info.width, info.height, info.frames, info.rotation, info.has_audio) == (48, 32, 10, 0, False)
    assert info.fps == pytest.approx(25)
    back = list(read_video(tmp_path / "a.mp4"))
    assert [frame.seconds for frame in back] == pytest.approx([index / 25 for index in range(10)])
    for frame, picture in zip(back, pictures):
        assert np.abs(frame.image.astype(int) - picture).mean() < 4


def test_a_part_is_read(tmp_path):
    write_video(tmp_path / "a.mp4", frames(10), fps=10, progress=False)
    assert [frame.index for frame in read_video(tmp_path / "a.mp4", start=0.25, end=0.65)] == [3, 4, 5, 6]


def test_odd_sizes_are_padded(tmp_path):
    write_video(tmp_path / "a.mp4", frames(2, 31, 47), fps=25, progress=False)
    assert next(read_video(tmp_path / "a.mp4")).image.shape == (32, 48, 3)


def test_fractional_rate(tmp_path):
    write_video(tmp_path / "a.mp4", frames(4), fps=29.97, progress=False)
    assert video_info(tmp_path / "a.mp4").fps == pytest.approx(29.97, abs=1e-3)


def test_variable_frame_rate_keeps_its_times(tmp_path):
    ticks = [0, 40, 60, 200, 210]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for tick, picture in zip(ticks, frames(5)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    times = [frame.seconds for frame in read_video(tmp_path / "a.mkv")]
    assert times == pytest.approx([tick / 1000 for tick in ticks], abs=2e-3)


def test_rotated_phone_video_stands_upright(tmp_path):
    class Turned:
        rotation = -90  # a display matrix that turns by 90 degrees clockwise

    assert upright_turn(Turned()) == 90
    Turned.rotation = 180
    assert upright_turn(Turned()) == 180
    Turned.rotation = 0
    assert upright_turn(Turned()) == 0


def test_sound_is_copied_and_cut(tmp_path):
    add_sound(tmp_path / "tone.m4a", 2.0)
    write_video(tmp_path / "a.mp4", frames(10), fps=10, audio=tmp_path / "tone.m4a", progress=False)
    assert video_info(tmp_path / "a.mp4").has_audio
    with av.open(str(tmp_path / "a.mp4")) as container:
        track = container.streams.audio[0]
        assert float(track.duration * track.time_base) == pytest.approx(1.0, abs=0.1)
    assert len(list(read_video(tmp_path / "a.mp4"))) == 10


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def broken():
        yield from frames(3)
        raise RuntimeError("lost power")

    with pytest.raises(RuntimeError, match="lost power"):
        write_video(tmp_path / "a.mp4", broken(), fps=25, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_bad_input_gets_one_line(tmp_path):
    with pytest.raises(InputError, match="there is no video"):
        next(read_video(tmp_path / "missing.mp4"))
    (tmp_path / "text.mp4").write_text("not a video at all")
    with pytest.raises(InputError, match="not a video"):
        video_info(tmp_path / "text.mp4")
    with pytest.raises(InputError, match=r"\.mp4"):
        write_video(tmp_path / "a.gif", frames(1), fps=25)
    with pytest.raises(InputError, match="fps"):
        write_video(tmp_path / "a.mp4", frames(1), fps=0)
    with pytest.raises(InputError, match="at least one frame"):
        write_video(tmp_path / "a.mp4", [], fps=25, progress=False)
    with pytest.raises(InputError, match="one size"):
        write_video(tmp_path / "a.mp4", [*frames(1), *frames(1, 64, 64)], fps=25, progress=False)
    add_sound(tmp_path / "tone.m4a", 0.5)
    with pytest.raises(InputError, match="no video stream"):
        next(read_video(tmp_path / "tone.m4a"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.mp4", "tone.m4a"]


def test_a_truncated_video_gives_the_frames_before_the_break(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", list(noise), fps=25, progress=False)
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    assert 0 < len(list(read_video(tmp_path / "b.mp4"))) <= 20
    (tmp_path / "c.mp4").write_bytes(whole[:200])
    with pytest.raises(InputError):
        list(read_video(tmp_path / "c.mp4"))
