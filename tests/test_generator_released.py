"""The compatible generator against values recorded from the released network (small widths, filled weights)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.generator.config import GeneratorConfig
from next3d.generator.generator import Generator
from next3d.generator.released_names import from_released_names, our_name
from released_fill import golden, golden_topology, released_tensors

NARROW = {"channel_base": 2048, "channel_max": 32}
TOLERANCE = 1e-4  # of the recorded stage's standard deviation


def compatible_config() -> GeneratorConfig:
    return GeneratorConfig(mode="compatible").replace(
        texture=NARROW,
        static=NARROW,
        mouth=NARROW,
        blending=NARROW,
        volume={"samples": 12, "importance_samples": 12},
    )


@pytest.fixture(scope="module", params=["small", "pair"])
def run(request) -> dict:
    """One pass through the network with every stage kept."""
    values = golden(f"generator_{request.param}")
    model = Generator(compatible_config(), golden_topology(values)).eval()
    ours, _ = from_released_names(released_tensors(0 if request.param == "small" else 2))
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected
    assert all(name.startswith("texture_planes.") for name in missing)
    with torch.no_grad():
        ws = model.mapping(values["z"], values["c_cond"], 0.7, 14)
        if request.param == "pair":  # a different w for every layer, as recorded
            ws = ws + 0.5 * torch.randn(ws.shape, generator=torch.Generator().manual_seed(77))
        identity = model.identity(ws)
        planes = model.planes(identity, values["vertices"], values["landmarks"])
        if request.param == "pair":  # the full-width super-resolution is checked once, on the other
            model.superres.forward = lambda features, styles: features[:, :3]
        rendering = model.render(planes, values["c"])
        field = model.density(values["points"], planes=planes)
    return {"values": values, "model": model, "ws": ws, "planes": planes, "rendering": rendering, "field": field}


def assert_stage(values: dict[str, Tensor], name: str, found: Tensor) -> None:
    if f"{name}.index" in values:
        assert list(found.shape) == values[f"{name}.shape"].tolist()
        found = found.reshape(-1)[values[f"{name}.index"].long()]
        expected, spread = values[f"{name}.value"], values[f"{name}.std"]
    else:
        expected = values[name]
        assert found.shape == expected.shape
        spread = expected.std()
    worst = ((found - expected).abs().max() / spread).item()
    assert worst <= TOLERANCE, f"{name}: largest difference {worst:.1e} standard deviations"


def test_latents(run):
    assert_stage({"ws": run["values"]["w"]}, "ws", run["ws"][:, ::7, ::4])


def test_texture_and_static_planes(run):
    identity = run["planes"].identity
    assert_stage(run["values"], "texture", identity.texture)
    assert_stage(run["values"], "static", torch.cat(identity.static, 1))


def test_drawn_planes(run):
    drawn, values = run["planes"].drawn, run["values"]
    masked = [v.attributes * v.mask[..., None] for v in drawn.views.values()]
    assert_stage(values, "uvimg", torch.stack(masked, 1).permute(0, 1, 4, 2, 3))
    assert_stage(values, "raster", torch.stack(drawn.features, 1))
    alpha, expected = torch.stack(drawn.alpha, 1), values["alpha"].float()
    assert ((alpha > 0) == (expected > 0)).all(), "coverage differs"
    assert (alpha - expected).abs().max() <= 5e-4


def test_mouth(run):
    values, model = run["values"], run["model"]
    views = [model.texture_planes.project(values["landmarks"], view)[..., :2] for view in model.texture_planes.views]
    assert_stage(values, "lm2d", torch.stack(views, 1))
    assert torch.equal(run["planes"].mouth_box, values["mouth_boxes"])
    assert_stage(values, "mouth", run["planes"].mouth)
    assert_stage(values, "blended_front", run["planes"].dynamic[0])


def test_blended_planes_and_field(run):
    assert_stage(run["values"], "planes", torch.stack(run["planes"].blended, 1))
    assert_stage(run["values"], "sigma", run["field"].sigma)
    assert_stage(run["values"], "rgb", run["field"].rgb)


def test_rendering(run):
    values, rendering = run["values"], run["rendering"]
    assert_stage(values, "image_raw", rendering.image_raw)
    assert_stage(values, "image_depth", rendering.depth)
    assert_stage(values, "weights", rendering.alpha.flatten(2).transpose(1, 2))
    if len(rendering.image) == 1:
        assert_stage(values, "image", rendering.image)


def test_released_names():
    """Every tensor of our network has exactly one released name; what has no use is listed, not lost."""
    tensors = released_tensors(0)
    ours, unused = from_released_names(tensors)
    assert len(ours) + len(unused) == len(tensors)
    assert our_name("dense_faces") is None
    assert "neural_blending.synthesis.fusion.3.weight" in unused
    assert "texture_backbone.mapping.w_avg" in unused
    assert not any(name.startswith(("backbone.", "decoder.")) for name in unused)


def test_vertices_of_another_topology_are_refused(run):
    values, model = run["values"], run["model"]
    with pytest.raises(InputError, match="5023"):
        model.planes(run["planes"].identity, values["vertices"][:, :-1], values["landmarks"])
    broken = values["vertices"].clone()
    broken[0, 7, 1] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        model.planes(run["planes"].identity, broken, values["landmarks"])
