"""The viewer's page in a real headless Chromium.

With NEXT3D_SCREENSHOTS=docs/images the pictures of docs/viewer.md are made anew; NEXT3D_VIEWER_MODEL names the model.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("playwright")

import torch
import trimesh
from playwright import sync_api as playwright_api

import next3d
from next3d.generator.model import DEMO
from next3d.io.video import video_info
from next3d.viewer.server import Viewer
from viewer_running import free_port, running

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: apt install chromium)"),
]
MODEL = os.environ.get("NEXT3D_VIEWER_MODEL") or ("demo" if DEMO.is_dir() else "untrained:tiny")
SCREENSHOTS = os.environ.get("NEXT3D_SCREENSHOTS")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT = 120_000  # ms; a busy machine is slow, and nothing here is timed


def drawn_person(jaw: float, size: int) -> np.ndarray:
    """A picture of someone whom no network drew, (size, size, 3) uint8."""
    from next3d.data.synthesis.render import render
    from next3d.geometry.cameras import Camera
    from next3d.heads import load_head

    params = load_head("builtin").from_arkit({"jawOpen": jaw})
    return render(np.random.default_rng(3).normal(size=64) * 0.5, params, Camera.orbit(0.1), size).image


def talking_face(path: Path, count: int = 6) -> None:
    """A Y4M video of a drawn person who opens the mouth, for Chromium's fake camera."""
    with open(path, "wb") as file:
        file.write(b"YUV4MPEG2 W320 H240 F5:1 Ip A1:1 C420jpeg\n")
        for index in range(count):
            picture = np.full((240, 320, 3), 200, np.uint8)
            picture[:, 40:280] = drawn_person(0.35 * (1 - math.cos(2 * math.pi * index / count)), 240)
            y, cb, cr = Image.fromarray(picture).convert("YCbCr").split()
            file.write(b"FRAME\n" + y.tobytes())
            for chroma in (cb, cr):
                file.write(chroma.resize((160, 120)).tobytes())


@pytest.fixture(scope="module")
def viewer():
    return Viewer(next3d.load(MODEL), dtype=torch.float32, name=MODEL, photo_steps=(2, 2))


@pytest.fixture(scope="module")
def address(viewer) -> Iterator[str]:
    viewer.warm()
    with running(viewer) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    face = tmp_path_factory.mktemp("camera") / "face.y4m"
    talking_face(face)
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    camera.append(f"--use-file-for-fake-video-capture={face}")
    with playwright_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET + camera)
        yield found
        found.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page in a context of given options; fails the test if an error was logged, other than ``expected``."""
    contexts, problems, expected = [], [], []

    def opened(path: str = "", at: str = address, **options):
        options = {"viewport": {"width": 1280, "height": 800}} | options
        context = browser.new_context(accept_downloads=True, permissions=["camera"], **options)
        context.set_default_timeout(WAIT)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: said.type == "error" and problems.append(said.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith((at, "blob:")) or problems.append(f"asked {asked.url}"))
        page.goto(at + path)
        return page

    opened.expected = expected
    yield opened
    for context in contexts:
        context.close()
    assert not [said for said in problems if not any(words in said for words in expected)]


def rest(page) -> None:
    """Wait for the sharp picture of the present state."""
    page.locator('body[data-rest="true"]').wait_for(state="attached")


def canvas(page) -> np.ndarray:
    """The picture on show, (H, W, 4)."""
    rest(page)
    address = page.evaluate("() => document.getElementById('picture').toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))).astype(float)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


def section(page, title: str):
    """Open a section of the panel, if it is not."""
    found = page.locator("#panel > details", has=page.locator(f'summary:text-is("{title}")'))
    if found.get_attribute("open") is None:
        found.locator("> summary").click()
    return found


def keep(page, name: str, **options) -> None:
    """A screenshot for the documentation, if wanted."""
    if SCREENSHOTS:
        rest(page)
        page.screenshot(path=Path(SCREENSHOTS) / f"viewer_{name}.jpg", type="jpeg", quality=82, **options)


def thumbnails(page) -> None:
    if SCREENSHOTS:
        page.locator(".gallery button:nth-child(8) img[src]").wait_for()


def test_the_page_loads_and_a_slider_and_the_mouse_change_the_picture(open_page):
    page = open_page()
    before = canvas(page)
    assert before[..., :3].std() > 1
    page.locator("#slider-jaw").focus()
    for _ in range(70):
        page.keyboard.press("ArrowRight")
    assert page.locator("#slider-jawOpen").input_value() == "0.7"
    opened = canvas(page)
    assert difference(opened, before) > 0.05
    if MODEL == "demo":  # where a face is drawn, its lower half moves
        half = len(before) // 2
        assert difference(opened[half:], before[half:]) > 2 * difference(opened[:half], before[:half])
    thumbnails(page)
    keep(page, "desktop")

    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.45, steps=6)
    page.mouse.up()
    turned = canvas(page)
    assert difference(turned, opened) > 0.05
    page.locator("#picture").press("0")
    assert difference(canvas(page), opened) < 0.5 * difference(turned, opened)


def test_views_and_keys(open_page):
    page = open_page()
    shown = {}
    for view in ("picture", "depth", "normals", "alpha", "mesh", "planes", "texture"):
        page.get_by_role("radio", name=view).check(force=True)
        shown[view] = canvas(page)
        if view in ("mesh", "planes"):
            keep(page, view)
    names = list(shown)
    assert all(difference(shown[a], shown[b]) > 0.05 for a, b in itertools.pairwise(names))
    page.get_by_role("radio", name="picture").check(force=True)
    before = canvas(page)
    page.locator("#picture").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert difference(canvas(page), before) > 0.05
    page.locator("#gaze").focus()
    page.keyboard.press("ArrowRight")
    assert "right" in page.locator("#gaze").get_attribute("aria-valuetext")


def test_every_control_has_a_name_and_can_be_reached(open_page):
    page = open_page()
    rest(page)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, [tabindex="0"]')].filter((node) => {
            const labels = [...(node.labels ?? [])].map((label) => label.textContent.trim()).join('');
            return !(labels || node.getAttribute('aria-label') || node.textContent.trim());
        }).map((node) => node.outerHTML.slice(0, 90))"""
    )
    assert unnamed == []
    reached = set()
    page.locator("body").press("Tab")
    for _ in range(40):
        reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.name || 'other'"))
        page.keyboard.press("Tab")
    assert {"toggle", "view", "picture", "play", "clip", "seed", "gaze"} <= reached


