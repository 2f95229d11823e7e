"""One step of each stage at the width of the 3B, with few layers: `pytest -m slow`, about 10 GB of memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.byte_model import byte_config
from transformers import Qwen2_5_VLConfig

from unipixel.model.unipixel import UniPixel
from unipixel.processing.chat_template import load_tokenizer
from unipixel.processing.processor import Processor
from unipixel.tracking.config import SegmenterConfig
from unipixel.train import trainer
from unipixel.train.build import prepare
from unipixel.train.recipe_files import load_recipe

pytestmark = pytest.mark.slow
_LANGUAGE = {"hidden_size": 2048, "intermediate_size": 11008, "num_attention_heads": 16, "num_key_value_heads": 2}
_VISION = {"hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the 3B's width with two layers each, Base+, and a tokenizer of bytes."""
    base = byte_config()
    text, vision = base.qwen.get_text_config().to_dict(), base.qwen.vision_config.to_dict()
    rope = {"rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]}}
    text.pop("rope_scaling", None)
    qwen = Qwen2_5_VLConfig(
        text_config={**text, **_LANGUAGE, **rope, "vocab_size": 4096, "layer_types": None},
        vision_config={**vision, **_VISION},
        image_token_id=262, video_token_id=263, vision_start_token_id=259, vision_end_token_id=260,
    )  # fmt: skip
    config = replace(base, qwen=qwen, segmenter=SegmenterConfig.preset("base_plus", image_size=256))
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("wide")
    UniPixel(config).save_pretrained(folder)
    Processor(config, load_tokenizer()).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3"])
def test_step_at_the_width_of_the_3b_changes_what_it_trains(checkpoint: Path, tmp_path: Path, stage: str) -> None:
    recipe = load_recipe(
        f"3b/{stage}",
        [
            f"output={tmp_path}", f"model={{checkpoint='{checkpoint}'}}", "data.num_frames=4", "data.num_mask_frames=2",
            "data.render_size=112", "training.batch_size=2", "training.max_steps=1", "training.gradient_accumulation=1",
            "training.warmup_fraction=0.0", "training.num_workers=0", "training.sharding=ddp",
        ],
    )  # fmt: skip
    job = prepare(recipe)
    before = {name: value.detach().clone() for name, value in job.objective.named_parameters() if value.requires_grad}
    trainer.run(recipe, job.objective, job.dataset, job.collate)
    after = dict(job.objective.named_parameters())
    assert all(after[name].isfinite().all() for name in before)
    changed = {name.split(".")[1] for name, value in before.items() if not torch.equal(after[name], value)}
    expected = {"stage1": {"prompt_encoder"}, "stage2": {"seg_head"}, "stage3": {"model", "seg_head", "sam2"}}
    assert expected[stage] <= changed
    assert stage == "stage3" or changed == expected[stage]
