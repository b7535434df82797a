"""Writes files in FLAME's formats, chumpy objects included, around a made-up head; chumpy itself is not needed."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import scipy.sparse


def ball(centre, radius: float, rings: int, segments: int) -> tuple[np.ndarray, np.ndarray]:
    """A sphere of quads and two fans, mirror-symmetric in x, poles up and down."""
    pitch = np.linspace(np.pi / 2, -np.pi / 2, rings + 2)[1:-1]
    yaw = (np.arange(segments) + 0.5) / segments * 2 * np.pi
    grid = [[np.cos(p) * np.sin(y), np.sin(p), np.cos(p) * np.cos(y)] for p in pitch for y in yaw]
    points = np.array([[0, 1, 0], *grid, [0, -1, 0]]) * radius + centre
    faces = []
    for i in range(segments):
        j = (i + 1) % segments
        faces.append([0, 1 + i, 1 + j])
        for r in range(rings - 1):
            a, b = 1 + r * segments + i, 1 + r * segments + j
            faces += [[a, a + segments, b + segments], [a, b + segments, b]]
        last = 1 + (rings - 1) * segments
        faces.append([len(points) - 1, last + j, last + i])
    return points, np.array(faces)


def flame_arrays(seed: int = 0, *, symmetric: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a FLAME model with 5 joints, 300 shapes, 100 expressions and a few hundred vertices."""
    random = np.random.default_rng(seed)
    head, head_faces = ball((0, 0, 0), 0.1, 14, 20)
    left, eye_faces = ball((0.03, 0.03, 0.08), 0.012, 7, 8)
    right = left * (-1, 1, 1)
    right_faces = eye_faces[:, ::-1]
    template = np.concatenate([head, left, right])
    faces = np.concatenate([head_faces, eye_faces + len(head), right_faces + len(head) + len(left)])
    count = len(template)
    weights = np.zeros((count, 5))
    below = np.clip(-template[: len(head), 1] / 0.1, 0, 1)
    weights[: len(head), 2] = below * (template[: len(head), 2] > 0) * 0.8
    weights[: len(head), 1] = 1 - weights[: len(head), 2]
    weights[len(head) : len(head) + len(left), 3] = 1
    weights[len(head) + len(left) :, 4] = 1
    regressor = random.random((5, count)) * (random.random((5, count)) < 0.05)
    regressor[3, : len(head)] = regressor[4, : len(head)] = 0
    regressor[3, len(head) : len(head) + len(left)] = 1
    regressor[4, len(head) + len(left) :] = 1
    regressor[:3, 0] += 1
    regressor /= regressor.sum(1, keepdims=True)
    directions = random.normal(size=(count, 3, 400)) * 1e-3
    if symmetric:  # pairs of directions that are each other's mirror image
        from scipy.spatial import cKDTree

        image = cKDTree(template).query(template * (-1, 1, 1))[1]
        for first in (*range(0, 300, 2), *range(300, 400, 2)):
            directions[..., first + 1] = directions[image, :, first] * (-1, 1, 1)
    return {
        "v_template": template,
        "shapedirs": directions,
        "posedirs": random.normal(size=(count, 3, 36)) * 1e-3,
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "f": faces.astype(np.uint32),
    }


class Chumpy:
    """While this is open, a stand-in for chumpy can be pickled under its module names."""

    def __enter__(self):
        self.modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch")}
        sys.modules.update(self.modules)

        class Ch:
            def __init__(self, x):
                self.__dict__ |= {"x": x, "_dirty_vars": {"x"}, "_itr": None, "_depends_on_deps": False}

        Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
        self.modules["chumpy.ch"].Ch = Ch
        return Ch

    def __exit__(self, *_):
        for name in self.modules:
            del sys.modules[name]