def test_blend_background_clip_and_shape(open_page):
    page = open_page()
    before = canvas(page)
    section(page, "Identity")
    page.locator("#other").select_option("3")
    blended = canvas(page)
    assert difference(blended, before) > 0.05
    section(page, "Background").get_by_label("None").check()
    assert page.locator("#picture.clear").count() == 1
    clear = canvas(page)
    assert difference(clear, blended) > 0.05
    section(page, "Background").get_by_label("The model's").check()
    shape = section(page, "Shape")
    page.locator("#find-shape").fill("jawwidth")
    shape.get_by_label("jawWidth").fill("3")
    assert difference(canvas(page), blended) > 0.01
    page.locator("#clip").select_option("talk")
    page.locator('#play[aria-pressed="true"]').wait_for()
    count = int(page.locator("body").get_attribute("data-pictures") or 0)
    page.locator("body").evaluate(
        """(body, count) => new Promise((done) => setInterval(() => {
            if (Number(body.dataset.pictures) > count + 3) done();
        }, 50))""",
        count,
    )
    page.locator("#play").click()
    assert float(page.locator("#clock").inner_text().split()[0]) > 0


def test_exports_download_valid_files(open_page):
    page = open_page()
    rest(page)
    section(page, "Export")
    page.locator("#export-size").select_option("256")
    with page.expect_download() as png:
        page.locator("#export-png").click()
    with Image.open(png.value.path()) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (256, 256))
    page.locator("#mesh-kind").select_option("rig")
    with page.expect_download() as glb:
        page.locator("#export-glb").click()
    assert Path(glb.value.path()).read_bytes()[:4] == b"glTF"
    page.locator("#mesh-kind").select_option("surface")
    with page.expect_download() as glb:
        page.locator("#export-glb").click()
    (surface,) = trimesh.load_scene(glb.value.path(), file_type="glb").geometry.values()
    assert len(surface.faces) > 500
    colours = np.asarray(surface.visual.vertex_attributes["color"])[:, :3]
    assert colours.std() > 1
    if MODEL == "demo":  # a head in metres
        assert 0.1 < surface.extents.max() < 1
    # A clip of a few frames, so that the video is soon done
    from next3d.heads import Motion, load_head

    short = Path(glb.value.path()).with_name("short.npz")
    Motion.clip("blink", load_head("builtin"), seconds=0.4).save(short)
    page.locator("#motion").set_input_files(short)
    page.locator('#play[aria-pressed="true"]').click()
    with page.expect_download() as mp4:
        page.locator("#export-mp4").click()
    film = Path(mp4.value.path()).with_suffix(".mp4")
    shutil.copy(mp4.value.path(), film)
    found = video_info(film)
    assert (found.width, found.height, found.frames) == (256, 256, 10)
    page.locator("#jobs").scroll_into_view_if_needed()
    keep(page, "export")


def test_a_camera_drives_the_head(open_page):
    pytest.importorskip("mediapipe")
    page = open_page()
    before = canvas(page)
    section(page, "Live").locator("#webcam").click()
    page.locator('body[data-landmarks="478"]').wait_for(state="attached")
    page.locator("#live-times td", has_text="camera to picture").wait_for()
    page.locator("#live").scroll_into_view_if_needed()
    if SCREENSHOTS:
        time.sleep(4)
        page.screenshot(path=Path(SCREENSHOTS) / "viewer_live.jpg", type="jpeg", quality=82)
    page.locator("#calibrate").click()
    page.get_by_text("Calibrated").wait_for()
    names = page.locator("#live-times td:first-child").all_inner_texts()
    assert {"decode", "detect", "fit", "draw"} <= set(names)
    live = page.evaluate("() => document.getElementById('picture').toDataURL('image/png')")
    assert live
    page.locator("#stop-live").click()
    page.locator("#camera-figure").wait_for(state="hidden")
    assert difference(canvas(page), before) < 0.05  # the head is the page's own again


