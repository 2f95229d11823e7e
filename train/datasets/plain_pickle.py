"""Reading of pickled annotations that contain plain values only, without ever importing or calling anything."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MAX_PICKLE_BYTES = 2**30
"""Largest file that is read: several times that of the largest published annotation file."""

# Opcodes of containers, numbers, strings and bytes. A pickle of Python 2 or 3, of any protocol, needs no others; those
# of objects (BUILD, NEWOBJ, OBJ, STACK_GLOBAL), of extensions and of persistent ids are missing on purpose.
_OPCODE_NAMES = (
    "MARK STOP POP POP_MARK DUP FLOAT INT BININT BININT1 LONG BININT2 NONE REDUCE STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE APPEND DICT EMPTY_DICT APPENDS GET BINGET LONG_BINGET LIST EMPTY_LIST PUT BINPUT "
    "LONG_BINPUT SETITEM TUPLE EMPTY_TUPLE SETITEMS BINFLOAT PROTO TUPLE1 TUPLE2 TUPLE3 NEWTRUE NEWFALSE LONG1 LONG4 "
    "BINBYTES SHORT_BINBYTES SHORT_BINUNICODE BINUNICODE8 BINBYTES8 EMPTY_SET ADDITEMS FROZENSET MEMOIZE "
    "FRAME BYTEARRAY8"
)
_OPCODES = frozenset(_OPCODE_NAMES.split())
_MEMO_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_HARMLESS_OPCODES = _OPCODES - _MEMO_OPCODES
_ALLOWED = "only plain containers, numbers, strings and bytes are read"


def read_plain_pickle(path: str | Path, *, max_bytes: int = MAX_PICKLE_BYTES) -> Any:
    """Read a pickle of dicts, lists, tuples, sets, numbers, strings, bytes and None.

    Strings of Python 2 are decoded as UTF-8.

    Args:
        path: The file.
        max_bytes: Largest size of the file.

    Returns:
        The value.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is larger than `max_bytes`, damaged, or contains anything else, which the message names.
    """
    file = Path(path)
    size = file.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{file} has {size} bytes: at most {max_bytes} are read from a pickle")
    content = file.read_bytes()
    try:
        _check_opcodes(content)
        return _PlainUnpickler(io.BytesIO(content), encoding="utf-8").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file} is refused: {error}") from error
    # What pickle and pickletools raise for damaged content.
    except (ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{file} is not a readable pickle: {error}") from error


def _check_opcodes(content: bytes) -> None:
    """Refuse opcodes of objects, and memo indices that would make the unpickler reserve memory without limit."""
    operations: Iterable[tuple[Any, Any, Any]] = pickletools.genops(content)
    for opcode, argument, position in operations:
        name = opcode.name
        if name in _HARMLESS_OPCODES:
            continue
        if name in ("GLOBAL", "INST"):
            name = "" if tuple(argument.split(" ", 1)) in _CALLABLES else argument.replace(" ", ".")
        elif name == "STACK_GLOBAL":
            name = _class_name(content, position)
        if name and name not in _OPCODES:
            raise pickle.UnpicklingError(f"it contains {name} at byte {position}, but {_ALLOWED}")
        if opcode.name in _MEMO_OPCODES and int(argument) > len(content):
            raise pickle.UnpicklingError(f"the memo index {argument} at byte {position} is out of range")


def _class_name(content: bytes, end: int) -> str:
    """Return the name that the STACK_GLOBAL at a position refers to: the last two strings before it."""
    memo: dict[int, Any] = {}
    pushed: list[Any] = [None, None]
    operations: Iterable[tuple[Any, Any, Any]] = pickletools.genops(content)
    for opcode, argument, position in operations:
        if position >= end:
            break
        if opcode.name == "MEMOIZE":
            memo[len(memo)] = pushed[-1]
        elif opcode.name in _MEMO_OPCODES:
            memo[int(argument)] = pushed[-1]
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            pushed.append(memo.get(int(argument)))
        elif opcode.stack_after:
            pushed.append(argument)
    return f"{pushed[-2]}.{pushed[-1]}"


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler whose only callables make bytes and sets, which old protocols write as calls."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        found = _CALLABLES.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, but {_ALLOWED}")
        return found


def _latin1_bytes(text: str, encoding: str) -> bytes:
    if encoding.replace("-", "") != "latin1":
        raise pickle.UnpicklingError(f"it contains bytes in the encoding {encoding!r}, but only latin1 is read")
    return text.encode("latin-1")


def _empty_bytes() -> bytes:
    return b""


_CALLABLES: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _latin1_bytes,
    ("builtins", "bytes"): _empty_bytes,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    # Names of Python 2, which protocols 0 to 2 keep.
    ("__builtin__", "bytes"): _empty_bytes,
    ("__builtin__", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
}
