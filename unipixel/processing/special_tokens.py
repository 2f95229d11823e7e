"""The special tokens of Qwen2.5-VL and UniPixel, as they stand in prompts."""

from __future__ import annotations

from unipixel.memory.injection import MEM

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, VIDEO_PAD, IMAGE_PAD = "<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>"
REF, SEG = "<|ref|>", "<|seg|>"
END_OF_TEXT = "<|endoftext|>"

ADDED_TOKENS = (REF, SEG, MEM)
"""What UniPixel adds to Qwen's vocabulary, in the order of the ids."""
CONTROL_TOKENS = (END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, "<|vision_pad|>", IMAGE_PAD, VIDEO_PAD)
"""What gives a conversation its structure: no question and no answer may hold one of them."""
