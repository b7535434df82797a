"""The viewer without a browser: who is served, what is drawn, what is refused."""

from __future__ import annotations

import io
import json
import random
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("websockets")

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import next3d
from next3d.avatar import sample
from next3d.errors import InputError
from next3d.heads import Motion
from next3d.io.video import video_info
from next3d.viewer.client import ViewerClient
from next3d.viewer.identities import Identities
from next3d.viewer.protocol import VIEWS, FrameRequest, pack, unpack
from next3d.viewer.server import Viewer
from next3d.viewer.worker import Busy, Worker
from viewer_running import running


@pytest.fixture(scope="module")
def model():
    return next3d.load("untrained:tiny")


@pytest.fixture(scope="module")
def address(model):
    saved = sample(model, 5)
    saved.name = "anna"
    with running(Viewer(model, {"anna": saved})) as found:
        yield found


@pytest.fixture
def client(address):
    with ViewerClient(address) as found:
        yield found


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


# Who is served


def test_the_newest_request_of_each_client_wins_and_clients_take_turns():
    worker, gate, done = Worker("test"), threading.Event(), []
    worker.submit("first", gate.wait)
    old = worker.submit("a", lambda: done.append("a old"))
    worker.submit("b", lambda: done.append("b"))
    new = worker.submit("a", lambda: done.append("a new"))
    last = worker.submit("c", lambda: done.append("c"))
    gate.set()
    last.result(timeout=20)
    assert old.cancelled()
    assert new.done()
    assert done == ["a new", "b", "c"]  # a's newer request kept a's turn
    assert worker.dropped == 1
    worker.close()


def test_a_restless_client_does_not_starve_another():
    worker, order = Worker("test"), []
    gate = threading.Event()
    worker.submit("start", gate.wait)

    def restless() -> None:
        order.append("restless")
        if len(order) < 20:
            worker.submit("restless", restless)

    worker.submit("restless", restless)
    calm = worker.submit("calm", lambda: order.append("calm"))
    gate.set()
    calm.result(timeout=20)
    assert order.index("calm") <= 2
    worker.close()


def test_the_queue_is_bounded_and_a_failing_task_does_not_end_the_worker():
    worker, gate = Worker("test", capacity=2), threading.Event()
    first = worker.submit(0, gate.wait)
    while worker.waiting:
        pass
    bad = worker.submit(1, lambda: 1 / 0)
    worker.submit(2, lambda: None)
    with pytest.raises(Busy):
        worker.submit(3, lambda: None)
    gate.set()
    assert first.result(timeout=20)
    assert isinstance(bad.exception(timeout=20), ZeroDivisionError)
    assert worker.submit(4, lambda: 7).result(timeout=20) == 7
    worker.close()


def test_only_so_many_identities_stay_baked(model):
    identities = Identities(model, kept=3)
    for seed in range(6):
        identities.get(identities.key(FrameRequest(identity=seed)))
    assert len(identities.baked) == 3
    assert [key[0] for key in identities.baked] == [3, 4, 5]


# What is drawn


def test_every_view_is_drawn(client):
    for view in VIEWS:
        picture = client.render(view=view, arkit={"jawOpen": 0.5})
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert picture.std() > 0.5, view


def test_expression_camera_shape_and_identity_change_the_picture(client):
    rest = client.render()
    changes = [
        {"arkit": {"jawOpen": 1}},
        {"camera": {"yaw": 0.5}},
        {"neck": [0, 0.5, 0]},
        {"shape": {"jawWidth": 3}},
        {"identity": 1},
        {"identity": "anna"},
        {"truncation": 0.2},
        {"clip": "talk", "time": 2.0},
        {"background": "#00ff00"},
    ]
    for change in changes:
        assert difference(client.render(**change), rest) > 0.01, change
    assert difference(client.render(), rest) == 0


def test_a_blend_lies_between_its_ends(client):
    one, other = client.render(identity=0), client.render(identity=1)
    middle = client.render(identity=0, other=1, mix=0.5)
    assert difference(client.render(identity=0, other=1, mix=0.0), one) == 0
    assert difference(client.render(identity=0, other=1, mix=1.0), other) == 0
    assert 0 < difference(middle, one) < 1.5 * difference(one, other)
    assert 0 < difference(middle, other) < 1.5 * difference(one, other)


