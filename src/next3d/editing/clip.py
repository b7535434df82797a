"""CLIP (Radford et al. 2021) through ``transformers``: sentences and pictures as unit vectors of one space."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from next3d.errors import InputError, require

DEFAULT_CLIPS = ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16")  # the two that StyleGAN-NADA uses
# Of the pictures CLIP was trained on, per channel in [0, 1].
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# A sentence is embedded in several wordings, so that the wording itself counts little.
WORDINGS = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "a close-up of {}",
    "a cropped picture of {}",
    "a rendering of {}",
)


class Clip:
    """One CLIP model, frozen.

    Args:
        name: a folder in transformers' layout, or a name on the Hugging Face hub
        download: fetch it from the hub if it is not in the user's cache

    Raises:
        InputError: transformers is not installed, nothing of that name at hand, or something that is no CLIP.
    """

    def __init__(self, name: str | Path, *, download: bool = False, device: torch.device | str = "cpu") -> None:
        transformers = require("transformers", "stylize")
        self.name = str(name)
        local = not download or Path(name).is_dir()
        kind = layout(transformers, self.name, local)
        if kind != "clip":
            raise InputError(f"{name} is a model of layout '{kind}', not CLIP's ('clip'): give CLIP models as --clip")
        level = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()
        try:
            with quiet(transformers):
                model, found = transformers.CLIPModel.from_pretrained(
                    self.name, local_files_only=local, output_loading_info=True
                )
                self.tokenizer = transformers.CLIPTokenizer.from_pretrained(self.name, local_files_only=local)
        except Exception as error:  # transformers raises whatever its parts raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"the CLIP model {name} cannot be read: {reason}") from None
        finally:
            transformers.logging.set_verbosity(level)
        missing = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
        missing = [key for key in missing if "position_ids" not in key]
        if missing:
            raise InputError(f"{name} lacks {len(missing)} of CLIP's tensors, such as '{missing[0]}': copy it again")
        self.model = model.to(device).float().eval().requires_grad_(False)
        self.resolution = self.model.config.vision_config.image_size
        self.length = self.model.config.text_config.max_position_embeddings
        self.mean = torch.tensor(MEAN, device=device)[:, None, None]
        self.deviation = torch.tensor(DEVIATION, device=device)[:, None, None]

    @torch.no_grad()
    def text(self, sentence: str) -> Tensor:
        """(D,) unit embedding of a sentence, the mean over :data:`WORDINGS`.

        Raises:
            InputError: the sentence is empty or longer than the model reads.
        """
        sentence = sentence.strip()
        if not sentence:
            raise InputError("the prompt is empty: say what the heads should look like, as in 'a marble bust'")
        tokens = self.tokenizer([wording.format(sentence) for wording in WORDINGS])["input_ids"]
        longest = max(map(len, tokens))
        if longest > self.length:
            raise InputError(
                f"the prompt is {longest} tokens long and {self.name} reads {self.length}: shorten '{sentence[:40]}…'"
            )
        end = self.tokenizer.eos_token_id
        ids = torch.tensor([row + [end] * (longest - len(row)) for row in tokens], device=self.mean.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in tokens], device=self.mean.device)
        pooled = self.model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        embedded = F.normalize(self.model.text_projection(pooled), dim=-1)
        return F.normalize(embedded.mean(0), dim=0)

    def image(self, images: Tensor) -> Tensor:
        """(N, D) unit embeddings of pictures (N, 3, H, W) in [−1, 1]; differentiable."""
        size = (self.resolution, self.resolution)
        images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
        pixels = ((images.clamp(-1, 1) + 1) / 2 - self.mean) / self.deviation
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.model.visual_projection(pooled), dim=-1)


def layout(transformers, name: str, local: bool) -> str:
    """The ``model_type`` in a model's configuration."""
    if Path(name).is_dir():
        try:
            values = json.loads((Path(name) / "config.json").read_text("utf-8"))
        except (OSError, ValueError):
            raise InputError(f"{name} holds no config.json that can be read: a CLIP folder has one") from None
        return str(values.get("model_type", "unknown")) if isinstance(values, dict) else "unknown"
    if Path(name).exists():
        raise InputError(f"{name} is a file: a CLIP model is a folder in transformers' layout, or a name on the hub")
    try:
        path = transformers.utils.cached_file(name, "config.json", local_files_only=local)
        return str(json.loads(Path(path).read_text("utf-8")).get("model_type", "unknown"))
    except Exception:
        where = "in your cache" if local else "on the Hugging Face hub"
        hint = ": give --download to fetch it once, or a folder as --clip" if local else ""
        raise InputError(f"there is no CLIP model '{name}' {where}{hint}") from None


class quiet:
    """Without transformers' own bars, which would run into ours."""

    def __init__(self, transformers) -> None:
        self.logging = transformers.logging

    def __enter__(self) -> None:
        self.logging.disable_progress_bar()

    def __exit__(self, *_) -> None:
        self.logging.enable_progress_bar()


def open_clips(
    names: Sequence[str | Path] = DEFAULT_CLIPS, *, download: bool = False, device: torch.device | str = "cpu"
) -> list[Clip]:
    """Several CLIP models; see :class:`Clip`."""
    if not names:
        raise InputError("stylisation needs at least one CLIP model: give --clip")
    return [Clip(name, download=download, device=device) for name in names]
