"""What one server grants its visitors; set by whoever starts it, never by a request."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

MEGABYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """Ceilings of a server.

    Attributes:
        max_sessions: Visitors whose videos and objects are in memory at once; others wait on disk.
        max_saved_sessions: Visitors that are kept at all, in memory or on disk; at least those in memory are.
        max_memory_megabytes: Memory of all sessions together, the model left out.
        max_disk_megabytes: Disk that all sessions together may take.
        max_age_seconds: How long a session is kept after it was last used.
        max_upload_megabytes: Size of an uploaded file.
        max_seconds: Length of a video.
        max_frames: Frames of a video.
        max_pixels: Width times height of a picture.
        max_objects: Objects of one visitor.
        max_prompts: Clicks, boxes and masks of one object.
        max_turns: Questions that a conversation keeps; after as many the model begins it anew, so that its
            memory does not grow.
        max_question_chars: Characters of a question.
        max_name_chars: Characters of an object's name.
        max_workers: Visitors that the model works for at the same time.
        max_waiting: Visitors that may wait for it.
        max_work_seconds: How long one action may take once it has begun.
        decoder_megabytes: Memory of the process that reads an upload.
        decoder_seconds: Processor time of that process, and the longest wait for one of its answers.
    """

    max_sessions: int = 8
    max_saved_sessions: int = 64
    max_memory_megabytes: float = 2048
    max_disk_megabytes: float = 8192
    max_age_seconds: float = 6 * 3600
    max_upload_megabytes: float = 64
    max_seconds: float = 60
    max_frames: int = 1800
    max_pixels: int = 1920 * 1088
    max_objects: int = 16
    max_prompts: int = 32
    max_turns: int = 64
    max_question_chars: int = 2000
    max_name_chars: int = 60
    max_workers: int = 1
    max_waiting: int = 16
    max_work_seconds: float = 600
    decoder_megabytes: float = 2048
    decoder_seconds: float = 60

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value <= 0:
                raise ValueError(f"{field.name} must be a finite number above 0, got {value!r}")
            if field.type == "int" and not isinstance(value, int):
                raise ValueError(f"{field.name} must be a whole number, got {value!r}")