def test_a_photo_becomes_an_avatar(open_page, viewer, tmp_path):
    pytest.importorskip("mediapipe")
    file = tmp_path / "Ada.png"
    Image.fromarray(drawn_person(0.0, 384)).save(file)
    page = open_page()
    before = canvas(page)

    # Dropped anywhere on the page, it is made to the end.
    drop(page, file)
    job = page.locator("#photo-jobs .job")
    job.get_by_role("progressbar").wait_for()
    job.locator("img").wait_for()  # how it looks so far
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / "viewer_photo.jpg", type="jpeg", quality=82)
    page.locator('#photo-jobs .job[data-state="done"]').wait_for()
    mine = page.locator(".gallery").get_by_role("button", name="Ada")
    mine.wait_for()
    assert mine.get_attribute("aria-pressed") == "true"
    assert difference(canvas(page), before) > 0.05
    section(page, "Export")
    with page.expect_download() as saved:
        page.locator("#export-avatar").click()
    assert Path(saved.value.path()).stat().st_size > 1000

    # Chosen with the button, and cancelled.
    viewer.photo_steps = (100_000, 100_000)
    try:
        page.locator("#photo").set_input_files(file)
        job.first.locator("img").wait_for()
        job.first.get_by_role("button", name="Cancel").click()
        page.locator('#photo-jobs .job[data-state="cancelled"]').wait_for()
    finally:
        viewer.photo_steps = (2, 2)
    assert list(viewer.identities.saved) == ["Ada"]
    assert not [left for left in viewer.folder.rglob("*") if left.is_file() and left.suffix == ".png"]
    job.first.get_by_role("button", name="Dismiss").click()
    assert job.count() == 1

    # What is no photo of a face is refused in words.
    blank = tmp_path / "blank.png"
    Image.new("RGB", (300, 300), "white").save(blank)
    page.locator("#photo").set_input_files(blank)
    page.locator('#photo-jobs .job[data-state="failed"]', has_text="no face").wait_for()
    viewer.identities.saved.clear()  # the other tests' pages begin with a seed


def drop(page, file: Path) -> None:
    """Drop a file on the page, as a file manager does."""
    data = base64.b64encode(file.read_bytes()).decode()
    transfer = page.evaluate_handle(
        """async ([data, name]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: 'image/png' }));
            return transfer;
        }""",
        [data, file.name],
    )
    for kind in ("dragover", "drop"):
        page.dispatch_event("body", kind, {"dataTransfer": transfer})


def test_narrow_and_dark_pages_are_readable(open_page):
    page = open_page(viewport={"width": 375, "height": 780})
    rest(page)
    thumbnails(page)
    keep(page, "narrow")
    for title in ("Pose", "Shape", "Background", "Live", "Export", "Timing"):
        section(page, title)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 375
    dark = open_page(color_scheme="dark")
    rest(dark)
    ground, ink = dark.evaluate(
        "() => ['backgroundColor', 'color'].map((name) => getComputedStyle(document.getElementById('panel'))[name])"
    )

    def light(colour: str) -> float:
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")[:3])) / 765

    assert light(ground) < 0.2
    assert light(ink) > 0.8
    thumbnails(dark)
    keep(dark, "dark")


def test_the_interface_page_works_offline(open_page):
    page = open_page("docs")
    page.locator("code", has_text="/api/render").first.wait_for()
    page.locator("#schema-FrameRequest").wait_for()
    render = page.locator("section", has=page.locator('code:text-is("/api/render")')).first
    render.get_by_text("Try it").click()
    render.get_by_role("button", name="Send").click()
    render.get_by_alt_text("The picture").wait_for()


def test_the_page_comes_back_after_a_restart(open_page, viewer):
    open_page.expected += ["ERR_", "WebSocket"]  # the browser itself logs that it asked a server that is gone
    port = free_port()

    def other() -> Viewer:
        return Viewer(viewer.model, name=MODEL)

    with running(other(), port) as address:
        page = open_page(at=address)
        before = canvas(page)
        page.locator("#slider-jaw").fill("1")
        opened = canvas(page)
    page.locator('body[data-connected="false"]').wait_for(state="attached")
    page.locator("#connection", has_text="trying again").wait_for()
    with running(other(), port):
        page.locator('body[data-connected="true"]').wait_for(state="attached")
        page.locator("#picture").press("0")
        assert difference(canvas(page), opened) < 0.2  # where it was
        page.locator("#slider-jaw").fill("0")
        assert difference(canvas(page), before) < 0.2
