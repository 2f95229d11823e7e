"""`unipixel track`: track prompted objects through a video, without a language model."""

from __future__ import annotations

import argparse
import time
from typing import Any

from unipixel.commands._options import add_model_options, add_output_options, add_prompt_options, choose_device


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel track`."""
    parser = subparsers.add_parser(
        "track",
        help="track objects from a point, box or mask",
        description="Track objects through a video from points, boxes or masks, with SAM 2.1 alone.",
    )
    parser.add_argument("video", metavar="VIDEO", help="file, image, or folder of frames")
    add_prompt_options(parser)
    add_model_options(parser, has_language=False)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Track, write the results and print a summary.

    Raises:
        ValueError: There is no prompt, or one is outside the video.
        OSError: The video, the model or the output folder cannot be used.
    """
    from unipixel.checkpoints.devices import check_device
    from unipixel.checkpoints.segmenters import find_segmenter, load_segmenter
    from unipixel.commands._prompts import prompt_marks, read_prompts
    from unipixel.commands._running.progress import ProgressDisplay
    from unipixel.commands._running.results import (
        ResultWriter,
        check_palette_ids,
        print_warnings,
        sequence_name,
    )
    from unipixel.processing.prompt_checks import check_prompts
    from unipixel.video.open import open_video

    prompts = read_prompts(arguments)
    if not prompts:
        raise ValueError("nothing to track: give --point, --box or --mask, such as --point 1:640,360@0")
    check_palette_ids(arguments, prompts)
    with (
        ProgressDisplay() as progress,
        ResultWriter(arguments, out=arguments.out, davis_name=sequence_name(arguments.video)) as writer,
    ):
        progress.start("load the model")
        video = open_video(arguments.video, max_frames=arguments.max_frames)
        check_prompts(prompts, video.info)
        if arguments.device != "auto":
            check_device(arguments.device)
        found = find_segmenter(arguments.model)
        start = time.perf_counter()
        # Imported after the checks, because torch takes a second.
        import torch

        from unipixel.session.video_objects import VideoObjects
        from unipixel.session.video_tracker import MAX_FEATURE_BYTES

        segmenter = load_segmenter(found, device=choose_device(arguments.device))
        is_in_order = all(min(prompt.frame_index for prompt in group) == 0 for group in prompts.values())
        objects = VideoObjects(
            segmenter,
            video,
            memory_dtype=torch.bfloat16,
            is_postprocessed=arguments.postprocess,
            # A forward pass uses every frame once, so features need no cache.
            max_feature_bytes=1 if is_in_order else MAX_FEATURE_BYTES,
        )
        load_end = time.perf_counter()
        for object_id, group in prompts.items():
            objects.prompt(object_id, *group)
        marks = prompt_marks((object_id, prompt) for object_id, group in prompts.items() for prompt in group)
        frames = progress.track(objects.track_frames(), total=video.info.num_frames, stage="track")
        result = None
        for tracked in frames:
            # The objects are in the memory after the first frame.
            result = result or writer.start(objects, prompts=marks, model=arguments.model)
            if is_in_order:
                # Frames come in order, so they can be written during tracking.
                writer.write(tracked.frame, tracked.objects)
        result = result or writer.start(objects, prompts=marks, model=arguments.model)
        if not is_in_order:
            writer.write_video(objects, progress)
        result.timings_seconds |= {"load": load_end - start, "track": time.perf_counter() - load_end}
        if arguments.json:
            print(result.to_json())
            print_warnings(result)
        else:
            _print_summary(result, arguments.out)
    return 0


def _print_summary(result: Any, out: Any) -> None:
    for _, record in sorted(result.objects.items()):
        print(record.describe())
    if out is not None:
        print(f"results in {out}")
