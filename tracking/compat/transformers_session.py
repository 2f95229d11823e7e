"""Session and output of transformers' SAM 2 video model, with the object states of this project.

Shape letters: B objects, H/W size of the video, h/w side of low-resolution masks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from unipixel.tracking.clip_features import EncodedClip
from unipixel.tracking.track_state import ObjectState
from unipixel.tracking.tracker_core import TrackerCore
from unipixel.tracking.types import FrameFeatures, SegmentPrompt


@dataclass
class Sam2VideoInferenceSession:
    """A clip or a stream, and the states of its objects.

    Attributes:
        core: SAM 2.1 with the settings of this video.
        clip: The frames of a clip, encoded on access; None for a stream.
        size: (H, W) of a stream, or None if it is not known yet.
        newest: Index and features of the newest frame of a stream.
        objects: States by object id.
        pending: Inputs for later frames of a stream, by frame and object.
    """

    core: TrackerCore
    clip: EncodedClip | None = None
    size: tuple[int, int] | None = None
    newest: tuple[int, FrameFeatures] | None = None
    objects: dict[int, ObjectState] = field(default_factory=dict)
    pending: dict[int, dict[int, SegmentPrompt | Tensor]] = field(default_factory=dict)

    @property
    def obj_ids(self) -> list[int]:
        """Ids of all objects, in the order in which they were added."""
        pending = [object_id for inputs in self.pending.values() for object_id in inputs]
        return list(dict.fromkeys([*self.objects, *pending]))

    @property
    def num_frames(self) -> int | None:
        """Number of frames of a clip; None for a stream."""
        return None if self.clip is None else len(self.clip)

    @property
    def video_size(self) -> tuple[int, int] | None:
        """(H, W) of the video, or None if it is not known yet."""
        return self.size if self.clip is None else self.clip.size

    def check_frame(self, frame_idx: int) -> None:
        """Check that a frame can be prompted.

        Raises:
            IndexError: The frame is not in the clip.
            ValueError: The frame is an earlier one of the stream.
        """
        if self.clip is not None:
            self.clip.check_index(frame_idx)
        elif self.newest is not None and frame_idx <= self.newest[0]:
            raise ValueError(
                f"frame {frame_idx} of the stream was processed already and is not stored: "
                f"give inputs for frame {self.newest[0] + 1} or later"
            )

    def reset_inference_session(self) -> None:
        """Remove all objects; a clip stays open, a stream restarts at frame 0."""
        self.objects.clear()
        self.pending.clear()
        self.newest = None


@dataclass(frozen=True)
class Sam2VideoSegmentationOutput:
    """Output of the model for one frame.

    Attributes:
        object_ids: B ids, in the order of the masks.
        pred_masks: (B, 1, h, w) logits at the model's resolution; see `Sam2VideoModel.post_process_masks`.
        object_score_logits: (B, 1), positive where the object is in the frame.
        frame_idx: Index of the frame.
    """

    object_ids: list[int]
    pred_masks: Tensor
    object_score_logits: Tensor
    frame_idx: int
