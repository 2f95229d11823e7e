"""Teachers of dense features: the pixel decoder of Mask2Former and the image encoder of SAM 2.1, frozen.

Shape letters: C channels, h, w features, H, W image in pixels.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unipixel.checkpoints.files import CONFIG_FILE, read_json, resolve
from unipixel.checkpoints.segmenters import find_segmenter, load_segmenter
from unipixel.checkpoints.tensor_layout import CheckpointError, TensorFiles
from unipixel.model.config import SEGMENTER_FILE
from unipixel.model.config_values import check_integer_field
from unipixel.tracking.clip_features import normalise_frame
from unipixel.train.recipe import Precision
from unipixel.train.sail.sail_recipe import TeacherName

_PREPROCESSOR_FILE = "preprocessor_config.json"
_DIGEST_FILES = (CONFIG_FILE, SEGMENTER_FILE, _PREPROCESSOR_FILE)
# Ceilings of the sizes in an untrusted config.json of Mask2Former.
_MASK2FORMER_SIZES = {
    "mask_feature_size": 2**12, "feature_size": 2**12, "hidden_dim": 2**12, "encoder_feedforward_dim": 2**14,
    "dim_feedforward": 2**14, "encoder_layers": 64, "decoder_layers": 64, "num_attention_heads": 256,
    "num_queries": 2**12,
}  # fmt: skip
_SWIN_SIZES = {"embed_dim": 2**12, "image_size": 2**12, "patch_size": 256, "window_size": 256, "num_channels": 3}
_CHUNK_BYTES = 2**20


class Teacher(ABC):
    """A frozen model that gives dense features of images; its weights are loaded when the first image is computed.

    It is no `nn.Module`, so that its weights are no part of a training checkpoint.

    Attributes:
        name: Which teacher it is.
        path: Folder or file of its checkpoint.
        num_channels: Channels of its features.
        precision: Type in which it computes; features are float32.
    """

    name: ClassVar[TeacherName]

    def __init__(self, path: Path, *, num_channels: int, precision: Precision) -> None:
        self.path, self.num_channels, self.precision = path, num_channels, precision
        self._module: nn.Module | None = None

    def setting(self) -> dict[str, Any]:
        """Return what the features of an image depend on: the kind, its files by their content, and the type.

        Raises:
            OSError: A file cannot be read.
        """
        return {"teacher": self.name, "precision": self.precision, "checkpoint": _digest(self.path)}

    @torch.no_grad()
    def compute(self, images: Sequence[NDArray[np.uint8]], *, device: torch.device) -> list[Tensor]:
        """Compute features (C, h, w) float32 of images (H, W, 3) uint8 RGB, on the device.

        Raises:
            OSError: The weights cannot be read.
            CheckpointError: Tensors are missing or of a wrong shape.
        """
        if self._module is None:
            # Building the modules must not change the random numbers of the training.
            with torch.random.fork_rng(devices=[]):
                self._module = self._load().eval().requires_grad_(False).to(device)
        has_autocast = self.precision == "bfloat16"
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_autocast):
            return [features.float() for features in self._run(self._module, images, device)]

    @abstractmethod
    def _load(self) -> nn.Module: ...

    @abstractmethod
    def _run(self, module: Any, images: Sequence[NDArray[np.uint8]], device: torch.device) -> list[Tensor]: ...


class Mask2FormerTeacher(Teacher):
    """The mask features (C, H / 4, W / 4) of Mask2Former's pixel decoder (arXiv:2112.01527), through transformers."""

    name = "mask2former"

    def __init__(self, source: str | Path, *, precision: Precision = "float32") -> None:
        """Find a checkpoint.

        Args:
            source: Folder, hub id or `id@revision`, with safetensors in the layout of transformers'
                `Mask2FormerForUniversalSegmentation`.
            precision: Type in which it computes.

        Raises:
            OSError: The source cannot be found, downloaded or read, or contains pickles only.
            ValueError: The configuration is of another model, out of range, or requires remote code.
        """
        name, _, revision = str(source).partition("@")
        is_on_hub = bool(revision) and not Path(source).is_dir()
        folder = resolve(name, revision=revision) if is_on_hub else resolve(source)
        fields = read_json(folder / CONFIG_FILE)
        if fields.get("auto_map"):
            raise ValueError(f"config.json requires remote code (auto_map = {fields['auto_map']}): it is refused")
        backbone = fields.get("backbone_config")
        kinds = (fields.get("model_type"), backbone.get("model_type") if isinstance(backbone, dict) else None)
        if not isinstance(backbone, dict) or kinds != ("mask2former", "swin"):
            raise ValueError(
                f"{source} has model_type {kinds[0]!r} with a backbone {kinds[1]!r}: the teacher mask2former is a "
                "'mask2former' with a 'swin', such as facebook/mask2former-swin-large-coco-panoptic"
            )
        for values, ceilings in ((fields, _MASK2FORMER_SIZES), (backbone, _SWIN_SIZES)):
            for name, high in ceilings.items():
                check_integer_field(values, name, low=1, high=high)
        # Refuses pickles before the training starts.
        TensorFiles.of_folder(folder)
        super().__init__(folder, num_channels=fields.get("mask_feature_size", 256), precision=precision)

    def _load(self) -> nn.Module:
        from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor

        has_settings = (self.path / _PREPROCESSOR_FILE).is_file()
        self._processor: Any = (
            Mask2FormerImageProcessor.from_pretrained(self.path) if has_settings else Mask2FormerImageProcessor()
        )
        model, report = Mask2FormerForUniversalSegmentation.from_pretrained(
            self.path, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32
        )
        # transformers fills these with random values.
        unfit = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
        if unfit := {name for name in unfit if name.startswith("model.pixel_level_module.")}:
            raise CheckpointError(
                f"{self.path}: {len(unfit)} tensors of the pixel decoder are missing or of another shape than in "
                f"config.json, such as {min(unfit)}"
            )
        module: nn.Module = model.model.pixel_level_module
        return module

    def _run(self, module: Any, images: Sequence[NDArray[np.uint8]], device: torch.device) -> list[Tensor]:
        # One by one, as their sizes differ.
        pixels = [self._processor(images=image, return_tensors="pt")["pixel_values"].to(device) for image in images]
        return [module(values).decoder_last_hidden_state[0] for values in pixels]


