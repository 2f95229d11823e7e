"""Entries of published training sets: what an annotation file says of one clip or image, before media are read.

Entries are stored as JSON in groups that share their media: the expressions of a video, the sentences of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unipixel.processing.prompt_templates import SegmentationForm

EntryTask = Literal["segment", "classes", "region", "category", "refer", "prefill", "grounded", "converse"]
Group = Mapping[str, Any]
"""JSON of a group: the fields of `Entry` that its entries share, and under `entries` those that differ."""
MaskReference = Mapping[str, Any]
"""JSON of where the masks of one object are; see `unipixel.train.datasets.published.mask_decoding`."""


@dataclass(frozen=True)
class MediaReference:
    """Frames of an entry: image files, or a video file. Paths are relative to the folder of all data sets.

    Attributes:
        frames: Image files of the frames.
        video: Video file; empty where there are image files, or none of both.
        frame_indices: Frames of the video that have masks; empty for all, or every `stride`-th.
        stride: Frames of the video from one with masks to the next.
        is_context: Whether frames are sampled from the whole video, `frame_indices` among them, instead of from
            `frame_indices` alone.
        is_complete: Whether all frames are used instead of a sample.
        fps: Rate at which frames of the video are sampled evenly; None samples at random.
    """

    frames: tuple[str, ...] = ()
    video: str = ""
    frame_indices: tuple[int, ...] = ()
    stride: int = 1
    is_context: bool = False
    is_complete: bool = False
    fps: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there are no frames: a conversation without a clip."""
        return not self.frames and not self.video

    @property
    def is_image(self) -> bool:
        """Whether it is a single image."""
        return len(self.frames) == 1

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the frames."""
        return (self.video,) if self.video else self.frames


@dataclass(frozen=True)
class Expression:
    """A text that refers to something with a mask.

    Attributes:
        id: Its id in the annotations; None where it has none.
        form: Kind of text.
        text: The text; of a part, the names of the object and the part.
        object: Key of its mask in `Entry.objects`.
        answer: Text of the answer beside the mask.
        box_xyxy: Annotated box in pixels of the image, right and bottom exclusive.
        category: Kind of question in the annotations.
    """

    id: str | int | None
    form: SegmentationForm
    text: str | tuple[str, str]
    object: str
    answer: str | None = None
    box_xyxy: tuple[float, ...] | None = None
    category: str | None = None

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Expression:
        """Return the expression of an object of JSON."""
        text, box = given["text"], given.get("box_xyxy")
        return cls(
            **{
                **given,
                "text": tuple(text) if isinstance(text, list) else text,
                "box_xyxy": None if box is None else tuple(box),
            }
        )


@dataclass(frozen=True)
class Entry:
    """One entry of a training set.

    Attributes:
        name: Name of the clip or image.
        task: `segment` asks for the masks of `expressions`, `classes` for those of the classes of a label image,
            `region` asks about objects given by their masks, `category` which of some classes they have,
            `refer` and `prefill` about objects given by a point or box, `grounded` has a mask in its answers for each
            of `targets`, `converse` is about the clip as a whole.
        media: The frames.
        id: Id in the annotations; None where it has none.
        expressions: Expressions, of which some are drawn as turns.
        turns: Questions and answers. Objects are written `[id]`; `<region>` is an object without an id, `<objectK>`
            object K. An empty question is drawn from templates.
        targets: Per turn the objects of the `<|seg|>` of its answer, in their order.
        objects: Masks by object, whose keys are the ids in `turns`.
        size: (H, W) of polygons; None takes that of the frames.
        has_ids: Whether keys of `objects` are ids; otherwise the only object gets a random one.
        window: First frame and end of those that are used; None uses all.
    """

    name: str
    task: EntryTask
    media: MediaReference
    id: str | int | None = None
    expressions: tuple[Expression, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()
    targets: tuple[tuple[str, ...], ...] = ()
    objects: Mapping[str, MaskReference] | None = None
    size: tuple[int, int] | None = None
    has_ids: bool = True
    window: tuple[int, int] | None = None

    @classmethod
    def from_group(cls, group: Group, position: int) -> Entry:
        """Return one entry of a group."""
        given = {name: value for name, value in group.items() if name != "entries"} | group["entries"][position]
        media = given.pop("media", {})
        return cls(
            media=MediaReference(**{name: _tuples(value) for name, value in media.items()}),
            expressions=tuple(Expression.from_json(one) for one in given.pop("expressions", ())),
            turns=tuple((question, answer) for question, answer in given.pop("turns", ())),
            targets=tuple(tuple(keys) for keys in given.pop("targets", ())),
            size=_tuples(given.pop("size", None)),
            window=_tuples(given.pop("window", None)),
            objects=_chosen(given.pop("objects", {}), given.pop("object_keys", None)),
            **given,
        )


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _chosen(objects: Mapping[str, MaskReference], keys: Sequence[str] | None) -> Mapping[str, MaskReference]:
    """Return the objects of an entry, in its order, out of those of its group."""
    return objects if keys is None else {key: objects[key] for key in keys}
