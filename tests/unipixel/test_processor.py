from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from transformers import Qwen2_5_VLConfig

from unipixel.config import UniPixelConfig
from unipixel.processor import Processor
from unipixel.prompts import BoxPrompt, PointPrompt
from unipixel.sampling import select_frames
from unipixel.tokens import Turn, load_tokenizer
from unipixel.tracking.config import SegmenterConfig

SHARED = Path(__file__).parents[3] / "shared"
NUM_TOKENS = 267


def tiny_config(image_size: int = 64, seg_token_id: int = 265) -> UniPixelConfig:
    qwen = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 272, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 256, "eos_token_id": 258,
            "pad_token_id": 256, "rope_scaling": {"type": "default", "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=262, video_token_id=263, vision_start_token_id=259, vision_end_token_id=260,
    )  # fmt: skip
    segmenter = SegmenterConfig.from_tree(
        {
            "image_size": image_size,
            "image_encoder": {
                "trunk": {"embed_dim": 16, "stages": [1, 1, 1, 1], "global_att_blocks": [2]},
                "neck": {"d_model": 32},
            },
            "memory_encoder": {"out_dim": 8},
        }
    )
    return UniPixelConfig(qwen=qwen, segmenter=segmenter, ref_token_id=264, seg_token_id=seg_token_id, mem_token_id=266)


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor(tiny_config(), load_tokenizer())


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(5)]


@pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason="golden figures are not at hand")
@pytest.mark.parametrize("name", ["case_preprocess_long", "case_preprocess_short"])
def test_everything_before_the_model_is_the_published_one(name: str) -> None:
    case = json.loads((SHARED / "golden" / name / "case.json").read_text())
    golden = load_file(SHARED / "golden" / name / "outputs.safetensors")
    processor = Processor(tiny_config(image_size=768), load_tokenizer())
    indices = select_frames(case["num_frames"], case["sample_frames"], kept=[case["kept_frame"]])
    assert indices == tuple(golden["frame_indices"])
    dog = SHARED / Path(case["clip"]).parent
    frames = [np.asarray(Image.open(dog / f"images/{index:05d}.jpg").convert("RGB")) for index in indices]
    clip = processor.clip(frames, frame_indices=indices, num_video_frames=case["num_frames"])
    assert clip.layout.grid_thw == tuple(golden["video_grid_thw"][0])
    assert tuple(clip.video.pixel_values.shape) == tuple(golden["pixel_values_shape"])
    patches = clip.video.pixel_values[:: case["patch_row_step"]].numpy()
    np.testing.assert_allclose(patches, golden["pixel_values_rows"], atol=1e-6, rtol=0)
    step = case["sam_pixel_step"]
    sam = torch.stack(list(processor.sam_frames(frames)))[:, :, ::step, ::step].numpy()
    np.testing.assert_allclose(sam, golden["sam_frames_sample"], atol=1e-6, rtol=0)

    height, width = clip.layout.frame_size
    masks = np.zeros((len(frames), 2, height, width), dtype=bool)
    for place, index in enumerate(indices):
        masks[place, 0] = np.asarray(Image.open(dog / f"masks/{index:05d}.png")) > 0
    masks[:, 1, : height // 3, : width // 4] = True
    masks[1::3, 1] = False
    memory = processor.memory([0, 1], masks, clip.layout)
    assert (memory.refer_mask.numpy() == golden["refer_mask"]).all()
    assert memory.text == case["memory_prefix"]
    for row in (0, 1):
        assert memory.frame_tags(row) == tuple(golden[f"frame_pair_tags_object{row}"])

    prompts = [
        PointPrompt(prompt["pixels"][0], prompt["pixels"][1], frame_index=prompt["frame"])
        if prompt["kind"] == "point"
        else BoxPrompt(tuple(prompt["pixels"]), frame_index=prompt["frame"])
        for prompt in case["prompts"]
    ]
    question = " ".join("<|ref|>" for _ in prompts)
    references = processor.encode([Turn(question)], clip=clip, prompts=prompts).inputs.references
    for number, (prompt, reference) in enumerate(zip(case["prompts"], references, strict=True)):
        assert (reference.coords.flatten().numpy() == golden[f"prompt_{number}_{prompt['kind']}_sam"]).all()
        assert reference.frame == indices.index(prompt["frame"])
        assert reference.num_frames == 2 * clip.layout.grid_thw[0]
