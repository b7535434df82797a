"""Pictures: reading whatever a user has as 8-bit RGB, writing PNG and JPEG atomically, contact sheets with labels."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

from next3d.errors import InputError
from next3d.io.files import atomic_path, check_writable

MAX_PIXELS = 100_000_000  # a 10,000 × 10,000 photo; more is refused before it is decoded
WRITE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_image(path: str | Path, *, background: Sequence[int] = (255, 255, 255)) -> np.ndarray:
    """Read a picture as uint8 RGB (H, W, 3), upright.

    Grey, palette, 16-bit, CMYK and other modes are converted; transparency is laid over ``background``; a camera's EXIF
    rotation is applied; of an animation the first frame is taken.

    Raises:
        InputError: no such file, no picture, a truncated one, or more than :data:`MAX_PIXELS` pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no picture {path}")
    return _decode(path, str(path), background, None)


def decode_image(data: bytes, *, background: Sequence[int] = (255, 255, 255)) -> np.ndarray:
    """A picture that came over a network as uint8 RGB (H, W, 3), upright: JPEG, PNG or WebP, nothing else.

    Raises:
        InputError: as :func:`read_image`.
    """
    return _decode(io.BytesIO(data), "what was sent", background, ("JPEG", "PNG", "WEBP"))


def _decode(
    source: Path | io.BytesIO, name: str, background: Sequence[int], formats: tuple[str, ...] | None
) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is stricter
            with Image.open(source, formats=formats) as file:
                if file.width * file.height > MAX_PIXELS:
                    size = f"{file.width} × {file.height}"
                    raise InputError(f"{name} has {size} pixels, more than {MAX_PIXELS:,}: make it smaller")
                return as_rgb(ImageOps.exif_transpose(file), background)
    except UnidentifiedImageError:
        raise InputError(f"{name} is not a picture that can be read (PNG, JPEG, WebP, …)") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is a damaged picture: {error}") from None


def as_rgb(picture: Image.Image, background: Sequence[int]) -> np.ndarray:
    """Any Pillow picture as uint8 RGB (H, W, 3)."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        if picture.mode == "F":
            top = 1.0 if values.size == 0 or np.nanmax(values) <= 1 else 255.0
        else:
            top = 65535.0  # Pillow widens 16-bit greys to "I"
        grey = np.nan_to_num(values / top).clip(0, 1) * 255
        return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        base = Image.new("RGBA", layer.size, (*(int(value) for value in background), 255))
        picture = Image.alpha_composite(base, layer)
    return np.array(picture.convert("RGB"))


def to_uint8(images: Tensor) -> np.ndarray:
    """Float pictures in [−1, 1], (..., 3, H, W), to uint8 (..., H, W, 3)."""
    scaled = (images.detach().float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).movedim(-3, -1).cpu().numpy()


def from_uint8(pictures: np.ndarray | Tensor) -> Tensor:
    """uint8 pictures (..., H, W, 3) to float32 in [−1, 1], (..., 3, H, W)."""
    return torch.as_tensor(pictures).movedim(-1, -3).float() / 127.5 - 1


def check_image_path(path: str | Path) -> Path:
    """Return ``path`` if a picture can be written there, see :func:`write_image`; raise :class:`InputError` if not."""
    path = Path(path)
    if path.suffix.lower() not in WRITE_SUFFIXES:
        raise InputError(f"cannot write {path}: a picture's name ends in {', '.join(WRITE_SUFFIXES)}")
    return check_writable(path)


def write_image(path: str | Path, picture: np.ndarray | Tensor, *, quality: int = 95) -> None:
    """Write a picture atomically, in the format of the suffix: PNG, JPEG or WebP.

    Args:
        picture: uint8 (H, W, 3), (H, W, 4) or grey (H, W); or a float tensor (3, H, W) in [−1, 1]
        quality: of JPEG and WebP
    """
    path = check_image_path(path)
    array = to_uint8(picture) if isinstance(picture, Tensor) and picture.is_floating_point() else np.asarray(picture)
    image = Image.fromarray(np.ascontiguousarray(array))
    if image.mode == "RGBA" and path.suffix.lower() in (".jpg", ".jpeg"):
        image = image.convert("RGB")  # JPEG has no transparency
    with atomic_path(path) as temporary:
        image.save(temporary, quality=quality)  # PNG ignores it


def contact_sheet(
    pictures: Sequence[np.ndarray],
    *,
    columns: int,
    labels: Sequence[str] | None = None,
    gap: int = 4,
    background: int = 255,
) -> np.ndarray:
    """Pictures in rows of ``columns``, each under its label; uint8 (H, W, 3) each, all of one size."""
    if not pictures:
        raise InputError("a contact sheet needs at least one picture")
    height, width = pictures[0].shape[:2]
    size = max(11, width // 18)
    band = size + size // 2 if labels else 0
    rows = -(-len(pictures) // columns)
    sheet = Image.new(
        "RGB",
        (columns * (width + gap) + gap, rows * (height + band + gap) + gap),
        (background, background, background),
    )
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        left, top = gap + index % columns * (width + gap), gap + index // columns * (height + band + gap)
        sheet.paste(Image.fromarray(np.ascontiguousarray(picture)), (left, top + band))
        if labels and index < len(labels):
            text = labels[index]
            font = fitting_font(draw, text, size, width)
            ink = (30, 30, 30) if background > 127 else (225, 225, 225)
            draw.text((left + width / 2, top + band / 2), text, ink, font=font, anchor="mm")
    return np.array(sheet)


def fitting_font(draw: ImageDraw.ImageDraw, text: str, size: int, width: int):
    """Pillow's own font at ``size``, or smaller so that ``text`` is no wider than ``width``."""
    for smaller in range(size, 7, -1):
        font = ImageFont.load_default(smaller)
        if draw.textlength(text, font=font) <= width:
            return font
    return font
