"""SAM 2.1 and SAM 2.0 alone: transformers' checkpoints give transformers' masks, and others are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from helpers.sam2_video import SIZES, published_config, random_model, tracked_logits, video_processor
from helpers.tracker_reference import HEIGHT, WIDTH, foreground_fraction, min_iou, synthetic_video
from safetensors.torch import load_file, save_file

from unipixel.checkpoints.segmenter_configs import read_transformers_config
from unipixel.checkpoints.segmenter_tensors import TRANSFORMERS_GAUSSIANS, official_shapes, transformers_shapes
from unipixel.checkpoints.segmenters import find_segmenter, load_segmenter
from unipixel.checkpoints.tensor_layout import CheckpointError
from unipixel.tracking.compat.transformers import Sam2VideoModel
from unipixel.tracking.config import SegmenterConfig

NUM_FRAMES = 3
TENSORS = "model.safetensors"
POINT: dict[str, Any] = {"input_points": [[[[80.0, 60.0]]]], "input_labels": [[[1]]]}
BOX: dict[str, Any] = {"input_boxes": [[[120.0, 20.0, 250.0, 180.0]]]}
Change = Callable[[dict[str, torch.Tensor]], object]


def _mask() -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[40:120, 64:170] = True
    return {"input_masks": [mask]}


def _compare(model: Any, folder: Path, prompts: list[dict[str, Any]], *, image_size: int) -> None:
    """Compare the masks of transformers' model with those of our segmenter, read from its folder."""
    processor, ours = video_processor(image_size), Sam2VideoModel(load_segmenter(folder))
    session = processor.init_video_session(video=list(synthetic_video(NUM_FRAMES)))
    # As transformers prepares them: it rounds resized frames and we do not.
    frames = torch.stack([session.processed_frames[index] for index in range(NUM_FRAMES)])
    expected = tracked_logits(model, processor, session, prompts)
    given = tracked_logits(ours, ours, ours.init_video_session(frames, original_size=(HEIGHT, WIDTH)), prompts)
    assert 0.05 < float(foreground_fraction(expected).mean()) < 0.95
    assert given.shape == (NUM_FRAMES, len(prompts), HEIGHT, WIDTH)
    assert min_iou(given, expected) >= 0.999


def _saved(folder: Path, size: str, **options: Any) -> Any:
    model = random_model(published_config(size, **options))
    model.save_pretrained(folder)
    return model


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for weights of up to 900 MB, which pytest would keep."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SAM 2.1 as transformers saves it."""
    target = tmp_path_factory.mktemp("sam2")
    _saved(target, "tiny", image_size=128)
    return target


def _changed(folder: Path, target: Path, change: Change) -> Path:
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, target / TENSORS)
    shutil.copy(folder / "config.json", target)
    return target


def _configured(folder: Path, target: Path, **fields: Any) -> Path:
    known = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(json.dumps(known | fields), encoding="utf-8")
    (target / TENSORS).hardlink_to(folder / TENSORS)
    return target


@pytest.mark.parametrize("size", SIZES)
def test_masks_of_each_size_are_those_of_transformers(size: str, scratch: Path) -> None:
    model = _saved(scratch, size, image_size=96)
    _compare(model, scratch, [POINT, BOX, _mask()], image_size=96)


@pytest.mark.parametrize("prompt", [POINT, BOX, _mask()], ids=["point", "box", "mask"])
def test_masks_of_one_object_are_those_of_transformers(prompt: dict[str, Any], scratch: Path) -> None:
    model = _saved(scratch, "tiny", image_size=96)
    _compare(model, scratch, [prompt], image_size=96)


def test_masks_of_the_first_version_are_those_of_transformers(scratch: Path) -> None:
    model = _saved(scratch, "tiny", image_size=96, is_first_version=True)
    _compare(model, scratch, [POINT, _mask()], image_size=96)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_masks_at_full_size_are_those_of_transformers(size: str, scratch: Path) -> None:
    model = _saved(scratch, size)
    for prompts in ([POINT], [BOX], [_mask()], [POINT, BOX, _mask()]):
        _compare(model, scratch, prompts, image_size=1024)


