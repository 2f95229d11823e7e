"""Check a built wheel and the package installed from it, without the checkout on the path.

Run in the folder that the wheel was installed to: PYTHONPATH=FOLDER python .ci/check_wheel.py FILE.whl
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import zipfile
from pathlib import Path


def main() -> None:
    """Check the archive, then the installed package."""
    check_archive(Path(sys.argv[1]))
    check_imports(Path.cwd())
    check_use()
    print(f"{Path(sys.argv[1]).name}: one top-level name, every module imports, tokenizer, clip and tracker work")


def check_archive(wheel: Path) -> None:
    """Check the file names in the wheel."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    expect(tops == {"unipixel"}, f"the wheel's top-level names are {sorted(tops)}")
    licences = {Path(name).name for name in names if ".dist-info/licenses/" in name}
    expect(licences == {"LICENSE", "THIRD_PARTY.md"}, f"the wheel's licence files are {sorted(licences)}")
    expect(any(name == "unipixel/py.typed" for name in names), "the wheel lacks unipixel/py.typed")
    unexpected = [name for name in names if "__pycache__" in name or "/test_" in name]
    expect(not unexpected, f"the wheel contains {unexpected[:5]}")


def check_imports(folder: Path) -> None:
    """Import every module and public name, and check that all come from the folder."""
    import unipixel

    for module in pkgutil.walk_packages(unipixel.__path__, "unipixel."):
        importlib.import_module(module.name)
    for name in unipixel.__all__:
        getattr(unipixel, name)
    misplaced = [
        name
        for name, module in sys.modules.items()
        if name.split(".")[0] == "unipixel" and folder.resolve() not in Path(str(module.__file__)).resolve().parents
    ]
    expect(not misplaced, f"not imported from {folder}: {misplaced[:5]}")


def check_use() -> None:
    """Load the tokenizer, decode the sample clip, track an object in it, load the bundled models."""
    from unipixel import SegmenterConfig, load_checkpoint
    from unipixel.assets import sample_path
    from unipixel.checkpoints.files import BUNDLED
    from unipixel.processing.chat_template import load_tokenizer
    from unipixel.tracking.segmenter import Segmenter
    from unipixel.tracking.tracker import StreamingTracker
    from unipixel.video.open import open_video

    tokenizer = load_tokenizer()
    text = "What is [1] doing?<|seg|>"
    expect(tokenizer.decode(tokenizer(text)["input_ids"]) == text, "the bundled tokenizer does not round-trip text")
    tracker = StreamingTracker(Segmenter(SegmenterConfig.preset("tiny", image_size=64)).eval())
    video = open_video(sample_path())
    for frame in video.read([0, 1]):
        tracked = tracker.step(frame.image)
        if frame.index == 0:
            tracked = tracker.add_points(1, [(65, 85)])
    expect(tracked.mask_of(1).shape == (video.info.height, video.info.width), "a mask is not of the video's size")
    for model in sorted(BUNDLED.iterdir()) if BUNDLED.is_dir() else []:
        load_checkpoint(model.name)


def expect(is_met: bool, failure: str) -> None:
    """Exit with `failure` unless the condition is met."""
    if not is_met:
        sys.exit(f"check_wheel: {failure}")


if __name__ == "__main__":
    main()