def test_a_background_shows_where_alpha_lets_it_through(client):
    clear = client.render(background="transparent", camera={"yaw": 0.2}).astype(float)
    assert clear.shape[2] == 4
    green = client.render(background="#00ff00", camera={"yaw": 0.2}).astype(float)
    weight = clear[..., 3:] / 255
    expected = clear[..., :3] * weight + np.array([0, 255, 0]) * (1 - weight)
    assert np.abs(expected - green).mean() < 2.5


def test_a_motion_streams_in_order_and_equals_single_pictures(client, model):
    motion = Motion.clip("talk", model.head, seconds=0.4, fps=10)
    pictures = list(client.play(motion, identity=3, format="png"))
    assert [picture.id for picture in pictures] == sorted(picture.id for picture in pictures)
    assert len(pictures) == len(motion)
    one = motion.params[2]
    pose = {name: getattr(one, name).tolist() for name in ("expression", "neck", "jaw", "eyes")}
    assert difference(client.render(identity=3, **pose), pictures[2].image) == 0
    assert {"queue", "rays", "encode"} <= set(pictures[2].seconds)


def test_the_interface_describes_itself(client):
    info = client.info()
    assert "anna" in info["avatars"]
    assert "talk" in info["clips"]
    assert len(info["arkit"]) == 52
    described = json.loads(client._ask("GET", "/openapi.json"))
    assert {"/api/render", "/api/videos", "/api/photos", "/api/jobs/{job}"} <= set(described["paths"])
    page = client._ask("GET", "/docs") + client._ask("GET", "/")
    assert b"http://" not in page
    assert b"https://" not in page  # nothing from elsewhere


# What can be taken away


def test_exports_are_valid_files(client, tmp_path):
    client.save_video(tmp_path / "v.mp4", clip="talk", seconds=0.5, fps=10, size=64)
    found = video_info(tmp_path / "v.mp4")
    assert (found.width, found.height) == (64, 64)
    assert found.frames == 5
    client.save_mesh(tmp_path / "rig.glb", kind="rig", arkit={"jawOpen": 0.5})
    data = (tmp_path / "rig.glb").read_bytes()
    assert data[:4] == b"glTF"
    assert int.from_bytes(data[8:12], "little") == len(data)


def test_an_avatar_saved_and_added_again_looks_the_same(client, tmp_path):
    asked = FrameRequest(identity=2, other=4, mix=0.5, shape={"noseLength": 2}, format="png")
    path = tmp_path / "blend.avatar"
    path.write_bytes(client._ask("POST", "/api/avatars/save", asked.model_dump_json().encode()))
    name = client.add_avatar(path)
    assert difference(client.render(identity=name), client.render(asked)) < 0.6


def test_a_motion_file_becomes_a_clip(client, model, tmp_path):
    Motion.clip("blink", model.head, seconds=1).save(tmp_path / "mine.npz")
    name = client.add_motion(tmp_path / "mine.npz")
    assert name == "mine"
    assert "mine" in client.info()["motions"]
    client.render(clip="mine", time=0.5)
    (tmp_path / "bad.npz").write_bytes(b"not a motion")
    with pytest.raises(InputError, match="motion file"):
        client.add_motion(tmp_path / "bad.npz")


def test_a_bad_photo_fails_with_a_reason_and_a_job_can_be_cancelled(client, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"GIF89a" + bytes(50))
    with pytest.raises(InputError, match="not a picture"):
        client.add_photo(tmp_path / "bad.jpg")
    body = json.dumps({"frame": {"clip": "expressions"}, "seconds": 100, "size": 64}).encode()
    job = json.loads(client._ask("POST", "/api/videos", body))["id"]
    client.cancel(job)
    with pytest.raises(InputError, match="cancelled"):
        client._wait(client._ask("GET", f"/api/jobs/{job}"), None)


# What is refused


