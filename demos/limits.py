"""Limits of a demo server, set by its operator."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

MEGABYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        max_sessions: Sessions in memory at the same time; others are offloaded to disk.
        max_saved_sessions: Sessions in memory or on disk; at least `max_sessions` are kept.
        max_sessions_per_client: Sessions of one client, in memory or on disk.
        max_live_sessions_per_client: Live sessions of one client.
        min_idle_seconds: How long a session must be unused, and open in no page, before it is removed for another one.
        max_memory_megabytes: Memory of all sessions together, without the model.
        max_disk_megabytes: Disk space of all sessions together, with the files that are being received.
        max_disk_megabytes_per_client: Disk space of the sessions of one client.
        max_age_seconds: How long a session is kept after its last use.
        max_upload_megabytes: Size of an uploaded file.
        max_seconds: Duration of a video.
        max_frames: Frames of a video.
        max_pixels: Width times height of a frame.
        max_objects: Objects of one session.
        max_prompts: Clicks, boxes and masks of one object.
        max_turns: Turns of a conversation that are kept; after so many turns the model starts a new conversation, which
            bounds its memory.
        max_question_chars: Characters of a question.
        max_name_chars: Characters of an object's name.
        max_workers: Sessions that use the model at the same time.
        max_waiting: Sessions that may wait for the model.
        max_waiting_per_client: Sessions of one client that may wait for the model.
        max_requests_per_client: Requests of one client at the same time.
        max_work_seconds: Time limit of one action, without waiting.
        decoder_megabytes: Memory of the process that decodes an upload.
        decoder_seconds: CPU time of that process, and time limit of one of its responses.
    """

    max_sessions: int = 8
    max_saved_sessions: int = 64
    max_sessions_per_client: int = 16
    max_live_sessions_per_client: int = 2
    min_idle_seconds: float = 900
    max_memory_megabytes: float = 2048
    max_disk_megabytes: float = 8192
    max_disk_megabytes_per_client: float = 2048
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
    max_waiting_per_client: int = 8
    max_requests_per_client: int = 64
    max_work_seconds: float = 600
    decoder_megabytes: float = 2048
    decoder_seconds: float = 60

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value <= 0:
                raise ValueError(f"{field.name} must be a positive finite number, got {value!r}")
            if field.type == "int" and not isinstance(value, int):
                raise ValueError(f"{field.name} must be an integer, got {value!r}")
