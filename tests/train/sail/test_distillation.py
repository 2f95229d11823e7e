"""Distillation of Pixel-SAIL: teachers against transformers, the cache, the loss against closed forms."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.sail_model import CHECKPOINT, GOLDEN, recorded_sail
from helpers.sail_teachers import save_mask2former, save_sam2
from safetensors.torch import load_file, save_file
from sam2.utils.transforms import SAM2Transforms
from torch import Tensor

from unipixel.checkpoints.tensor_layout import CheckpointError
from unipixel.model.inputs import ModelInputs
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.sail import sail_objective
from unipixel.train.sail.distillation import FeatureDistillation
from unipixel.train.sail.feature_cache import CachedTeacher, FeatureCache
from unipixel.train.sail.sail_objective import SailObjective
from unipixel.train.sail.sail_samples import SailBatch
from unipixel.train.sail.teachers import Mask2FormerTeacher, Sam2Teacher, Teacher

CPU = torch.device("cpu")


def drawn_image(seed: int = 0, *, height: int = 48, width: int = 70) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    folder = tmp_path_factory.mktemp("mask2former")
    return folder, *save_mask2former(folder)


@pytest.fixture(scope="module")
def sam2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("sam2")
    return folder, save_sam2(folder)


@torch.no_grad()
def test_mask2former_gives_the_mask_features_of_transformers(mask2former: tuple[Path, Any, Any]) -> None:
    folder, model, processor = mask2former
    teacher = Mask2FormerTeacher(folder)
    images = [drawn_image(0), drawn_image(1, height=90, width=30)]
    for image, features in zip(images, teacher.compute(images, device=CPU), strict=True):
        expected = model(**processor(images=image, return_tensors="pt")).pixel_decoder_last_hidden_state[0]
        assert features.shape[0] == teacher.num_channels == 12
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_sam2_gives_the_coarsest_embedding_of_transformers(sam2: tuple[Path, Any]) -> None:
    folder, model = sam2
    # The transforms of the sam2 package's image predictor, as published; those of transformers round to whole pixels.
    transforms = SAM2Transforms(model.config.image_size, mask_threshold=0.0)
    teacher = Sam2Teacher(folder)
    images = [drawn_image(0), drawn_image(1, height=90, width=30)]
    for image, features in zip(images, teacher.compute(images, device=CPU), strict=True):
        expected = model.get_image_embeddings(transforms(image)[None])[-1][0]
        assert features.shape[0] == teacher.num_channels == 128
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_mask2former_of_a_revision_is_downloaded_from_the_hub(
    mask2former: tuple[Path, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, *, allow_patterns: list[str], **options: Any) -> str:
        asked.update(name=name, **options)
        assert "*.bin" not in allow_patterns
        return str(mask2former[0])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert Mask2FormerTeacher("owner/name@abc").path == mask2former[0]
    assert asked == {"name": "owner/name", "revision": "abc"}


def copy_of(folder: Path, target: Path, **fields: Any) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(json.dumps(config | fields), encoding="utf-8")
    return target


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"auto_map": {"AutoModel": "x.Y"}}, "requires remote code"),
        ({"model_type": "maskformer"}, r"model_type 'maskformer' with a backbone 'swin': the teacher mask2former is"),
        ({"backbone_config": {"model_type": "resnet"}}, "with a backbone 'resnet'"),
        ({"mask_feature_size": 10**9}, r"mask_feature_size = 1000000000: it must be an integer in \[1, 4096\]"),
    ],
)
def test_other_models_are_refused_as_mask2former(
    tmp_path: Path, mask2former: tuple[Path, Any, Any], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Mask2FormerTeacher(copy_of(mask2former[0], tmp_path / "copy", **fields))


def test_pickles_are_refused_as_teachers(tmp_path: Path, mask2former: tuple[Path, Any, Any]) -> None:
    folder = copy_of(mask2former[0], tmp_path / "copy")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        Mask2FormerTeacher(folder)
    (tmp_path / "sam2.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sam2\.pt is a pickle, a teacher is read from safetensors"):
        Sam2Teacher(tmp_path / "sam2.pt")


def test_mask2former_without_tensors_of_the_pixel_decoder_is_refused(
    tmp_path: Path, mask2former: tuple[Path, Any, Any]
) -> None:
    folder = copy_of(mask2former[0], tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    name = "model.pixel_level_module.decoder.mask_projection.weight"
    save_file({own: tensor for own, tensor in tensors.items() if own != name}, folder / "model.safetensors")
    message = rf"1 tensors of the pixel decoder are missing or of another shape than in config\.json, such as {name}"
    with pytest.raises(CheckpointError, match=message):
        Mask2FormerTeacher(folder).compute([drawn_image()], device=CPU)
    save_file(tensors | {name: torch.zeros(3, 3)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        Mask2FormerTeacher(folder).compute([drawn_image()], device=CPU)


class CountedTeacher(Teacher):
    """A teacher whose features are the mean colour of an image, twice as large for every pass."""

    name = "sam2"

    def __init__(self, *, num_channels: int = 3) -> None:
        super().__init__(CHECKPOINT, num_channels=num_channels, precision="float32")
        self.num_passes = 0

    def _load(self) -> torch.nn.Module:
        return torch.nn.Identity()

    def _run(self, module: Any, images: Any, device: torch.device) -> list[Tensor]:
        self.num_passes += 1
        means = [torch.from_numpy(image.mean(axis=(0, 1))).float() for image in images]
        return [self.num_passes * mean[:, None, None].expand(-1, 2, 4) for mean in means]


def open_cache(folder: Path, teacher: Teacher, *, max_bytes: int = 10**6) -> CachedTeacher:
    return CachedTeacher(teacher, FeatureCache(folder, teacher.setting(), max_bytes=max_bytes))


def test_a_second_run_reads_the_features_and_computes_nothing(tmp_path: Path) -> None:
    images = [drawn_image(0), drawn_image(1)]
    first, second = CountedTeacher(), CountedTeacher()
    written = open_cache(tmp_path, first).features(images, device=CPU)
    cached = open_cache(tmp_path, second)
    read = cached.features(images, device=CPU)
    assert (first.num_passes, second.num_passes, cached.num_computed) == (1, 0, 0)
    assert all(torch.equal(own, other) for own, other in zip(written, read, strict=True))
    # Only what is missing is computed.
    cached.features([images[0], drawn_image(2)], device=CPU)
    assert cached.num_computed == 1


def test_features_of_another_setting_are_not_read(tmp_path: Path) -> None:
    open_cache(tmp_path, CountedTeacher()).features([drawn_image()], device=CPU)
    other = CountedTeacher()
    other.precision = "bfloat16"
    open_cache(tmp_path, other).features([drawn_image()], device=CPU)
    assert other.num_passes == 1


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def replace_by_other_channels(file: Path) -> None:
    save_file({"features": torch.zeros(2, 2, 4, dtype=torch.float16)}, file)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, replace_by_other_channels, lambda file: file.write_text("")])
def test_a_damaged_file_is_computed_again(tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    expected = open_cache(tmp_path, CountedTeacher()).features([drawn_image()], device=CPU)[0]
    (file,) = tmp_path.glob("*/*/*.safetensors")
    damage(file)
    cached = open_cache(tmp_path, CountedTeacher())
    with caplog.at_level(logging.WARNING):
        assert torch.equal(cached.features([drawn_image()], device=CPU)[0], expected)
    assert cached.num_computed == 1
    assert "is damaged and computed again" in caplog.text
    assert open_cache(tmp_path, CountedTeacher())._cache.read(drawn_image(), num_channels=3) is not None  # type: ignore[union-attr]


def test_a_full_folder_stores_no_further_features(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # One image has 3 * 2 * 4 values of two bytes.
    cached = open_cache(tmp_path, CountedTeacher(), max_bytes=100)
    with caplog.at_level(logging.WARNING):
        cached.features([drawn_image(seed) for seed in range(4)], device=CPU)
    assert len(list(tmp_path.glob("*/*/*.safetensors"))) == 2
    assert "raise distillation.max_cache_gigabytes" in caplog.text


def test_an_interrupted_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = open_cache(tmp_path, CountedTeacher())

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("unipixel.train.sail.feature_cache.os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        cached.features([drawn_image()], device=CPU)
    assert [file.name for file in tmp_path.glob("*/*/*")] == []


class RecordedTeacher(CountedTeacher):
    """Gives recorded features, whatever the image."""

    def __init__(self, features: Tensor) -> None:
        super().__init__(num_channels=len(features))
        self.recorded = features


class ExactTeacher(CachedTeacher):
    """Gives the features of a recorded teacher without rounding."""

    teacher: RecordedTeacher

    def features(self, images: Any, *, device: torch.device) -> list[Tensor]:
        return [self.teacher.recorded for _ in images]


def test_the_objective_has_the_recorded_losses_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = json.loads((GOLDEN / "case_losses/case.json").read_text(encoding="utf-8"))["two_masks"]
    tensors = load_file(GOLDEN / "case_losses/tensors.safetensors")
    sample = {key.removeprefix("two_masks."): value for key, value in tensors.items() if key.startswith("two_masks.")}
    model = PixelSail.from_pretrained(CHECKPOINT, dtype=torch.float32, attention="eager").train()
    processor = SailProcessor.from_pretrained(CHECKPOINT)
    teachers = {name: ExactTeacher(RecordedTeacher(tensors[f"teacher.{name}"][0])) for name in ("mask2former", "sam2")}
    distillation = FeatureDistillation(model, teachers)  # type: ignore[arg-type]
    for name, own in distillation.maps.items():
        own.load_state_dict({part: tensors[f"{name}_distill_linear.{part}"] for part in ("weight", "bias")})
    monkeypatch.setattr(sail_objective, "sample_points", lambda *_, **__: sample["points"])
    image = processor.image(sample["image"].numpy())
    prompt_ids = sample["vp_token_indices"][sample["vision_patch_indices"] >= 0].clamp(min=-1)
    inputs = ModelInputs(sample["input_ids"][None], videos=(replace(image, prompt_ids=prompt_ids),))
    batch = SailBatch(inputs, sample["labels"][None], (sample["masks"],), images=(sample["image"],))
    objective = SailObjective(model, num_points=12_544, distillation=distillation)
    losses = objective(batch)
    losses["loss"].backward()
    assert losses["loss"].item() == pytest.approx(fields["total"], abs=1e-4)
    assert float(losses["mask2former"]) / 2 == pytest.approx(fields["mask2former_distill_loss"], abs=1e-5)
    assert float(losses["sam2"]) / 2 == pytest.approx(fields["sam2_distill_loss"], abs=1e-5)
    norms = {
        name.removeprefix("model.mask_head.").removeprefix("model."): float(parameter.grad.norm())
        for name, parameter in objective.named_parameters()
        if parameter.grad is not None
    }
    norms = {
        name.removeprefix("distillation.maps.").replace(".", "_distill_linear.", 1) if "maps" in name else name: norm
        for name, norm in norms.items()
    }
    assert norms == pytest.approx(fields["gradient_norms"], rel=1e-3, abs=1e-5)


def test_the_loss_of_a_teacher_is_its_mean_squared_error() -> None:
    model, processor = recorded_sail()
    features = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(0))
    distillation = FeatureDistillation(model, {"sam2": ExactTeacher(RecordedTeacher(features))})
    image = drawn_image(height=75, width=110)
    inputs = processor.image_block(processor.image(image)).inputs
    with torch.no_grad():
        patches = model(inputs).patch_states[0]
        (loss,) = distillation(patches, None, distillation.targets([torch.from_numpy(image)], device=CPU)[0]).values()
        weight, bias = distillation.maps["sam2"].weight, distillation.maps["sam2"].bias
        student = (patches.states @ weight.T + bias).view(*patches.grid, 5)
        wanted = F.interpolate(features[None], size=patches.grid, mode="bilinear")[0].permute(1, 2, 0)
    assert float(loss) == pytest.approx(float(((student - wanted) ** 2).mean()) / 1.0001, rel=1e-5)
