"""What all user sessions of a server share: the model, its limits, and the queue for the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.sessions.work_queue import InteractiveAccess, WorkQueue
from unipixel.demos.worker_threads import WorkerThreads
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
        segmenter_name: Name of the model that segments clicks and tracks; None for that model.
        queue: Queue for the model.
        video_queue: Queue for reading and writing whole videos.
        interactive: Access to the model for single clicks, for which the work of `queue` pauses.
        threads: Starts the threads that work for sessions.
        free_memory: Called with the `SessionLifecycle` of a session before that session takes memory.
        check_disk: Called with the client of a session before that session writes a large file.
    """

    model: UniPixel
    processor: Processor
    limits: Limits
    settings: SessionSettings = field(default_factory=SessionSettings)
    model_name: str | None = None
    segmenter_name: str | None = None
    threads: WorkerThreads = field(default_factory=WorkerThreads)
    free_memory: Callable[[Any], None] = lambda _: None
    check_disk: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        limits = self.limits
        share = int(limits.max_memory_megabytes * MEGABYTE / limits.max_sessions / 2)
        self.settings = replace(
            self.settings,
            max_objects=limits.max_objects,
            max_feature_bytes=max(1, min(self.settings.max_feature_bytes, share)),
            max_upsampled_bytes=max(1, min(self.settings.max_upsampled_bytes, share)),
        )
        counts = {"max_waiting": limits.max_waiting, "max_waiting_per_client": limits.max_waiting_per_client}
        self.queue = WorkQueue(num_slots=limits.max_workers, **counts)
        self.video_queue = WorkQueue(num_slots=_NUM_VIDEO_SLOTS, **counts)
        self.interactive = InteractiveAccess(**counts)

    @property
    def model_names(self) -> dict[str, str]:
        """Names of the models that answer, and that segment and track."""
        answers = self.model_name or "unknown"
        return {"answers": answers, "segments": self.segmenter_name or answers}
