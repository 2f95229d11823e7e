"""What all visitors of a server share: the model, the ceilings, the line before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.sessions.work_queue import WorkQueue
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.session.settings import SessionSettings

_NUM_READERS = 2


@dataclass
class ServerContext:
    """Shared by all visitors; nothing in it belongs to one of them.

    Attributes:
        model: The model.
        processor: Prepares its inputs.
        limits: What a visitor is granted.
        settings: How sessions work; its ceilings give way to `limits`.
        model_name: Name of the model, for results.
        line: Where work for the model waits.
        readers: Where the reading and writing of whole videos waits.
        make_room: Called with a visitor before that takes memory.
    """

    model: UniPixel
    processor: Processor
    limits: Limits
    settings: SessionSettings = field(default_factory=SessionSettings)
    model_name: str | None = None
    make_room: Callable[[Any], None] = lambda _: None

    def __post_init__(self) -> None:
        limits = self.limits
        share = int(limits.max_memory_megabytes * MEGABYTE / limits.max_sessions / 2)
        self.settings = replace(
            self.settings,
            max_objects=limits.max_objects,
            max_feature_bytes=max(1, min(self.settings.max_feature_bytes, share)),
        )
        self.line = WorkQueue(num_slots=limits.max_workers, max_waiting=limits.max_waiting)
        self.readers = WorkQueue(num_slots=_NUM_READERS, max_waiting=limits.max_waiting)
