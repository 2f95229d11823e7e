"""The result folder appears complete or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unipixel.output.folder import BackgroundWriter, OutputFolder
from unipixel.output.writers import FrameWriter, MaskWriter, OverlayVideoWriter
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame
from unipixel.video.open import open_video

FRAME = Frame(0, 0.0, np.zeros((16, 16, 3), np.uint8))


def test_output_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep/result"
    with OutputFolder(target) as folder:
        (folder.path / "result.json").write_text("{}")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["result.json"]
    assert [path.name for path in target.parent.iterdir()] == ["result"]


def test_output_folder_after_an_error_leaves_nothing(tmp_path: Path) -> None:
    finished = []
    with pytest.raises(ValueError, match="broken"), OutputFolder(tmp_path / "result") as folder:  # noqa: PT012
        folder.at_end(lambda: finished.append(1))
        (folder.path / "result.json").write_text("{}")
        raise ValueError("broken")
    assert list(tmp_path.iterdir()) == []
    assert finished == []


def test_output_folder_after_ctrl_c_contains_valid_finished_files(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with pytest.raises(KeyboardInterrupt, match="by the user"), OutputFolder(target) as folder:  # noqa: PT012
        folder.at_end(lambda: (folder.path / "result.json").write_text("{}"))
        writer = folder.add(OverlayVideoWriter(folder.path / "overlay.mp4", fps=10))
        for index in range(3):
            writer.write(Frame(index, index / 10, FRAME.image), {})
        raise KeyboardInterrupt("by the user")
    assert (target / "result.json").exists()
    assert open_video(target / "overlay.mp4").info.num_frames == 3


def test_output_folder_existing_target_needs_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "result"
    (target / "masks/7").mkdir(parents=True)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"), OutputFolder(target):
        pass
    with OutputFolder(target, overwrite=True) as folder:
        (folder.path / "result.json").write_text("new")
    assert sorted(path.name for path in target.iterdir()) == ["notes.txt", "result.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_output_folder_error_with_overwrite_keeps_the_old_result(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result/result.json").write_text("old")
    with pytest.raises(OSError, match="full"), OutputFolder(tmp_path / "result", overwrite=True) as folder:  # noqa: PT012
        (folder.path / "result.json").write_text("new")
        raise OSError("full")
    assert (tmp_path / "result/result.json").read_text() == "old"


def test_output_folder_where_nothing_can_be_written_raises_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="not a folder"), OutputFolder(tmp_path / "file", overwrite=True):
        pass
    with pytest.raises(OSError, match="cannot write"), OutputFolder(tmp_path / "file/result"):
        pass
    with pytest.raises(OSError, match="cannot write"), OutputFolder("/proc/nowhere/result"):
        pass


def test_background_writer_writes_everything_in_order(tmp_path: Path) -> None:
    item = ObjectMask(np.ones((16, 16), bool), 1.0, True)
    with BackgroundWriter(MaskWriter(tmp_path)) as writer:
        for index in range(20):
            writer.write(Frame(index, 0.0, FRAME.image), {1: item})
    assert len(list((tmp_path / "1").iterdir())) == 20
    with pytest.raises(RuntimeError, match="closed"):
        writer.write(FRAME, {})


def test_background_writer_raises_the_error_of_its_thread() -> None:
    class Failing(FrameWriter):
        def write(self, frame: Any, objects: Any) -> None:
            raise OSError("disk full")

    writer = BackgroundWriter(Failing())

    def write_on() -> None:
        # The sixth call waits until the second frame is taken from the queue, after the first one has failed.
        for _ in range(7):
            writer.write(FRAME, {})

    with pytest.raises(OSError, match="disk full"):
        write_on()
    writer.close()


def test_background_writer_closes_after_an_interrupt_at_any_moment() -> None:
    """Ctrl-C may come between any two steps of passing a frame on; the thread must still be stopped."""
    # In a separate process: here an interrupt at a random moment would also stop coverage measurement.
    script = Path(__file__).parents[2] / "helpers" / "interrupted_writer.py"
    environment = {**os.environ, "PYTHONPATH": str(script.parents[2])}
    done = subprocess.run([sys.executable, str(script)], env=environment, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "200 writers closed"
