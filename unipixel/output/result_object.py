"""The result of one object: a record per frame, with masks that stay encoded until they are read."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unipixel.memory.rle import decode_rle, encode_rle, mask_box, rle_area
from unipixel.output.confidence import describe_ranges, is_uncertain, low_confidence_ranges
from unipixel.output.writers import visible_mask
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame


@dataclass(frozen=True, slots=True)
class ResultFrame:
    """Result of one object on one frame.

    Attributes:
        frame_index: Index of the frame, from 0.
        timestamp_seconds: Presentation time of the frame.
        visible: Whether the object is in the frame: SAM 2.1's object score is above 0, as in SAM 2 (arXiv:2408.00714,
            section 4), and the mask has at least one pixel. A mask may be visible and uncertain:
            see `ResultObject.low_confidence`.
        score: Confidence in 0..1: probability that the object is in the frame times the predicted IoU.
        box_xyxy: Box of the mask, right and bottom exclusive; None without a mask.
        rle: COCO run lengths `{"size": [h, w], "counts": str}`; None without a mask.
    """

    frame_index: int
    timestamp_seconds: float
    visible: bool
    score: float
    box_xyxy: list[int] | None
    rle: dict[str, Any] | None

    @classmethod
    def of(cls, frame: Frame, object_id: int, item: ObjectMask) -> ResultFrame:
        """Encode a mask; an invisible or empty one has neither box nor run lengths.

        Raises:
            ValueError: The mask's size differs from the frame's, or the score is not finite.
        """
        if not math.isfinite(item.score):
            raise ValueError(f"object {object_id}, frame {frame.index}: the score is {item.score}")
        mask = visible_mask(frame, object_id, item)
        box = mask_box(mask)
        return cls(
            frame_index=frame.index,
            timestamp_seconds=frame.timestamp_seconds,
            visible=box is not None,
            score=float(item.score),
            box_xyxy=None if box is None else list(box),
            rle=None if box is None else encode_rle(mask),
        )

    @property
    def area(self) -> int:
        """Number of pixels of the mask."""
        return 0 if self.rle is None else rle_area(self.rle)

    def mask(self, frame_size: tuple[int, int]) -> NDArray[np.bool_]:
        """Decode the mask (H, W), which is empty if the object is not visible."""
        return np.zeros(frame_size, dtype=bool) if self.rle is None else decode_rle(self.rle)


class MaskSequence(Sequence[NDArray[np.bool_]]):
    """The masks (H, W) of one object, decoded when they are read; a slice is one array (n, H, W)."""

    def __init__(self, frames: Sequence[ResultFrame], frame_size: tuple[int, int]) -> None:
        self._frames, self._size = frames, frame_size

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int | slice) -> Any:
        """Decode the mask at a position, or those of a slice.

        Raises:
            IndexError: The position is outside the frames.
        """
        if isinstance(index, slice):
            masks = [self[position] for position in range(len(self))[index]]
            return np.stack(masks) if masks else np.zeros((0, *self._size), dtype=bool)
        return self._frames[index].mask(self._size)

    def __repr__(self) -> str:
        return f"{len(self)} masks of {self._size[1]} x {self._size[0]} pixels"


class ResultObject:
    """Result of one object in a video.

    Attributes:
        id: Its id, as in `[1]`.
        source: Kind of its prompt: "point", "box", "mask" or "language".
        expression: Text that describes it; None for visual prompts.
        anchor_frame: Index of the frame on which it was segmented first.
        frame_size: (H, W) of the video.
    """

    def __init__(
        self,
        object_id: int,
        *,
        source: str,
        frame_size: tuple[int, int],
        expression: str | None = None,
        anchor_frame: int = 0,
        frames: Callable[[], list[ResultFrame]] | None = None,
    ) -> None:
        """Create a result without frames, or with those that a function returns when they are first read."""
        self.id, self.source, self.expression, self.anchor_frame = object_id, source, expression, anchor_frame
        self.frame_size = frame_size
        self._read = frames
        self._frames: list[ResultFrame] | None = None if frames else []

    @property
    def frames(self) -> list[ResultFrame]:
        """One record per frame, ordered by index."""
        if self._frames is None:
            self._frames = self._read() if self._read else []
        return self._frames

    def frame(self, frame_index: int) -> ResultFrame | None:
        """Return the record of a frame, or None if there is none."""
        position = bisect.bisect_left(self.frames, frame_index, key=lambda record: record.frame_index)
        is_known = position < len(self.frames) and self.frames[position].frame_index == frame_index
        return self.frames[position] if is_known else None

    @property
    def masks(self) -> MaskSequence:
        """The mask (H, W) of each frame, decoded when it is read."""
        return MaskSequence(self.frames, self.frame_size)

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """(T, 4) box of each frame in pixels, right and bottom exclusive; NaN where the object is not visible."""
        missing = [math.nan] * 4
        rows = [[*map(float, frame.box_xyxy)] if frame.box_xyxy else missing for frame in self.frames]
        return np.array(rows, dtype=np.float32).reshape(-1, 4)

    @property
    def scores(self) -> NDArray[np.float32]:
        """(T,) confidence of each frame in 0..1."""
        return np.array([frame.score for frame in self.frames], dtype=np.float32)

    @property
    def visible(self) -> NDArray[np.bool_]:
        """(T,) whether the object is in each frame; see `ResultFrame`."""
        return np.array([frame.visible for frame in self.frames], dtype=bool)

    @property
    def low_confidence(self) -> list[tuple[int, int]]:
        """First and last frame of each stretch in which the masks are uncertain; see `unipixel.output.confidence`."""
        pixels = self.frame_size[0] * self.frame_size[1]
        return low_confidence_ranges(
            (
                frame.frame_index,
                is_uncertain(visible=frame.visible, score=frame.score, area=frame.area, num_pixels=pixels),
            )
            for frame in self.frames
        )

    def describe(self) -> str:
        """Return a line such as "[1] point: visible in 80 of 80 frames, low confidence after frame 40"."""
        name = f' "{self.expression}"' if self.expression else ""
        text = f"[{self.id}] {self.source}{name}: visible in {int(self.visible.sum())} of {len(self.frames)} frames"
        return ", ".join([text, *filter(None, [self.describe_confidence()])])

    def describe_confidence(self) -> str:
        """Return where the masks are uncertain, in words; empty where they are not."""
        return describe_ranges(self.low_confidence, num_frames=len(self.frames))

    def to_dict(self) -> dict[str, Any]:
        """Return the object as in `result.json`."""
        return {
            "id": self.id,
            "source": self.source,
            "expression": self.expression,
            "anchor_frame": self.anchor_frame,
            "low_confidence": [list(frames) for frames in self.low_confidence],
            "frames": [asdict(frame) for frame in self.frames],
        }

    def __repr__(self) -> str:
        return f"<ResultObject {self.describe()}>"
