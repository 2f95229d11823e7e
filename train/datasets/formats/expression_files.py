"""Expressions about videos with a dictionary of mask tracks: ReVOS, MeViS, LV-VIS, Ref-YouTube-VOS, Ref-DAVIS17."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from unipixel.train.datasets.published.entries import Group, MaskReference
from unipixel.train.datasets.published.json_members import JsonMembers
from unipixel.train.datasets.published.source_files import SourceFiles, resolve

_MIN_CROPPED_FRAMES = 2


def read_expressions(
    files: SourceFiles,
    *,
    expressions: str,
    masks: str | Sequence[str],
    frames: str | Sequence[str],
    is_positional: bool = False,
    has_questions: bool = False,
    has_underscores: bool = False,
    cropped: Sequence[str] = (),
) -> Iterator[Group]:
    """Yield the expressions of each video; those without an object are dropped.

    Args:
        files: Access to the files.
        expressions: JSON file with `videos[VIDEO].{frames, expressions[ID].{exp, anno_id}}`.
        masks: Dictionary of tracks by annotation id: JSON, or a pickle.
        frames: Folder of `VIDEO/FRAME.jpg`, or alternatives.
        is_positional: Whether a track's id is the number of its expression in the order of the file.
        has_questions: Whether a text that ends with a question mark is a sentence instead of a noun phrase.
        has_underscores: Whether underscores stand for spaces.
        cropped: Videos in these folders are cropped to the frames that show the objects.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: A track is missing, or there are more or fewer than expressions.
    """
    find_tracks, num_tracks = _track_finder(files, masks)
    folder, number = files.choose(frames), 0
    for video, annotation in files.members(expressions, ("videos",)):
        entries, objects = [], {}
        for key, expression in annotation["expressions"].items():
            ids = [str(number)] if is_positional else [str(one) for one in expression["anno_id"]]
            number += 1
            if not ids:
                continue
            name = ",".join(ids)
            if name not in objects:
                objects[name] = find_tracks(ids, f"expression {key} of {video}")
            window = None
            if video.startswith(tuple(f"{one}/" for one in cropped)):
                window = _visible_window(files, objects[name])
                if window[1] - window[0] < _MIN_CROPPED_FRAMES:
                    continue
            text = expression["exp"].replace("_", " ") if has_underscores else expression["exp"]
            text = text.strip()
            form = "sentence" if has_questions and text.endswith("?") else "query"
            entry = {"expressions": [{"id": key, "form": form, "text": text, "object": name}], "object_keys": [name]}
            entries.append(entry if window is None else {**entry, "window": window})
        if entries:
            paths = [f"{folder}/{video}/{frame}.jpg" for frame in annotation["frames"]]
            yield {"name": video, "task": "segment", "media": {"frames": paths}, "objects": objects, "entries": entries}
    if is_positional and number != num_tracks:
        raise ValueError(f"{files.choose(masks)} has {num_tracks} tracks for {number} expressions")


def plain_segment(segment: Any) -> Any:
    """Return a segment of a pickle as JSON: bytes of run lengths become text."""
    if isinstance(segment, Mapping) and isinstance(segment.get("counts"), bytes):
        return {**segment, "counts": segment["counts"].decode("ascii")}
    return segment


def _track_finder(
    files: SourceFiles, masks: str | Sequence[str]
) -> tuple[Callable[[list[str], str], MaskReference], int]:
    """Return a function that refers to the tracks of some ids, and the number of tracks."""
    name = files.choose(masks)

    def missing(ids: Sequence[str], known: Mapping[str, Any], source: str) -> None:
        if unknown := [one for one in ids if one not in known]:
            raise ValueError(f"{files.root / name} has no track {unknown[0]!r}, which {source} names")

    if name.endswith(".json"):
        spans = files.members(name).value_spans()

        def find_spans(ids: list[str], source: str) -> MaskReference:
            missing(ids, spans, source)
            return {"file": name, "spans": [list(spans[one]) for one in ids]}

        return find_spans, len(spans)
    tracks = files.unpickle(name)

    def find_tracks(ids: list[str], source: str) -> MaskReference:
        missing(ids, tracks, source)
        together = zip(*(tracks[one] for one in ids), strict=True)
        return {"track": [[plain_segment(segment) for segment in segments] for segments in together]}

    return find_tracks, len(tracks)


def _visible_window(files: SourceFiles, reference: MaskReference) -> tuple[int, int]:
    """Return the first frame with a mask, and the one after the last."""
    if "track" in reference:
        tracks = [reference["track"]]
    else:
        path = resolve(files.root, reference["file"])
        tracks = [JsonMembers.read_value(path, span) for span in reference["spans"]]
    visible = [index for index, segments in enumerate(zip(*tracks, strict=True)) if any(map(_has_mask, segments))]
    return (visible[0], visible[-1] + 1) if visible else (0, 0)


def _has_mask(segment: Any) -> bool:
    return any(map(_has_mask, segment)) if isinstance(segment, list) else segment is not None
