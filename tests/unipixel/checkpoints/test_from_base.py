"""Starting from Qwen2.5-VL and SAM 2.1."""

# mypy: disable-error-code="union-attr, operator, arg-type, assignment"

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from parity.weights import GOLDEN, tiny_segmenter_config
from safetensors.torch import load_file, save_file

from unipixel.checkpoints.tensor_layout import CheckpointError
from unipixel.model.unipixel import UniPixel
from unipixel.tracking.config import SegmenterConfig

IDS = (994, 995, 996)


@pytest.fixture(scope="module")
def sources(recorded_model: UniPixel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny Qwen2.5-VL folder in the official layout, and a SAM 2.1 file as Meta writes them."""
    root = tmp_path_factory.mktemp("base")
    recorded_model.save_pretrained(root / "qwen")
    file = root / "qwen" / "model.safetensors"
    tensors = load_file(file)
    qwen = {name: tensor for name, tensor in tensors.items() if name.startswith(("model.", "visual.", "lm_head."))}
    save_file(qwen, file)
    fields = json.loads((GOLDEN / "config.json").read_text(encoding="utf-8"))
    kept = {name: value for name, value in fields.items() if not name.startswith(("sam2", "ref", "seg", "mem", "conv"))}
    kept |= {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]}
    (root / "qwen" / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    state = recorded_model.state_dict()
    sam2 = {name.removeprefix("sam2."): tensor for name, tensor in state.items() if "sam2." in name}
    torch.save({"model": sam2}, root / "sam2.1_hiera_nano.pt")
    return root / "qwen", root / "sam2.1_hiera_nano.pt"


@pytest.fixture(scope="module")
def started(sources: tuple[Path, Path]) -> UniPixel:
    qwen, sam2 = sources
    return UniPixel.from_base(qwen, sam2, sam2_config=tiny_segmenter_config(), special_token_ids=IDS)


def test_weights_are_those_of_the_sources(started: UniPixel, recorded_model: UniPixel) -> None:
    source, ours = recorded_model.state_dict(), started.state_dict()
    for name in ours:
        if name.startswith(("model.", "lm_head.", "sam2.")):
            assert torch.equal(ours[name], source[name]), name


def test_heads_start_as_the_published_training_does(started: UniPixel) -> None:
    merger = started.model.visual.merger.mlp.state_dict()
    assert all(torch.equal(tensor, merger[name]) for name, tensor in started.msk_proj.state_dict().items())
    points = started.sam2.sam_prompt_encoder.state_dict()
    ours = started.prompt_encoder.ref_encoder.state_dict()
    # The random matrix too: the reference draws another in every process.
    assert all(torch.equal(tensor, points[name]) for name, tensor in ours.items())
    assert torch.equal(started.seg_head[0].weight, torch.ones(64))
    assert torch.equal(started.seg_head[1].bias, torch.zeros(64))


def test_initialization_is_the_same_in_every_process(sources: tuple[Path, Path], started: UniPixel) -> None:
    torch.manual_seed(99)
    qwen, sam2 = sources
    again = UniPixel.from_base(qwen, sam2, sam2_config=tiny_segmenter_config(), special_token_ids=IDS)
    ours, theirs = started.state_dict(), again.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_new_model_pools_in_raster_order_also_after_saving(tmp_path: Path, started: UniPixel) -> None:
    started.save_pretrained(tmp_path)
    loaded = UniPixel.from_pretrained(tmp_path)
    assert loaded.config.memory_pool_order == "raster"
    fields = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    published = json.loads((GOLDEN / "config.json").read_text(encoding="utf-8"))
    assert set(published) - {"transformers_version", "sample_objects"} <= set(fields)


def test_no_memory_state_leaves_meta_tensors(started: UniPixel) -> None:
    assert not [name for name, tensor in started.state_dict().items() if tensor.is_meta]


def test_sam_of_no_published_size_is_refused(sources: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"none of the published sizes .* give their sizes as sam2_config"):
        UniPixel.from_base(*sources, special_token_ids=IDS)


def test_missing_sam_file_is_refused(sources: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"sam2.1_hiera_tiny.pt is missing"):
        UniPixel.from_base(sources[0], tmp_path / "sam2.1_hiera_tiny.pt", special_token_ids=IDS)


def test_sam_of_another_size_is_refused(sources: tuple[Path, Path], tmp_path: Path) -> None:
    wrong = tmp_path / "sam2.1_hiera_tiny.pt"
    wrong.write_bytes(sources[1].read_bytes())
    with pytest.raises(CheckpointError, match=r"no_mem_embed is \(1, 1, 64\), expected \(1, 1, 256\)"):
        UniPixel.from_base(sources[0], wrong, sam2_config=SegmenterConfig.preset("tiny"), special_token_ids=IDS)


def test_pickle_that_runs_code_is_refused(sources: tuple[Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": pytest.fail}, bad)
    with pytest.raises(OSError, match="objects other than tensors"):
        UniPixel.from_base(sources[0], bad, sam2_config=tiny_segmenter_config(), special_token_ids=IDS)
