"""The rows of a batch as a Parquet table, with the fields of `results.jsonl`."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

from unipixel.batch.row_file import ROWS_NAME, read_rows

TABLE_NAME = "results.parquet"
ROWS_PER_GROUP = 32


def write_table(folder: Path) -> Path | None:
    """Write `results.parquet` from `results.jsonl`, some rows at a time; return its path, or None without pyarrow.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: A line is not a row.
    """
    if importlib.util.find_spec("pyarrow") is None:
        return None
    import pyarrow
    from pyarrow import parquet

    schema = _schema(pyarrow)
    path = folder / TABLE_NAME
    temporary = path.with_suffix(".tmp")
    try:
        with parquet.ParquetWriter(temporary, schema) as writer:
            rows = read_rows(folder / ROWS_NAME)
            while group := list(itertools.islice(rows, ROWS_PER_GROUP)):
                writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _schema(pa: Any) -> Any:
    integers = pa.list_(pa.int64())
    rle = pa.struct({"size": integers, "counts": pa.string()})
    frame = pa.struct(
        {
            "frame_index": pa.int64(),
            "timestamp_seconds": pa.float64(),
            "visible": pa.bool_(),
            "score": pa.float64(),
            "box_xyxy": integers,
            "rle": rle,
        }
    )
    item = pa.struct(
        {
            "id": pa.int64(),
            "source": pa.string(),
            "expression": pa.string(),
            "anchor_frame": pa.int64(),
            "low_confidence": pa.list_(integers),
            "frames": pa.list_(frame),
        }
    )
    video = pa.struct(
        {
            "path": pa.string(),
            "width": pa.int64(),
            "height": pa.int64(),
            "num_frames": pa.int64(),
            "fps": pa.float64(),
            "duration_seconds": pa.float64(),
        }
    )
    return pa.schema(
        {
            "clip": pa.string(),
            "id": pa.string(),
            "error": pa.string(),
            "questions": pa.list_(pa.string()),
            "answers": pa.list_(pa.string()),
            "model": pa.string(),
            "video": video,
            "objects": pa.list_(item),
        }
    )
