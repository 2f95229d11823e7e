"""Time and memory of reading the annotations of a large drawn training set, at first and at a second start.

Run: python tests/benchmarks/annotations.py --format mevis --expressions 1000000

Draws annotations in the layout of MeViS (a dictionary of mask tracks in JSON), RefCOCO (a pickle and COCO masks) or
LLaVA (conversations), then opens them in new processes with an empty and with a filled cache.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from unipixel.train.datasets.published.published_sets import PublishedSets

SETS = {"mevis": "mevis", "refcoco": "refcoco", "llava": "llava_instruct_665k_videogpt_plus_576k"}
EXPRESSIONS_PER_CLIP = 25
SENTENCES_PER_OBJECT = 3
_COUNTS = (
    "XQ1:j0000000000000000K500000000000000i1",
    "^U17m0000000000000000^6",
    "nh03Q12M3N2N2M3ZOBc0>10001N101N3L5JW=",
)
_WORDS = "the a red blue left right cat dog person that moves behind tree second largest".split()  # noqa: SIM905


def draw_mevis(root: Path, count: int, num_frames: int) -> None:
    generator, folder = random.Random(0), root / "mevis/train"
    (folder / "JPEGImages").mkdir(parents=True)
    frames = [f"{index:05d}" for index in range(num_frames)]

    def videos() -> Iterator[tuple[str, object]]:
        for first in range(0, count, EXPRESSIONS_PER_CLIP):
            expressions = {
                str(row): {"exp": _sentence(generator), "obj_id": [row], "anno_id": [first + row]}
                for row in range(min(EXPRESSIONS_PER_CLIP, count - first))
            }
            yield f"{first:012x}", {"frames": frames, "expressions": expressions}

    with (folder / "meta_expressions.json").open("w") as file:
        file.write('{"videos": ')
        _write_object(file, videos())
        file.write("}")
    size = [480, 854]
    track = [[{"size": size, "counts": counts}] * num_frames for counts in _COUNTS]
    with (folder / "mask_dict.json").open("w") as file:
        _write_object(file, ((str(number), track[number % len(track)]) for number in range(count)))


def draw_refcoco(root: Path, count: int, _: int) -> None:
    generator, folder = random.Random(0), root / "lisa/refer_seg/refcoco"
    folder.mkdir(parents=True)
    num_objects = -(-count // SENTENCES_PER_OBJECT)
    num_images = -(-num_objects // 3)
    references = []
    for number in range(num_objects):
        sentences = []
        for row in range(min(SENTENCES_PER_OBJECT, count - number * SENTENCES_PER_OBJECT)):
            text = _sentence(generator)
            key = number * SENTENCES_PER_OBJECT + row
            sentences.append({"sent_id": key, "sent": text, "raw": text.title(), "tokens": text.split()})
        references.append(
            {"ref_id": number, "ann_id": number, "image_id": number // 3, "split": "train", "sentences": sentences}
        )
    (folder / "refs(unc).p").write_bytes(pickle.dumps(references, 2))
    polygon = [float(generator.randrange(640)) for _ in range(60)]
    images = [
        {"id": number, "file_name": f"COCO_train2014_{number:012d}.jpg", "height": 480, "width": 640}
        for number in range(num_images)
    ]
    with (folder / "instances.json").open("w") as file:
        file.write('{"images": ' + json.dumps(images) + ', "annotations": [')
        for number in range(num_objects):
            annotation = {"id": number, "image_id": number // 3, "segmentation": [polygon], "bbox": [1, 2, 30, 40]}
            file.write((", " if number else "") + json.dumps(annotation))
        file.write("]}")


def draw_llava(root: Path, count: int, _: int) -> None:
    generator = random.Random(0)
    (root / "general").mkdir(parents=True)
    with (root / "general/llava_v1_5_mix665k_with_videogpt_plus_576k.json").open("w") as file:
        file.write("[")
        for number in range(count):
            turn = [
                {"from": "human", "value": f"<image>\n{_sentence(generator)}"},
                {"from": "gpt", "value": " ".join(_sentence(generator) for _ in range(8))},
            ]
            row = {"id": str(number), "image": f"coco/train2017/{number:012d}.jpg", "conversations": turn}
            file.write((", " if number else "") + json.dumps(row))
        file.write("]")


def measure(name: str, root: Path, cache: Path) -> None:
    """Open the set in this process and print the figures."""
    start, start_cpu = time.perf_counter(), time.process_time()
    index = PublishedSets.open([name], root, cache=cache).indices[name]
    opened, opened_cpu = time.perf_counter(), time.process_time()
    numbers = random.Random(1).sample(range(len(index)), min(2000, len(index)))
    expressions = sum(len(index[number].expressions) for number in numbers)
    figures = {
        "entries": len(index),
        "seconds": round(opened - start, 2),
        "cpu_seconds": round(opened_cpu - start_cpu, 2),
        "entries_per_second": round(len(numbers) / (time.perf_counter() - opened)),
        "expressions_per_entry": round(expressions / len(numbers), 2),
        "peak_gb": round(_peak_bytes() / 2**30, 2),
    }
    print(json.dumps(figures))


def _peak_bytes() -> int:
    """Return the most memory that this process has used; that of resource.getrusage includes its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM: this benchmark needs Linux")


def main() -> None:
    """Draw the set, open it twice in new processes, and print the figures of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--format", choices=SETS, default="mevis")
    parser.add_argument("--expressions", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=10, help="frames of a clip")
    parser.add_argument("--opened", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    name = SETS[arguments.format]
    if arguments.opened:
        measure(name, *arguments.opened)
        return
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "data", Path(folder) / "cache"
        draw = {"mevis": draw_mevis, "refcoco": draw_refcoco, "llava": draw_llava}[arguments.format]
        draw(root, arguments.expressions, arguments.frames)
        num_bytes = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        print(f"annotation files: {num_bytes / 2**20:.0f} MiB")
        for start in ("first start", "second start"):
            command = [sys.executable, __file__, "--format", arguments.format, "--opened", str(root), str(cache)]
            print(start, subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        cached = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
        print(f"cache: {cached / 2**20:.0f} MiB")


def _sentence(generator: random.Random) -> str:
    return " ".join(generator.choices(_WORDS, k=6))


def _write_object(file: object, members: Iterator[tuple[str, object]]) -> None:
    for number, (key, value) in enumerate(members):
        file.write(("{" if number == 0 else ", ") + json.dumps(key) + ": " + json.dumps(value))  # type: ignore[attr-defined]
    file.write("}")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
