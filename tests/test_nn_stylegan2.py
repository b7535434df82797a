"""The building blocks against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from next3d.nn.equalized import Conv, Linear
from next3d.nn.resample import blur, downsample, upsample
from next3d.nn.sampling import PlaneSampler
from next3d.nn.style_unet import StyleUNet
from next3d.nn.stylegan2 import ModulatedConv, SynthesisNetwork

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


def by_zero_insertion(x: Tensor) -> Tensor:
    """Doubling as StyleGAN2 defines it: insert zeros, then filter with gain 4."""
    n, c, h, w = x.shape
    spread = torch.zeros(n, c, 2 * h, 2 * w)
    spread[..., ::2, ::2] = x
    kernel = (4 * TAPS[:, None] * TAPS).expand(c, 1, 4, 4)
    return F.conv2d(F.pad(spread, (2, 1, 2, 1)), kernel, groups=c)


def test_upsampling_is_zero_insertion_and_filtering():
    x = torch.randn(2, 3, 5, 7)
    torch.testing.assert_close(upsample(x), by_zero_insertion(x))


def test_downsampling_keeps_the_mean_of_constants_and_halves():
    x = torch.ones(1, 2, 8, 8)
    assert downsample(x).shape == (1, 2, 4, 4)
    torch.testing.assert_close(downsample(x)[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))
    assert blur(x, (2, 1)).shape == x.shape


@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolution_equals_its_definition(up):
    """Per-sample weights, demodulated, one convolution for each sample; folded and scaled forms agree."""
    torch.manual_seed(0)
    layer = ModulatedConv(5, 6, 8, 8, up=up)
    with torch.no_grad():
        layer.noise_strength.fill_(0.3)
        layer.bias.normal_()
    x, w = torch.randn(3, 5, 4 if up else 8, 4 if up else 8), torch.randn(3, 8)
    found = layer(x, w)
    style = layer.affine(w)
    for n in range(3):
        weight = layer.weight * style[n, :, None, None]
        weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        if up:
            expected = blur(F.conv_transpose2d(x[n : n + 1], weight.transpose(0, 1), stride=2), (1, 1), gain=4)
        else:
            expected = F.conv2d(x[n : n + 1], weight, padding=1)
        expected = expected + layer.noise_const * layer.noise_strength + layer.bias[:, None, None]
        expected = F.leaky_relu(expected, 0.2) * 2**0.5
        torch.testing.assert_close(found[n : n + 1], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer(x[n : n + 1], w[n : n + 1]), expected, rtol=1e-4, atol=1e-5)


def test_variance_survives_the_layers():
    torch.manual_seed(0)
    x = torch.randn(4, 64, 16, 16)
    assert 0.8 < Conv(64, 64)(x).square().mean().sqrt() < 1.2
    assert 0.8 < Linear(256, 256, activate=True, learning_rate=0.01)(torch.randn(64, 256)).square().mean().sqrt() < 1.2
    assert 0.8 < ModulatedConv(64, 64, 8, 16, noise=False)(x, torch.randn(4, 8)).square().mean().sqrt() < 1.2


def test_learning_rate_multiplier_slows_a_layer_without_changing_it():
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    slow, plain = Linear(8, 8, learning_rate=0.01), Linear(8, 8)
    with torch.no_grad():
        plain.weight.copy_(slow.weight * 0.01)
    torch.testing.assert_close(slow(x), plain(x))


def test_networks_use_the_latents_that_they_should():
    torch.manual_seed(0)
    network = SynthesisNetwork(8, 16, 3, channel_base=128, channel_max=8)
    assert network.w_count == 6
    ws = torch.randn(1, 6, 8)
    picture = network(network.styles(ws))
    assert picture.shape == (1, 3, 16, 16)
    for i in range(6):
        changed = ws.clone()
        changed[:, i] += 1
        assert not torch.allclose(network(network.styles(changed)), picture), f"w {i} is ignored"


def test_style_unet_shapes_and_unused_latents():
    torch.manual_seed(0)
    sizes = {"resolution": 32, "input_resolution": 16, "final_resolution": 4, "channel_base": 128, "channel_max": 8}
    network = StyleUNet(8, 3, 5, **sizes)
    ws, picture = torch.randn(2, network.w_count, 8), torch.randn(2, 3, 16, 16)
    result = network(picture, network.styles(ws))
    assert result.shape == (2, 5, 32, 32)
    assert list(network.fusions) == ["4", "8"]
    changed = ws.clone()
    changed[:, 0] += 1  # belongs to the block at 4, which a UNet ending there does not have
    assert torch.equal(network(picture, network.styles(changed)), result)
    assert not torch.allclose(network(picture + 1, network.styles(ws)), result)


@pytest.mark.parametrize("need_grids", [False, True])
def test_plane_sampling_twins_agree(need_grids):
    """Values and gradients, points outside and NaN included."""
    generator = torch.Generator().manual_seed(0)
    planes = [torch.randn(2, 4, s, s, generator=generator) for s in (8, 5)]
    grids = [torch.rand(2, 50, 2, generator=generator) * 2.6 - 1.3 for _ in planes]
    results = []
    for implementation in ("torch", "numba"):
        inputs = [p.clone().requires_grad_() for p in planes]
        places = [g.clone().requires_grad_(need_grids) for g in grids]
        found = PlaneSampler(inputs, implementation)(places)
        (found * torch.linspace(-1, 1, 4)).square().sum().backward()
        results.append([found.detach(), *(p.grad for p in inputs), *(g.grad for g in places if need_grids)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
