"""Per-token attribute and position targets of synthetic clips.

Shape letters: N cells of a clip (frames or frame pairs t, rows, columns, in raster order), A attributes, P positions,
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
# The cell's own column and row; column and row of the object's middle, its width and height; its displacement since it
# was first seen and since the frame before; the time.
NUM_POSITIONS = 11
SIZE_POSITIONS = slice(4, 6)
"""Width and height of the object: what a vision feature, which has no absolute position, can tell."""
# A cell belongs to an object that covers this much of it, and to none where nothing covers anything of it.
_MIN_COVERAGE = 0.15


@dataclass(frozen=True)
class ReferenceTargets:
    """What each of M `<|mem|>` or `<|ref|>` shows: an object on a pair of frames.

    Attributes:
        coverage: (M, N) fraction of each cell of the clip that belongs to it.
        attributes: (M, A) numbers of its attributes.
        positions: (M, P) as in `DenseTargets`, without the cell's own.
    """

    coverage: Tensor
    attributes: Tensor
    positions: Tensor

    @classmethod
    def nothing(cls, num_cells: int) -> ReferenceTargets:
        """Return the targets of a conversation without memory."""
        return cls(
            torch.empty(0, num_cells), torch.empty(0, len(_WORDS), dtype=torch.long), torch.empty(0, NUM_POSITIONS)
        )


@dataclass(frozen=True)
class DenseTargets:
    """Targets of the cells of one clip and of the tokens of a conversation about it.

    Attributes:
        attributes: (N, A) a word's number by attribute, 0 on the background, -1 where it is unknown.
        positions: (N, P) see `NUM_POSITIONS`; positions in [-1, 1], sizes as fractions of the frame, NaN where there
            is no object.
        coverage: (G, N) fraction of each cell that the object of each `<|seg|>` covers; (0, N) where there is none.
        anchor_coverage: (G, N) the same on the pair of frames alone on which the object's mask is asked for.
        target_attributes: (G, A) the attributes of these objects.
        references: Targets of each `<|mem|>` or `<|ref|>`, in the order of the text.
    """

    attributes: Tensor
    positions: Tensor
    coverage: Tensor
    anchor_coverage: Tensor
    target_attributes: Tensor
    references: ReferenceTargets


@dataclass(frozen=True)
class ClipTargets:
    """Targets of one clip, whatever is asked about it.

    Attributes:
        dense: Targets of its cells, without anything that belongs to a text.
        coverage: (O, t, rows, columns) fraction of each cell that belongs to each object.
        positions: (O, t, P) of the objects themselves, see `DenseTargets`.
        object_attributes: (O, A) numbers of their attributes; None where they are unknown.
    """

    dense: DenseTargets
    coverage: Tensor
    positions: Tensor
    object_attributes: Tensor | None


def clip_targets(sample: Sample, layout: ClipLayout) -> ClipTargets:
    """Describe a clip on the grid of the language model's tokens.

    Args:
        sample: The clip, with its scene where it is synthetic.
        layout: How the model sees the clip.
    """
    t, rows, columns = layout.grid_thw[0], *(side // layout.merge_size for side in layout.grid_thw[1:])
    masks = _paired(sample.clip.masks, t)
    attributes = attribute_ids(sample)
    dense = cell_targets(masks, attributes, grid=(rows, columns))
    coverage = nn.functional.adaptive_avg_pool2d(masks, (rows, columns))
    return ClipTargets(dense, coverage, _object_positions(masks), attributes)


def conversation_targets(
    clip: ClipTargets,
    object_ids: Sequence[int],
    *,
    named: Sequence[tuple[int, int]] = (),
    memories: Sequence[MemoryInjection] = (),
    referred: Sequence[tuple[int, int]] = (),
) -> DenseTargets:
    """Describe a clip and the tokens of a conversation about it.

    Args:
        clip: Targets of the clip.
        object_ids: Ids of its objects, row by row.
        named: Object and frame of each mask in the text, in its order; frames as `ClipLayout.place` numbers them.
        memories: Memory of the conversation, in the order of the text.
        referred: Object and frame of each point or box in the text, in its order; not together with memories.

    Raises:
        ValueError: Memories and references are given.
    """
    if memories and referred:
        raise ValueError(f"{len(memories)} memories and {len(referred)} references are given: give one of them")
    dense, attributes = clip.dense, clip.object_attributes
    if attributes is None:
        return dense
    if memories:
        dense = replace(dense, references=_memory_targets(memories, object_ids, attributes, clip.positions))
    if referred:
        dense = replace(dense, references=_prompt_targets(referred, object_ids, clip))
    if not named:
        return dense
    rows = [object_ids.index(object_id) for object_id, _ in named]
    coverage = clip.coverage[rows]
    anchor_coverage = torch.zeros_like(coverage)
    anchors = torch.arange(len(rows)), torch.tensor([frame // FRAMES_PER_PAIR for _, frame in named])
    anchor_coverage[anchors] = coverage[anchors]
    return replace(
        dense,
        coverage=coverage.flatten(1),
        anchor_coverage=anchor_coverage.flatten(1),
        target_attributes=attributes[rows],
    )


def _memory_targets(
    memories: Sequence[MemoryInjection], object_ids: Sequence[int], attributes: Tensor, positions: Tensor
) -> ReferenceTargets:
    """Targets of each `<|mem|>`: object by object, one per pair that its mask touches."""
    coverage, own_attributes, own_positions = [], [], []
    for memory in memories:
        for place, object_id in enumerate(memory.object_ids):
            row = object_ids.index(object_id)
            for pair in memory.refer_mask[:, place].flatten(1).any(dim=1).nonzero()[:, 0].tolist():
                cover = torch.zeros(memory.refer_mask[:, place].shape)
                cover[pair] = memory.refer_mask[pair, place].float()
                coverage.append(cover.flatten())
                own_attributes.append(attributes[row])
                own_positions.append(positions[row, pair])
    return ReferenceTargets(torch.stack(coverage), torch.stack(own_attributes), torch.stack(own_positions))


def _prompt_targets(
    referred: Sequence[tuple[int, int]], object_ids: Sequence[int], clip: ClipTargets
) -> ReferenceTargets:
    """Targets of each `<|ref|>`: the object on the pair that holds the prompted frame."""
    rows = [object_ids.index(object_id) for object_id, _ in referred]
    pairs = [frame // FRAMES_PER_PAIR for _, frame in referred]
    coverage = torch.zeros(len(rows), *clip.coverage.shape[1:])
    coverage[torch.arange(len(rows)), pairs] = clip.coverage[rows, pairs]
    attributes = clip.object_attributes
    if attributes is None:
        attributes = torch.zeros(len(clip.coverage), len(_WORDS), dtype=torch.long)
    return ReferenceTargets(coverage.flatten(1), attributes[rows], clip.positions[rows, pairs])


def _object_positions(masks: Tensor) -> Tensor:
    """Positions (O, t, P) of objects (O, t, H, W): NaN for a cell's own, and where an object is not seen."""
    trajectories = torch.from_numpy(_trajectories(masks.numpy()))
    num_objects, t = trajectories.shape[:2]
    own = torch.full((num_objects, t, 2), float("nan"))
    return torch.cat([own, trajectories, _axis(t)[None, :, None].expand(num_objects, t, 1)], dim=-1)


