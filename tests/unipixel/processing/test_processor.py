from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.byte_model import byte_config
from PIL import Image
from safetensors.numpy import load_file

from unipixel.model.generation import prefill
from unipixel.model.unipixel import UniPixel
from unipixel.processing.chat_template import Turn, load_tokenizer
from unipixel.processing.frame_sampling import select_frames
from unipixel.processing.image_processing import FrameBudget
from unipixel.processing.processor import IGNORED_LABEL, EncodedSample, Processor
from unipixel.processing.special_tokens import REF
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt

SHARED = Path(__file__).parents[4] / "shared"


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(5)]


@pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason="golden figures are not at hand")
@pytest.mark.parametrize("name", ["case_preprocess_long", "case_preprocess_short"])
def test_model_inputs_equal_the_published_ones(name: str) -> None:
    case = json.loads((SHARED / "golden" / name / "case.json").read_text())
    golden = load_file(SHARED / "golden" / name / "outputs.safetensors")
    processor = Processor(byte_config(image_size=768), load_tokenizer())
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
    for position, index in enumerate(indices):
        masks[position, 0] = np.asarray(Image.open(dog / f"masks/{index:05d}.png")) > 0
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


def test_clip_and_sam_frames_follow_their_sizes(processor: Processor, frames: list[np.ndarray]) -> None:
    clip = processor.clip(frames)
    t, h, w = clip.layout.grid_thw
    assert t == 3
    assert clip.video.pixel_values.shape == (t * h * w, 1176)
    assert clip.layout.num_tokens == t * h * w // 4
    assert clip.layout.frame_size == (40, 60)
    assert next(processor.sam_frames(frames)).shape == (3, 64, 64)


def test_clip_of_other_patch_sizes_follows_the_configuration(frames: list[np.ndarray]) -> None:
    config = byte_config()
    config.qwen.vision_config.patch_size = 8
    config.qwen.vision_config.spatial_merge_size = 4
    clip = Processor(config, load_tokenizer(), budget=FrameBudget(4, min_tokens=4, max_tokens=8)).clip(frames)
    t, h, w = clip.layout.grid_thw
    assert h % 4 == w % 4 == 0
    assert 4 <= h * w // 16 <= 8
    assert clip.video.pixel_values.shape == (t * h * w, 6 * 64)


def test_a_budget_of_196_tokens_per_frame_fills_a_square_grid_of_14() -> None:
    config = byte_config()
    config.qwen.vision_config.patch_size = 8
    budget = FrameBudget(8, min_tokens=36, max_tokens=196, is_still=True)
    clip = Processor(config, load_tokenizer(), budget=budget).clip([np.zeros((224, 224, 3), np.uint8)] * 8)
    assert clip.layout.grid_thw == (8, 28, 28)
    assert clip.layout.num_tokens == 8 * 196


def test_still_frames_are_encoded_as_images(frames: list[np.ndarray]) -> None:
    budget = FrameBudget(5, min_tokens=4, max_tokens=8, is_still=True)
    processor = Processor(byte_config(), load_tokenizer(), budget=budget)
    clip = processor.clip(frames, frame_indices=[0, 3, 4, 8, 9])
    t, h, w = clip.layout.grid_thw
    assert t == 5
    one_by_one = FrameBudget(1, min_tokens=4, max_tokens=8)
    image = Processor(byte_config(), load_tokenizer(), budget=one_by_one).clip(frames[3:4])
    torch.testing.assert_close(clip.video.pixel_values[3 * h * w : 4 * h * w], image.video.pixel_values)
    assert clip.layout.frame_position(8) == 6
    masks = np.zeros((5, 1, 40, 60), bool)
    masks[[0, 3], :, 10:20, 20:40] = True
    memory = processor.memory([1], masks, clip.layout)
    assert memory.frame_pairs(0) == (0, 3)
    assert "<1>-<2> <|mem|> <7>-<8> <|mem|>" in memory.text
    whole = processor.encode([Turn("Where?", memory=memory)], clip=clip)
    (reference,) = processor.encode(
        [Turn(f"What is {REF}?")], clip=clip, prompts=[PointPrompt(3, 3, frame_index=8)]
    ).inputs.references
    assert [tuple(mask.coverage.shape) for mask in whole.inputs.memory_masks if mask is not None] == [
        (5, 1, h // 2, w // 2)
    ]
    assert (reference.frame, reference.num_frames) == (6, 10)


def test_processor_of_longer_temporal_patches_is_refused() -> None:
    config = byte_config()
    config.qwen.vision_config.temporal_patch_size = 4
    with pytest.raises(ValueError, match="temporal_patch_size must be 2, got 4"):
        Processor(config, load_tokenizer())


def test_processor_with_another_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match="265 in the tokenizer and 270 in the model"):
        Processor(byte_config(seg_token_id=270), load_tokenizer())


