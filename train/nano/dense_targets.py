"""What is where in a clip, said of every place that a model sees: what is there, and how it moves.

Shape letters: N cells of a clip (frames or frame pairs t, rows, columns, in raster order), A attributes, P places,
O objects, H, W frame size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from unipixel.memory.injection import MemoryInjection
from unipixel.processing.clip_layout import ClipLayout
from unipixel.processing.image_processing import FRAMES_PER_PAIR
from unipixel.train.datasets.synthetic import Sample
from unipixel.train.datasets.synthetic.attributes import COLOURS, SHAPES, TEXTURES

_WORDS = (SHAPES, COLOURS, TEXTURES)
# Number 0 is the background.
ATTRIBUTE_SIZES = tuple(len(words) + 1 for words in _WORDS)
# The cell's own column and row, then column and row of the middle, width and height of what is there.
STILL_PLACES = 6
# And how far that has come since it was first seen and since the frame before, and the time.
MOVING_PLACES = 11
# A cell belongs to an object that covers this much of it, and to none where nothing covers anything of it.
_LEAST_COVER = 0.15


@dataclass(frozen=True)
class ReferenceTargets:
    """What stands behind each of M `<|mem|>` or `<|ref|>`: an object on a pair of frames.

    Attributes:
        covers: (M, N) share of each cell of the clip that belongs to it.
        looks: (M, A) numbers of the words for its looks.
        places: (M, P) as in `DenseTargets`, without the cell's own.
    """

    covers: Tensor
    looks: Tensor
    places: Tensor

    @classmethod
    def nothing(cls, num_cells: int) -> ReferenceTargets:
        """Return what a conversation without a memory holds."""
        return cls(
            torch.empty(0, num_cells), torch.empty(0, len(_WORDS), dtype=torch.long), torch.empty(0, MOVING_PLACES)
        )


@dataclass(frozen=True)
class DenseTargets:
    """What is where in one clip.

    Attributes:
        looks: (N, A) a word's number by attribute, 0 on the background, -1 where it cannot be told.
        places: (N, P) see `STILL_PLACES` and `MOVING_PLACES`; positions in [-1, 1], sizes as shares of the frame,
            NaN where there is no object.
        covers: (G, N) share of each cell that the object of each `<|seg|>` about the clip covers; (0, N) where
            there is none.
        anchored: (G, N) the same on the pair of frames alone on which the object's mask is asked for.
        named: (G, A) the looks of these objects.
        held: What stands behind each `<|mem|>` or `<|ref|>` about the clip, in the order of the text.
    """

    looks: Tensor
    places: Tensor
    covers: Tensor
    anchored: Tensor
    named: Tensor
    held: ReferenceTargets


@dataclass(frozen=True)
class ClipTargets:
    """What is where in one clip, whatever is asked about it.

    Attributes:
        sight: Without anything that belongs to a text.
        covers: (O, t, rows, columns) share of each cell that belongs to each object.
        places: (O, t, P) of the objects themselves, see `DenseTargets`.
        words: (O, A) numbers of their looks; None where they have no names.
    """

    sight: DenseTargets
    covers: Tensor
    places: Tensor
    words: Tensor | None


def clip_targets(sample: Sample, layout: ClipLayout) -> ClipTargets:
    """Describe a clip on the grid of the language model's tokens.

    Args:
        sample: The clip, with its scene where it is of the drawn world.
        layout: How the model sees the clip.
    """
    t, rows, columns = layout.grid_thw[0], *(side // layout.merge_size for side in layout.grid_thw[1:])
    masks = _paired(sample.clip.masks, t)
    words = attribute_ids(sample)
    sight = see(masks, words, grid=(rows, columns))
    covers = nn.functional.adaptive_avg_pool2d(masks, (rows, columns))
    return ClipTargets(sight, covers, _places_of(masks), words)


def conversation_targets(
    clip: ClipTargets,
    object_ids: Sequence[int],
    *,
    named: Sequence[tuple[int, int]] = (),
    memories: Sequence[MemoryInjection] = (),
    referred: Sequence[tuple[int, int]] = (),
) -> DenseTargets:
    """Describe a clip and what a conversation says about it.

    Args:
        clip: What is where.
        object_ids: Ids of its objects, row by row.
        named: Object and frame of each mask in the text, in its order; frames are places, see `ClipLayout.place`.
        memories: What the conversation remembers, in the order of the text.
        referred: Object and frame of each point or box in the text, in its order; not together with memories.

    Raises:
        ValueError: Memories and references are given.
    """
    if memories and referred:
        raise ValueError(f"{len(memories)} memories and {len(referred)} references are given: give one of them")
    sight, words = clip.sight, clip.words
    if words is None:
        return sight
    if memories:
        sight = replace(sight, held=_hold(memories, object_ids, words, clip.places))
    if referred:
        sight = replace(sight, held=_refer(referred, object_ids, clip))
    if not named:
        return sight
    chosen = [object_ids.index(object_id) for object_id, _ in named]
    covers = clip.covers[chosen]
    anchored = torch.zeros_like(covers)
    places = torch.arange(len(chosen)), torch.tensor([frame // FRAMES_PER_PAIR for _, frame in named])
    anchored[places] = covers[places]
    return replace(sight, covers=covers.flatten(1), anchored=anchored.flatten(1), named=words[chosen])


def _hold(
    memories: Sequence[MemoryInjection], object_ids: Sequence[int], words: Tensor, places: Tensor
) -> ReferenceTargets:
    """Lay out what stands behind each `<|mem|>`: object by object, one per pair that its mask touches."""
    covers, looks, seen = [], [], []
    for memory in memories:
        for place, object_id in enumerate(memory.object_ids):
            row = object_ids.index(object_id)
            for pair in memory.refer_mask[:, place].flatten(1).any(dim=1).nonzero()[:, 0].tolist():
                cover = torch.zeros(memory.refer_mask[:, place].shape)
                cover[pair] = memory.refer_mask[pair, place].float()
                covers.append(cover.flatten())
                looks.append(words[row])
                seen.append(places[row, pair])
    return ReferenceTargets(torch.stack(covers), torch.stack(looks), torch.stack(seen))


def _refer(referred: Sequence[tuple[int, int]], object_ids: Sequence[int], clip: ClipTargets) -> ReferenceTargets:
    """Lay out what stands behind each `<|ref|>`: the object on the pair that holds the prompted frame."""
    rows = [object_ids.index(object_id) for object_id, _ in referred]
    pairs = [frame // FRAMES_PER_PAIR for _, frame in referred]
    covers = torch.zeros(len(rows), *clip.covers.shape[1:])
    covers[torch.arange(len(rows)), pairs] = clip.covers[rows, pairs]
    words = clip.words if clip.words is not None else torch.zeros(len(clip.covers), len(_WORDS), dtype=torch.long)
    return ReferenceTargets(covers.flatten(1), words[rows], clip.places[rows, pairs])


def _places_of(masks: Tensor) -> Tensor:
    """Places (O, t, P) of objects (O, t, H, W) themselves: NaN for a cell's own, and where an object is not seen."""
    courses = torch.from_numpy(_courses(masks.numpy()))
    num_objects, t = courses.shape[:2]
    own = torch.full((num_objects, t, 2), float("nan"))
    return torch.cat([own, courses, _axis(t)[None, :, None].expand(num_objects, t, 1)], dim=-1)


