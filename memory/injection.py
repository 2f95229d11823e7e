"""Memory injection: the `<|mem|>` tokens of a set of object masks, and the text around them.

Text and pooled features must agree, so both are derived from the masks on the token grid.

Shape letters: n frames, t frame pairs, O objects, H, W frame size, gh, gw token grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

# Ids are also checked before torch is imported.
if TYPE_CHECKING:
    from torch import Tensor

    from unipixel.memory.mask_pooling import TokenMasks

MEM = "<|mem|>"
"""Placeholder for the pooled features of one object in one frame pair."""

MAX_OBJECT_ID = 9999
"""Largest object id in prompts and answers."""


@dataclass(frozen=True, eq=False)
class MemoryInjection:
    """The memory of some objects, which precedes a question.

    Attributes:
        object_ids: Ids in the order of the text.
        masks: The objects' masks on the token grid.
        num_frames: Number of sampled frames (n); 1 is an image.
        is_update: False for the first memory of a conversation, whose text is the published one; True for
            objects that are new or changed since.
    """

    object_ids: tuple[int, ...]
    masks: TokenMasks
    num_frames: int
    is_update: bool = False

    def __post_init__(self) -> None:
        check_object_ids(self.object_ids)
        num_pairs, num_objects = self.masks.coverage.shape[:2]
        if num_objects != len(self.object_ids):
            raise ValueError(f"{len(self.object_ids)} object ids were given for masks of {num_objects} objects")
        if self.num_frames < 1 or num_pairs != (self.num_frames + 1) // 2:
            raise ValueError(
                f"{self.num_frames} frames make {(self.num_frames + 1) // 2} frame pairs, the masks have {num_pairs}"
            )
        invisible = [f"[{self.object_ids[row]}]" for row in range(num_objects) if not self.frame_pairs(row)]
        if invisible:
            raise ValueError(
                f"the mask of {', '.join(invisible)} is empty in all {self.num_frames} frames that the language model "
                "gets, so a <|mem|> token has nothing to pool: omit the object or sample frames that show it"
            )

    def frame_pairs(self, row: int) -> tuple[int, ...]:
        """Return the frame pairs, from 0, in which the object of a row is visible."""
        return tuple(int(pair) for pair in self.masks.is_visible[row].nonzero()[:, 0])

    def frame_tags(self, row: int) -> tuple[int, ...]:
        """Return the number in the text, from 1, of the first frame of each pair in which the object is visible."""
        return tuple(2 * pair + 1 for pair in self.frame_pairs(row))

    @property
    def num_tokens(self) -> int:
        """Number of `<|mem|>` in the text, and of pooled features."""
        return self.masks.num_tokens

    @property
    def refer_mask(self) -> Tensor:
        """(t, O, gh, gw) bool, the tokens that each object touches; the published code's name."""
        return self.masks.touched

    @property
    def text(self) -> str:
        """The lines that precede the question."""
        return memory_heading(self.num_frames, is_update=self.is_update) + "".join(
            memory_line(object_id, self.frame_tags(row), num_frames=self.num_frames)
            for row, object_id in enumerate(self.object_ids)
        )


def inject(
    object_ids: Sequence[int],
    masks: NDArray[Any] | Tensor,
    *,
    grid_hw: tuple[int, int],
    is_update: bool = False,
    patch_size: int = 14,
    merge_size: int = 2,
) -> MemoryInjection:
    """Create the memory of objects from their masks.

    Args:
        object_ids: Ids in the order of the masks.
        masks: (n, O, H, W) at any size, on the sampled frames.
        grid_hw: Rows and columns of patches of the clip, before merging.
        is_update: See `MemoryInjection`.
        patch_size: Side of a patch in pixels.
        merge_size: Patches merged into one token along each side.

    Raises:
        ValueError: Ids and masks differ in number, an id is given twice, or an object is visible on no frame.
    """
    from unipixel.memory.mask_pooling import to_token_grid

    token_masks = to_token_grid(masks, grid_hw, patch_size=patch_size, merge_size=merge_size)
    return MemoryInjection(tuple(object_ids), token_masks, num_frames=len(masks), is_update=is_update)


def visible_ids(object_ids: Sequence[int], masks: NDArray[Any] | Tensor) -> list[int]:
    """Return the ids of objects that are visible on any frame, which `inject` requires.

    Args:
        object_ids: Ids in the order of the masks.
        masks: (n, O, H, W).
    """
    return [object_id for row, object_id in enumerate(object_ids) if bool((masks[:, row] != 0).any())]


def memory_heading(num_frames: int, *, is_update: bool = False) -> str:
    """Return the line that introduces a memory; that of the first memory is the published one.

    Args:
        num_frames: Number of sampled frames; 1 is an image.
        is_update: Whether an earlier turn of the conversation has a memory.
    """
    if is_update:
        return "The highlighted regions are updated as follows:\n"
    if num_frames == 1:
        return "Here is an image with the following highlighted regions:\n"
    return (
        f"Here is a video with {num_frames} frames denoted as <1> to <{num_frames}>. "
        "The highlighted regions are as follows:\n"
    )


def memory_line(object_id: int, tags: Iterable[int], *, num_frames: int) -> str:
    """Return the line of one object.

    Args:
        object_id: Its id.
        tags: Numbers, from 1, of the first frame of each pair in which the object is visible.
        num_frames: Number of sampled frames; 1 is an image.
    """
    if num_frames == 1:
        return f"[{object_id}]: {MEM}\n"
    return f"[{object_id}]: " + " ".join(f"<{tag}>-<{tag + 1}> {MEM}" for tag in tags) + "\n"


def check_object_ids(object_ids: Sequence[int]) -> None:
    """Check object ids for use in a prompt.

    Raises:
        ValueError: An id is out of range or given twice, or there is none.
    """
    if not object_ids:
        raise ValueError("no object id was given: a memory has at least one object")
    for object_id in object_ids:
        if isinstance(object_id, bool) or not isinstance(object_id, int) or not 0 <= object_id <= MAX_OBJECT_ID:
            raise ValueError(f"an object id must be an integer in [0, {MAX_OBJECT_ID}], got {object_id!r}")
    if len(set(object_ids)) != len(object_ids):
        raise ValueError(f"object ids must differ, got {list(object_ids)}")
