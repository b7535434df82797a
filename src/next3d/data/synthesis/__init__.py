"""The picture factory: drawn people with exact labels, for training, metrics and tests.

A person is a pure function of a latent of 64 numbers whose axes are the factors themselves (:data:`AXES`); a picture is
a pure function of (latent, head parameters, camera)::

    from next3d.data.synthesis import albedo, background, render, shape

    latent = np.random.default_rng(0).standard_normal(64)
    picture = render(latent, HeadParams(jaw=(0.3, 0, 0)), Camera.orbit(yaw=0.4), 128)
    picture.image, picture.parts, picture.depth, picture.normals, picture.landmarks
    albedo(latent, 256)      # (3, 256, 256) the skin in the head's UV atlas, lit by nothing
    background(latent, 128)  # (3, 128, 128) what stands behind, alone
    shape(latent)            # (100,) the head's shape parameters

Light belongs to the person too unless :func:`render` is given another one. :func:`synthesize` makes datasets of them.
"""

from next3d.data.synthesis.background import background
from next3d.data.synthesis.factory import Recipe, synthesize
from next3d.data.synthesis.identity import AXES, LATENT_SIZE, Identity
from next3d.data.synthesis.lighting import Light
from next3d.data.synthesis.render import Picture, render, shape
from next3d.data.synthesis.skin import albedo

__all__ = [
    "AXES",
    "LATENT_SIZE",
    "Identity",
    "Light",
    "Picture",
    "Recipe",
    "albedo",
    "background",
    "render",
    "shape",
    "synthesize",
]