def _axis(count: int) -> Tensor:
    return torch.linspace(-1, 1, count) if count > 1 else torch.zeros(1)


def attribute_ids(sample: Sample) -> Tensor | None:
    """Numbers (O, A) of each object's attributes; None where the sample has no scene."""
    if sample.scene is None:
        return None
    own = [(obj.shape, obj.colour, obj.texture) for obj in sample.scene.objects]
    return torch.tensor([[row.index(word) + 1 for row, word in zip(_WORDS, words, strict=True)] for words in own])


def cell_targets(masks: Tensor, attributes: Tensor | None, *, grid: tuple[int, int]) -> DenseTargets:
    """Describe the object in each cell.

    Args:
        masks: (O, t, H, W) visible parts as fractions in [0, 1].
        attributes: (O, A) numbers of the objects' attributes; None where they are unknown.
        grid: Rows and columns of cells.
    """
    (t, *_), (rows, columns) = masks.shape[1:], grid
    most, owner = nn.functional.adaptive_avg_pool2d(masks, grid).max(dim=0)
    is_object = (most >= _MIN_COVERAGE)[..., None]
    unknown = torch.full((t, rows, columns, len(_WORDS)), -1)
    own = attributes[owner] if attributes is not None else unknown
    own = torch.where(is_object, own, torch.where(most > 0, -1, 0)[..., None])
    positions = _object_positions(masks)[owner, torch.arange(t)[:, None, None]]
    positions = torch.where(is_object, positions, float("nan"))
    time, row, column = torch.meshgrid(_axis(t), _axis(rows), _axis(columns), indexing="ij")
    # A cell of the background has a position too.
    positions[..., 0], positions[..., 1], positions[..., -1] = column, row, time
    count = t * rows * columns
    none, no_attributes = torch.empty(0, count), torch.empty(0, len(_WORDS), dtype=torch.long)
    return DenseTargets(
        own.flatten(0, 2), positions.flatten(0, 2), none, none, no_attributes, ReferenceTargets.nothing(count)
    )


def _paired(masks: np.ndarray, num_pairs: int) -> Tensor:
    """Visible parts (O, F, H, W) as fractions over pairs of frames, (O, t, H, W).

    Each frame fills a pair alone where there are as many; otherwise two share one, and the last fills up the last.
    """
    count = num_pairs * FRAMES_PER_PAIR
    is_still = masks.shape[1] == num_pairs
    chosen = np.arange(count) // FRAMES_PER_PAIR if is_still else np.minimum(np.arange(count), masks.shape[1] - 1)
    pairs = torch.from_numpy(masks[:, chosen]).float().unflatten(1, (num_pairs, FRAMES_PER_PAIR))
    return pairs.mean(dim=2)


def _trajectories(masks: np.ndarray) -> np.ndarray:
    """Middle, size and displacements (O, t, 8) of objects (O, t, H, W); NaN where an object is not visible."""
    num_objects, t, height, width = masks.shape
    trajectories = np.full((num_objects, t, 8), np.nan, np.float32)
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
            trajectories[row, pair] = [*middle, *extent, *(middle - first), *(middle - last)]
            last = middle
    return trajectories