def test_encode_supervises_answers_only(processor: Processor, frames: list[np.ndarray]) -> None:
    clip = processor.clip(frames)
    sample = processor.encode([Turn("What?", "A dog.")], clip=clip)
    supervised = sample.inputs.input_ids[sample.labels != IGNORED_LABEL]
    assert processor.tokenizer.decode(supervised) == "A dog.<|im_end|>"
    assert int((sample.inputs.input_ids == 263).sum()) == clip.layout.num_tokens


def test_encoded_prompt_is_the_beginning_of_the_training_text(processor: Processor, frames: list[np.ndarray]) -> None:
    clip = processor.clip(frames)
    asked = processor.encode([Turn("What?")], clip=clip)
    trained = processor.encode([Turn("What?", "A dog.")], clip=clip)
    length = asked.inputs.input_ids.shape[1]
    assert torch.equal(trained.inputs.input_ids[:, :length], asked.inputs.input_ids)
    assert (asked.labels == IGNORED_LABEL).all()


def test_model_output_of_a_batch_equals_that_of_each_sample(processor: Processor, frames: list[np.ndarray]) -> None:
    torch.manual_seed(0)
    model = UniPixel(processor.config).eval()
    samples = mixed_samples(processor, frames)
    batch = processor.stack(samples)
    with torch.no_grad():
        together = model(batch.inputs).logits
        for row, sample in enumerate(samples):
            alone = model(sample.inputs).logits[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-4, rtol=1e-4)
            assert torch.equal(batch.labels[row, : len(alone)], sample.labels[0])
            assert (batch.labels[row, len(alone) :] == IGNORED_LABEL).all()


def test_model_output_of_a_later_turn_equals_that_of_the_whole_conversation(
    processor: Processor, frames: list[np.ndarray]
) -> None:
    torch.manual_seed(0)
    model = UniPixel(processor.config).eval()
    clip = processor.clip(frames)
    masks = np.zeros((5, 1, 40, 60), dtype=bool)
    masks[1:3, :, 10:20, 5:15] = True
    memory = processor.memory([2], masks, clip.layout, is_update=True)
    turns = [Turn("What?", "A dog."), Turn("And [2], here <|ref|>?", memory=memory)]
    point = [PointPrompt(5, 5, frame_index=2)]
    whole = processor.encode(turns, clip=clip, prompts=point).inputs
    answered = processor.encode(turns[:1], clip=clip).inputs
    first = replace(answered, input_ids=answered.input_ids[:, :-1])  # the new line belongs to the later turn
    later = processor.encode_later_turn(turns[1], layout=clip.layout, prompts=point).inputs
    assert torch.equal(torch.cat([first.input_ids, later.input_ids], dim=1), whole.input_ids)
    with torch.no_grad():
        prompt_cache = prefill(model, first).prompt_cache
        continued = prefill(model, later, prompt_cache=prompt_cache).hidden_states
        expected = model(whole).hidden_states[:, first.input_ids.shape[1] :]
    torch.testing.assert_close(continued, expected, atol=1e-4, rtol=1e-4)


def test_stack_of_equal_lengths_needs_no_mask(processor: Processor) -> None:
    batch = processor.stack([processor.encode([Turn("One")]), processor.encode([Turn("Two")])])
    assert batch.inputs.attention_mask is None
    assert batch.inputs.input_ids.shape[0] == len(batch.texts) == 2


def test_stack_of_nothing_is_refused(processor: Processor) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        processor.stack([])


def test_memories_of_several_turns_are_pooled_in_text_order(processor: Processor, frames: list[np.ndarray]) -> None:
    clip = processor.clip(frames)
    first = processor.memory([7], box_mask(5, 0), clip.layout)
    second = processor.memory([1, 7], np.concatenate([box_mask(5, 20), box_mask(5, 40)], axis=1), clip.layout)
    inputs = processor.encode([Turn("A", "B", first), Turn("C", memory=second)], clip=clip).inputs
    assert len(inputs.memory_masks) == 1
    assert inputs.memory_masks[0] is not None
    expected = torch.cat([first.refer_mask, second.refer_mask], dim=1)
    assert torch.equal(inputs.memory_masks[0].touched, expected)


