"""`unipixel track`: follow prompted objects through a video, with no language model at all."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from unipixel.commands._options import add_model_options, add_output_options, add_prompt_options, choose_device


def add_parser(subparsers: Any) -> None:
    """Describe the arguments of `unipixel track`."""
    parser = subparsers.add_parser(
        "track",
        help="follow objects that a point, box or mask shows",
        description="Follow objects through a video from points, boxes or masks. Uses SAM 2.1 alone.",
    )
    parser.add_argument("video", metavar="VIDEO", help="file, image, or folder of frames")
    add_prompt_options(parser)
    add_model_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Track, write the results and say what was found.

    Raises:
        ValueError: A prompt is missing or not on the video.
        OSError: The video, the model or the output folder cannot be used.
    """
    import torch

    from unipixel.checkpoints.loading import load_segmenter
    from unipixel.commands._prompts import marks, read_prompts
    from unipixel.commands._results import ResultWriter, progress
    from unipixel.session.video_objects import VideoObjects
    from unipixel.session.video_tracker import MAX_FEATURE_BYTES
    from unipixel.video.open import open_video

    prompts = read_prompts(arguments)
    if not prompts:
        raise ValueError("nothing to track: give --point, --box or --mask, such as --point 1:640,360@0")
    with ResultWriter(arguments, out=arguments.out, davis_name=Path(arguments.video).stem) as writer:
        video = open_video(arguments.video, max_frames=arguments.max_frames)
        started = time.perf_counter()
        segmenter = load_segmenter(arguments.model, device=choose_device(arguments.device))
        is_in_order = all(min(prompt.frame_index for prompt in own) == 0 for own in prompts.values())
        scene = VideoObjects(
            segmenter,
            video,
            memory_dtype=torch.bfloat16,
            is_postprocessed=arguments.postprocess,
            # A pass in order meets no frame twice: what was encoded need not be kept.
            max_feature_bytes=1 if is_in_order else MAX_FEATURE_BYTES,
        )
        loaded = time.perf_counter()
        for object_id, own in prompts.items():
            scene.prompt(object_id, *own)
        drawn = marks((object_id, prompt) for object_id, own in prompts.items() for prompt in own)
        frames = progress(scene.track_frames(), total=video.info.num_frames, label="track")
        if is_in_order:
            # Frames come in order, so that writing goes along with tracking.
            result = None
            for followed in frames:
                if result is None:
                    result = writer.start(scene, prompts=drawn, model=arguments.model)
                writer.write(followed.frame, followed.objects)
            result = result or writer.start(scene, prompts=drawn, model=arguments.model)
        else:
            for _ in frames:
                pass
            result = writer.start(scene, prompts=drawn, model=arguments.model)
            writer.write_video(scene)
        result.timings_seconds |= {"load": loaded - started, "track": time.perf_counter() - loaded}
        if arguments.json:
            print(result.to_json())
        else:
            _report(result, arguments.out)
    return 0


def _report(result: Any, out: Any) -> None:
    for object_id, record in sorted(result.objects.items()):
        visible = sum(frame.visible for frame in record.frames)
        print(f"[{object_id}] {record.source}: visible in {visible} of {len(record.frames)} frames")
    if out is not None:
        print(f"results in {out}")
