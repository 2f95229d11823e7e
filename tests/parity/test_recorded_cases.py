"""The model agrees with recorded outputs of the published implementation, in float32 on the CPU."""

# mypy: disable-error-code="union-attr, operator, arg-type"

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from parity.run_case import compare
from parity.weights import GOLDEN, PARITY, tiny_config, tiny_model
from unipixel.checkpoints.loading import published_state
from unipixel.model.config import UniPixelConfig
from unipixel.model.unipixel import UniPixel

# The fields in which the configurations of the published sizes differ from the tiny one.
_SIZES = {
    "3b": {"hidden": 2048, "inner": 11008, "layers": 36, "heads": 16, "kv": 2, "vocabulary": 151936, "tied": True},
    "7b": {"hidden": 3584, "inner": 18944, "layers": 28, "heads": 28, "kv": 4, "vocabulary": 152064, "tied": False},
}


@pytest.mark.parametrize("case", ["point_box", "image_point", "long_square"])
def test_forward_of_a_recorded_case_agrees(recorded_model: UniPixel, case: str) -> None:
    differences = compare(recorded_model, _tensors(case, "inputs"), _tensors(case, "outputs"))
    assert differences["embeds_max_abs_diff"] < 1e-4
    assert differences["logits_max_abs_diff"] < 1e-3
    assert differences["position_ids_equal"] is True
    assert differences["generated_ids_equal"] is True


@pytest.mark.parametrize("case", ["point_box", "image_point"])
def test_masks_of_a_recorded_case_agree(recorded_model: UniPixel, case: str) -> None:
    differences = compare(recorded_model, _tensors(case, "inputs"), _tensors(case, "outputs"))
    assert differences["mask_logits_max_abs_diff"] < 1e-2
    assert differences["mask_iou_min"] > 0.995


def test_raster_pooling_agrees_with_its_recorded_outputs() -> None:
    raster = tiny_model(replace(tiny_config(), memory_pool_order="raster"))
    differences = compare(raster, _tensors("point_box", "inputs"), _tensors("point_box", "outputs_raster"))
    assert differences["embeds_max_abs_diff"] < 1e-4
    assert differences["logits_max_abs_diff"] < 1e-3


def test_window_pooling_is_not_raster_pooling(recorded_model: UniPixel) -> None:
    differences = compare(recorded_model, _tensors("point_box", "inputs"), _tensors("point_box", "outputs_raster"))
    assert differences["embeds_max_abs_diff"] > 0.1


def test_mask_of_a_generated_seg_agrees() -> None:
    model = tiny_model(replace(tiny_config(), seg_token_id=500))
    differences = compare(model, _tensors("point_box", "inputs"), _tensors("generate_seg", "outputs"))
    assert differences["generated_ids_equal"] is True
    assert differences["generated_mask_iou_min"] > 0.995


def test_absent_objects_agree() -> None:
    """A lower bias of the object score makes objects absent in some frames (golden case_absent)."""
    model = tiny_model()
    with torch.no_grad():
        model.sam2.sam_mask_decoder.pred_obj_score_head.layers[2].bias -= 0.65
        inputs, expected = _tensors("point_box", "inputs"), _tensors("absent", "outputs")
        tokens = _tensors("point_box", "outputs")["seg_prompt_tokens"]
        frames = model.segment_video(inputs["sam_frames"], tokens, memory_dtype=torch.float32)
    scores = torch.stack([frame.object_score for frame in frames], dim=1)
    logits = torch.stack([frame.resized(90, 120) for frame in frames], dim=1)
    assert (expected["object_score_logits"] < 0).any()
    torch.testing.assert_close(scores, expected["object_score_logits"], atol=1e-3, rtol=0)
    torch.testing.assert_close(logits, expected["mask_logits"], atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_expected_tensors_equal_those_of_the_published_checkpoint(size: str) -> None:
    published = json.loads((GOLDEN / f"published_keys_{size}.json").read_text(encoding="utf-8"))
    state = published_state(UniPixel.build_empty(_published_config(size)))
    assert {name: list(tensor.shape) for name, tensor in state.items()} == published


def test_run_case_prints_one_line_of_json(tmp_path: Path, recorded_model: UniPixel) -> None:
    recorded_model.save_pretrained(tmp_path / "checkpoint")
    command = [sys.executable, str(PARITY / "run_case.py"), "--checkpoint", str(tmp_path / "checkpoint")]
    command += ["--case", str(GOLDEN / "case_image_point"), "--sam2-config", str(PARITY / "sam2_tiny.json")]
    environment = os.environ | {"PYTHONPATH": str(PARITY.parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert len(done.stdout.splitlines()) == 1
    differences = json.loads(done.stdout)
    assert differences["generated_ids_equal"] is True
    assert differences["generated_mask_iou_min"] is None
    assert differences["mask_iou_min"] > 0.995


def _tensors(case: str, kind: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"case_{case}" / f"{kind}.safetensors")


def _published_config(size: str) -> UniPixelConfig:
    fields = json.loads((GOLDEN / "config.json").read_text(encoding="utf-8"))
    numbers = _SIZES[size]
    fields["text_config"] |= {
        "hidden_size": numbers["hidden"],
        "intermediate_size": numbers["inner"],
        "num_hidden_layers": numbers["layers"],
        "num_attention_heads": numbers["heads"],
        "num_key_value_heads": numbers["kv"],
        "vocab_size": numbers["vocabulary"],
        "layer_types": ["full_attention"] * numbers["layers"],
    }
    # Published files repeat the sizes of the language model at their top level.
    fields |= {name: value for name, value in fields["text_config"].items() if name in fields and name != "model_type"}
    fields["vision_config"] |= {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": numbers["hidden"],
    }
    fields |= {"tie_word_embeddings": numbers["tied"], "sam2_config": "configs/sam2.1_hiera_b+", "sam2_image_size": 768}
    return UniPixelConfig.from_dict(fields)
