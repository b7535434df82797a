"""GLB files of the head: valid, with morph targets, joints and animation that move as the model does."""

from __future__ import annotations

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from next3d.errors import InputError
from next3d.heads import HeadParams, Motion, load_head
from next3d.heads.gltf import quaternions, write_glb


@pytest.fixture(scope="module")
def head():
    return load_head("builtin")


@pytest.fixture(scope="module")
def animated(head, tmp_path_factory):
    path = tmp_path_factory.mktemp("glb") / "talk.glb"
    motion = Motion.clip("talk", head, seconds=1.2)
    params = HeadParams(shape=torch.randn(100, generator=torch.Generator().manual_seed(0)))
    write_glb(path, head, params, motion)
    return path, params, motion


class Player:
    """A small glTF viewer: morph targets, then skinning, as the specification says."""

    def __init__(self, path):
        self.gltf = pygltflib.GLTF2().load(str(path))
        self.blob = self.gltf.binary_blob()
        self.primitive = self.gltf.meshes[0].primitives[0]

    def array(self, index: int) -> np.ndarray:
        accessor = self.gltf.accessors[index]
        view = self.gltf.bufferViews[accessor.bufferView]
        kind = {5126: "f4", 5125: "u4", 5121: "u1"}[accessor.componentType]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor.type]
        values = np.frombuffer(self.blob, kind, accessor.count * width, view.byteOffset)
        return values.reshape(accessor.count, width)

    def vertices(self, weights: np.ndarray, rotations: dict[int, np.ndarray]) -> np.ndarray:
        position = self.array(self.primitive.attributes.POSITION).astype(np.float64)
        for weight, target in zip(weights, self.primitive.targets):
            if weight:
                position = position + weight * self.array(target["POSITION"])
        matrices: dict[int, np.ndarray] = {}

        def place(node: int, parent: np.ndarray) -> None:
            local = np.eye(4)
            local[:3, :3] = Rotation.from_quat(
                rotations.get(node, self.gltf.nodes[node].rotation or [0, 0, 0, 1])
            ).as_matrix()
            local[:3, 3] = self.gltf.nodes[node].translation
            matrices[node] = parent @ local
            for child in self.gltf.nodes[node].children or []:
                place(child, matrices[node])

        skin = self.gltf.skins[0]
        place(skin.skeleton, np.eye(4))
        inverse = self.array(skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
        joints = np.stack([matrices[node] @ inverse[i] for i, node in enumerate(skin.joints)])
        which = self.array(self.primitive.attributes.JOINTS_0)
        share = self.array(self.primitive.attributes.WEIGHTS_0)
        blended = (share[..., None, None] * joints[which]).sum(1)
        return (blended[:, :3, :3] @ position[..., None])[..., 0] + blended[:, :3, 3]

    def frame(self, index: int) -> np.ndarray:
        animation = self.gltf.animations[0]
        rotations, weights = {}, None
        for channel in animation.channels:
            output = self.array(animation.samplers[channel.sampler].output)
            if channel.target.path == "weights":
                weights = output.reshape(-1, len(self.primitive.targets))[index]
            else:
                rotations[channel.target.node] = output[index]
        return self.vertices(weights, rotations)


def corners(player: Player, vertices: np.ndarray) -> np.ndarray:
    return vertices[player.array(player.primitive.indices)[:, 0]].reshape(-1, 3, 3)


def test_an_animated_file_moves_as_the_model_does(head, animated):
    path, params, motion = animated
    player = Player(path)
    for index in (0, 11, len(motion) - 1):
        expected = head(motion.params[index].replace(shape=params.shape)).vertices[0]
        expected = expected[head.topology.faces].numpy()
        assert np.abs(corners(player, player.frame(index)) - expected).max() < 2e-4


def test_morph_targets_carry_their_names(head, animated):
    path, *_ = animated
    names = Player(path).gltf.meshes[0].extras["targetNames"]
    assert names[:50] == head.expression_names
    assert len(names) == len(Player(path).primitive.targets)
    assert [node.name for node in Player(path).gltf.nodes[1:6]] == ["root", "neck", "jaw", "left eye", "right eye"]


def test_a_still_file_opens_in_its_pose(head, tmp_path):
    params = head.params(mouthSmileLeft=1, jawOpen=0.6, neck=(0.1, 0.3, 0), eyes=(0.1, 0.2, 0, 0.1, 0.2, 0))
    write_glb(tmp_path / "still.glb", head, params)
    player = Player(tmp_path / "still.glb")
    vertices = player.vertices(player.gltf.meshes[0].weights, {})
    expected = head(params).vertices[0][head.topology.faces].numpy()
    assert np.abs(corners(player, vertices) - expected).max() < 2e-4
    assert not player.gltf.animations


def test_trimesh_opens_it(head, animated):
    path, *_ = animated
    scene = trimesh.load(path)
    mesh = next(iter(scene.geometry.values()))
    assert len(mesh.faces) == len(head.topology.faces)
    assert mesh.visual.uv.shape == (len(mesh.vertices), 2)


def test_the_file_keeps_the_rules_of_gltf(animated):
    path, *_ = animated
    gltf, blob = Player(path).gltf, Player(path).blob
    assert gltf.buffers[0].byteLength == len(blob)
    for view in gltf.bufferViews:
        assert view.byteOffset % 4 == 0
        assert view.byteOffset + view.byteLength <= len(blob)
    primitive = gltf.meshes[0].primitives[0]
    assert gltf.accessors[primitive.attributes.POSITION].min is not None  # demanded by the specification
    count = gltf.accessors[primitive.attributes.POSITION].count
    for target in primitive.targets:
        assert gltf.accessors[target["POSITION"]].count == count
        assert gltf.accessors[target["POSITION"]].max is not None
    times = Player(path).array(gltf.animations[0].samplers[0].input)[:, 0]
    assert (np.diff(times) > 0).all()


def test_quaternions():
    axis_angle = torch.tensor([[0.0, 0, 0], [0.3, -0.2, 0.1], [0, 3.0, 0], [1e-6, 0, 0]])
    expected = Rotation.from_rotvec(axis_angle.numpy()).as_quat()
    assert np.abs(quaternions(axis_angle).numpy() - expected).max() < 1e-6


def test_bad_input(head, tmp_path):
    with pytest.raises(InputError, match=r"\.glb"):
        write_glb(tmp_path / "head.gltf", head)
    with pytest.raises(InputError, match="one head"):
        write_glb(tmp_path / "head.glb", head, HeadParams(jaw=torch.zeros(2, 3)))
