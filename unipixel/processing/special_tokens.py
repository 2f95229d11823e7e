"""The special tokens of Qwen2.5-VL and UniPixel."""

from __future__ import annotations

from unipixel.memory.injection import MEM

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, VIDEO_PAD, IMAGE_PAD = "<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>"
REF, SEG = "<|ref|>", "<|seg|>"
END_OF_TEXT = "<|endoftext|>"

ADDED_TOKENS = (REF, SEG, MEM)
"""Tokens that UniPixel adds to the vocabulary of Qwen2.5-VL, in the order of their ids."""
CONTROL_TOKENS = (END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, "<|vision_pad|>", IMAGE_PAD, VIDEO_PAD)
"""Tokens of the chat template, which questions and answers must not contain."""
