"""Batches for the device: drawn in the training process, or by worker processes while it trains."""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any, Protocol

import torch

from unipixel.train.nano.loop.loop_settings import PoolSettings

_QUEUED_PER_WORKER, _NUM_READY = 4, 6
_POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Bucket:
    """Batches that are drawn together.

    Attributes:
        clips: Clips that no earlier bucket of this process held.
        batches: The batches, in the order in which they are taken.
    """

    clips: tuple[Any, ...]
    batches: tuple[Any, ...]


class BucketSampler(Protocol):
    """Draws the buckets of one process; they follow from the seed, the process and their number."""

    def bucket(self, number: int) -> Bucket:
        """Draw a bucket."""
        ...


class SamplerFactory(Protocol):
    """Makes the sampler of a process; worker processes get a copy of it."""

    def __call__(self, *, worker: int = 0, num_workers: int = 1) -> BucketSampler:
        """Return the sampler of process `worker`."""
        ...


class ClipStore(Protocol):
    """Clips on the device, each sent once."""

    def add(self, clip: Any) -> None:
        """Send a clip to the device."""
        ...

    def send(self, packed: Any) -> Any:
        """Send a batch to the device, without its clips."""
        ...

    def join(self, batch: Any) -> Any:
        """Add the clips of a batch to it."""
        ...


class BatchFeed(Protocol):
    """Where the batches of a run come from."""

    seconds_waited: float
    num_repeated: int

    def next(self) -> Any:
        """Return the next batch on the device.

        Raises:
            RuntimeError: A worker process failed.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Return how far the run has come, as plain values."""
        ...

    def close(self) -> None:
        """Stop what draws batches."""
        ...


class InProcessFeed:
    """Draws each batch when it is asked for; the same run takes the same batches."""

    def __init__(self, sampler: BucketSampler, clips: ClipStore, settings: PoolSettings, state: dict[str, Any]) -> None:
        """Prepare to draw.

        Args:
            sampler: Draws the batches.
            clips: Where clips go.
            settings: Of the recipe.
            state: From `state` of an interrupted run; empty at the start.
        """
        self._sampler, self._clips = sampler, clips
        self._batches_per_bucket = settings.bucket_batches
        self._number = int(state.get("number", 0))
        self._bucket: tuple[int, Bucket] | None = None
        self.seconds_waited, self.num_repeated = 0.0, 0

    def next(self) -> Any:
        """Draw the next batch."""
        started = time.monotonic()
        number, row = divmod(self._number, self._batches_per_bucket)
        if self._bucket is None or self._bucket[0] != number:
            self._bucket = number, self._sampler.bucket(number)
            for clip in self._bucket[1].clips:
                self._clips.add(clip)
        batch = self._clips.join(self._clips.send(self._bucket[1].batches[row]))
        self._number += 1
        self.seconds_waited += time.monotonic() - started
        return batch

    def state(self) -> dict[str, Any]:
        """Return the number of the next batch."""
        return {"number": self._number}

    def close(self) -> None:
        """Nothing runs beside this process."""


class WorkerFeed:
    """Takes batches from worker processes; while none is ready, earlier ones are used again."""

    def __init__(
        self,
        make_sampler: SamplerFactory,
        clips: ClipStore,
        settings: PoolSettings,
        *,
        num_workers: int,
        seed: int,
        state: dict[str, Any],
    ) -> None:
        """Start the processes.

        Args:
            make_sampler: Makes the sampler of each process.
            clips: Where clips go.
            settings: Of the recipe.
            num_workers: Number of processes.
            seed: Seed of the run.
            state: From `state` of an interrupted run; empty at the start.
        """
        # Forked processes start at once; where CUDA runs already they must not be forked.
        can_fork = "fork" in multiprocessing.get_all_start_methods() and not torch.cuda.is_initialized()
        context: Any = multiprocessing.get_context("fork" if can_fork else "spawn")
        self._channel: Queue[Any] = context.Queue(maxsize=num_workers * _QUEUED_PER_WORKER)
        self._stop: Event = context.Event()
        self._next_buckets = list(state.get("buckets", [0] * num_workers))
        self._next_buckets += [0] * (num_workers - len(self._next_buckets))
        self._workers = [
            context.Process(
                target=_draw_buckets,
                args=(self._channel, self._stop, make_sampler, worker, num_workers, first),
                daemon=True,
            )
            for worker, first in enumerate(self._next_buckets[:num_workers])
        ]
        for process in self._workers:
            process.start()
        self._clips = clips
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=_NUM_READY)
        self._kept: deque[Any] = deque(maxlen=settings.num_replayed)
        self._random = random.Random(seed)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()
        self.seconds_waited, self.num_repeated = 0.0, 0

    def next(self) -> Any:
        """Return the next batch that is ready, or an earlier one."""
        started = time.monotonic()
        if self._kept and self._ready.empty():
            batch = self._kept[self._random.randrange(len(self._kept))]
            self.num_repeated += 1
        else:
            received = self._ready.get()
            if isinstance(received, Exception):
                raise RuntimeError("a worker process failed") from received
            batch = received
            self._kept.append(batch)
        self.seconds_waited += time.monotonic() - started
        return self._clips.join(batch)

    def state(self) -> dict[str, Any]:
        """Return the next bucket of each process."""
        return {"buckets": list(self._next_buckets)}

    def close(self) -> None:
        """End the processes."""
        self._stop.set()
        for process in self._workers:
            process.terminate()
            process.join()
        self._thread.join(timeout=_POLL_SECONDS)

    def _receive(self) -> None:
        """Send what workers draw to the device; runs in a thread."""
        for batch in self._received():
            while not self._stop.is_set():
                try:
                    self._ready.put(batch, timeout=_POLL_SECONDS)
                    break
                except queue.Full:
                    continue

    def _received(self) -> Iterator[Any]:
        while not self._stop.is_set():
            try:
                worker, number, bucket = self._channel.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if dead := [process.exitcode for process in self._workers if not process.is_alive()]:
                    yield RuntimeError(f"{len(dead)} worker processes ended with exit codes {dead}")
                    return
                continue
            if isinstance(bucket, str):
                yield RuntimeError(bucket)
                return
            for clip in bucket.clips:
                self._clips.add(clip)
            for packed in bucket.batches:
                yield self._clips.send(packed)
            self._next_buckets[worker] = number + 1


def make_feed(
    make_sampler: SamplerFactory,
    clips: ClipStore,
    settings: PoolSettings,
    *,
    seed: int,
    device: torch.device,
    state: dict[str, Any],
) -> BatchFeed:
    """Return the feed of a recipe; see `PoolSettings.num_workers`."""
    num_workers = settings.num_workers
    if num_workers is None:
        num_workers = max(1, (os.cpu_count() or 1) - 2) if device.type == "cuda" else 0
    if num_workers == 0:
        return InProcessFeed(make_sampler(), clips, settings, state)
    return WorkerFeed(make_sampler, clips, settings, num_workers=num_workers, seed=seed, state=state)


def _draw_buckets(
    channel: Queue[Any],
    stop: Event,
    make_sampler: SamplerFactory,
    worker: int,
    num_workers: int,
    first: int,
) -> None:
    """Draw bucket after bucket; what a worker process runs."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        sampler = make_sampler(worker=worker, num_workers=num_workers)
        number = first
        while not stop.is_set():
            channel.put((worker, number, sampler.bucket(number)))
            number += 1
    except (RuntimeError, ValueError, KeyError, OSError):
        channel.put((worker, -1, f"worker {worker} failed:\n{traceback.format_exc()}"))
