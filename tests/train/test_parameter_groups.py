"""What each stage trains, counted at full size on models that take no memory (spec 2.6)."""

from __future__ import annotations

import pytest
from transformers import Qwen2_5_VLConfig

from unipixel.model.config import UniPixelConfig
from unipixel.model.unipixel import UniPixel
from unipixel.tracking.config import SegmenterConfig
from unipixel.train.parameter_groups import lora_targets, select_parts, trainable_parameters
from unipixel.train.recipe_files import load_recipe

_SIZES = {
    "3b": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
           "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False},
}  # fmt: skip
_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}


def configured(size: str) -> UniPixelConfig:
    language = _SIZES[size]
    return UniPixelConfig(
        qwen=Qwen2_5_VLConfig(
            text_config={**language, "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]}},
            vision_config={**_VISION, "out_hidden_size": language["hidden_size"]},
            tie_word_embeddings=language["tie_word_embeddings"],
        ),
        segmenter=SegmenterConfig.preset("base_plus", image_size=768),
        ref_token_id=151665,
        seg_token_id=151666,
        mem_token_id=151667,
    )


def counted(size: str, stage: str) -> dict[str, int]:
    model = UniPixel.build_empty(configured(size))
    model.tie_weights()
    select_parts(model, stage, load_recipe(f"{size}/{stage}").lora)
    parts: dict[str, int] = {}
    for name, parameter in trainable_parameters(model):
        part = "lora" if ".lora_" in name else name.split(".")[0]
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


@pytest.fixture(scope="module")
def model_3b() -> UniPixel:
    return UniPixel.build_empty(configured("3b"))


def test_stage1_at_3b_trains_nine_tensors_of_4_33_million(model_3b: UniPixel) -> None:
    select_parts(model_3b, "stage1")
    trained = dict(trainable_parameters(model_3b))
    assert len(trained) == 9
    assert sum(parameter.numel() for parameter in trained.values()) == pytest.approx(4.33e6, abs=5e3)
    assert all(name.startswith("prompt_encoder") and "ref_encoder" not in name for name in trained)


def test_stage2_at_3b_trains_five_tensors_of_5_25_million(model_3b: UniPixel) -> None:
    select_parts(model_3b, "stage2")
    trained = dict(trainable_parameters(model_3b))
    assert len(trained) == 5
    assert sum(parameter.numel() for parameter in trained.values()) == pytest.approx(5.25e6, abs=5e3)
    assert all(name.startswith("seg_head") for name in trained)


def test_stage3_at_3b_trains_the_parts_of_the_paper() -> None:
    parts = counted("3b", "stage3")
    assert parts["lora"] == pytest.approx(90.4e6, abs=5e4)
    assert parts["model"] == pytest.approx(311e6, abs=5e5)
    assert parts["msk_proj"] == pytest.approx(36.7e6, abs=5e4)
    assert parts["sam2"] == pytest.approx(80.85e6, abs=5e3)
    assert sum(parts.values()) == pytest.approx(529e6, abs=5e5)


def test_stage3_at_7b_trains_both_embeddings_and_larger_updates() -> None:
    parts = counted("7b", "stage3")
    assert parts["lora"] == pytest.approx(112.2e6, abs=5e4)
    assert parts["model"] + parts["lm_head"] == pytest.approx(1.09e9, abs=5e6)
    assert parts["seg_head"] == pytest.approx(14.7e6, abs=5e4)


def test_lora_targets_at_3b_are_64_vision_and_144_language_layers(model_3b: UniPixel) -> None:
    targets = lora_targets(model_3b)
    assert sum("visual" in name for name in targets) == 64
    assert sum("language_model" in name for name in targets) == 144
    assert len(targets) == 208


def test_select_parts_unknown_stage_is_refused(model_3b: UniPixel) -> None:
    with pytest.raises(ValueError, match="got 'stage9'"):
        select_parts(model_3b, "stage9")
