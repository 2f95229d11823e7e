"""Synthetic clips with questions written in the layout of VideoRefer-Bench."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unipixel.memory.rle import encode_rle
from unipixel.train.datasets.synthetic import Sample, generate
from unipixel.train.datasets.synthetic.visual_prompt_sampling import sample_prompt

_MENTION = re.compile(r"\[(\d+)\]")


def samples_with_choices(kind: str, count: int, *, render_size: int, num_frames: int) -> list[Sample]:
    """Draw samples with a multiple-choice question, whose objects are prompted on one common frame."""

    def draw() -> Iterator[Sample]:
        for seed in range(10_000):
            task = f"pixelqa/{kind}"
            sample = generate(seed, split="test", task=task, render_size=render_size, num_frames=num_frames)
            turn = sample.turns[0]
            named = turn.question.partition("\nOptions:")[0]
            ids = tuple(dict.fromkeys(int(key) for key in _MENTION.findall(named)))
            if not turn.options or not ids or not set(ids) <= set(sample.prompts):
                continue
            frame = sample.prompts[ids[0]].frame
            masks = [sample.clip.masks_of(key) for key in ids]
            if all(mask[frame].any() for mask in masks):
                rng = np.random.default_rng(seed)
                prompts = {
                    key: sample_prompt(rng, mask, kind=kind, is_fixed=True, frame=frame)
                    for key, mask in zip(ids, masks, strict=True)
                }
                yield replace(sample, prompts=prompts)

    drawn = draw()
    return [next(drawn) for _ in range(count)]


def export_questions(samples: Sequence[Sample], folder: Path) -> Path:
    """Write samples as VideoRefer-Bench-Q; the images are PNG, so that no pixel changes."""
    entries: list[dict[str, Any]] = []
    for number, sample in enumerate(samples):
        turn, clip = sample.turns[0], sample.clip
        video = folder / "videos" / f"clip{number}"
        video.mkdir(parents=True)
        for index, image in enumerate(clip.frames):
            Image.fromarray(image).save(video / f"{index:05d}.png")
        ids = list(sample.prompts)
        question = _MENTION.sub(r"<object\1><region>", turn.question.partition("\nOptions:")[0])
        options = [f"({chr(ord('A') + row)}) {option}" for row, option in enumerate(turn.options)]
        assert turn.correct_option is not None
        entries.append(
            {
                "id": number,
                "video": video.name,
                "Question": question,
                "type": turn.kind,
                "options": options,
                "Answer": options[turn.correct_option],
                "frame_idx": str(sample.prompts[ids[0]].frame),
                "annotation": [
                    {
                        str(frame): {"segmentation": encode_rle(mask)}
                        for frame, mask in enumerate(clip.masks_of(object_id))
                    }
                    for object_id in ids
                ],
            }
        )
    (folder / "VideoRefer-Bench-Q.json").write_text(json.dumps(entries))
    return folder
