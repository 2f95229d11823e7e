"""Byte positions of the members of a large JSON file, which is never parsed as a whole.

The file is read in chunks of fixed size. In each, numpy finds the quotes that are not escaped, which tells strings from
structure, and the brackets and commas outside strings, as simdjson does (arXiv:1902.08318, section 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_CHUNK_BYTES = 2**24
_QUOTE, _BACKSLASH, _COMMA = ord('"'), ord("\\"), ord(",")
_DEPTH_CHANGE = np.zeros(256, np.int8)
_DEPTH_CHANGE[[ord("["), ord("{")]] = 1
_DEPTH_CHANGE[[ord("]"), ord("}")]] = -1
_IS_STRUCTURAL = _DEPTH_CHANGE != 0
_IS_STRUCTURAL[_COMMA] = True


@dataclass(frozen=True)
class JsonMembers:
    """The members of one array or object of a JSON file.

    Attributes:
        path: The file.
        spans: (N, 2) first byte and end of each member; that of an object starts with its key.
        is_object: Whether the members have keys.
    """

    path: Path
    spans: NDArray[np.int64]
    is_object: bool

    @classmethod
    def read(cls, path: Path, keys: Sequence[str] = ()) -> JsonMembers:
        """Find the members of the container that `keys` lead to from the top of the file.

        Args:
            path: A UTF-8 file.
            keys: Keys of nested objects; none for the top of the file.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is not JSON, or has no such container.
        """
        with path.open("rb") as file:
            separators = _find_separators(file, max_depth=len(keys) + 1, name=str(path))
            start, end = _container(file, separators, keys, name=str(path))
            file.seek(start)
            is_object = file.read(1) == b"{"
            spans = _member_spans(separators, start=start, end=end, depth=len(keys) + 1)
            if len(spans) == 1 and not _read_span(file, *spans[0]).strip():
                spans = spans[:0]
        return cls(path, spans, is_object)

    def __len__(self) -> int:
        """Number of members."""
        return len(self.spans)

    def __iter__(self) -> Iterator[Any]:
        """Yield each member, of an object as (key, value).

        Raises:
            ValueError: A member is not JSON.
        """
        with self.path.open("rb") as file:
            for start, end in self.spans.tolist():
                yield self._parse(_read_span(file, start, end), start)

    @staticmethod
    def read_value(path: Path, span: Sequence[int]) -> Any:
        """Parse the bytes of a file from `span[0]` to `span[1]`.

        Raises:
            OSError: The file cannot be read.
            ValueError: The bytes are not JSON.
        """
        with path.open("rb") as file:
            text = _read_span(file, span[0], span[1])
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON at byte {span[0]}: {error}") from error

    def value_spans(self) -> dict[str, tuple[int, int]]:
        """Return first byte and end of the value of each key.

        Raises:
            ValueError: The members have no keys, or a key is not JSON.
        """
        if not self.is_object:
            raise ValueError(f"{self.path} must contain an object, it contains an array")
        found = {}
        with self.path.open("rb") as file:
            for start, end in self.spans.tolist():
                # Long enough for most keys, so that values are not read.
                key, offset = _parse_key(_read_span(file, start, min(end, start + 256)))
                if offset < 0:
                    key, offset = _parse_key(_read_span(file, start, end))
                if offset < 0:
                    raise ValueError(f"{self.path} is not valid JSON at byte {start}: a key is expected")
                found[key] = (start + offset, end)
        return found

    def _parse(self, text: bytes, start: int) -> Any:
        try:
            if not self.is_object:
                return json.loads(text)
            (member,) = json.loads(b"{" + text + b"}").items()
        except ValueError as error:
            raise ValueError(f"{self.path} is not valid JSON in the member at byte {start}: {error}") from error
        return member


@dataclass(frozen=True)
class _Separators:
    """Brackets and commas outside strings, down to a depth.

    Attributes:
        positions: (M,) byte of each.
        characters: (M,) the character.
        depths: (M,) depth of the container that it opens, closes or divides; 1 is the top of the file.
    """

    positions: NDArray[np.int64]
    characters: NDArray[np.uint8]
    depths: NDArray[np.int64]


def _find_separators(file: BinaryIO, *, max_depth: int, name: str) -> _Separators:
    found: list[tuple[NDArray[Any], ...]] = []
    offset, depth, is_in_string = 0, 0, False
    rest = b""
    while chunk := file.read(_CHUNK_BYTES):
        text = rest + chunk
        # A backslash belongs to the character after it: a run of them at the end waits for the next chunk.
        stripped = text.rstrip(b"\\")
        text, rest = stripped, text[len(stripped) :]
        if not text:
            continue
        data = np.frombuffer(text, np.uint8)
        quotes = data == _QUOTE
        quotes[_escaped(data)] = False
        inside = np.bitwise_xor.accumulate(quotes) ^ is_in_string
        positions = np.flatnonzero(_IS_STRUCTURAL[data] & ~inside)
        characters = data[positions]
        change = _DEPTH_CHANGE[characters]
        after = depth + np.cumsum(change, dtype=np.int64)
        depths = np.where(change < 0, after + 1, after)
        kept = depths <= max_depth
        found.append((positions[kept] + offset, characters[kept], depths[kept]))
        if len(after):
            depth = int(after[-1])
            if after.min() < 0:
                raise ValueError(f"{name} is not valid JSON: a bracket closes nothing")
        is_in_string = bool(inside[-1])
        offset += len(text)
    if not found or depth or is_in_string or rest:
        raise ValueError(f"{name} is not valid JSON: it ends within {'a string' if is_in_string else 'a container'}")
    positions, characters, depths = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _Separators(positions, characters, depths)


def _escaped(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the positions of the characters that are escaped by a backslash."""
    slashes = np.flatnonzero(data == _BACKSLASH)
    if not len(slashes):
        return slashes
    breaks = np.flatnonzero(np.diff(slashes) != 1)
    starts = slashes[np.concatenate([[0], breaks + 1])]
    ends = slashes[np.concatenate([breaks, [len(slashes) - 1]])]
    return ends[(ends - starts) % 2 == 0] + 1


