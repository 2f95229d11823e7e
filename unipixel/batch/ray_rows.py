"""A batch on a Ray cluster: one actor per GPU, or per some cores, with a model each; other workers decode the clips."""

from __future__ import annotations

import itertools
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unipixel.batch.clip_reading import CLIP_ERRORS, DecodedVideo, decode_clip
from unipixel.batch.row_file import Row
from unipixel.session.question_file import AskJob

if TYPE_CHECKING:
    from unipixel.batch.clip_rows import ClipAnswerer

MAX_RETRIES = 3
"""How often a clip is tried again after its worker was killed; it then gets a row with an error."""

_CONNECT_SECONDS = 10.0


class ClipWorker:
    """The actor: a model that answers the question sets of one clip at a time."""

    def __init__(self, build: Callable[[], ClipAnswerer]) -> None:
        """Load the model."""
        self._answerer = build()

    def wait(self) -> None:
        """Return when the model is loaded."""

    def answer(self, clip: str, jobs: Sequence[AskJob], decoded: DecodedVideo | None) -> list[Row]:
        """Return the rows of a clip, which is opened here if it was not decoded elsewhere."""
        if decoded is None:
            return list(self._answerer.answer([(clip, list(jobs))]))
        return list(self._answerer.answer_clip(clip, jobs, decoded))


def decode_for_worker(clip: str, max_frames: int) -> DecodedVideo | None:
    """Return a short clip with its frames in memory; None for a long one, and for one that cannot be read.

    The worker with the model opens those itself, and reports their errors.
    """
    try:
        video = decode_clip(clip, max_frames=max_frames)
    except CLIP_ERRORS:
        return None
    if isinstance(video, DecodedVideo):
        return video
    video.close()
    return None


def answer_on_ray(
    work: Mapping[str, Sequence[AskJob]],
    build: Callable[[], ClipAnswerer],
    *,
    address: str,
    cores: int,
    max_frames: int,
) -> Iterator[Row]:
    """Yield the rows of all clips in the order in which they are finished.

    An actor has one clip at a time while another is decoded for it, so that neither frames nor results pile up. A
    killed worker starts again with its clip.

    Args:
        work: The question sets of each clip.
        build: Loads the model, on each worker.
        address: Of the cluster; empty starts one on this machine.
        cores: Cores of each actor where the cluster has no GPU.
        max_frames: Longer clips are not decoded.

    Raises:
        ImportError: Ray is not installed.
        OSError: The cluster cannot be reached, or the model cannot be loaded there.
    """
    _check_address(address)
    import ray

    try:
        ray.init(address=address or "local", include_dashboard=False if not address else None, log_to_driver=False)
    except (RuntimeError, ValueError) as error:
        raise OSError(f"the Ray cluster {address!r} cannot be reached: {error}") from error
    try:
        actors, num_free_cores = _start_actors(ray, build, cores=cores, most=len(work))
        # Where the actors have all cores, decoding shares them.
        needs = {"num_cpus": 1 if num_free_cores else 0, "max_retries": MAX_RETRIES, "scheduling_strategy": "SPREAD"}
        decode = ray.remote(**needs)(decode_for_worker)
        yield from _answer_with(ray, actors, work, decode=lambda clip: decode.remote(clip, max_frames))
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Connect to `HOST:PORT`, because Ray tries for a minute; other forms are left to Ray.

    Raises:
        OSError: Nothing answers there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise OSError(f"the Ray cluster {address!r} cannot be reached: {error}") from error


def _start_actors(ray: Any, build: Callable[[], ClipAnswerer], *, cores: int, most: int) -> tuple[list[Any], int]:
    """Return the actors, and how many cores they leave free."""
    resources = ray.cluster_resources()
    num_gpus, num_cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    cores = min(cores, num_cores)
    needs = {"num_gpus": 1, "num_cpus": 1} if num_gpus else {"num_cpus": cores}
    count = min(num_gpus or num_cores // cores, most)
    kind = ray.remote(max_restarts=-1, max_task_retries=MAX_RETRIES, **needs)(ClipWorker)
    actors = [kind.remote(build) for _ in range(count)]
    try:
        ray.get([actor.wait.remote() for actor in actors])
    except ray.exceptions.RayError as error:
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise OSError(f"the model cannot be loaded on the Ray workers: {last}") from error
    return actors, num_cores - count * needs["num_cpus"]


def _answer_with(
    ray: Any, actors: Sequence[Any], work: Mapping[str, Sequence[AskJob]], *, decode: Callable[[str], Any]
) -> Iterator[Row]:
    remaining = iter(work.items())
    # One clip for each actor.
    decoded = deque((clip, jobs, decode(clip)) for clip, jobs in itertools.islice(remaining, len(actors)))
    pending: dict[Any, tuple[Any, str, Sequence[AskJob]]] = {}

    def submit(actor: Any) -> None:
        if not decoded:
            return
        clip, jobs, video = decoded.popleft()
        pending[actor.answer.remote(clip, jobs, video)] = (actor, clip, jobs)
        if (item := next(remaining, None)) is not None:
            decoded.append((*item, decode(item[0])))

    for actor in actors:
        submit(actor)
    while pending:
        (reference,), _ = ray.wait(list(pending), num_returns=1)
        actor, clip, jobs = pending.pop(reference)
        try:
            rows = ray.get(reference)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as found:
            error = f"{type(found).__name__}: the worker of this clip was killed {MAX_RETRIES + 1} times"
            rows = [{"clip": clip, "id": job.name, "error": error, "questions": list(job.questions)} for job in jobs]
        submit(actor)
        yield from rows