@pytest.mark.parametrize(
    ("question", "prompts", "message"),
    [
        ("What is <|ref|>?", [], r"1 <\|ref\|>, 0 points and boxes"),
        ("What is <|ref|>?", [PointPrompt(1, 1), PointPrompt(2, 2)], r"1 <\|ref\|>, 2 points and boxes"),
        ("What is <|mem|>?", [], r"1 <\|mem\|>, the masks require 0.*Turn\.memory"),
    ],
)
def test_placeholders_without_their_values_are_refused(
    processor: Processor, frames: list[np.ndarray], question: str, prompts: list, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        processor.encode([Turn(question)], clip=processor.clip(frames), prompts=prompts)


def test_prompts_without_a_clip_are_refused(processor: Processor) -> None:
    with pytest.raises(ValueError, match="1 prompts and 0 memories were given without a clip"):
        processor.encode([Turn("What is <|ref|>?")], prompts=[PointPrompt(1, 1)])


def test_memory_of_another_clip_is_refused(processor: Processor, frames: list[np.ndarray]) -> None:
    memory = processor.memory([1], box_mask(3, 0), processor.clip(frames[:3]).layout)
    with pytest.raises(ValueError, match=r"memory of \[1\] is on a grid"):
        processor.encode([Turn("What is [1]?", memory=memory)], clip=processor.clip(frames))


def test_memory_of_mis_sized_masks_is_refused(processor: Processor, frames: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"= \(5, 1, 40, 60\), got \(4, 1, 40, 60\)"):
        processor.memory([1], box_mask(4, 0), processor.clip(frames).layout)


def test_memory_of_an_empty_mask_is_refused(processor: Processor, frames: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"mask of \[9\] is empty in all 5 frames"):
        processor.memory([9], np.zeros((5, 1, 40, 60), dtype=bool), processor.clip(frames).layout)


def test_clip_of_frames_without_their_indices_is_refused(processor: Processor, frames: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="5 frames were given with 2 frame_indices"):
        processor.clip(frames, frame_indices=[0, 1])
    with pytest.raises(ValueError, match="frame_indices must increase"):
        processor.clip(frames[:2], frame_indices=[3, 1])
    with pytest.raises(ValueError, match="frame 9 is outside the clip of 8 frames"):
        processor.clip(frames[:2], frame_indices=[3, 9], num_video_frames=8)


def test_saved_processor_is_loaded_again(processor: Processor, tmp_path: Path) -> None:
    config = processor.config.to_dict()
    config["sam2_config"] = "configs/sam2.1_hiera_custom"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "sam2_config.json").write_text(json.dumps(processor.config.segmenter.to_tree()))
    assert Processor.from_pretrained(tmp_path).budget == FrameBudget()
    budget = FrameBudget(8, min_tokens=16, max_tokens=64)
    Processor(processor.config, processor.tokenizer, budget=budget).save_pretrained(tmp_path)
    loaded = Processor.from_pretrained(tmp_path)
    assert loaded.budget == budget
    assert loaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert Processor.from_pretrained(tmp_path, budget=FrameBudget(4)).budget.num_frames == 4


def box_mask(num_frames: int, left: int) -> np.ndarray:
    """Masks (n, 1, 40, 60) of a box 10 pixels wide, on every frame."""
    mask = np.zeros((num_frames, 1, 40, 60), dtype=bool)
    mask[:, :, 5:15, left : left + 10] = True
    return mask


def mixed_samples(processor: Processor, frames: list[np.ndarray]) -> list[EncodedSample]:
    """A text, an image with a box, and a video with a point and memory."""
    image, video = processor.clip(frames[:1]), processor.clip(frames)
    memory = processor.memory([4], box_mask(5, 20), video.layout)
    point = PointPrompt(30, 20, frame_index=3)
    return [
        processor.encode([Turn("Hello?", "Good day.")]),
        processor.encode([Turn("What is <|ref|>?", "A cup.")], clip=image, prompts=[BoxPrompt((1, 2, 30, 40))]),
        processor.encode([Turn("Is [4] <|ref|>?", "Yes, [4] <|seg|>.", memory)], clip=video, prompts=[point]),
    ]


def test_checkpoint_without_a_tokenizer_is_named_as_the_reason(recorded_model: UniPixel, tmp_path: Path) -> None:
    recorded_model.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer .* the bundled one does not fit .*: add the files"):
        Processor.from_pretrained(tmp_path)


def test_unknown_option_of_a_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"unknown options \['size'\]"):
        Processor.from_pretrained(tmp_path, size=5)