def _container(file: BinaryIO, separators: _Separators, keys: Sequence[str], *, name: str) -> tuple[int, int]:
    """Return first and last byte of the container that the keys lead to."""
    if not len(separators.positions):
        raise ValueError(f"{name} must contain an array or object")
    start, end = int(separators.positions[0]), int(separators.positions[-1])
    for depth, wanted in enumerate(keys, start=1):
        members = {}
        for first, last in _member_spans(separators, start=start, end=end, depth=depth).tolist():
            key, offset = _parse_key(_read_span(file, first, min(last, first + 256)))
            if offset >= 0:
                members[key] = (first + offset, last)
        if wanted not in members:
            raise ValueError(f"{name} has no key {wanted!r}: it has {list(members)[:10]}")
        first, last = members[wanted]
        inside = (separators.positions >= first) & (separators.positions < last) & (separators.depths == depth + 1)
        if not inside.any():
            raise ValueError(f"{name}: {wanted!r} must be an array or object")
        bounds = separators.positions[inside]
        start, end = int(bounds[0]), int(bounds[-1])
    return start, end


def _member_spans(separators: _Separators, *, start: int, end: int, depth: int) -> NDArray[np.int64]:
    """Return the spans (N, 2) between the commas of a container, given its first and last byte."""
    positions = separators.positions
    commas = (separators.characters == _COMMA) & (separators.depths == depth) & (positions > start) & (positions < end)
    edges = np.concatenate([[start], positions[commas], [end]])
    return np.stack([edges[:-1] + 1, edges[1:]], axis=1)


def _parse_key(text: bytes) -> tuple[str, int]:
    """Parse the key at the start of a member; return it and the offset of its value, -1 where there is no key."""
    stripped = text.lstrip()
    end = 1
    while end < len(stripped) and stripped[end] != _QUOTE:
        end += 2 if stripped[end] == _BACKSLASH else 1
    colon = stripped.find(b":", end)
    if not stripped.startswith(b'"') or colon < 0:
        return "", -1
    return json.loads(stripped[: end + 1]), len(text) - len(stripped) + colon + 1


def _read_span(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)
