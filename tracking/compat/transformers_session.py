"""What a video session holds, and what it answers: transformers' names over this project's states.

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
    """A clip or a stream, and what its objects remember.

    Attributes:
        core: SAM 2.1 with the settings for this video.
        clip: The frames of a clip, encoded when they are needed; None for a stream.
        size: (H, W) of a stream, once it is known.
        newest: Index and features of a stream's newest frame.
        objects: States by object id.
        pending: Inputs for frames of a stream that are still to come, by frame and object.
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
        waiting = [object_id for inputs in self.pending.values() for object_id in inputs]
        return list(dict.fromkeys([*self.objects, *waiting]))

    @property
    def num_frames(self) -> int | None:
        """Length of a clip; None for a stream."""
        return None if self.clip is None else len(self.clip)

    @property
    def video_size(self) -> tuple[int, int] | None:
        """(H, W) of the video, as far as it is known."""
        return self.size if self.clip is None else self.clip.size

    def check_frame(self, frame_idx: int) -> None:
        """Check that a frame can still be prompted.

        Raises:
            IndexError: It is not in the clip.
            ValueError: The stream has passed it.
        """
        if self.clip is not None:
            self.clip.check_index(frame_idx)
        elif self.newest is not None and frame_idx <= self.newest[0]:
            raise ValueError(
                f"the stream has passed frame {frame_idx} and keeps no frames: "
                f"give inputs for frame {self.newest[0] + 1} or later"
            )

    def reset_inference_session(self) -> None:
        """Forget all objects; a clip stays open, a stream begins anew."""
        self.objects.clear()
        self.pending.clear()
        self.newest = None


@dataclass(frozen=True)
class Sam2VideoSegmentationOutput:
    """Objects on one frame, as the model returns them.

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
