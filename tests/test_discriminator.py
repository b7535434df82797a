from __future__ import annotations

import re

import pytest
import torch

from next3d.discriminator import Discriminator, DiscriminatorConfig, minibatch_spread
from next3d.errors import InputError
from released_fill import golden, released_tensors

TINY = {"resolution": 32, "channel_base": 128, "channel_max": 8, "mapping_layers": 2}


def our_name(released: str) -> str:
    name = re.sub(r"^b4\.", "", released)
    name = re.sub(r"^b(\d+)\.", r"blocks.\1.", name)
    return re.sub(r"mapping\.fc(\d)", r"mapping.layers.\1", name.replace("fromrgb", "from_picture"))


def test_agrees_with_the_released_network():
    """Logits and R1 terms of the two-picture form, recorded from the released network."""
    model = Discriminator(
        DiscriminatorConfig(resolution=128, channel_base=2048, channel_max=32, synthetic_rendering=False)
    )
    tensors = {our_name(n): t for n, t in released_tensors(0, "discriminator").items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert missing == ["mapping.average"]
    assert not unexpected
    values = golden("discriminator")
    image, raw = values["image_f32"].requires_grad_(), values["image_raw"].requires_grad_()
    logits = model(image, raw, values["c"])
    torch.testing.assert_close(logits, values["logits"], rtol=1e-4, atol=1e-6)
    gradients = torch.autograd.grad(logits.sum(), (image, raw))
    penalty = sum(g.square().sum((1, 2, 3)) for g in gradients)
    torch.testing.assert_close(penalty, values["r1_penalty"], rtol=1e-4, atol=1e-8)


def inputs(n: int = 4) -> dict:
    torch.manual_seed(0)
    return {
        "image": torch.randn(n, 3, 32, 32),
        "image_raw": torch.randn(n, 3, 8, 8),
        "camera_label": torch.randn(n, 25),
        "synthetic": torch.randn(n, 3, 32, 32),
    }


def test_synthetic_rendering_and_labels_matter():
    model = Discriminator(DiscriminatorConfig(**TINY, head_size=5, latent_size=7))
    given = inputs() | {"head_label": torch.randn(4, 5), "latent": torch.randn(4, 7)}
    logits = model(**given)
    assert logits.shape == (4, 1)
    for name in given:
        changed = given | {name: given[name] + 1}
        assert not torch.allclose(model(**changed), logits, atol=1e-4), f"{name} is ignored"


def test_r1_is_twice_differentiable():
    """The penalty's gradient reaches every convolution, as R1 regularisation needs."""
    model = Discriminator(DiscriminatorConfig(**TINY))
    given = inputs()
    given["image"].requires_grad_()
    (gradient,) = torch.autograd.grad(model(**given).sum(), given["image"], create_graph=True)
    gradient.square().sum().backward()
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_label_noise_only_while_training():
    model = Discriminator(DiscriminatorConfig(**TINY, label_noise=0.5))
    given = inputs()
    assert not torch.equal(model(**given), model(**given))
    model.eval()
    assert torch.equal(model(**given), model(**given))


def test_minibatch_spread_sees_a_collapsed_batch():
    x = torch.randn(1, 2, 4, 4)
    assert minibatch_spread(x.repeat(4, 1, 1, 1), 4)[:, 2].max() < 1e-3
    assert minibatch_spread(torch.randn(4, 2, 4, 4), 4)[:, 2].min() > 0.3
    assert minibatch_spread(torch.randn(5, 2, 4, 4), 4).shape == (5, 3, 4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"synthetic": None}, "synthetic rendering"),
        ({"camera_label": torch.zeros(4, 24)}, "25"),
        ({"image": torch.zeros(4, 3, 16, 16)}, "32"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    with pytest.raises(InputError, match=message):
        Discriminator(DiscriminatorConfig(**TINY))(**inputs() | change)


def test_resolution_must_be_a_power_of_two():
    with pytest.raises(InputError, match="power of two"):
        DiscriminatorConfig(resolution=96)
