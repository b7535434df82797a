"""Mesh and landmark files."""

import json
import struct

import numpy as np
import pytest
import torch
import trimesh

from next3d.errors import InputError
from next3d.io.meshes import Mesh, read_landmarks, read_obj, write_mesh

OBJ = """# a quad and a triangle
mtllib nothing.mtl
o näme
v 0 0 0
v 1 0 0 0.5 0.5 0.5
v 1 1 0
v 0 1 0
v 0 0 1
vt 0 0
vt 1 0
vt 1 1
vt 0 0.25
f 1/1 2/2/7 3/3 4/4
f -5/-4 -1/-1 2/2
"""


def glb_parts(data):
    """The JSON tree and the binary chunk of a GLB file."""
    assert data[:4] == b"glTF"
    (length,) = struct.unpack("<I", data[12:16])
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def glb_colors(data):
    tree, binary = glb_parts(data)
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    assert accessor["componentType"] == 5121  # unsigned bytes
    start = tree["bufferViews"][accessor["bufferView"]].get("byteOffset", 0) + accessor.get("byteOffset", 0)
    return np.frombuffer(binary, np.uint8, accessor["count"] * 4, start).reshape(-1, 4)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_obj_with_uvs_polygons_and_negative_indices(tmp_path):
    mesh = read_obj(write(tmp_path / "a.obj", OBJ), require_uvs=True)
    assert mesh.vertices.shape == (5, 3)
    assert mesh.vertices.dtype == torch.float32
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 4, 1]]
    assert mesh.uv_faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 1]]
    assert mesh.uvs.tolist() == [[0, 1], [1, 1], [1, 0], [0, 0.75]]  # v turned to count from the top


def test_obj_without_uvs(tmp_path):
    path = write(tmp_path / "a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1//1 2//1 3//1\n")
    assert read_obj(path).uvs is None
    with pytest.raises(InputError, match="without UVs"):
        read_obj(path, require_uvs=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no faces"),
        ("v 0 0 0\n", "no faces"),
        ("v 0 0\n", "line 1"),
        ("v 0 0 x\n", "line 1"),
        ("v 0 0 0\nf 1 1\n", "line 2"),
        ("v 0 0 0\nf 0 1 1\n", "line 2"),
        ("v 0 0 0\nf 1/a 1/1 1/1\n", "line 2"),
        ("v 0 0 0\nf 1 1 2\n", "vertex that does not exist"),
        ("v 0 0 0\nf 1 1 -2\n", "vertex that does not exist"),
        ("v 0 0 0\nvt 0 0\nf 1/1 1/1 1/2\n", "UV that does not exist"),
        ("v 0 0 nan\nf 1 1 1\n", "vertex 1 is not finite"),
        ("v 0 0 0\nvt inf 0\nf 1/1 1/1 1/1\n", "UV 1 is not finite"),
    ],
)
def test_obj_that_makes_no_sense_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        read_obj(write(tmp_path / "a.obj", text))
    assert "\n" not in str(error.value)


def test_obj_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"missing\.obj"):
        read_obj(tmp_path / "missing.obj")
    with pytest.raises(InputError):
        read_obj(tmp_path)
    (tmp_path / "binary.obj").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(InputError, match="no faces"):
        read_obj(tmp_path / "binary.obj")


def test_landmarks(tmp_path):
    points = np.random.default_rng(0).normal(size=(68, 3)).astype(np.float32)
    np.savetxt(tmp_path / "a.txt", points, fmt="%.9g", header="x y z")
    np.savetxt(tmp_path / "b.csv", points, fmt="%.9g", delimiter=", ")
    assert np.array_equal(read_landmarks(tmp_path / "a.txt"), points)
    assert np.array_equal(read_landmarks(tmp_path / "b.csv"), points)
    for text, message in (("1 2 3\n", "shape"), ("1 2\n3 4 5\n", "landmarks"), ("a b c\n", "landmarks"), ("", "shape")):
        with pytest.raises(InputError, match=message):
            read_landmarks(write(tmp_path / "c.txt", text))
    with pytest.raises(InputError, match="not finite"):
        read_landmarks(write(tmp_path / "c.txt", "1 2 nan\n" * 68))
    with pytest.raises(InputError, match="cannot read"):
        read_landmarks(tmp_path / "missing.txt")


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".GLB"])
def test_written_meshes_come_back(tmp_path, suffix):
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(6, 3, generator=generator)
    vertices[5] = vertices[4]  # a seam: equal vertices must stay two
    faces = torch.tensor([[0, 1, 2], [3, 4, 0], [1, 5, 3]])
    colors = torch.rand(6, 3, generator=generator)
    path = tmp_path / f"mesh{suffix}"
    write_mesh(path, Mesh(vertices, faces, colors))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # no temporary left
    back = trimesh.load(path, file_type=suffix[1:].lower(), process=False, force="mesh", maintain_order=True)
    assert np.allclose(back.vertices, vertices, atol=1e-6)
    assert np.array_equal(back.faces, faces)
    if suffix == ".GLB":  # linear in the file, and with a material
        got = np.asarray(glb_colors(path.read_bytes()))[:, :3] / 255
        got = np.where(got <= 0.0031308, got * 12.92, 1.055 * got ** (1 / 2.4) - 0.055)
        tree, _ = glb_parts(path.read_bytes())
        assert "KHR_materials_unlit" in tree["materials"][0]["extensions"]
    else:
        got = np.asarray(back.visual.vertex_colors)[:, :3] / 255
    assert np.abs(got - colors.numpy()).max() < 0.02
    Mesh(vertices, faces).export(path)  # without colours, over the old file
    assert len(trimesh.load(path, file_type=suffix[1:].lower(), process=False, force="mesh").faces) == 3


def test_meshes_of_unknown_kind_or_place_are_refused(tmp_path):
    mesh = Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    with pytest.raises(InputError, match=r"\.glb"):
        mesh.export(tmp_path / "a.stl")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        mesh.export(tmp_path / "file" / "a.ply")
