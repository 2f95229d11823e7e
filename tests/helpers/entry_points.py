"""Malformed values, and calls of the public entry points that take them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import unipixel
from unipixel import BoxPrompt, MaskPrompt, PointPrompt
from unipixel.memory.rle import decode_rle, encode_rle

Call = Callable[[Any], Any]


def values(choose: random.Random) -> Any:
    """Return a malformed value, or one of another type."""
    plain: list[Any] = [
        None, True, -1, 0, 1.5, 10**30, float("nan"), float("inf"), "", " ", "x", "\x00", b"x", [], (), {}, {"a": 1},
        {1: (1, 2)}, set(), object(), 1j, [1, 2], (1, 2, 3), [[1]], ["a"], Path("missing"), Path("\x00"), [None],
        {"size": [4, 4], "counts": "x"}, {"size": None, "counts": None}, range(3), iter(()), Exception("x"),
    ]  # fmt: skip
    arrays: list[Any] = [
        np.zeros(0), np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8),
        np.full((2, 4, 4, 3), np.nan), np.zeros((2, 2, 2, 2, 2), np.uint8), np.array("x"), np.array([None]),
        np.ones((40, 56), bool), torch.zeros(()), torch.zeros(3, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        torch.full((2, 2), float("nan")), Image.new("P", (4, 4)), Image.new("RGBA", (3, 2)), Image.new("I;16", (3, 2)),
    ]  # fmt: skip
    inner = choose.choice(plain)
    prompts: list[Any] = [
        PointPrompt(inner, 2), PointPrompt(3, 4, inner), BoxPrompt(inner), BoxPrompt((1, 2, 3, inner)),
        BoxPrompt((1, 2, 9, 9), inner), MaskPrompt(inner), MaskPrompt(choose.choice(arrays)),
        MaskPrompt(np.ones((40, 56)), inner), PointPrompt(3, 4, is_positive=False),
        PointPrompt(3, 4, is_positive=inner),
    ]  # fmt: skip
    return choose.choice([*plain, *arrays, *prompts])


def entry_points(
    *, model: Any, processor: Any, clip: Path, checkpoint: Path, folder: Path, frames: list[np.ndarray]
) -> Mapping[str, Call]:
    """Return functions of one value by name; state is created anew in each call."""
    brief = unipixel.SessionSettings(num_frames=2, generation=unipixel.GenerationSettings(max_new_tokens=1))
    live_brief = unipixel.LiveSettings(num_frames=2, generation=brief.generation)

    def session() -> Any:
        return unipixel.Session(model, processor, frames[:3], settings=brief)

    def live() -> Any:
        opened = unipixel.LiveSession(model, processor, settings=live_brief)
        opened.step(frames[0])
        return opened

    def tracker() -> Any:
        opened = unipixel.StreamingTracker(model.sam2)
        opened.step(frames[0])
        return opened

    def bank() -> Any:
        filled = unipixel.ObjectMemoryBank((40, 56))
        filled.add(1, source="point")
        return filled

    def result() -> Any:
        opened = session()
        opened.bank.add(1, source="point")
        opened.bank.update(1, 0, np.ones((40, 56), bool))
        return opened.result()

    def ask(**options: Any) -> Any:
        given = {"video": frames[:3], "question": "What?", "model": model, "processor": processor} | options
        return unipixel.ask(given.pop("video"), given.pop("question"), **given, num_frames=2,
                            generation=brief.generation)  # fmt: skip

    video = unipixel.open_video(clip)
    calls: dict[str, Call] = {
        "open_video": unipixel.open_video,
        "open_video max_frames": lambda value: unipixel.open_video(frames, max_frames=value),
        "open_video fps": lambda value: unipixel.open_video(frames, fps=value),
        "open_video max_pixels": lambda value: unipixel.open_video(frames, max_pixels=value),
        "video.read": lambda value: video.read(value),
        "video[]": lambda value: video[value],
        "Session": lambda value: unipixel.Session(model, processor, value, settings=brief),
        "session.prompt id": lambda value: session().prompt(value, PointPrompt(3, 4)),
        "session.prompt": lambda value: session().prompt(1, value),
        "session.ask": lambda value: session().ask(value),
        "session.segment": lambda value: session().segment(value),
        "session.forget": lambda value: session().forget(value),
        "ask video": lambda value: ask(video=value),
        "ask question": lambda value: ask(question=value),
        "ask points": lambda value: ask(points=value),
        "ask boxes": lambda value: ask(boxes=value),
        "ask masks": lambda value: ask(masks=value),
        "ask model": lambda value: ask(model=value, processor=None),
        "Result.load": unipixel.Result.load,
        "result.save exports": lambda value: result().save(folder / "saved", exports=value, overwrite=True),
        "result.to_supervision": lambda value: result().to_supervision(frame=value),
        "result.plot": lambda value: result().plot(value),
        "result mask": lambda value: result().objects[1].masks[value],
        "UniPixel.from_pretrained": unipixel.UniPixel.from_pretrained,
        "UniPixel dtype": lambda value: unipixel.UniPixel.from_pretrained(checkpoint, dtype=value),
        "UniPixel device": lambda value: unipixel.UniPixel.from_pretrained(checkpoint, device_map=value),
        "UniPixel attention": lambda value: unipixel.UniPixel.from_pretrained(checkpoint, attn_implementation=value),
        "Processor.from_pretrained": unipixel.Processor.from_pretrained,
        "processor": processor,
        "processor videos": lambda value: processor("What?", videos=value),
        "processor prompts": lambda value: processor("What is <|ref|>?", videos=frames, prompts=value),
        "processor.decode": processor.decode,
        "load_segmenter": unipixel.load_segmenter,
        "ObjectMemoryBank": unipixel.ObjectMemoryBank,
        "ObjectMemoryBank.load": unipixel.ObjectMemoryBank.load,
        "bank.add": lambda value: bank().add(value, source="point"),
        "bank.update frame": lambda value: bank().update(1, value, None),
        "bank.update mask": lambda value: bank().update(1, 0, value),
        "bank.update score": lambda value: bank().update(1, 0, None, score=value),
        "bank.forget": lambda value: bank().forget(value),
        "tracker.step": lambda value: tracker().step(value),
        "tracker.add_points id": lambda value: tracker().add_points(value, [[3, 4]]),
        "tracker.add_points": lambda value: tracker().add_points(1, value),
        "tracker.add_points labels": lambda value: tracker().add_points(1, [[3, 4]], value),
        "tracker.add_box": lambda value: tracker().add_box(1, value),
        "tracker.add_mask": lambda value: tracker().add_mask(1, value),
        "tracker.remove": lambda value: tracker().remove(value),
        "live.step": lambda value: live().step(value),
        "live.prompt": lambda value: live().prompt(1, value),
        "live.ask": lambda value: live().ask(value),
        "Turn": unipixel.Turn,
        "encode_rle": encode_rle,
        "decode_rle": decode_rle,
    }
    for name in ("max_new_tokens", "temperature", "top_p", "top_k", "seed", "stop_strings"):
        calls[f"GenerationSettings {name}"] = partial(_with_field, unipixel.GenerationSettings, name)
    for name in ("num_frames", "anchor", "prefill", "max_objects", "max_feature_bytes", "max_upsampled_bytes"):
        calls[f"SessionSettings {name}"] = partial(_with_field, unipixel.SessionSettings, name)
    for name in ("num_frames", "max_objects", "redetect_after"):
        calls[f"LiveSettings {name}"] = partial(_with_field, unipixel.LiveSettings, name)
    return calls


def _with_field(settings: Callable[..., Any], name: str, value: Any) -> Any:
    return settings(**{name: value})