@pytest.mark.parametrize("is_first_version", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_names_and_shapes_of_each_size_are_those_of_transformers(size: str, is_first_version: bool) -> None:
    from transformers import Sam2VideoModel as TheirModel

    config = published_config(size, is_first_version=is_first_version)
    with init_empty_weights():
        theirs = {name: tuple(tensor.shape) for name, tensor in TheirModel(config).state_dict().items()}
    theirs.pop(TRANSFORMERS_GAUSSIANS[1])
    ours = read_transformers_config(json.loads(config.to_json_string()))
    assert transformers_shapes(official_shapes(ours)) == theirs
    version = "sam2" if is_first_version else "sam2.1"
    names = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
    assert ours == SegmenterConfig.preset(f"{version}_hiera_{names[size]}")


@pytest.mark.parametrize("name", TRANSFORMERS_GAUSSIANS)
def test_either_name_of_the_shared_matrix_is_enough(name: str, folder: Path, tmp_path: Path) -> None:
    alone = load_segmenter(_changed(folder, tmp_path, lambda tensors: tensors.pop(name))).state_dict()
    assert all(torch.equal(tensor, alone[key]) for key, tensor in load_segmenter(folder).state_dict().items())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_official_file_gives_the_same_segmenter(suffix: str, folder: Path, tmp_path: Path) -> None:
    segmenter = load_segmenter(folder, image_size=1024)
    # The name says nothing: the size is that of the tensors.
    file = tmp_path / f"weights{suffix}"
    state = {name: tensor.contiguous() for name, tensor in segmenter.state_dict().items()}
    if suffix == ".pt":
        torch.save({"model": state}, file)
    else:
        save_file(state, file)
    loaded = load_segmenter(file)
    assert loaded.config == SegmenterConfig.preset("tiny")
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert load_segmenter(file, image_size=512).config.image_size == 512


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("no_memory_embedding"), "1 missing: no_memory_embedding"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (
            lambda tensors: tensors.update({"mask_downsample.bias": torch.zeros(2)}),
            r"1 mis-shaped: mask_downsample.bias is \(2,\), expected \(1,\)",
        ),
        (
            lambda tensors: [tensors.pop(name) for name in TRANSFORMERS_GAUSSIANS],
            f"missing: {TRANSFORMERS_GAUSSIANS[0]}",
        ),
        (lambda tensors: tensors.update({TRANSFORMERS_GAUSSIANS[1]: torch.ones(2, 128)}), "they are one matrix"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(change: Change, message: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_segmenter(_changed(folder, tmp_path, change))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "sam3_video"}, "'sam3_video', which is SAM 3, .*: give SAM 2.1 or SAM 2.0"),
        ({"model_type": "sam3_tracker_video"}, "which is SAM 3"),
        ({"model_type": "sam2"}, "which is SAM 2 for images and has no memory: give a video checkpoint"),
        ({"model_type": "llava"}, "'llava', not 'sam2_video': give a UniPixel checkpoint, SAM 2.1 or SAM 2.0"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "requires remote code"),
        ({"multimask_max_pt_num": 2}, "sets multimask_max_pt_num = 2, which is not supported: it must be 1"),
        ({"image_size": [128, 96]}, "they must be one square"),
        ({"num_maskmem": 10**9}, "must be a number from 1 to 65536"),
    ],
)
def test_other_configurations_are_refused(fields: dict[str, Any], message: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        find_segmenter(_configured(folder, tmp_path, **fields))


def test_official_file_of_sam3_is_refused(tmp_path: Path) -> None:
    save_file({"detector.backbone.weight": torch.zeros(1)}, tmp_path / "sam3.safetensors")
    with pytest.raises(ValueError, match=r"tensors of another architecture, which is SAM 3"):
        load_segmenter(tmp_path / "sam3.safetensors")


def test_missing_official_file_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'models/sam2.1_hiera_tiny.pt': give a folder"):
        load_segmenter("models/sam2.1_hiera_tiny.pt")
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(ValueError, match=r"clip.mp4 is no checkpoint: give a folder, a hub id, or an official"):
        load_segmenter(tmp_path / "clip.mp4")
