"""Compares a checkpoint with recorded outputs of the published implementation.

    python tests/parity/run_case.py --checkpoint DIR --case DIR [--inputs DIR] [--seg-token-id N]
        --sam2-config FILE.json [--pooling window|raster]

Prints one line of JSON with the differences; those that the case does not record are null. Computes in float32 on
the CPU, with float32 memories.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from unipixel import GenerationSettings, ModelInputs, ReferencePrompt, SegmenterConfig, TokenMasks, UniPixel, VideoInput

Differences = dict[str, float | bool | None]


def main() -> None:
    """Run one case from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path)
    parser.add_argument("--case", required=True, type=Path)
    parser.add_argument("--inputs", type=Path, help="case to read the inputs from; by default the case itself")
    parser.add_argument("--seg-token-id", type=int, help="replaces the id of the checkpoint")
    parser.add_argument("--sam2-config", required=True, type=Path)
    parser.add_argument("--pooling", choices=("window", "raster"), default="window")
    arguments = parser.parse_args()
    segmenter = SegmenterConfig.from_tree(json.loads(arguments.sam2_config.read_text(encoding="utf-8")))
    model = UniPixel.from_pretrained(
        arguments.checkpoint,
        dtype=torch.float32,
        attention="eager",
        sam2_config=segmenter,
        memory_pool_order=arguments.pooling,
    )
    if arguments.seg_token_id is not None:
        model.config = replace(model.config, seg_token_id=arguments.seg_token_id)
    inputs = load_file((arguments.inputs or arguments.case) / "inputs.safetensors")
    outputs = load_file(
        arguments.case / ("outputs_raster.safetensors" if _is_raster(arguments) else "outputs.safetensors")
    )
    print(json.dumps(compare(model, inputs, outputs)))


def compare(model: UniPixel, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Differences:
    """Compute a case and return the differences from the recorded outputs.

    Args:
        model: In float32.
        inputs: Tensors of an `inputs.safetensors`.
        outputs: Tensors of an `outputs.safetensors`; missing ones are not compared.
    """
    differences: Differences = dict.fromkeys(
        ("logits_max_abs_diff", "embeds_max_abs_diff", "mask_logits_max_abs_diff", "position_ids_equal",
         "mask_iou_min", "generated_ids_equal", "generated_mask_iou_min")
    )  # fmt: skip
    with torch.no_grad():
        _compare_forward(model, inputs, outputs, differences)
        _compare_generation(model, inputs, outputs, differences)
    return differences


def _compare_forward(
    model: UniPixel, inputs: dict[str, Tensor], outputs: dict[str, Tensor], differences: Differences
) -> None:
    if not {"logits", "inputs_embeds", "position_ids", "mask_logits"} & set(outputs):
        return
    output = model(_model_inputs(inputs, inputs["input_ids"]))
    if "logits" in outputs:
        differences["logits_max_abs_diff"] = _max_abs_diff(output.logits, outputs["logits"])
    if "inputs_embeds" in outputs:
        differences["embeds_max_abs_diff"] = _max_abs_diff(output.inputs_embeds, outputs["inputs_embeds"])
    if "position_ids" in outputs:
        differences["position_ids_equal"] = torch.equal(output.position_ids, outputs["position_ids"])
    if "mask_logits" in outputs:
        tokens = model.mask_tokens(model.seg_states(output, inputs["input_ids"]))
        logits = _video_logits(model, inputs, tokens)
        differences["mask_logits_max_abs_diff"] = _max_abs_diff(logits, outputs["mask_logits"])
        differences["mask_iou_min"] = _iou_min(logits > 0, outputs["mask_logits"] > 0)


def _compare_generation(
    model: UniPixel, inputs: dict[str, Tensor], outputs: dict[str, Tensor], differences: Differences
) -> None:
    if "generated_ids" not in outputs:
        return
    expected = outputs["generated_ids"].tolist()
    settings = GenerationSettings(max_new_tokens=len(expected))
    prompt_ids = inputs["generate_prompt_ids"]
    answer = model.generate(_model_inputs(inputs, prompt_ids), settings=settings)[0]
    differences["generated_ids_equal"] = list(answer.token_ids) == expected
    masks = outputs.get("generated_masks")
    if masks is not None and len(masks):
        # The published code also returns a mask for each `<|seg|>` of the prompt, before those of the answer.
        reading = model(_model_inputs(inputs, prompt_ids))
        in_prompt = model.mask_tokens(model.seg_states(reading, prompt_ids))
        tokens = torch.cat([in_prompt, answer.mask_tokens])
        logits = _video_logits(model, inputs, tokens) if len(tokens) else torch.zeros(0)
        is_complete = len(logits) == len(masks)
        differences["generated_mask_iou_min"] = _iou_min(logits > 0, masks.bool()) if is_complete else 0.0


def _model_inputs(inputs: dict[str, Tensor], ids: Tensor) -> ModelInputs:
    t, h, w = (int(size) for size in inputs["video_grid_thw"][0])
    references = []
    for index, frame in enumerate(inputs.get("prompt_frames", torch.zeros(0)).tolist()):
        coords = inputs[f"prompt_{index}_{'point' if f'prompt_{index}_point' in inputs else 'box'}"]
        references.append(ReferencePrompt(coords.float().reshape(-1, 2), int(frame), 2 * t))
    seconds = float(inputs["second_per_grid_ts"][0]) if "second_per_grid_ts" in inputs else 1.0
    mask = inputs.get("refer_mask")
    return ModelInputs(
        ids,
        videos=(VideoInput(inputs["pixel_values_videos"], (t, h, w), seconds),),
        references=tuple(references),
        memory_masks=() if mask is None else (TokenMasks.from_cells(mask),),
    )


def _video_logits(model: UniPixel, inputs: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Return the logits (objects, frames, H, W) at the size of the video."""
    height, width = (int(side) for side in inputs["frame_size"])
    frames = model.segment_video(inputs["sam_frames"], tokens, memory_dtype=torch.float32)
    return torch.stack([frame.resized(height, width) for frame in frames], dim=1)


def _max_abs_diff(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max()) if ours.shape == theirs.shape else float("inf")


def _iou_min(ours: Tensor, theirs: Tensor) -> float:
    """Return the smallest IoU over objects and frames; it is 1 for two empty masks."""
    union = (ours | theirs).flatten(2).sum(-1)
    intersection = (ours & theirs).flatten(2).sum(-1)
    return float(torch.where(union > 0, intersection / union.clamp(min=1), 1.0).min())


def _is_raster(arguments: Any) -> bool:
    return arguments.pooling == "raster" and (arguments.case / "outputs_raster.safetensors").is_file()


if __name__ == "__main__":
    main()
