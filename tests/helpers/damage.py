"""Damage to the content of files: cuts, flipped bits, zeros, repeats, and for text the replacement of values."""

from __future__ import annotations

import copy
import json
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**12, 1e308, float("nan"), "", "x", "\x00", [], {}, [[]], {"a": {}}, [1, 2], "9" * 50,
)  # fmt: skip


_ALLOWED_BYTES = 4 * 2**30


@contextmanager
def limited_memory() -> Iterator[None]:
    """Let an allocation that is far above what small files need raise MemoryError, which is no documented exception."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + _ALLOWED_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def damaged_bytes(content: bytes, choose: random.Random) -> bytes:
    """Return bytes after one to three random damages."""
    damaged = bytearray(content)
    for _ in range(choose.randint(1, 3)):
        place, length = choose.randrange(max(len(damaged), 1)), choose.randint(1, 64)
        kind = choose.choice(["cut", "flip", "header", "zero", "repeat", "insert"])
        if kind == "cut":
            del damaged[place:]
        elif not damaged:
            continue
        elif kind == "flip":
            damaged[place] ^= 1 << choose.randrange(8)
        elif kind == "header":
            damaged[place % min(len(damaged), 256)] = choose.randrange(256)
        elif kind == "zero":
            damaged[place : place + length] = bytes(len(damaged[place : place + length]))
        elif kind == "repeat":
            damaged[place:place] = damaged[place : place + length]
        else:
            damaged[place:place] = choose.randbytes(length)
    return bytes(damaged)


def damaged_json(content: bytes, choose: random.Random) -> bytes:
    """Return JSON, or a line of JSONL, in which some values were replaced, removed or repeated; half are bytes."""
    if choose.random() < 0.4:
        return damaged_bytes(content, choose)
    lines = content.decode("utf-8").splitlines() if b"\n{" in content else [content.decode("utf-8")]
    place = choose.randrange(len(lines))
    document = json.loads(lines[place])
    for _ in range(choose.randint(1, 3)):
        parents = list(_containers(document))
        parent = choose.choice(parents)
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        if not keys:
            continue
        key = choose.choice(keys)
        action = choose.random()
        if action < 0.7:
            parent[key] = copy.deepcopy(choose.choice(_VALUES))
        elif action < 0.85:
            del parent[key]
        elif isinstance(parent, dict):
            parent[f"{key}_"] = copy.deepcopy(parent[key])
        else:
            parent.append(copy.deepcopy(parent[key]))
    lines[place] = json.dumps(document)
    return "\n".join(lines).encode("utf-8")


def _containers(value: Any) -> Any:
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _containers(item)
