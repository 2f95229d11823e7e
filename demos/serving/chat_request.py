"""A chat completion request: messages, generation settings, and the extension field `unipixel`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unipixel.demos.limits import Limits
from unipixel.demos.serving.api_errors import ApiError
from unipixel.memory.rle import decode_rle
from unipixel.model.generation import GenerationSettings
from unipixel.processing.visual_prompts import VisualPrompt
from unipixel.session.asking import read_prompt_values

_MEDIA = ("video_url", "image_url")
_SETTINGS = frozenset({"max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop"})
_READ = _SETTINGS | {"model", "messages", "stream", "stream_options", "n", "unipixel"}
# They change nothing in the answer.
_IGNORED = frozenset({"user", "metadata", "store", "safety_identifier", "service_tier"})
_EXTENSION = frozenset({"points", "boxes", "masks", "return_masks", "num_frames"})


@dataclass(frozen=True)
class ChatRequest:
    """One question about one video or image.

    Attributes:
        question: Text of the message.
        media_url: Address of the video or image.
        prompts: Visual prompts by object id.
        generation: Settings of the text generation.
        num_frames: Frames that the language model receives; None for those of the checkpoint.
        returns_masks: Whether the answer contains the masks.
        is_streamed: Whether the answer is sent piece by piece.
        includes_usage: Whether the stream ends with the number of tokens.
    """

    question: str
    media_url: str
    prompts: Mapping[int, list[VisualPrompt]]
    generation: GenerationSettings
    num_frames: int | None
    returns_masks: bool
    is_streamed: bool
    includes_usage: bool


def parse_request(body: Any, *, limits: Limits, max_tokens: int, model_name: str) -> ChatRequest:
    """Check a request.

    Args:
        body: The parsed JSON.
        limits: Limits of the server.
        max_tokens: Maximum number of generated tokens.
        model_name: The only model.

    Raises:
        ApiError: A parameter is wrong, unknown or above a limit.
        ValueError: A value of the generation settings or of a prompt is out of range.
        TypeError: A prompt has another form.
    """
    if not isinstance(body, dict):
        raise ApiError(f"the body must be a JSON object, got {type(body).__name__}")
    given = {name: value for name, value in body.items() if value is not None}
    for name in given.keys() - _READ - _IGNORED:
        raise ApiError(f"the parameter {name!r:.80} is not supported", parameter=name)
    if (name := given.get("model")) != model_name:
        raise ApiError(f"the model {name!r:.80} does not exist: use {model_name!r}", status=404, parameter="model")
    if given.get("n", 1) != 1:
        raise ApiError(f"n must be 1, got {given['n']!r:.80}", parameter="n")
    question, media_url = _read_messages(given.get("messages"), limits)
    extension = _object(given, "unipixel")
    for name in extension.keys() - _EXTENSION:
        allowed = ", ".join(sorted(_EXTENSION))
        raise ApiError(f"unipixel.{name!s:.80} is unknown: allowed are {allowed}", parameter="unipixel")
    num_frames = extension.get("num_frames")
    if num_frames is not None:
        num_frames = _integer("unipixel.num_frames", num_frames, limits.max_frames)
    return ChatRequest(
        question=question,
        media_url=media_url,
        prompts=_read_prompts(extension, limits),
        generation=_read_settings(given, max_tokens),
        num_frames=num_frames,
        returns_masks=_boolean(extension, "return_masks"),
        is_streamed=_boolean(given, "stream"),
        includes_usage=_boolean(_object(given, "stream_options"), "include_usage"),
    )


def _read_messages(messages: Any, limits: Limits) -> tuple[str, str]:
    """Return the question and the address of the media."""
    is_one = isinstance(messages, list) and len(messages) == 1 and isinstance(messages[0], dict)
    if not is_one or messages[0].get("role") != "user":
        raise ApiError(
            "messages must be one message of the role user: conversations and system messages are not supported",
            parameter="messages",
        )
    parts = messages[0].get("content")
    texts, urls = [], []
    for part in parts if isinstance(parts, list) else []:
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind) if isinstance(kind, str) else None
        if kind == "text" and isinstance(value, str):
            texts.append(value)
        elif kind in _MEDIA and isinstance(value, dict) and isinstance(value.get("url"), str):
            urls.append(value["url"])
        else:
            raise ApiError(f"a part of type {kind!r:.80} is not supported or incomplete", parameter="messages")
    if len(urls) != 1 or not texts:
        raise ApiError(
            f"the content must be a list with text and one video_url or image_url, got {len(urls)} of these and "
            f"{len(texts)} texts",
            parameter="messages",
        )
    question = "\n".join(texts)
    if len(question) > limits.max_question_chars:
        raise ApiError(
            f"the question has {len(question)} characters, the maximum is {limits.max_question_chars}",
            parameter="messages",
        )
    return question, urls[0]


def _read_settings(given: dict[str, Any], max_tokens: int) -> GenerationSettings:
    wanted = [given[name] for name in ("max_completion_tokens", "max_tokens") if name in given]
    stop = given.get("stop", [])
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or len(stop) > 4 or not all(isinstance(text, str) and text for text in stop):
        raise ApiError(f"stop must be a text or up to four texts, got {stop!r:.80}", parameter="stop")
    seed = given.get("seed")
    return GenerationSettings(
        max_new_tokens=_integer("max_tokens", wanted[0], max_tokens) if wanted else max_tokens,
        # Greedy by default, as in all of unipixel.
        temperature=_number(given, "temperature", 0.0),
        top_p=_number(given, "top_p", 1.0),
        seed=None if seed is None else _integer("seed", seed, 2**63 - 1, least=0),
        stop_strings=tuple(stop),
    )


def _read_prompts(extension: dict[str, Any], limits: Limits) -> dict[int, list[VisualPrompt]]:
    groups = {
        kind: {_object_id(key): value for key, value in _object(extension, kind).items()}
        for kind in ("points", "boxes", "masks")
    }
    count = sum(len(value) if isinstance(value, list) else 1 for group in groups.values() for value in group.values())
    if len({key for group in groups.values() for key in group}) > limits.max_objects or count > 5 * limits.max_prompts:
        raise ApiError(f"at most {limits.max_objects} objects can be prompted", parameter="unipixel")
    points = {
        key: [tuple(item) if isinstance(item, list) else item for item in value]
        if isinstance(value, list) and value and isinstance(value[0], list)
        else tuple(value)
        if isinstance(value, list)
        else value
        for key, value in groups["points"].items()
    }
    masks = {key: _read_mask(value, limits) for key, value in groups["masks"].items()}
    return read_prompt_values(points=points, boxes=groups["boxes"], masks=masks)


def _read_mask(value: Any, limits: Limits) -> tuple[Any, int]:
    size = value.get("size") if isinstance(value, dict) else None
    sides = size if isinstance(size, list) and len(size) == 2 else []
    is_size = bool(sides) and all(type(side) is int and side > 0 for side in sides)
    if not is_size or sides[0] * sides[1] > limits.max_pixels:
        raise ApiError(
            f"a mask must be run lengths with `size` of up to {limits.max_pixels} pixels and `counts`, got "
            f"{size!r:.80}",
            parameter="unipixel",
        )
    return decode_rle(value), _integer("frame", value.get("frame", 0), limits.max_frames, least=0)


def _object_id(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 4):
        raise ApiError(f"an object id must be an integer from 0 to 9999, got {key!r:.80}", parameter="unipixel")
    return int(key)


def _object(given: dict[str, Any], name: str) -> dict[str, Any]:
    value = given.get(name)
    if value is not None and not isinstance(value, dict):
        raise ApiError(f"{name} must be a JSON object, got {value!r:.80}", parameter=name)
    return value or {}


def _integer(name: str, value: Any, most: int, *, least: int = 1) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ApiError(f"{name} must be an integer from {least} to {most}, got {value!r:.80}", parameter=name)
    return int(value)


def _number(given: dict[str, Any], name: str, default: float) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 100:
        raise ApiError(f"{name} must be a number of at most 100, got {value!r:.80}", parameter=name)
    return float(value)


def _boolean(given: dict[str, Any], name: str) -> bool:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise ApiError(f"{name} must be true or false, got {value!r:.80}", parameter=name)
    return bool(value)
