"""Interrupts the use of a `BackgroundWriter` 200 times at random times; run by the test of the output folder."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from typing import Any

import numpy as np

from unipixel.output.folder import BackgroundWriter
from unipixel.output.writers import FrameWriter
from unipixel.video.frame import Frame


class _SlowWriter(FrameWriter):
    def write(self, frame: Any, objects: Any) -> None:
        sum(range(3000))


def main() -> None:
    """Check that every interrupted writer can be closed."""
    frame = Frame(0, 0.0, np.zeros((4, 4, 3), np.uint8))
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    delays = random.Random(0)
    for _ in range(200):
        writer = BackgroundWriter(_SlowWriter())
        with contextlib.suppress(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, delays.uniform(0.001, 0.008))
            while True:
                writer.write(frame, {})
        closing = threading.Thread(target=writer.close, daemon=True)
        closing.start()
        closing.join(10)
        if closing.is_alive():
            raise SystemExit("the writing thread did not end")
    print("200 writers closed")


if __name__ == "__main__":
    main()
