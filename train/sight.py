"""What a model that starts from nothing is asked about every place it sees: what is there, and how it moves.

Answers and masks alone teach such a model slowly: a few words, or a few pixels, send gradients through whole
transformers. The head that is asked is left behind when the model is saved.

Shape letters: N cells of a clip (frames or frame pairs t, rows, columns, in raster order), A attributes, P places,
O objects, H, W frame size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unipixel.clip import ClipLayout
from unipixel.patches import FRAMES_PER_PAIR
from unipixel.train.datasets.world import Sample
from unipixel.train.datasets.world.vocabulary import COLOURS, SHAPES, TEXTURES

_WORDS = (SHAPES, COLOURS, TEXTURES)
# Number 0 is the background.
_SIZES = tuple(len(words) + 1 for words in _WORDS)
# The cell's own column and row, then column and row of the middle, width and height of what is there.
STILL_PLACES = 6
# And how far that has come since it was first seen and since the frame before, and the time.
MOVING_PLACES = 11
# A cell belongs to an object that covers this much of it, and to none where nothing covers anything of it.
_LEAST_COVER = 0.15
_OBJECT_WEIGHT, _PLACE_WEIGHT = 4.0, 4.0


@dataclass(frozen=True)
class Sight:
    """What is where in one clip.

    Attributes:
        looks: (N, A) a word's number by attribute, 0 on the background, -1 where it cannot be told.
        places: (N, P) see `STILL_PLACES` and `MOVING_PLACES`; positions in [-1, 1], sizes as shares of the frame,
            NaN where there is no object.
    """

    looks: Tensor
    places: Tensor


def see_clip(sample: Sample, layout: ClipLayout) -> Sight:
    """Describe a drawn clip on the grid of the language model's tokens.

    Args:
        sample: Of the drawn world, with its scene.
        layout: How the model sees the clip.
    """
    t, rows, columns = layout.grid_thw[0], *(side // layout.merge_size for side in layout.grid_thw[1:])
    return see(_paired(sample.clip.masks, t), look_numbers(sample), grid=(rows, columns))


def look_numbers(sample: Sample) -> Tensor | None:
    """Numbers (O, A) of the words for each object's look; None where the sample has no scene."""
    if sample.scene is None:
        return None
    looks = [(obj.shape, obj.colour, obj.texture) for obj in sample.scene.objects]
    return torch.tensor([[row.index(word) + 1 for row, word in zip(_WORDS, look, strict=True)] for look in looks])


def see(masks: Tensor, words: Tensor | None, *, grid: tuple[int, int]) -> Sight:
    """Describe what is where.

    Args:
        masks: (O, t, H, W) visible parts as shares in [0, 1].
        words: (O, A) numbers of their looks; None where they have no names.
        grid: Rows and columns of cells.
    """
    (t, *_), (rows, columns) = masks.shape[1:], grid
    cover = nn.functional.adaptive_avg_pool2d(masks, grid)  # (O, t, rows, columns)
    most, owner = cover.max(dim=0)
    is_object = (most >= _LEAST_COVER)[..., None]
    named = words[owner] if words is not None else torch.full((t, rows, columns, len(_WORDS)), -1)
    looks = torch.where(is_object, named, torch.where(most > 0, -1, 0)[..., None])
    courses = torch.from_numpy(_courses(masks.numpy()))[owner, torch.arange(t)[:, None, None]]
    courses = torch.where(is_object, courses, float("nan"))
    axes = [torch.linspace(-1, 1, count) if count > 1 else torch.zeros(1) for count in (t, rows, columns)]
    time, row, column = torch.meshgrid(*axes, indexing="ij")
    places = torch.cat([torch.stack([column, row], dim=-1), courses, time[..., None]], dim=-1)
    return Sight(looks.flatten(0, 2), places.flatten(0, 2))


def _paired(masks: np.ndarray, num_pairs: int) -> Tensor:
    """Visible parts (O, F, H, W) as shares over pairs of frames, (O, t, H, W); the last frame fills the last pair."""
    count = num_pairs * FRAMES_PER_PAIR
    chosen = np.minimum(np.arange(count), masks.shape[1] - 1)
    pairs = torch.from_numpy(masks[:, chosen]).float().unflatten(1, (num_pairs, FRAMES_PER_PAIR))
    return pairs.mean(dim=2)


def _courses(masks: np.ndarray) -> np.ndarray:
    """Middle, extent and ways (O, t, 8) of objects (O, t, H, W); NaN where an object is out of sight."""
    num_objects, t, height, width = masks.shape
    courses = np.full((num_objects, t, 8), np.nan, np.float32)
    for row in range(num_objects):
        first = last = None
        for pair in range(t):
            ys, xs = np.nonzero(masks[row, pair])
            if not len(ys):
                continue
            middle = np.array([xs.mean() * 2 / width - 1, ys.mean() * 2 / height - 1])
            extent = [np.ptp(xs) / width, np.ptp(ys) / height]
            first = middle if first is None else first
            last = middle if last is None else last
            courses[row, pair] = [*middle, *extent, *(middle - first), *(middle - last)]
            last = middle
    return courses


class SightHead(nn.Module):
    """Reads, from the state of each cell, what is seen there."""

    def __init__(self, width: int, *, num_places: int, hidden: int = 128) -> None:
        """Build the head.

        Args:
            width: Channels D of a state.
            num_places: The first so many places of `Sight` are asked for; 0 asks for looks alone.
            hidden: Channels between the two layers.
        """
        super().__init__()
        self.layers = nn.Sequential(
            nn.RMSNorm(width, eps=1e-6),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, sum(_SIZES) + num_places),
        )
        self.num_places = num_places

    def forward(self, states: Tensor, sights: Sequence[Sight]) -> dict[str, Tensor]:
        """Return the loss `sight` with, for the log, `looks` (share of objects' cells named right) and `places`.

        `places` is missing where none are asked for.

        Args:
            states: (N, D) of the cells of all clips, clip by clip.
            sights: One per clip.
        """
        looks = torch.cat([sight.looks for sight in sights]).to(states.device)
        places = torch.cat([sight.places[:, : self.num_places] for sight in sights]).to(states.device)
        *logits, guessed = self.layers(states).split([*_SIZES, self.num_places], dim=-1)
        # The background covers most of a frame.
        weights = torch.where(looks[:, 0] > 0, _OBJECT_WEIGHT, 1.0) * (looks[:, 0] >= 0)
        is_object = looks[:, 0] > 0
        loss, right = states.new_zeros(()), []
        for column, scores in enumerate(logits):
            wrong = nn.functional.cross_entropy(scores, looks[:, column], reduction="none", ignore_index=-1)
            loss = loss + (wrong * weights).sum() / weights.sum()
            right.append((scores.argmax(dim=-1) == looks[:, column])[is_object].float().mean())
        figures = {"looks": torch.stack(right).mean().nan_to_num().detach()}
        if self.num_places:
            error = (guessed - places)[~places.isnan()].abs().mean()
            figures["places"] = error.detach()
            loss = loss + _PLACE_WEIGHT * error
        return {"sight": loss, **figures}
