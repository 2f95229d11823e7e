"""The bodies of requests to the routes, checked by pydantic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from unipixel.demos.export.downloads import DownloadRequest
from unipixel.demos.export.effects import BackgroundEffect, EffectSettings, ObjectEffect
from unipixel.memory.injection import MAX_OBJECT_ID
from unipixel.memory.records import MAX_FRAME_INDEX
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt, VisualPrompt
from unipixel.session.range_tracking import FrameRange
from unipixel.tracking.propagation import Direction

ObjectId = Annotated[int, Field(ge=0, le=MAX_OBJECT_ID, description="A known object; 0 for a new one.")]
KnownId = Annotated[int, Field(ge=1, le=MAX_OBJECT_ID, description="A known object.")]
FrameIndex = Annotated[int, Field(ge=0, le=MAX_FRAME_INDEX, description="Index of the frame, from 0.")]
Point = tuple[FiniteFloat, FiniteFloat, Literal[0, 1]]
Box = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
MAX_PROMPTS_PER_REQUEST = 64


class RequestBody(BaseModel):
    """A body; unknown fields are refused, so that a misspelled one is noticed."""

    model_config = ConfigDict(extra="forbid", strict=False)


class PromptsBody(RequestBody):
    """Clicks and a box on one frame of one object."""

    object_id: ObjectId = 0
    frame: FrameIndex = 0
    points: Annotated[list[Point], Field(max_length=MAX_PROMPTS_PER_REQUEST)] = []
    box: Box | None = None

    def prompts(self) -> list[VisualPrompt]:
        """Return the prompts, the box first."""
        boxes: list[VisualPrompt] = [] if self.box is None else [BoxPrompt(self.box, self.frame)]
        return [*boxes, *(PointPrompt(x, y, self.frame, label == 1) for x, y, label in self.points)]


class PreviewBody(RequestBody):
    """A click that is not stored."""

    object_id: ObjectId = 0
    frame: FrameIndex = 0
    point: Point

    def prompt(self) -> PointPrompt:
        """Return the click."""
        x, y, label = self.point
        return PointPrompt(x, y, self.frame, label == 1)


class ObjectBody(RequestBody):
    """One object."""

    object_id: KnownId


class NameBody(ObjectBody):
    """One object and its new name."""

    name: str = ""


class ExampleBody(RequestBody):
    """An example."""

    number: int = 1


class QuestionBody(RequestBody):
    """A question."""

    question: str


class QueryBody(RequestBody):
    """A phrase, or a question about it."""

    query: str


class AddressBody(RequestBody):
    """A network address."""

    address: str


class TrackBody(RequestBody):
    """A range of frames; see `FrameRange`."""

    frame: FrameIndex | None = None
    direction: Direction = "both"
    first: FrameIndex | None = None
    last: FrameIndex | None = None
    stride: Annotated[int, Field(ge=1, le=10_000)] = 1
    object_ids: Annotated[list[KnownId], Field(max_length=1024)] | None = None

    def frames(self) -> FrameRange:
        """Return the range."""
        return FrameRange(self.frame, self.direction, self.first or 0, self.last, self.stride)


class ExportBody(RequestBody):
    """A file of results; see `EffectSettings`."""

    kind: str
    background: BackgroundEffect = "keep"
    objects: Annotated[dict[KnownId, ObjectEffect], Field(max_length=1024)] = {}
    default: ObjectEffect = "keep"

    def request(self) -> DownloadRequest:
        """Return the request."""
        return DownloadRequest(self.kind, EffectSettings(self.background, self.objects, self.default))


def describe_error(error: RequestValidationError) -> tuple[str, str]:
    """Return the message about the first invalid value of a request, and the field of `DemoError`."""
    first: dict[str, Any] = dict(error.errors()[0])
    if first.get("type") == "json_invalid":
        return "the body must be JSON", "session"
    places = [str(part) for part in first.get("loc", ()) if part not in ("body", "query", "path")]
    name = ".".join(places) or "the body"
    given = "" if first.get("type") in ("missing", "extra_forbidden") else f", got {first.get('input')!r:.60}"
    message = str(first.get("msg", "is invalid"))
    field = {"question": "question", "query": "question", "name": "name", "kind": "download", "address": "source"}
    return f"{name}: {message[:1].lower()}{message[1:]}{given}", field.get(places[0] if places else "", "prompt")