def _axis(count: int) -> Tensor:
    return torch.linspace(-1, 1, count) if count > 1 else torch.zeros(1)


def attribute_ids(sample: Sample) -> Tensor | None:
    """Numbers (O, A) of the words for each object's look; None where the sample has no scene."""
    if sample.scene is None:
        return None
    looks = [(obj.shape, obj.colour, obj.texture) for obj in sample.scene.objects]
    return torch.tensor([[row.index(word) + 1 for row, word in zip(_WORDS, look, strict=True)] for look in looks])


def see(masks: Tensor, words: Tensor | None, *, grid: tuple[int, int]) -> DenseTargets:
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
    places = _places_of(masks)[owner, torch.arange(t)[:, None, None]]
    places = torch.where(is_object, places, float("nan"))
    time, row, column = torch.meshgrid(_axis(t), _axis(rows), _axis(columns), indexing="ij")
    # A cell of the background has a place too.
    places[..., 0], places[..., 1], places[..., -1] = column, row, time
    count = t * rows * columns
    none, no_words = torch.empty(0, count), torch.empty(0, len(_WORDS), dtype=torch.long)
    return DenseTargets(
        looks.flatten(0, 2), places.flatten(0, 2), none, none, no_words, ReferenceTargets.nothing(count)
    )


def _paired(masks: np.ndarray, num_pairs: int) -> Tensor:
    """Visible parts (O, F, H, W) as shares over pairs of frames, (O, t, H, W).

    Each frame fills a pair alone where there are as many; otherwise two share one, and the last fills up the last.
    """
    count = num_pairs * FRAMES_PER_PAIR
    is_still = masks.shape[1] == num_pairs
    chosen = np.arange(count) // FRAMES_PER_PAIR if is_still else np.minimum(np.arange(count), masks.shape[1] - 1)
    pairs = torch.from_numpy(masks[:, chosen]).float().unflatten(1, (num_pairs, FRAMES_PER_PAIR))
    return pairs.mean(dim=2)


def _courses(masks: np.ndarray) -> np.ndarray:
    """Middle, extent and ways (O, t, 8) of objects (O, t, H, W); NaN where an object is out of sight."""
    num_objects, t, height, width = masks.shape
    courses = np.full((num_objects, t, 8), np.nan, np.float32)
    for row in range(num_objects):
        first = last = None
        for pair in range(t):
            # Pixels of each column and of each row.
            counts = [np.count_nonzero(masks[row, pair], axis=axis) for axis in (0, 1)]
            if not counts[0].any():
                continue
            seen = [np.flatnonzero(own) for own in counts]
            sides = (width, height)
            middle = np.array([
                own @ np.arange(side) / own.sum() * 2 / side - 1 for own, side in zip(counts, sides, strict=True)
            ])  # fmt: skip
            extent = [(own[-1] - own[0]) / side for own, side in zip(seen, sides, strict=True)]
            first = middle if first is None else first
            last = middle if last is None else last
            courses[row, pair] = [*middle, *extent, *(middle - first), *(middle - last)]
            last = middle
    return courses
