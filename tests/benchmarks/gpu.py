"""Tracking and language on one GPU: ours, sam2's predictor, both eager and compiled; one JSON on stdout.

    PYTHONPATH=.:tests python tests/benchmarks/gpu.py                    # a GPU, under 4 minutes, no network
    PYTHONPATH=.:tests python tests/benchmarks/gpu.py --only track-compiled
    PYTHONPATH=.:tests python tests/benchmarks/gpu.py --try              # the same rows on a CPU, with tiny models

All weights are random: the times do not depend on them. Rows are measured one after another until `--seconds` have
passed; rows that were not reached are `null`, and `--only` measures them in another call. Milliseconds per frame are
medians after the memory is full. A row that fails has the error as its value.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.tracker_reference import OfficialPredictor, synthetic_video, tiny_segmenter

from unipixel.model.generation import AnswerStream, GenerationSettings
from unipixel.model.inputs import ModelInputs
from unipixel.model.token_decoding import CacheImplementation
from unipixel.model.unipixel import UniPixel
from unipixel.tracking.acceleration.compiled_segmenter import compile_segmenter
from unipixel.tracking.clip_features import normalise_frame
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.tracker import StreamingTracker

Row = Callable[[], Any]
HEIGHT, WIDTH = 720, 1280
# Frames after which attention reads its maximum of memories and pointers.
WARM_UP = 17
MEASURED = 12
# Time beyond `--seconds` after which a running row is given up.
GRACE_SECONDS = 15
# sam2 tracks one object after another: with many, its mask memories are full after 7 frames, which must do.
MANY_OBJECTS, MANY_WARM_UP, MANY_MEASURED = 32, 7, 3


class Bench:
    """The models and sizes of a run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.is_trial = arguments.trial
        self.device = torch.device("cpu" if self.is_trial else "cuda")
        self.objects = (1, 3) if self.is_trial else (1, 8, 16, 64)
        self.frames = synthetic_video(4, height=HEIGHT, width=WIDTH)
        self.new_tokens = 4 if self.is_trial else 64
        self.warm_up, self.measured = (17, 2) if self.is_trial else (WARM_UP, MEASURED)

    def segmenter(self, image_size: int) -> Segmenter:
        """Return a segmenter with random weights."""
        if self.is_trial:
            return tiny_segmenter()
        with torch.device(self.device):
            return Segmenter(SegmenterConfig.preset("base_plus", image_size=image_size)).eval()

    def rows(self) -> dict[str, Row]:
        """Return the rows by name, in the order in which they are measured."""
        rows: dict[str, Row] = {}
        for count in self.objects:
            rows[f"track, {count} objects, ours eager"] = partial(self.track, count)
            rows[f"track, {count} objects, sam2 eager"] = partial(self.track_official, count)
        rows["live, 768 px, 3 objects, eager"] = partial(self.live, is_compiled=False)
        rows["3B shape, 16 frames of 448 px"] = self.language
        rows["3B shape, 8 questions in one batch"] = self.language_batch
        for count in self.objects:
            rows[f"track-compiled, {count} objects, ours"] = partial(self.track, count, is_compiled=True)
        rows["live-compiled, 768 px, 3 objects"] = partial(self.live, is_compiled=True)
        for count in self.objects:
            rows[f"track-compiled, {count} objects, sam2"] = partial(self.track_official, count, is_compiled=True)
        return rows

    def track(self, num_objects: int, *, is_compiled: bool = False) -> dict[str, float]:
        """Measure our tracker, with the logits at the size of the video on the device."""
        segmenter = self.segmenter(1024)
        tracker = StreamingTracker(self._compiled(segmenter) if is_compiled else segmenter)
        points = _points(num_objects)
        sizes: list[int] = []

        def steps() -> Iterator[None]:
            for index in range(10**9):
                tracked = tracker.step(self.frames[index % len(self.frames)])
                for object_id, point in enumerate(points if index == 0 else ()):
                    tracked = tracker.add_points(object_id, [point])
                tracked.mask_logits()
                sizes.append(tracker.state.num_bytes)
                yield

        figures = self._time(steps())
        return figures | {"state_growth_bytes_per_frame": (sizes[-1] - sizes[self.warm_up - 1]) / self.measured}

    def track_official(self, num_objects: int, *, is_compiled: bool = False) -> dict[str, float]:
        """Measure sam2's predictor on normalised frames that are read one by one, as ours are."""
        segmenter = self.segmenter(1024)
        session = OfficialPredictor(segmenter, self.frames[:1], is_optimized=is_compiled)
        state, size = session.state, segmenter.config.image_size
        state["images"], state["num_frames"] = _Frames(self.frames, size, self.device), 10**6
        for object_id, point in enumerate(_points(num_objects)):
            session.click(0, object_id, [point], [1])
        few = num_objects > MANY_OBJECTS
        return self._time(
            (None for _ in session.predictor.propagate_in_video(state)),
            warm_up=MANY_WARM_UP if few else None, measured=MANY_MEASURED if few else None,
        )  # fmt: skip

    def live(self, *, is_compiled: bool) -> dict[str, float]:
        """Measure decoding of a 720p file, tracking, and masks in the memory of the host."""
        from unipixel.processing.visual_prompts import PointPrompt
        from unipixel.session.stream_objects import StreamObjects
        from unipixel.video.open import open_video

        segmenter = self.segmenter(768)
        objects = StreamObjects(self._compiled(segmenter) if is_compiled else segmenter, num_frames=1)
        with tempfile.TemporaryDirectory() as folder:
            clip = _write_clip(Path(folder) / "clip.mp4", num_frames=self.warm_up + self.measured + 1)

            def steps() -> Iterator[None]:
                for frame in open_video(str(clip)):
                    objects.step(frame)
                    for object_id, (x, y) in enumerate(_points(3) if frame.index == 0 else ()):
                        objects.prompt(object_id, PointPrompt(float(x), float(y)))
                    yield

            figures = self._time(steps())
        return figures | {"frames_per_second": round(1000 / figures["milliseconds_per_frame"], 1)}

    @torch.no_grad()
    def language(self) -> dict[str, float]:
        """Measure a model of the 3B's shape: the first token of a question about a clip, then each token.

        The static cache, whose step is a captured CUDA graph, is the default on a GPU; `dynamic` is measured beside it.
        """
        figures: dict[str, float] = {}
        for implementation in ("dynamic", "static"):
            settings = GenerationSettings(max_new_tokens=self.new_tokens, cache_implementation=implementation)
            for _ in range(2):
                # The first run warms up the kernels.
                begin = self._now()
                stream = AnswerStream(self.language_model, self.question, settings=settings)
                next(stream)
                first = self._now()
                count = sum(1 for _ in stream)
                seconds = self._now() - first
            figures |= {
                f"seconds_to_first_token, {implementation}": round(first - begin, 3),
                f"tokens_per_second, {implementation}": round(count / seconds, 1),
            }
        figures["same_tokens"] = float(self._answers("dynamic") == self._answers("static"))
        return figures

    @torch.no_grad()
    def language_batch(self) -> dict[str, float]:
        """Measure 8 questions about one clip, in one batch and one after another."""
        from unipixel.model.generation import prefill

        ids = self.question.input_ids
        end_id = self.language_model.config.qwen.vision_end_token_id
        cut = int((ids[0] == end_id).nonzero()[0]) + 1
        prompt_cache = prefill(self.language_model, replace(self.question, input_ids=ids[:, :cut])).prompt_cache
        single = ModelInputs(ids[:, cut:])
        batch = ModelInputs(single.input_ids.expand(8, -1))
        settings = GenerationSettings(max_new_tokens=self.new_tokens)
        figures: dict[str, float] = {}
        for name, questions in (("one_by_one", [single] * 8), ("batch", [batch])):
            for _ in range(2):
                begin = self._now()
                for question in questions:
                    self.language_model.generate(question, prompt_cache=prompt_cache, settings=settings)
                figures[f"seconds_{name}"] = round(self._now() - begin, 3)
        return figures

    @cached_property
    def language_model(self) -> UniPixel:
        """A model of the 3B's shape, on first use."""
        # A program beside this one: as an import, mypy would know it by two names.
        shape_3b = importlib.import_module("benchmarks.shape_3b")
        model: UniPixel = shape_3b.random_model(shape_3b.config_3b(1 if self.is_trial else 36), device=self.device)
        return model

    @cached_property
    def question(self) -> ModelInputs:
        """A question about a clip of 16 frames."""
        from unipixel.processing.chat_template import Turn, load_tokenizer
        from unipixel.processing.processor import Processor

        side = 56 if self.is_trial else 448
        processor = Processor(self.language_model.config, load_tokenizer())
        clip = processor.clip(list(synthetic_video(16, height=side, width=side)))
        return processor.encode([Turn("What is in this video?")], clip=clip).inputs.to(self.device)

    def _answers(self, implementation: CacheImplementation) -> list[tuple[int, ...]]:
        settings = GenerationSettings(max_new_tokens=self.new_tokens, cache_implementation=implementation)
        return [answer.token_ids for answer in self.language_model.generate(self.question, settings=settings)]

    def _compiled(self, segmenter: Segmenter) -> Segmenter:
        if not self.is_trial:
            return compile_segmenter(segmenter)
        from unipixel.tracking.acceleration.compiled_segmenter import CompiledSegmenter

        return CompiledSegmenter(segmenter, backend="aot_eager")

    def _time(
        self, steps: Iterator[None], *, warm_up: int | None = None, measured: int | None = None
    ) -> dict[str, float]:
        """Run steps, of which each tracks a frame, and return the median of the measured ones."""
        seconds = []
        with torch.no_grad(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=not self.is_trial):
            for _ in range(warm_up or self.warm_up):
                next(steps)
            for _ in range(measured or self.measured):
                begin = self._now()
                next(steps)
                seconds.append(self._now() - begin)
        return {"milliseconds_per_frame": round(1000 * float(np.median(seconds)), 2)}

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class _Frames:
    """Frames that are normalised on access, over and over."""

    def __init__(self, video: np.ndarray, size: int, device: torch.device) -> None:
        self._video, self._size, self._device = video, size, device

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> torch.Tensor:
        frame = self._video[index % len(self._video)]
        return normalise_frame(frame, image_size=self._size, device=self._device)


