"""The one table between the released network's tensor names and ours."""

from __future__ import annotations

import re

from torch import Tensor

# Sizes of the released style UNets: their decoders start at twice these resolutions, and blocks below are never used.
MOUTH_FINAL, MOUTH_FUSIONS = 4, (4, 8, 16, 32)
BLENDING_FINAL, BLENDING_FUSIONS = 32, (32, 64, 128)

PREFIXES = {
    "backbone.mapping.": "mapping.network.",
    "texture_backbone.synthesis.": "neural_texture.network.",
    "backbone.synthesis.": "static_planes.network.",
    "mouth_backbone.synthesis.": "mouth.network.",
    "neural_blending.synthesis.": "blending.network.",
    "superresolution.": "superres.",
    "decoder.": "volume.decoder.",
}

# Applied in order within a network; the first that matches decides.
RULES = [
    (r"w_avg", r"average"),
    (r"embed\.(weight|bias)", r"embed.\1"),
    (r"fc(\d+)\.(weight|bias)", r"layers.\1.\2"),
    (r"b4\.const", r"const"),
    (r"b(\d+)\.torgb\.(.+)", r"blocks.\1.to_picture.\2"),
    (r"b(\d+)\.(conv[01]\..+)", r"blocks.\1.\2"),
    (r"block(\d+)\.torgb\.(.+)", r"blocks.\1.to_picture.\2"),
    (r"block(\d+)\.(conv[01]\.(?!noise).+)", r"blocks.\1.\2"),
    (r"encoder\.(\d+)\.fromrgb\.weight", r"encoder.\1.from_picture.weight"),
    (r"encoder\.(\d+)\.conv1\.(weight|bias)", r"encoder.\1.conv0.\2"),
    (r"encoder\.(\d+)\.conv2\.(weight|bias)", r"encoder.\1.conv1.\2"),
    (r"net\.0\.(weight|bias)", r"0.\1"),
    (r"net\.2\.(weight|bias)", r"1.\1"),
]


def our_name(released: str) -> str | None:
    """Our name of a released tensor, or None if our network has no use for it."""
    if released.endswith("resample_filter"):
        return None  # a constant of the network
    prefix = next((p for p in PREFIXES if released.startswith(p)), None)
    if prefix is None:
        return None  # mapping networks that nobody asks, and the mesh's buffers
    rest = released.removeprefix(prefix)
    for final, fusions, name in (
        (MOUTH_FINAL, MOUTH_FUSIONS, "mouth_backbone.synthesis."),
        (BLENDING_FINAL, BLENDING_FUSIONS, "neural_blending.synthesis."),
    ):
        if prefix != name:
            continue
        if fusion := re.fullmatch(r"fusion\.(\d+)\.(weight|bias)", rest):
            index = int(fusion[1])
            return f"{PREFIXES[prefix]}fusions.{fusions[index]}.{fusion[2]}" if index < len(fusions) else None
        block = re.match(r"b(\d+)\.", rest)
        if block and int(block[1]) <= final:
            return None
    for pattern, replacement in RULES:
        if re.fullmatch(pattern, rest):
            return PREFIXES[prefix] + re.sub(pattern, replacement, rest)
    return None


def from_released_names(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Released tensors {name: tensor} → ours {name: tensor}, and the released names that we have no use for.

    Topology, UVs and face mask are not among them: they enter the model as its
    :class:`~next3d.geometry.meshes.Topology`.
    """
    ours, unused = {}, []
    for name, tensor in tensors.items():
        renamed = our_name(name)
        if renamed is None:
            unused.append(name)
        else:
            ours[renamed] = tensor
    return ours, unused
