"""Points and boxes as visual prompts of the language model."""

from __future__ import annotations

import torch

from unipixel.model.inputs import ReferencePrompt
from unipixel.model.visual_prompt_encoder import VisualPromptEncoder


def test_mixed_precision_does_not_move_coordinates() -> None:
    torch.manual_seed(0)
    encoder = VisualPromptEncoder(width=32, sam_width=32, image_size=768)
    references = [
        ReferencePrompt(torch.tensor([[701.0, 333.0]]), 1, 8),
        ReferencePrompt(torch.tensor([[13.0, 600.5], [411.0, 767.0]]), 0, 8),
    ]
    expected = encoder(references)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder(references), expected)
