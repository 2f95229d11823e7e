"""Normalisation of frames for SAM."""

from __future__ import annotations

import numpy as np
import torch

from unipixel.tracking.clip_features import normalise_frame


def test_normalise_frame_of_one_colour_is_that_colour_normalised() -> None:
    frame = np.full((30, 50, 3), (255, 0, 51), dtype=np.uint8)
    expected = torch.tensor([(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(normalise_frame(frame, image_size=32), expected.view(3, 1, 1).expand(3, 32, 32))


def test_normalise_frame_halves_by_a_triangle_filter() -> None:
    frame = np.zeros((4, 4, 3), dtype=np.uint8)
    frame[:, :2] = 255
    # The antialiased bilinear filter at scale 2 weights pixels 0, 1, 2 by 3/7, 3/7, 1/7 for the first column.
    red = normalise_frame(frame, image_size=2)[0, 0] * 0.229 + 0.485
    torch.testing.assert_close(red, torch.tensor([6 / 7, 1 / 7]))
