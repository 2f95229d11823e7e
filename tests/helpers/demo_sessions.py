"""A session store with a tiny random model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.byte_model import tiny_model_and_processor
from helpers.moving_square import write_clip
from unipixel.demos.limits import Limits
from unipixel.demos.sessions.events import Event
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession
from unipixel.model.generation import GenerationSettings
from unipixel.session.settings import SessionSettings

SETTINGS = SessionSettings(num_frames=4, generation=GenerationSettings(max_new_tokens=5))


def make_store(folder: Path | None = None, **limits: Any) -> SessionStore:
    return SessionStore(
        *tiny_model_and_processor(), limits=Limits(**limits), folder=folder, settings=SETTINGS, model_name="tiny"
    )


def open_session_with_clip(
    store: SessionStore, tmp_path: Path, *, num_frames: int = 6, is_trusted: bool = True
) -> UserSession:
    """A session with the video of a moving square; a trusted video needs no sandbox process."""
    path = tmp_path / f"clip-{num_frames}.mp4"
    if not path.exists():
        write_clip(path, num_frames=num_frames)
    user_session = store.open()
    user_session.load(path, is_trusted=is_trusted)
    return user_session


def track(user_session: UserSession) -> list[Event]:
    return list(user_session.track())
