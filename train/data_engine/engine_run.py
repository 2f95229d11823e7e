"""A run of the data engine over a source: many regions at once, continued after an interruption.

```
OUT/
├── run.json                         source, models and settings; another run is refused
├── requests.jsonl                   every request with its reply, as it arrived
├── records.jsonl                    every finished region, accepted or rejected
├── images/                          the images of accepted regions
├── STBench_Detailed_Caption.json    accepted descriptions, in the layout of PerBench
└── STBench_MCQ.json                 accepted questions, in the layout of PerBench
```
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from unipixel.batch.line_file import LineFile
from unipixel.train.data_engine.caption_pipeline import (
    MAX_COMPLETION_TOKENS,
    CaptionPipeline,
    EngineSettings,
    region_name,
)
from unipixel.train.data_engine.engine_outputs import IMAGE_FOLDER, RECORD_FILE, write_outputs
from unipixel.train.data_engine.request_log import RequestLog
from unipixel.train.data_engine.source_regions import PendingImage, RegionImage, SourceRegion
from unipixel.train.endpoints.chat_completions import EndpointError
from unipixel.train.endpoints.request_budget import BudgetSpentError, RequestBudget
from unipixel.train.evaluation.running.predictions import replaced_file

RUN_FILE = "run.json"

# A refused key or an unknown address fails every request.
_FATAL_STATUS = (401, 403, 404)
_MAX_FAILURES_IN_A_ROW = 5


@dataclass
class EngineProgress:
    """What a run has done so far, earlier runs in the same folder included.

    Attributes:
        statuses: Finished regions by status.
        questions: Accepted questions.
        failed: Why regions of this run have no record, by name; they are asked about again by the next run.
        skipped: Why images of this run were not read, by name.
        stop_reason: Why the run ended before the source; None if it did not.
        budget: Requests and tokens.
    """

    budget: RequestBudget
    statuses: Counter[str] = field(default_factory=Counter)
    questions: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    stop_reason: str | None = None

    @property
    def num_finished(self) -> int:
        """Finished regions."""
        return self.statuses.total()

    def count(self, record: dict[str, Any]) -> None:
        """Count a record."""
        self.statuses[record["status"]] += 1
        self.questions += sum(question["status"] == "accepted" for question in record["questions"])


@dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """Limits of a run.

    Attributes:
        max_regions: Most finished regions; None for all of the source.
        max_requests: Most requests, those of earlier runs in the folder and failed ones included; None for any number.
        max_tokens: Most tokens of questions and replies in the same way.
        num_threads: Regions that are worked on at once.
    """

    max_regions: int | None = None
    max_requests: int | None = None
    max_tokens: int | None = None
    num_threads: int = 8

    def __post_init__(self) -> None:
        for name in ("max_regions", "max_requests", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 1 <= self.num_threads <= 256:
            raise ValueError(f"the regions at once must be 1 to 256, got {self.num_threads}")


def run_engine(
    images: Iterable[PendingImage],
    folder: Path,
    settings: EngineSettings,
    *,
    limits: EngineLimits,
    report: Callable[[EngineProgress], None],
) -> EngineProgress:
    """Describe the regions of a source that have no record yet.

    Args:
        images: From `open_source`.
        folder: Folder of the run, whose `run.json` was checked.
        settings: The models.
        limits: Limits of the run.
        report: Called after every region.

    Returns:
        What was done. The files of accepted records are up to date, also after an error.

    Raises:
        OSError: A file cannot be written.
        EndpointError: An endpoint refuses every request, or five regions in a row failed.
        ValueError: The file of records or requests has another form, or a region occurs twice.
    """
    with LineFile(folder / RECORD_FILE) as records:
        found = _FinishedRegions.read(records)
        with closing(RequestLog(folder, finished=found.names)) as log:
            budget = RequestBudget(
                max_requests=limits.max_requests,
                max_tokens=limits.max_tokens,
                spent_requests=log.num_requests,
                spent_tokens=log.num_tokens,
                expected_tokens=MAX_COMPLETION_TOKENS,
            )
            progress = found.progress(budget)
            pipeline = CaptionPipeline(settings, log=log, budget=budget)
            run = _EngineRun(folder, pipeline, records, progress, report)
            try:
                run.work(found.pending(images, progress, limits.max_regions), num_threads=limits.num_threads)
            finally:
                write_outputs(folder)
    return progress


@dataclass
class _FinishedRegions:
    """The records of earlier runs.

    Attributes:
        records: Status and number of questions by region.
        image_counts: Finished regions by image.
        image_sizes: Regions of an image that are described, by image.
    """

    names: set[str] = field(default_factory=set)
    statuses: Counter[str] = field(default_factory=Counter)
    questions: int = 0
    image_counts: Counter[str] = field(default_factory=Counter)
    image_sizes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, records: LineFile) -> _FinishedRegions:
        found = cls()
        for record in records.objects():
            try:
                name, image = str(record["region"]), str(record["source_image"])
                found.statuses[str(record["status"])] += 1
                found.questions += sum(question["status"] == "accepted" for question in record["questions"])
                found.image_sizes[image] = int(record["num_image_regions"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{records.path}: a line is not a record: {error}") from error
            found.names.add(name)
            found.image_counts[image] += 1
        return found

    def progress(self, budget: RequestBudget) -> EngineProgress:
        return EngineProgress(budget, Counter(self.statuses), self.questions)

    def pending(
        self, images: Iterable[PendingImage], progress: EngineProgress, limit: int | None
    ) -> Iterator[tuple[RegionImage, SourceRegion]]:
        """Yield the regions without a record, as many as the limit leaves; an image that cannot be read is skipped."""
        found = self._pending(images, progress)
        yield from found if limit is None else itertools.islice(found, max(0, limit - len(self.names)))

    def _pending(
        self, images: Iterable[PendingImage], progress: EngineProgress
    ) -> Iterator[tuple[RegionImage, SourceRegion]]:
        seen: set[str] = set()
        for name, read in images:
            if name in seen:
                raise ValueError(f"the image {name} occurs twice in the source: names identify images")
            seen.add(name)
            # Finished images are not read again.
            if self.image_counts[name] and self.image_counts[name] == self.image_sizes[name]:
                continue
            try:
                image = read()
            except (ValueError, OSError) as error:
                progress.skipped[name] = str(error)
                continue
            yield from ((image, one) for one in image.regions if region_name(image, one) not in self.names)


@dataclass
class _EngineRun:
    """One run: its open files and the work in progress.

    Attributes:
        folder: Folder of the run.
        pipeline: The steps about one region.
        records: The finished regions.
        progress: What was done.
        report: Called after every region.
        failures_in_a_row: Regions that failed since the last record.
    """

    folder: Path
    pipeline: CaptionPipeline
    records: LineFile
    progress: EngineProgress
    report: Callable[[EngineProgress], None]
    failures_in_a_row: int = 0

    def work(self, regions: Iterator[tuple[RegionImage, SourceRegion]], *, num_threads: int) -> None:
        running: dict[Future[dict[str, Any]], tuple[RegionImage, SourceRegion]] = {}
        with ThreadPoolExecutor(num_threads, thread_name_prefix="unipixel-engine") as pool:
            try:
                for image, region in regions:
                    running[pool.submit(self.pipeline.describe, image, region)] = image, region
                    while len(running) > num_threads and self.progress.stop_reason is None:
                        self._finish(running)
                    if self.progress.stop_reason is not None:
                        break
                while running:
                    self._finish(running)
            except BaseException:
                # What is already paid for is finished and stored; nothing further is sent.
                self.progress.budget.stop()
                self._drain(running)
                raise

    def _drain(self, running: dict[Future[dict[str, Any]], tuple[RegionImage, SourceRegion]]) -> None:
        for future, (image, _) in running.items():
            if future.exception() is None:
                self._store(future.result(), image)

    def _finish(self, running: dict[Future[dict[str, Any]], tuple[RegionImage, SourceRegion]]) -> None:
        """Wait for regions and store their records."""
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            image, region = running.pop(future)
            error = future.exception()
            if error is None:
                self._store(future.result(), image)
                self.failures_in_a_row = 0
            elif isinstance(error, BudgetSpentError):
                self.progress.stop_reason = self.progress.stop_reason or str(error)
            elif isinstance(error, EndpointError):
                self.progress.failed[region_name(image, region)] = str(error)
                self.failures_in_a_row += 1
                if error.status in _FATAL_STATUS or self.failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
                    raise error
            else:
                raise error
            self.report(self.progress)

    def _store(self, record: dict[str, Any], image: RegionImage) -> None:
        if record["status"] == "accepted":
            _copy_image(image, self.folder / IMAGE_FOLDER)
        self.records.append_json(record)
        self.progress.count(record)


def _copy_image(image: RegionImage, folder: Path) -> None:
    """Store an image once; its name contains the hash of its content."""
    path = folder / image.file_name
    if path.exists():
        return
    folder.mkdir(exist_ok=True)
    with replaced_file(path) as file:
        if image.content is None:
            Image.fromarray(image.pixels).save(file, format="PNG")
        else:
            file.write(image.content)