class Sam2Teacher(Teacher):
    """The coarsest features (C, S / 16, S / 16) of SAM 2.1's image encoder, for an image without memory.

    Images are resized to the square of the checkpoint, as for segmentation (arXiv:2408.00714).
    """

    name = "sam2"

    def __init__(self, source: str | Path, *, precision: Precision = "float32") -> None:
        """Find a checkpoint.

        Args:
            source: Folder, bundled name or hub id, in the layout of transformers' `Sam2VideoModel` or of a UniPixel
                checkpoint, whose SAM 2.1 is taken; or an official file as safetensors.
            precision: Type in which it computes.

        Raises:
            OSError: The source cannot be found, downloaded or read, or contains pickles only.
            CheckpointError: Tensors are missing, unexpected or of a wrong shape.
            ValueError: The configuration is of another model, incomplete, or requires remote code, or the file is a
                pickle.
        """
        self._source = find_segmenter(source)
        if self._source.config is None:
            raise ValueError(
                f"{source} is a pickle, a teacher is read from safetensors: give a folder or a hub id, such as "
                "facebook/sam2.1-hiera-large"
            )
        super().__init__(self._source.path, num_channels=self._source.config.embed_dim, precision=precision)

    def _load(self) -> nn.Module:
        return load_segmenter(self._source)

    def _run(self, module: Any, images: Sequence[NDArray[np.uint8]], device: torch.device) -> list[Tensor]:
        side = module.config.image_size
        frames = torch.stack([normalise_frame(image, image_size=side, device=device) for image in images])
        return list(module.embed_without_memory(module.encode(frames), num_objects=len(frames)))


TEACHERS: dict[TeacherName, type[Mask2FormerTeacher] | type[Sam2Teacher]] = {
    "mask2former": Mask2FormerTeacher,
    "sam2": Sam2Teacher,
}
"""Teachers by the names that recipes use."""


def _digest(path: Path) -> str:
    """Return a digest of the weights and settings of a checkpoint."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.suffix == ".safetensors" or file.name in _DIGEST_FILES:
            digest.update(f"{file.name} {file.stat().st_size} ".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
    return digest.hexdigest()
