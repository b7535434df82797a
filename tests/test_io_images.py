"""Whatever picture a user has comes in as upright 8-bit RGB; what is no picture gets one line."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from next3d.errors import InputError
from next3d.io.images import contact_sheet, from_uint8, read_image, to_uint8, write_image


@pytest.fixture
def gradient() -> np.ndarray:
    rows, columns = np.mgrid[0:24, 0:32]
    return np.stack([rows * 8, columns * 6, rows + columns], -1).astype(np.uint8)


def test_png_round_trip_is_exact(tmp_path, gradient):
    write_image(tmp_path / "a.png", gradient)
    assert np.array_equal(read_image(tmp_path / "a.png"), gradient)


def test_float_tensors_round_trip(tmp_path, gradient):
    tensor = from_uint8(gradient)
    assert tensor.shape == (3, 24, 32)
    assert tensor.min() >= -1
    assert tensor.max() <= 1
    assert np.array_equal(to_uint8(tensor), gradient)
    write_image(tmp_path / "a.png", tensor)
    assert np.array_equal(read_image(tmp_path / "a.png"), gradient)


def test_jpeg_is_close(tmp_path, gradient):
    write_image(tmp_path / "a.jpg", gradient)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - gradient).mean() < 4


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    assert picture.shape == (8, 8, 3)
    assert np.abs(picture[..., 0].astype(int) - values / 257).max() <= 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "YCbCr"])
def test_other_modes_become_rgb(tmp_path, gradient, mode):
    suffix = ".jpg" if mode in ("CMYK", "YCbCr") else ".png"
    Image.fromarray(gradient).convert(mode).save(tmp_path / f"a{suffix}")
    picture = read_image(tmp_path / f"a{suffix}")
    assert picture.shape == gradient.shape
    assert picture.dtype == np.uint8


def test_transparency_is_laid_over_the_background(tmp_path):
    layer = np.zeros((4, 4, 4), np.uint8)
    layer[:2] = (255, 0, 0, 255)
    write_image(tmp_path / "a.png", layer)
    assert read_image(tmp_path / "a.png")[:, 0].tolist() == [[255, 0, 0]] * 2 + [[255, 255, 255]] * 2
    assert read_image(tmp_path / "a.png", background=(0, 0, 9))[3, 0].tolist() == [0, 0, 9]


def test_exif_rotation_is_applied(tmp_path, gradient):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated clockwise
    Image.fromarray(gradient).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(gradient, -1))


def test_bad_files_get_one_line(tmp_path, gradient):
    with pytest.raises(InputError, match="there is no picture"):
        read_image(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(InputError, match="not a picture"):
        read_image(tmp_path / "text.png")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    write_image(tmp_path / "whole.png", noise)
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    with pytest.raises(InputError, match="damaged"):
        read_image(tmp_path / "half.png")
    with pytest.raises(InputError, match=r"\.png"):
        write_image(tmp_path / "a.tiff", gradient)


def test_a_decompression_bomb_is_refused_unread(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(InputError, match="pixels"):
        read_image(tmp_path / "bomb.png")


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_image(tmp_path / "a.png", torch.zeros(3, 3, 3, 3, dtype=torch.int64))
    assert list(tmp_path.iterdir()) == []


def test_contact_sheet_places_pictures_in_rows(gradient):
    sheet = contact_sheet([gradient, 255 - gradient, gradient], columns=2, gap=4)
    assert sheet.shape == (2 * 28 + 4, 2 * 36 + 4, 3)
    assert np.array_equal(sheet[4:28, 4:36], gradient)
    assert np.array_equal(sheet[4:28, 40:72], 255 - gradient)
    labelled = contact_sheet([gradient] * 3, columns=3, labels=["a", "a long label that must shrink", "c"])
    assert labelled.shape[0] > 32  # a band for the labels
