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


def talking_face(path: Path, count: int = 6) -> None:
    """A Y4M video of a drawn person who opens the mouth, for Chromium's fake camera."""
    from next3d.data.synthesis.render import render
    from next3d.geometry.cameras import Camera
    from next3d.heads import load_head

    head = load_head("builtin")
    latent = np.random.default_rng(3).normal(size=64) * 0.5
    with open(path, "wb") as file:
        file.write(b"YUV4MPEG2 W320 H240 F5:1 Ip A1:1 C420jpeg\n")
        for index in range(count):
            params = head.from_arkit({"jawOpen": 0.35 * (1 - math.cos(2 * math.pi * index / count))})
            face = render(latent, params, Camera.orbit(0.1), 240).image
            picture = np.full((240, 320, 3), 200, np.uint8)
            picture[:, 40:280] = face
            y, cb, cr = Image.fromarray(picture).convert("YCbCr").split()
            file.write(b"FRAME\n" + y.tobytes())
            for chroma in (cb, cr):
                file.write(chroma.resize((160, 120)).tobytes())


@pytest.fixture(scope="module")
def viewer():
    return Viewer(next3d.load(MODEL), dtype=torch.float32, name=MODEL)


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
    """Opens the page in a context of given options; fails the test if anything was logged as an error."""
    contexts, problems = [], []

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

    opened.problems = problems
    yield opened
    for context in contexts:
        context.close()
    assert not problems


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


def test_narrow_and_dark_pages_are_readable(open_page):
    page = open_page(viewport={"width": 375, "height": 780})
    rest(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 375
    thumbnails(page)
    keep(page, "narrow")
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


def test_the_page_comes_back_after_a_restart(open_page, viewer):
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
    # Asking a server that is gone is logged by the browser itself.
    open_page.problems[:] = [said for said in open_page.problems if "ERR_" not in said and "WebSocket" not in said]