def write_flame_pickle(path: Path, arrays: dict[str, np.ndarray], protocol: int = 2) -> None:
    """A model file as FLAME's authors published it: chumpy arrays, a scipy sparse matrix, unsigned faces."""
    with Chumpy() as chumpy:
        content = {
            **arrays,
            "v_template": chumpy(arrays["v_template"]),
            "shapedirs": chumpy(chumpy(arrays["shapedirs"])),
            "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"]),
            "J": chumpy(arrays["J_regressor"] @ arrays["v_template"]),
            "bs_style": "lbs",
            "bs_type": "lrotmin",
        }
        path.write_bytes(pickle.dumps(content, protocol))


def sphere_uvs(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One UV per vertex: the head unrolled around its axis, the eyeballs small in a corner; no faces at the seam."""
    x, y, z = arrays["v_template"].T
    uvs = np.stack([0.5 + np.arctan2(x, z) / (2 * np.pi), 0.5 - 4 * y], -1)
    eyeballs = arrays["weights"][:, 3:].sum(1) > 0
    uvs[eyeballs] *= 0.05
    uv_faces = arrays["f"].astype(np.int64)
    seam = np.ptp(uvs[uv_faces, 0], axis=1) > 0.5
    uv_faces[seam] = uv_faces[seam][:, :1]
    return uvs.clip(0, 1), uv_faces


def write_flame_folder(
    folder: Path, arrays: dict[str, np.ndarray], *, deca: bool = False, name: str = "generic_model.pkl"
) -> None:
    """A folder as a user of FLAME has it, or with DECA's files for landmarks and mask."""
    random = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".npz"):
        np.savez(folder / name, **arrays)
    else:
        write_flame_pickle(folder / name, arrays)
    faces = arrays["f"].astype(np.int64)
    uvs, uv_faces = sphere_uvs(arrays)
    static = {"lmk_face_idx": random.integers(0, 300, 51), "lmk_b_coords": random.dirichlet(np.ones(3), 51)}
    dynamic = {
        "lmk_face_idx": random.integers(0, 300, (79, 17)),
        "lmk_b_coords": random.dirichlet(np.ones(3), (79, 17)),
    }
    if deca:
        lines = [f"v {x} {y} {z}" for x, y, z in arrays["v_template"]]
        lines += [f"vt {u} {1 - v}" for u, v in uvs]
        for corners in np.stack([faces + 1, uv_faces + 1], -1):
            lines.append("f " + " ".join(f"{vertex}/{uv}" for vertex, uv in corners))
        (folder / "head_template.obj").write_text("\n".join(lines))
        from next3d.io.images import write_image

        write_image(folder / "uv_face_eye_mask.png", np.tile(np.uint8([[0, 255]]).repeat(128, 1), (256, 1)))
        together = {
            "static_lmk_faces_idx": static["lmk_face_idx"],
            "static_lmk_bary_coords": static["lmk_b_coords"],
            "dynamic_lmk_faces_idx": list(dynamic["lmk_face_idx"]),
            "dynamic_lmk_bary_coords": list(dynamic["lmk_b_coords"]),
        }
        np.save(folder / "landmark_embedding.npy", together, allow_pickle=True)
        return
    np.savez(folder / "FLAME_texture.npz", vt=np.stack([uvs[:, 0], 1 - uvs[:, 1]], -1), ft=uv_faces, mean=np.zeros(3))
    front = np.flatnonzero(arrays["v_template"][:, 2] > 0.03)
    masks = {"face": front, "left_eyeball": front[:0], "neck": front[:1]}
    (folder / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks, 2))
    with Chumpy() as chumpy:
        static["lmk_b_coords"] = chumpy(static["lmk_b_coords"])
        (folder / "flame_static_embedding.pkl").write_bytes(pickle.dumps(static, 2))
    np.save(folder / "flame_dynamic_embedding.npy", dynamic, allow_pickle=True)
    indices = np.sort(random.choice(468, 105, replace=False))
    np.savez(
        folder / "mediapipe_landmark_embedding.npz",
        landmark_indices=indices,
        lmk_face_idx=random.integers(0, 300, 105),
        lmk_b_coords=random.dirichlet(np.ones(3), 105),
    )
