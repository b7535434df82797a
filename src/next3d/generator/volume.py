"""Volume rendering of the blended planes (paper, §3.4): sample points, read the planes, decode, composite.

Everything that reads the planes, whether it renders, meshes or regularises, goes through :meth:`Volume.field`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from next3d.errors import InputError
from next3d.generator.config import GeneratorConfig
from next3d.geometry.cameras import Camera
from next3d.nn.equalized import Linear
from next3d.nn.sampling import PlaneSampler

DECODED_TOGETHER = 8192  # points
NOTHING = -100.0  # raw density where there can be nothing
SAMPLING_MODES = ("deterministic", "stochastic")


@dataclass
class FieldSample:
    """The field at points.

    Attributes:
        sigma: (N, P, 1) raw density; softplus(sigma − 1) is the density per world unit
        rgb: (N, P, C) features in [−0.001, 1.001], the first three the colour
    """

    sigma: Tensor
    rgb: Tensor


Field = Callable[[Tensor], FieldSample]


@dataclass
class RayPicture:
    """What rays gathered.

    Attributes:
        features: (N, P, C) in about [−1, 1]
        depth: (N, P, 1) world units along the ray
        alpha: (N, P, 1) sum of the compositing weights, in [0, 1]
    """

    features: Tensor
    depth: Tensor
    alpha: Tensor


class Volume(nn.Module):
    """The decoder and the rays."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config.volume
        # Beyond the box a point meets one plane at most, and what is drawn there would show again as a ghost.
        self.bounded = config.mode == "default"
        self.axes = tuple(tuple("xyz".index(a) for a in pair) for pair in config.planes.axes)
        channels, width = config.planes.channels, config.volume.decoder_width
        rate = config.volume.decoder_learning_rate
        self.decoder = nn.ModuleList(
            [Linear(channels, width, learning_rate=rate), Linear(width, 1 + channels, learning_rate=rate)]
        )

    def field(self, planes: Sequence[Tensor]) -> Field:
        """Three planes (N, C, R, R) → the function from world points (N, P, 3) to a :class:`FieldSample`."""
        sampler = PlaneSampler(planes)

        def at(points: Tensor) -> FieldSample:
            scaled = points * (2 / self.config.box_size)
            features = sampler([torch.stack([scaled[..., i] for i in pair], -1) for pair in self.axes]) / len(self.axes)
            sample = self.decode(features.float())
            if self.bounded:
                outside = (scaled.abs() > 1).any(-1, keepdim=True)
                sample.sigma = sample.sigma.masked_fill(outside, NOTHING)
            return sample

        return at

    def decode(self, features: Tensor) -> FieldSample:
        """Plane features (N, P, C) to density and colour."""
        # Without gradients to keep, a few thousand points at a time stay in a CPU's cache: several times faster.
        small = not torch.is_grad_enabled() and features.device.type == "cpu"
        parts = features.flatten(0, 1).split(DECODED_TOGETHER if small else max(features[..., 0].numel(), 1))
        decoded = [self.decoder[1](F.softplus(self.decoder[0](part))) for part in parts]
        sigma = torch.cat([part[:, :1] for part in decoded])
        rgb = torch.cat([part.sigmoid() * 1.002 - 0.001 for part in decoded])[:, 1:]
        return FieldSample(sigma.unflatten(0, features.shape[:2]), rgb.unflatten(0, features.shape[:2]))

    def forward(self, field: Field, origins: Tensor, directions: Tensor, sampling: str = "deterministic") -> RayPicture:
        """Rays with origins and unit directions (N, P, 3) → what they gather."""
        if sampling not in SAMPLING_MODES:
            raise InputError(f"sampling must be one of {', '.join(SAMPLING_MODES)}, got '{sampling}'")
        stochastic = sampling == "stochastic"
        depths = self.stratified_depths(origins, stochastic)  # (N, P, S)
        sample = self._along(field, origins, directions, depths)
        if self.config.importance_samples:
            with torch.no_grad():
                weights = composite_weights(sample.sigma[..., 0], depths)
                more = self.importance_depths(depths, weights, stochastic)
            found = self._along(field, origins, directions, more)
            depths = torch.cat([depths, more], -1)
            sample = FieldSample(torch.cat([sample.sigma, found.sigma], 2), torch.cat([sample.rgb, found.rgb], 2))
        return composite(sample, depths)

    def _along(self, field: Field, origins: Tensor, directions: Tensor, depths: Tensor) -> FieldSample:
        """The field at depths (N, P, S) of rays; its tensors are (N, P, S, ·)."""
        points = origins[:, :, None] + depths[..., None] * directions[:, :, None]  # (N, P, S, 3)
        sample = field(points.flatten(1, 2))
        return FieldSample(sample.sigma.unflatten(1, depths.shape[1:]), sample.rgb.unflatten(1, depths.shape[1:]))

    def stratified_depths(self, origins: Tensor, stochastic: bool) -> Tensor:
        """(N, P, S): one depth in each of S cells, at its middle or anywhere in it."""
        c = self.config
        shape = (*origins.shape[:2], c.samples)
        start = torch.linspace(c.near, c.far, c.samples, device=origins.device)
        jitter = (
            torch.rand(shape, device=origins.device) if stochastic else torch.full(shape, 0.5, device=origins.device)
        )
        return start + jitter * ((c.far - c.near) / (c.samples - 1))

    def importance_depths(self, depths: Tensor, weights: Tensor, stochastic: bool) -> Tensor:
        """Depths drawn in proportion to smoothed compositing weights.

        Args:
            depths: (N, P, S) sorted
            weights: (N, P, S − 1)

        Returns:
            (N, P, importance_samples)
        """
        shape = depths.shape[:2]
        flat = weights.flatten(0, 1)[:, None]  # (N·P, 1, S − 1)
        smooth = F.avg_pool1d(F.max_pool1d(flat, 2, 1, padding=1), 2, 1)[:, 0] + 0.01  # (N·P, S − 1)
        middle = 0.5 * (depths[..., 1:] + depths[..., :-1]).flatten(0, 1)  # (N·P, S − 1)
        probability = smooth[:, 1:-1] + 1e-5  # (N·P, S − 3)
        probability = probability / probability.sum(-1, keepdim=True)
        cumulative = F.pad(probability.cumsum(-1), (1, 0))  # (N·P, S − 2)
        count = self.config.importance_samples
        if stochastic:
            u = torch.rand(len(cumulative), count, device=depths.device)
        else:
            u = torch.linspace(0, 1, count, device=depths.device).expand(len(cumulative), count).contiguous()
        above = torch.searchsorted(cumulative, u, right=True)
        below = (above - 1).clamp_min(0)
        above = above.clamp_max(cumulative.shape[-1] - 1)
        low, high = cumulative.gather(-1, below), cumulative.gather(-1, above)
        near, far = middle.gather(-1, below), middle.gather(-1, above)
        width = high - low
        width = torch.where(width < 1e-5, 1.0, width)
        return (near + (u - low) / width * (far - near)).unflatten(0, shape)