def asking(address: str, path: str, headers: dict[str, str], method: str = "GET", body: bytes | None = None) -> int:
    try:
        request = urllib.request.Request(address + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_other_origins_and_other_host_names_are_refused(address):
    port = address.rsplit(":", 1)[1].strip("/")
    assert asking(address, "api/info", {}) == 200
    assert asking(address, "api/info", {"Origin": f"http://127.0.0.1:{port}"}) == 200
    assert asking(address, "api/info", {"Origin": "http://evil.example"}) == 403
    assert asking(address, "api/info", {"Origin": "null"}) == 403
    assert asking(address, "api/info", {"Host": f"evil.example:{port}"}) == 403  # DNS rebinding
    assert asking(address, "api/info", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}) == 403
    with pytest.raises(InvalidStatus):
        connect(address.replace("http", "ws") + "ws", origin="http://evil.example")


def test_bodies_are_bounded(address):
    headers = {"Content-Type": "application/json"}
    assert asking(address, "api/render", headers, "POST", b" " * 300_000) == 413
    assert asking(address, "api/photos", {"Content-Length": str(10**9)}, "POST", b"x") == 413


def test_a_token_opens_the_door(model):
    with running(Viewer(model), token="sesame") as address:
        assert asking(address, "api/info", {}) == 401
        assert asking(address, "", {}) == 401
        assert asking(address, "?token=wrong", {}) == 401
        assert asking(address, "?token=sesame", {}) == 200
        assert asking(address, "api/info", {"Cookie": "next3d_token=sesame"}) == 200
        assert asking(address, "api/info", {"Authorization": "Bearer sesame"}) == 200
        with pytest.raises(InvalidStatus):
            connect(address.replace("http", "ws") + "ws")
        with ViewerClient(address + "?token=sesame") as client:
            assert client.render().shape == (32, 32, 3)
            assert len(list(client.stream([FrameRequest()]))) == 1
        with pytest.raises(InputError, match="token"):
            ViewerClient(address).info()


@pytest.mark.parametrize(
    "bad",
    [
        {"camera": {"yaw": 99}},
        {"identity": -1},
        {"identity": "nobody"},
        {"arkit": {"noSuchName": 1}},
        {"shape": {"noSuchShape": 1}},
        {"clip": "noSuchClip"},
        {"rays": 100000},
        {"size": 100000},
        {"unknown": 1},
        {"background": "red"},
        {"expression": [0.0] * 49},
    ],
)
def test_bad_requests_say_what_is_wrong(client, address, bad):
    body = json.dumps(bad).encode()
    assert asking(address, "api/render", {"Content-Type": "application/json"}, "POST", body) == 422
    with pytest.raises(InputError):
        client.render(**bad)


def test_malformed_messages_get_errors_and_the_connection_goes_on(address):
    chance = random.Random(0)
    valid = json.dumps({"type": "render", "id": 1, "arkit": {"jawOpen": 0.5}})
    junk: list[str | bytes] = ["", "{", "[]", "null", '"render"', "[" * 50_000, '{"type": 7}', '{"type": "calibrate"}']
    junk += [
        '{"type": "render", "id": -1}',
        '{"type": "render", "camera": {"yaw": NaN}}',
        '{"type": "render", "a": 1e999}',
    ]
    junk += [b"", b"\xff", b"\xff\xff\xff\xff", pack({"type": "camera"}, b"no picture"), pack({"type": "x"}, b"")]
    for _ in range(60):
        letters = list(valid)
        for _ in range(chance.randint(1, 6)):
            letters[chance.randrange(len(letters))] = chance.choice('{}[]":,x09\\')
        junk.append("".join(letters))
        junk.append(chance.randbytes(chance.randint(0, 200)))
    errors = 0
    with connect(address.replace("http", "ws") + "ws", open_timeout=60) as socket:
        assert json.loads(socket.recv(timeout=60))["type"] == "hello"
        for number, message in enumerate(junk):
            socket.send(message)
            if number % 20 == 19:  # the session still answers
                socket.send(json.dumps({"type": "render", "id": 10_000 + number}))
                while True:
                    answer = socket.recv(timeout=60)
                    if isinstance(answer, str):
                        errors += json.loads(answer)["type"] == "error"
                    elif json.loads(unpack(answer)[0])["id"] == 10_000 + number:
                        break
    assert errors > 40


def test_transparent_pictures_are_png_or_webp(address):
    body = json.dumps({"background": "transparent"}).encode()
    request = urllib.request.Request(address + "api/render", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(answer.read())).mode == "RGBA"
