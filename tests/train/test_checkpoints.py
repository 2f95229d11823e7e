"""What a stage leaves behind can be loaded again."""

from __future__ import annotations

from pathlib import Path

import torch
from helpers.tiny_training import save_training_checkpoint

from unipixel.model.unipixel import UniPixel
from unipixel.train.checkpoints import convert_to_half


def test_convert_to_half_is_smaller_and_still_float32_in_memory(tmp_path: Path) -> None:
    folder = save_training_checkpoint(tmp_path)
    before, size = UniPixel.from_pretrained(folder), (folder / "model.safetensors").stat().st_size
    assert convert_to_half(folder) < 0.6 * size
    after = UniPixel.from_pretrained(folder)
    assert after.dtype == torch.float32
    for (name, one), other in zip(before.state_dict().items(), after.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
        if name.endswith("positional_encoding_gaussian_matrix"):
            assert torch.equal(one, other)
