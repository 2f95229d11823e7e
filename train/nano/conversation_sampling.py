"""Draws conversations about pooled clips, in batches of one grid that are dealt out by length.

A bucket of batches follows from the seed of the run, the worker and its number alone, so that a resumed run goes on
with the bucket it was interrupted in.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unipixel.processing.image_processing import fit_size
from unipixel.processing.processor import Processor
from unipixel.train.datasets.preprocessing import Example, ExampleBuilder
from unipixel.train.datasets.synthetic.sample_generation import TASKS
from unipixel.train.datasets.synthetic_vqa import add_turns
from unipixel.train.nano.clip_pool import ClipArrays, ClipPool, clip_groups
from unipixel.train.nano.dense_batch import pack
from unipixel.train.nano.loop.batch_feeding import Bucket
from unipixel.train.nano.pretraining_recipe import PretrainingData

_MAX_ATTEMPTS = 40
# Set apart from the seeds of clips, which have four parts.
_BUCKET_STREAM = 1


class ConversationSampler:
    """Draws the buckets of one worker process."""

    def __init__(
        self, processor: Processor, data: PretrainingData, *, seed: int, worker: int = 0, num_workers: int = 1
    ) -> None:
        """Prepare to draw.

        Args:
            processor: That of the model.
            data: What is drawn.
            seed: Seed of the run.
            worker: Number of this process.
            num_workers: Processes that draw; each has its own clips.

        Raises:
            ValueError: A task is unknown.
        """
        for name in (*data.clip_tasks, *data.image_tasks):
            if name not in TASKS:
                raise ValueError(f"unknown task {name!r}: allowed are {TASKS}")
        self._processor, self._data = processor, data
        self._seed, self._worker = seed, worker
        self._num_clips = max(1, data.num_clips // num_workers)
        self._groups = clip_groups(data)
        self._builder = ExampleBuilder(processor, max_tokens=data.max_tokens, has_masks=False, has_dense_targets=True)
        self._pool = ClipPool(processor, self._builder, self._groups, seed=seed, worker=worker)

    def bucket(self, number: int) -> Bucket:
        """Draw a bucket.

        Raises:
            RuntimeError: No conversation about a clip was found.
        """
        data = self._data
        rng = np.random.default_rng([self._seed, self._worker, number, _BUCKET_STREAM, 0])
        group = int(rng.choice(len(self._groups), p=[own.weight for own in self._groups]))
        size = self._batch_size(group)
        clips: list[ClipArrays] = []
        drawn = [self._converse(rng, group, number, clips) for _ in range(size * data.bucket_batches)]
        drawn.sort(key=lambda item: item[1].encoded.inputs.input_ids.shape[1])
        batches = [
            pack(drawn[row * size : (row + 1) * size], self._processor) for row in rng.permutation(data.bucket_batches)
        ]
        return Bucket(tuple(clips), tuple(batches))

    def _batch_size(self, group: int) -> int:
        own, budget, cell = self._groups[group], self._processor.budget, self._processor.sizes.cell
        limit = budget.max_tokens_of(own.num_frames)
        height, width = fit_size(*own.size, cell=cell, min_tokens=budget.min_tokens, max_tokens=limit)
        visual_tokens = own.num_frames * (height // cell) * (width // cell)
        size = self._data.tokens_per_batch // (visual_tokens + self._data.text_tokens)
        return max(self._data.min_conversations, size)

    def _converse(
        self, rng: np.random.Generator, group: int, bucket: int, clips: list[ClipArrays]
    ) -> tuple[int, Example]:
        """Draw one conversation; clips that are new are added to the list."""
        data, own = self._data, self._groups[group]
        available = min(self._num_clips, data.initial_clips + data.clips_per_bucket * bucket)
        for _ in range(_MAX_ATTEMPTS):
            number = int(rng.integers(max(1, round(available * own.weight))))
            pooled, arrays = self._pool.clip(group, number)
            if arrays is not None:
                clips.append(arrays)
            task = _weighted(rng, data.image_tasks if own.is_image else data.clip_tasks)
            sample = pooled.scene.ask(rng, task=task)
            if sample is None:
                continue
            sample = add_turns(sample, rng, data.max_turns, labels=pooled.scene.labels)
            seed = int(rng.integers(2**31))
            try:
                example = self._builder.build(sample, seed=seed, prepared=(pooled.clip, pooled.targets))
            except ValueError:
                # Too long, or about an object that is on none of the frames: another one is drawn.
                continue
            return pooled.clip_id, example
        raise RuntimeError(f"no conversation about a clip of {own.size} was found in {_MAX_ATTEMPTS} attempts")


def _weighted(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    names = list(weights)
    shares = np.array([weights[name] for name in names], float)
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]
