"""What all user sessions of a server share: the model, its limits, and the queue for the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.sessions.work_queue import WorkQueue
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.session.settings import SessionSettings

_NUM_VIDEO_SLOTS = 2


@dataclass
class ServerContext:
    """Shared by all user sessions; contains nothing of a single one.

    Attributes:
        model: The model.
        processor: Prepares the model's inputs.
        limits: Limits of a user session.
        settings: Settings of a session; where `limits` has a limit for the same thing, that one applies.
        model_name: Name of the model, for results.
        queue: Queue for the model.
        video_queue: Queue for reading and writing whole videos.
        free_memory: Called with the `SessionLifecycle` of a session before that session takes memory.
    """

    model: UniPixel
    processor: Processor
    limits: Limits
    settings: SessionSettings = field(default_factory=SessionSettings)
    model_name: str | None = None
    free_memory: Callable[[Any], None] = lambda _: None

    def __post_init__(self) -> None:
        limits = self.limits
        share = int(limits.max_memory_megabytes * MEGABYTE / limits.max_sessions / 2)
        self.settings = replace(
            self.settings,
            max_objects=limits.max_objects,
            max_feature_bytes=max(1, min(self.settings.max_feature_bytes, share)),
        )
        self.queue = WorkQueue(num_slots=limits.max_workers, max_waiting=limits.max_waiting)
        self.video_queue = WorkQueue(num_slots=_NUM_VIDEO_SLOTS, max_waiting=limits.max_waiting)
