"""Files that are installed with the package."""

from pathlib import Path


def sample_path() -> Path:
    """Return the path of the bundled sample clip: four synthetic objects, 4 seconds, 320 x 240 pixels, H.264.

    A striped red star moves right, a blue circle overtakes it, a green square stays still and a spotted
    yellow heart moves up behind the square. `unipixel.train.datasets.sample_clip` generates it.
    """
    return Path(__file__).with_name("sample.mp4")
