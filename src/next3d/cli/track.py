"""``next3d track``: photos and videos to head parameters."""

from __future__ import annotations

import sys
from pathlib import Path

from next3d.errors import InputError


def track(
    path: Path,
    /,
    out: Path = Path("motion.npz"),
    preview: Path | None = None,
    head: str = "builtin",
    face: str = "largest",
    smoothing: float = 1.0,
    deca: Path | None = None,
    face_model: Path | None = None,
    download_face_model: bool = False,
) -> None:
    """Turn a photo, a folder of photos or a video into head parameters, camera and gaze per frame.

    The result is a motion file: avatars are driven by it with  next3d animate --motion motion.npz.

    Args:
        path: a picture, a folder of pictures (one frame each, every one its own person), or a video.
        out: the motion file to write (.npz).
        preview: also write what was seen: a video for a video (.mp4), a picture for pictures (.png).
        head: "builtin", or a FLAME model file or folder of yours.
        face: which face to follow where there are several: "largest", or its index by size.
        smoothing: how strongly a video's jitter is removed; 1 suits most, 0 leaves the raw fits.
        deca: take shape and expression from DECA's encoder with your deca_model.tar (FLAME heads only).
        face_model: MediaPipe's face_landmarker.task; only later versions of MediaPipe need it.
        download_face_model: fetch that file once (3.6 MiB, checked) into your cache.
    """
    from next3d.heads import load_head
    from next3d.io.files import check_writable
    from next3d.io.images import contact_sheet, read_image, write_image
    from next3d.tracking.detector import download_model, open_detector
    from next3d.tracking.preview import photo_panels, write_video_preview
    from next3d.tracking.track import Tracker, find_pictures, is_video

    if not path.exists():
        raise InputError(f"{path} does not exist: give a picture, a folder of pictures or a video")
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: a motion file ends in .npz")
    check_writable(out)
    video = is_video(path)
    if preview is not None:
        allowed = (".mp4", ".mov", ".mkv") if video else (".png", ".jpg", ".jpeg", ".webp")
        if preview.suffix.lower() not in allowed:
            raise InputError(f"--preview {preview}: for this input the name ends in {' or '.join(allowed)}")
        check_writable(preview)
    model = download_model() if download_face_model else face_model
    tracker = Tracker(load_head(head), open_detector(model=model, video=video), face=face)
    if deca is not None:
        tracker.use_deca(deca)

    if video:
        result = tracker.video(path, smoothing=smoothing)
        result.motion.save(out)
        if preview is not None:
            write_video_preview(path, result, tracker.head, preview)
    else:
        pictures = find_pictures(path) if path.is_dir() else [path]
        skipped: dict[Path, InputError] = {}
        if path.is_dir():
            result = tracker.photos(pictures, skipped.__setitem__)
        else:
            result = tracker.photo(read_image(path))
        for name, error in skipped.items():
            print(f"skipped {name.name}: {error}", file=sys.stderr)
        result.motion.save(out)
        if preview is not None:
            kept = [read_image(p) for p in pictures if p not in skipped]
            write_image(preview, contact_sheet(photo_panels(result, tracker.head, kept), columns=1))
    residual = float(result.residual.nanmedian()) * 100
    print(f"{len(result.motion)} frame(s), median residual {residual:.1f} % of the inter-ocular distance: {out}")
    if preview is not None:
        print(f"preview: {preview}")
