"""One question about one video in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.video.images import read_mask

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel
    from unipixel.output.result import Result
    from unipixel.processing.processor import Processor
    from unipixel.sail.pixel_sail import PixelSail
    from unipixel.sail.sail_processor import SailProcessor

DEFAULT_MODEL = "unipixel-nano"
_FORMS = {
    "points": "{1: (x, y, frame)}, or a list of such points for an object",
    "boxes": "{1: (left, top, right, bottom, frame)}",
    "masks": "{1: (mask or file, frame)}",
}


def ask(
    video: Any,
    question: str,
    *,
    points: Mapping[int, Any] | None = None,
    boxes: Mapping[int, Sequence[float]] | None = None,
    masks: Mapping[int, Any] | None = None,
    model: str | Path | UniPixel | PixelSail = DEFAULT_MODEL,
    processor: Processor | SailProcessor | None = None,
    device: str = "auto",
    **settings: Any,
) -> Result:
    """Ask one question about a video; get the answer, and the masks of its objects.

    The model is loaded for this call. For several questions, or to keep the model, use `Session`.

    Args:
        video: Any source that `open_video` accepts.
        question: The question; `[id]` names an object of the prompts.
        points: Clicks by object id, as (x, y) or (x, y, frame) in pixels, or a list of them.
        boxes: Boxes by object id, as (left, top, right, bottom) or with the frame as fifth value.
        masks: Masks by object id, an array (H, W) or an image file, or a pair of it and the frame.
        model: A bundled name, a folder, a hub id, or a loaded model.
        processor: Of a loaded model; None loads that of the checkpoint.
        device: Device of a model that is loaded here; `auto` is the first GPU, or the CPU.
        settings: Fields of `SessionSettings`, such as `num_frames`.

    Raises:
        OSError: The video or the model cannot be read.
        ValueError: A prompt is outside the video, or the question names an unknown object.
        TypeError: A prompt has another form, a setting is unknown, or a loaded model has no processor.
    """
    from unipixel.checkpoints.architecture import load_checkpoint
    from unipixel.session.session import open_session
    from unipixel.session.settings import SessionSettings

    prompts = read_prompt_values(points=points, boxes=boxes, masks=masks)
    if isinstance(model, str | Path):
        loaded, found = load_checkpoint(model, device=device)
        processor = processor or found
    else:
        loaded = model
    if processor is None:
        raise TypeError("a loaded model needs its processor: give processor=Processor.from_pretrained(...)")
    session = open_session(loaded, processor, video, settings=SessionSettings(**settings))
    for object_id, group in prompts.items():
        session.prompt(object_id, *group)
    result = session.ask(question)
    result.model = str(model) if isinstance(model, str | Path) else None
    return result


def read_prompt_values(
    *, points: Mapping[int, Any] | None, boxes: Mapping[int, Any] | None, masks: Mapping[int, Any] | None
) -> dict[int, list[VisualPrompt]]:
    """Convert prompts that are given as plain values; see `ask`.

    Raises:
        TypeError: One has another form.
        OSError: A mask file cannot be read.
    """
    prompts: dict[int, list[VisualPrompt]] = {}
    for kind, given in (("masks", masks), ("boxes", boxes), ("points", points)):
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise TypeError(f"{kind} must have the form {_FORMS[kind]}, got {type(given).__name__}")
        for object_id, value in given.items():
            if isinstance(object_id, bool) or not isinstance(object_id, int):
                raise TypeError(f"{kind} must have the form {_FORMS[kind]}, got the id {object_id!r}")
            prompts.setdefault(object_id, []).extend(_convert(kind, value))
    return prompts


def _convert(kind: str, value: Any) -> list[VisualPrompt]:
    if kind == "masks":
        has_frame = isinstance(value, tuple) and len(value) == 2
        mask, frame = value if has_frame else (value, 0)
        return [MaskPrompt(read_mask(Path(mask)) if isinstance(mask, str | Path) else mask, frame)]
    if kind == "points" and isinstance(value, list):
        return [_point(item) for item in value]
    return [_point(value) if kind == "points" else _box(value)]


def _point(value: Any) -> PointPrompt:
    numbers = _numbers("points", value, (2, 3))
    return PointPrompt(numbers[0], numbers[1], int(numbers[2]) if len(numbers) == 3 else 0)


def _box(value: Any) -> BoxPrompt:
    left, top, right, bottom, *frame = _numbers("boxes", value, (4, 5))
    return BoxPrompt((left, top, right, bottom), int(frame[0]) if frame else 0)


def _numbers(kind: str, value: Any, lengths: tuple[int, int]) -> Sequence[float]:
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_sequence or len(value) not in lengths or not all(isinstance(item, int | float) for item in value):
        raise TypeError(f"{kind} must have the form {_FORMS[kind]}, got {value!r:.80}")
    if len(value) == lengths[1] and value[-1] != value[-1] // 1:
        raise TypeError(f"{kind} must have the form {_FORMS[kind]}, where a frame is an integer, got {value!r:.80}")
    return value