def _give_up(*_: object) -> None:
    raise TimeoutError("the time of the run was over")


def _points(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.2, 0.8, (count, 2)) * [WIDTH, HEIGHT]


def _write_clip(path: Path, *, num_frames: int) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        frames = synthetic_video(4, height=HEIGHT, width=WIDTH)
        for index in range(num_frames):
            for packet in stream.encode(av.VideoFrame.from_ndarray(frames[index % 4], format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def _compare(results: dict[str, Any]) -> dict[str, float]:
    """Return our frames per second relative to those of sam2, each at its best setting."""
    ratios = {}
    for count in sorted({int(name.split(",")[1].split()[0]) for name in results if name.startswith("track")}):
        best = {}
        for side in ("ours", "sam2"):
            rows = [figures or {} for name, figures in results.items() if f", {count} objects, {side}" in name]
            times = [figures["milliseconds_per_frame"] for figures in rows if "milliseconds_per_frame" in figures]
            best[side] = min(times, default=None)
        if best["ours"] and best["sam2"]:
            ratios[f"{count} objects"] = round(best["sam2"] / best["ours"], 2)
    return ratios


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=220, help="no row is begun after this time (%(default)s)")
    parser.add_argument("--only", nargs="+", help="rows whose name begins so")
    parser.add_argument("--try", dest="trial", action="store_true", help="tiny models on the CPU")
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    signal.signal(signal.SIGALRM, _give_up)
    bench, start = Bench(arguments), time.perf_counter()
    results: dict[str, Any] = {}
    for name, measure in bench.rows().items():
        if arguments.only and not name.startswith(tuple(arguments.only)):
            continue
        if time.perf_counter() - start > arguments.seconds:
            results[name] = None
            continue
        begin = time.perf_counter()
        # A row that is still compiling at the end is given up.
        signal.setitimer(signal.ITIMER_REAL, arguments.seconds + GRACE_SECONDS - (begin - start))
        try:
            # sam2 prints on stdout.
            with contextlib.redirect_stdout(sys.stderr):
                results[name] = measure()
        except (RuntimeError, ValueError, TypeError, OSError, ImportError, MemoryError) as error:
            results[name] = {"error": " ".join(str(error).split())[:300]}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        results[name]["seconds_of_the_row"] = round(time.perf_counter() - begin, 1)
        print(f"{name}: {results[name]}", file=sys.stderr, flush=True)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu"
    report = {"device": name, "torch": torch.__version__, "rows": results, "speed_relative_to_sam2": _compare(results)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
