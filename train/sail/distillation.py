"""Distillation of dense features from teachers (arXiv:2504.10465, section 3.2): linear maps and their losses.

Shape letters: h, w rows and columns of patches, D width of the transformer, C channels, H, W image in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_inputs import PatchStates
from unipixel.train.sail.feature_cache import GIGABYTE, CachedTeacher, FeatureCache
from unipixel.train.sail.sail_losses import distillation_loss
from unipixel.train.sail.sail_recipe import DistillationRecipe, TeacherName
from unipixel.train.sail.teachers import TEACHERS


class FeatureDistillation(nn.Module):
    """One linear map per teacher, from features of the model to those of the teacher.

    Mask2Former teaches the mask features, after the upsampler; SAM 2.1 the states of the patches. The maps are saved
    with a training checkpoint and are no part of the model.
    """

    def __init__(self, model: PixelSail, teachers: Mapping[TeacherName, CachedTeacher]) -> None:
        """Build the maps, with PyTorch's default initialisation, as published.

        Args:
            model: The model that learns.
            teachers: By name.
        """
        super().__init__()
        widths: dict[TeacherName, int] = {"mask2former": model.config.mask_width, "sam2": model.config.width}
        self.maps = nn.ModuleDict({name: nn.Linear(widths[name], own.num_channels) for name, own in teachers.items()})
        self._teachers = dict(teachers)

    @property
    def names(self) -> tuple[TeacherName, ...]:
        """Names of the teachers."""
        return tuple(self._teachers)

    def targets(self, images: Sequence[Tensor], *, device: torch.device) -> list[dict[TeacherName, Tensor]]:
        """Return the features (C, h, w) of each teacher for each image (H, W, 3) uint8.

        Raises:
            OSError: Weights or features cannot be read or written.
            ValueError: Weights do not fit their configuration.
        """
        if not images:
            return []
        arrays: list[Any] = [image.cpu().numpy() for image in images]
        by_teacher = {name: own.features(arrays, device=device) for name, own in self._teachers.items()}
        return [{name: features[index] for name, features in by_teacher.items()} for index in range(len(images))]

    def forward(
        self, patches: PatchStates, mask_features: Tensor | None, targets: Mapping[TeacherName, Tensor]
    ) -> dict[TeacherName, Tensor]:
        """Compute the loss of each teacher for one image.

        Args:
            patches: Of the image.
            mask_features: Mask features of the model; needed for Mask2Former alone.
            targets: From `targets`.
        """
        students = {"mask2former": mask_features, "sam2": patches.states.view(*patches.grid, -1)}
        return {
            name: distillation_loss(self.maps[name](cast("Tensor", students[name])), features)
            for name, features in targets.items()
        }


def open_teachers(recipe: DistillationRecipe) -> dict[TeacherName, CachedTeacher]:
    """Find the teachers of a recipe, with their caches; their weights are loaded at the first image.

    Raises:
        OSError: A checkpoint cannot be found, or the cache cannot be written.
        ValueError: A checkpoint is of another model or does not fit its configuration.
    """
    teachers: dict[TeacherName, CachedTeacher] = {}
    for name in recipe.teachers:
        teacher = TEACHERS[name](getattr(recipe, name), precision=recipe.precision)
        cache = None
        if recipe.cache is not None:
            max_bytes = int(recipe.max_cache_gigabytes * GIGABYTE)
            cache = FeatureCache(recipe.cache, teacher.setting(), max_bytes=max_bytes)
        teachers[name] = CachedTeacher(teacher, cache)
    return teachers
