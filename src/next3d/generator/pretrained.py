"""Model folders: ``config.json`` and ``model.safetensors``, on disk or on the Hugging Face hub.

The tensors hold the mesh topology too, so that a folder is all that is needed to draw.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from next3d.errors import InputError
from next3d.generator.config import GeneratorConfig
from next3d.geometry.meshes import Topology
from next3d.io.files import atomic_folder, atomic_path, write_text

if TYPE_CHECKING:
    from next3d.generator.generator import Generator

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
TOPOLOGY = "texture_planes."  # prefix of the tensors that hold the mesh topology
LISTED = 8  # names that an error message lists

MODEL_CARD = """---
library_name: next3d
license: apache-2.0
---

# An animatable head generator

Load it with `next3d.load("folder or organisation/name")`. Its settings are in `config.json`.
"""


class Pretrained(ModelHubMixin):
    """``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` of a generator, in the Hugging Face manner."""

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:  # type: ignore[override]
        """Write the model into a folder; a new folder appears whole or not at all.

        Args:
            save_directory: made if it does not exist; other files in it are left alone
            options: ``push_to_hub``, ``repo_id`` … of ``huggingface_hub.ModelHubMixin.save_pretrained``
        """
        folder = Path(save_directory)
        if folder.is_dir() and any(folder.iterdir()):
            self._save_pretrained(folder)
        else:
            with atomic_folder(folder) as temporary:
                self._save_pretrained(temporary)
        if options.pop("push_to_hub", False):
            return self.push_to_hub(options.pop("repo_id", None) or folder.name, **options)
        return None

    def _save_pretrained(self, save_directory: Path) -> None:
        model: Generator = self  # type: ignore[assignment]
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        topology = model.topology
        # One entry only: several are written in no fixed order, and equal models should be equal files.
        metadata = {"vertex_count": str(0 if topology is None else topology.vertex_count)}
        with atomic_path(save_directory / WEIGHTS) as path:
            save_file(tensors, path, metadata)
        write_text(save_directory / CONFIG, json.dumps({"format": FORMAT, **model.config.to_dict()}, indent=2) + "\n")
        if not (save_directory / CARD).exists():
            write_text(save_directory / CARD, MODEL_CARD)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
    ) -> Generator:
        """Read a folder, or the hub's repository of that name, in evaluation mode on the CPU.

        Raises:
            InputError: nothing of that name, damaged files, unknown settings, or tensors that do not fit the settings
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            try:
                folder = Path(
                    snapshot_download(
                        str(pretrained_model_name_or_path),
                        revision=revision,
                        cache_dir=cache_dir,
                        local_files_only=local_files_only,
                        token=token,
                        force_download=force_download,
                        allow_patterns=[CONFIG, WEIGHTS],
                    )
                )
            except HFValidationError:
                raise InputError(
                    f"there is no model folder '{pretrained_model_name_or_path}' (and no model on the Hugging Face hub "
                    "is called so)"
                ) from None
            except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
                raise InputError(
                    f"there is no model '{pretrained_model_name_or_path}': it is neither a folder here nor a model "
                    f"that the Hugging Face hub could give ({type(error).__name__}); check the name or the connection"
                ) from error
        return read_folder(folder)


def read_folder(folder: Path) -> Generator:
    """The model in a folder that ``save_pretrained`` wrote."""
    from next3d.generator.generator import Generator

    config = read_config(folder / CONFIG)
    tensors, metadata = read_tensors(folder / WEIGHTS)
    topology = None
    if config.planes.enabled:
        topology = read_topology(tensors, metadata, folder / WEIGHTS)
    with torch.device("meta"):  # weights are about to be replaced: do not draw them
        model = Generator(config, topology)
    check_tensors(model.state_dict(), tensors, folder)
    # A file may hold half precision to be small; the model computes in its own.
    model.load_state_dict({name: tensors[name].to(own.dtype) for name, own in model.state_dict().items()}, assign=True)
    return model.eval()


def read_config(path: Path) -> GeneratorConfig:
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; a model folder holds {CONFIG} and {WEIGHTS}"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}): copy the model again") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise InputError(f"{path} does not describe a next3d model of format {FORMAT}")
    try:
        return GeneratorConfig.from_dict(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}: a model folder holds {CONFIG} and {WEIGHTS}") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or truncated ({error}): copy the model again") from error


def read_topology(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path) -> Topology:
    """The mesh topology among a model's tensors."""
    names = ("faces", "uvs", "uv_faces", "face_mask")
    missing = [TOPOLOGY + name for name in names if TOPOLOGY + name not in tensors]
    if missing or not metadata.get("vertex_count", "").isdigit():
        raise InputError(
            f"{path} holds no mesh topology: missing {', '.join(missing) or 'vertex_count in its metadata'}"
        )
    parts = {name: tensors[TOPOLOGY + name] for name in names}
    # Compiled loops follow these numbers without looking.
    for name, count in (("faces", int(metadata["vertex_count"])), ("uv_faces", len(parts["uvs"]))):
        if parts[name].numel() and not 0 <= int(parts[name].min()) <= int(parts[name].max()) < count:
            raise InputError(f"{path} is damaged: {TOPOLOGY}{name} names points beyond the {count} that there are")
    return Topology(**parts, vertex_count=int(metadata["vertex_count"]))


def check_tensors(expected: dict[str, Tensor], found: dict[str, Tensor], where: Path) -> None:
    """Raise :class:`InputError` naming every missing tensor, every one too many and every one of another shape."""
    problems = []
    for kind, names in (
        ("missing", [name for name in expected if name not in found]),
        ("unexpected", [name for name in found if name not in expected]),
        (
            "of another shape",
            [
                f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
                for name, tensor in expected.items()
                if name in found and found[name].shape != tensor.shape
            ],
        ),
    ):
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            problems.append(f"{len(names)} {kind} ({', '.join(names[:LISTED])}{more})")
    if problems:
        raise InputError(f"the tensors of {where} do not fit its settings: {'; '.join(problems)}")