def surface_normals(points: Tensor) -> Tensor:
    """World points (N, 3, r, r) where a picture's rays end → unit normals (N, 3, r, r), world axes, to the camera.

    The surface is smoothed by 1-2-1 first. The density's own gradient is that of single texels, and far rougher than
    what rays see.
    """
    narrow = points.new_tensor([0.25, 0.5, 0.25])
    kernel = (narrow[:, None] * narrow).expand(3, 1, 3, 3)
    smooth = F.conv2d(F.pad(points, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    padded = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    return F.normalize(torch.linalg.cross(down, across, dim=1), dim=1)


def rays(camera_label: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Camera labels (N, K, 25) → origins and unit directions (N, K·r·r, 3) through the pixel centres."""
    origins, directions = Camera.from_label(camera_label).rays(resolution)
    return origins.flatten(1, 2), directions.flatten(1, 2)


def opacity(sigma: Tensor, depths: Tensor) -> Tensor:
    """Midpoint rule: sorted raw densities and depths (…, S) → the opacity of each interval (…, S − 1)."""
    middle = 0.5 * (sigma[..., 1:] + sigma[..., :-1])
    return 1 - torch.exp(-F.softplus(middle - 1) * (depths[..., 1:] - depths[..., :-1]))


def composite_weights(sigma: Tensor, depths: Tensor) -> Tensor:
    """Sorted raw densities and depths (…, S) → the weight of each interval (…, S − 1)."""
    alpha = opacity(sigma, depths)
    through = torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha + 1e-10], -1).cumprod(-1)
    return alpha * through[..., :-1]


def composite(sample: FieldSample, depths: Tensor) -> RayPicture:
    """Samples (N, P, S, ·) at depths (N, P, S), in any order, → what each ray gathers.

    An interval's colour is the mean of its ends, so each sample counts with half the weights beside it. Those are
    computed in order of depth and handed back to the samples, which spares sorting the features.
    """
    ordered, order = depths.sort(-1)
    weights = composite_weights(sample.sigma[..., 0].gather(-1, order), ordered)  # (N, P, S − 1)
    shares = 0.5 * (F.pad(weights, (1, 0)) + F.pad(weights, (0, 1)))  # (N, P, S)
    shares = torch.zeros_like(shares).scatter(-1, order, shares)
    features = (shares[..., None, :] @ sample.rgb)[..., 0, :]  # (N, P, C)
    alpha = weights.sum(-1, keepdim=True)
    middle = 0.5 * (ordered[..., 1:] + ordered[..., :-1])
    # An empty ray has no depth: it is put at the far end.
    empty = alpha <= 0
    depth = (weights * middle).sum(-1, keepdim=True) / torch.where(empty, 1.0, alpha)
    nearest, farthest = ordered.amin().detach(), ordered.amax().detach()
    depth = torch.where(empty, farthest, depth).clamp(nearest, farthest)
    return RayPicture(features * 2 - 1, depth, alpha)
