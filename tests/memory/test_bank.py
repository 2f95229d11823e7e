from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.records import MaskRecord, PromptRecord
from unipixel.memory.storage import BANK_FILE

SIZE = (6, 8)
POINT = PromptRecord("point", 3, (2.5, 1.0))


def square(left: int, width: int = 2) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[1:4, left % 7 : left % 7 + width] = True
    return mask


@pytest.fixture
def bank() -> ObjectMemoryBank:
    """A bank in which object 1 moves right over frames 0 to 5 and object 4 is visible on frames 2 and 3."""
    bank = ObjectMemoryBank(SIZE)
    bank.add(1, source="point", prompts=[POINT], anchor_frame=3)
    bank.add(4, source="language", expression="the red cup")
    for frame in range(6):
        bank.update(1, frame, square(frame), score=0.5 + frame / 10)
        bank.update(4, frame, square(0) if frame in (2, 3) else None, score=-1.0)
    return bank


def test_masks_on_returns_the_stored_masks(bank: ObjectMemoryBank) -> None:
    masks = bank.masks_on([0, 2, 5])
    assert masks.shape == (3, 2, *SIZE)
    assert (masks[:, 0] == np.stack([square(0), square(2), square(5)])).all()
    assert masks[:, 1].any(axis=(1, 2)).tolist() == [False, True, False]
    assert (bank.masks_on([2], object_ids=[4, 1])[0, 0] == square(0)).all()
    assert not bank.masks_on([77]).any()


def test_mask_records_have_score_and_visibility(bank: ObjectMemoryBank) -> None:
    memory = bank.mask_record(1, 2)
    assert memory is not None
    assert (memory.is_visible, memory.score) == (True, 0.7)
    absent = bank.mask_record(4, 0)
    assert absent is not None
    assert (absent.is_visible, absent.rle(SIZE)) == (False, None)
    assert bank.mask_record(4, 99) is None
    assert [index for index, _ in bank.mask_records(4)] == list(range(6))


def test_add_without_an_id_takes_the_next_unused_id() -> None:
    bank = ObjectMemoryBank(SIZE)
    assert bank.add(source="box") == 1
    assert bank.add(7, source="box") == 7
    assert bank.add(source="box") == 8
    bank.forget(8)
    assert bank.add(source="box") == 9
    assert bank.add(8, source="box") == 8
    assert bank.ids == (1, 7, 9, 8)


def test_changes_since_returns_added_changed_and_forgotten(bank: ObjectMemoryBank) -> None:
    then = bank.version
    bank.update(1, 5, square(4))
    bank.add(5, source="box")
    bank.forget(4)
    changes = bank.changes_since(then)
    assert (changes.added, changes.changed, changes.forgotten) == ((5,), (1,), (4,))
    assert bank.changes_since(bank.version) == type(changes)((), (), ())


def test_changes_since_ignores_other_frames(bank: ObjectMemoryBank) -> None:
    then = bank.version
    bank.update(1, 5, square(0))
    assert bank.changes_since(then, frame_indices=[0, 2, 4]).changed == ()
    assert bank.changes_since(then, frame_indices=[0, 5]).changed == (1,)


def test_update_with_the_same_mask_changes_the_score_alone(bank: ObjectMemoryBank) -> None:
    then = bank.version
    bank.update(1, 0, square(0), score=0.25)
    memory = bank.mask_record(1, 0)
    assert memory is not None
    assert memory.score == 0.25
    assert bank.version == then


def test_correct_deletes_masks_from_its_frame_on_and_adds_the_prompt(bank: ObjectMemoryBank) -> None:
    then = bank.version
    bank.correct(1, PromptRecord("point", 4, (1.0, 1.0), is_positive=False))
    assert [index for index, _ in bank.mask_records(1)] == [0, 1, 2, 3]
    assert [prompt.frame_index for prompt in bank[1].prompts] == [3, 4]
    assert bank.changes_since(then, frame_indices=[0]).changed == (1,)
    bank.correct(1, POINT, is_whole=True)
    assert list(bank.mask_records(1)) == []


def test_merge_stores_the_union_and_removes_the_other(bank: ObjectMemoryBank) -> None:
    bank.merge(1, 4)
    assert bank.ids == (1,)
    assert (bank.masks_on([2])[0, 0] == (square(2) | square(0))).all()
    assert (bank.masks_on([4])[0, 0] == square(4)).all()
    memory = bank.mask_record(1, 2)
    assert memory is not None
    assert memory.score == 0.7
    assert bank[1].expression == "the red cup"


def test_reset_leaves_an_empty_bank(bank: ObjectMemoryBank) -> None:
    bank.reset()
    assert (len(bank), bank.version, bank.add(source="box")) == (0, 0, 1)


def test_copy_is_independent(bank: ObjectMemoryBank) -> None:
    copied = bank.copy()
    bank.update(1, 0, None)
    bank.forget(4)
    assert (copied.masks_on([0])[0, 0] == square(0)).all()
    assert 4 in copied


def test_saved_bank_is_loaded_without_loss(bank: ObjectMemoryBank, tmp_path: Path) -> None:
    bank.add(9, source="mask", prompts=[PromptRecord.of_mask(square(3), 2), PromptRecord("box", 1, (0, 0.5, 3, 4))])
    bank.forget(4)
    bank.save(tmp_path / "memory")
    loaded = ObjectMemoryBank.load(tmp_path / "memory")
    assert loaded.state() == bank.state()
    assert (loaded[9].prompts[0].mask(SIZE) == square(3)).all()
    assert list((tmp_path / "memory").iterdir()) == [tmp_path / "memory" / BANK_FILE]


def test_saved_bank_includes_spilled_masks(tmp_path: Path) -> None:
    bank = ObjectMemoryBank(SIZE, max_frames=2, spill_folder=tmp_path / "spill")
    fill(bank, 7)
    bank.save(tmp_path)
    assert (ObjectMemoryBank.load(tmp_path).masks_on(range(7)) == bank.masks_on(range(7))).all()
    again = ObjectMemoryBank.load(tmp_path, max_frames=3, spill_folder=tmp_path / "other")
    assert again.state() == bank.state()


def test_old_masks_without_a_folder_are_dropped_and_refused(tmp_path: Path) -> None:
    bank = ObjectMemoryBank(SIZE, max_frames=3)
    fill(bank, 7)
    assert [index for index, _ in bank.mask_records(1)] == [4, 5, 6]
    with pytest.raises(KeyError, match="mask of object 1 on frame 2 was dropped: increase max_frames"):
        bank.masks_on([2, 6])
    assert not bank.masks_on([8]).any()
    bank.save(tmp_path)
    with pytest.raises(KeyError, match="was dropped"):
        ObjectMemoryBank.load(tmp_path).masks_on([0])


def test_old_masks_with_a_folder_are_read_from_disk(tmp_path: Path) -> None:
    bank = ObjectMemoryBank(SIZE, max_frames=3, spill_folder=tmp_path)
    fill(bank, 7)
    assert (bank.masks_on(range(7))[:, 0] == np.stack([square(frame) for frame in range(7)])).all()
    bank.update(1, 0, square(6))
    assert (bank.masks_on([0])[0, 0] == square(6)).all()
    bank.correct(1, PromptRecord("point", 2, (1, 1)))
    assert [index for index, _ in bank.mask_records(1)] == [0, 1]
    bank.forget(1)
    assert list(tmp_path.iterdir()) == []


def test_keep_only_moves_other_frames_to_disk_or_drops_them(tmp_path: Path) -> None:
    spilling, dropping = ObjectMemoryBank(SIZE, spill_folder=tmp_path), ObjectMemoryBank(SIZE)
    for bank in (spilling, dropping):
        fill(bank, 6)
        bank.keep_only([0, 3, 5])
    assert spilling.masks_on(range(6)).any(axis=(2, 3)).all()
    assert [index for index, _ in dropping.mask_records(1)] == [0, 3, 5]


def test_max_frames_bounds_the_frames_in_memory() -> None:
    bank = ObjectMemoryBank(SIZE, max_frames=4)
    fill(bank, 50)
    assert len(list(bank.mask_records(1))) == 4


def test_a_folder_with_masks_is_refused(tmp_path: Path) -> None:
    fill(ObjectMemoryBank(SIZE, max_frames=1, spill_folder=tmp_path), 3)
    with pytest.raises(ValueError, match=r"already contains masks \(1\.jsonl\): give an empty folder"):
        ObjectMemoryBank(SIZE, spill_folder=tmp_path)


def test_unknown_and_duplicate_ids_are_refused(bank: ObjectMemoryBank) -> None:
    calls: list[Callable[[], object]] = [
        lambda: bank[2],
        lambda: bank.update(2, 0, None),
        lambda: bank.forget(2),
        lambda: bank.merge(1, 2),
        lambda: bank.correct(2, POINT),
        lambda: bank.mask_record(2, 0),
        lambda: bank.masks_on([0], object_ids=[2]),
    ]
    for call in calls:
        with pytest.raises(KeyError, match=r"object 2 is not in the memory: ids are \[1, 4\]"):
            call()
    with pytest.raises(ValueError, match="object 4 is already in the memory"):
        bank.add(4, source="box")
    with pytest.raises(ValueError, match="cannot be merged with itself"):
        bank.merge(1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0, np.ones((6, 9))), r"shape \(6, 9\), the video's frames have \(H, W\) = \(6, 8\)"),
        ((1, -1, None), "frame_index must be an integer"),
        ((1, 1.5, None), "frame_index must be an integer"),
    ],
)
def test_updates_with_wrong_shape_or_index_are_refused(
    bank: ObjectMemoryBank, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bank.update(*arguments)
    with pytest.raises(ValueError, match="score must be a finite number"):
        bank.update(1, 0, square(1), score=float("nan"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "circle", "frame_index": 0}, "kind of prompt must be one of"),
        ({"kind": "point", "frame_index": 0, "coords": (1.0,)}, "a point has 2 finite coordinates"),
        ({"kind": "box", "frame_index": 0, "coords": (1.0, 2.0, 3.0, float("inf"))}, "a box has 4 finite"),
        ({"kind": "mask", "frame_index": 0}, "run lengths are required for a mask"),
        ({"kind": "point", "frame_index": -1, "coords": (1.0, 2.0)}, "frame_index must be"),
    ],
)
def test_prompt_records_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptRecord(**arguments)


@pytest.mark.parametrize("source", ["unknown", None])
def test_an_unknown_source_is_refused(bank: ObjectMemoryBank, source: Any) -> None:
    with pytest.raises(ValueError, match="source must be one of"):
        bank.add(source=source)


def damage(path: list[Any], value: Any) -> Any:
    def change(content: Any) -> Any:
        target = content
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
        return content

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda content: [],
        damage(["format"], "other"),
        damage(["frame_size"], [6]),
        damage(["frame_size"], [6, 10**9]),
        damage(["frame_size"], [6, 9]),
        damage(["next_id"], 2),
        damage(["version"], -1),
        damage(["forgotten"], {}),
        damage(["forgotten"], [[1]]),
        damage(["objects"], None),
        damage(["objects", 0, "object_id"], 4),
        damage(["objects", 0, "object_id"], True),
        damage(["objects", 0, "source"], ["point"]),
        damage(["objects", 0, "expression"], 3),
        damage(["objects", 0, "anchor_frame"], -3),
        damage(["objects", 0, "dropped"], [5, 2]),
        damage(["objects", 0, "added_version"], 10**6),
        damage(["objects", 0, "extra"], 1),
        damage(["objects", 0, "prompts"], [{"kind": "point"}]),
        damage(["objects", 0, "prompts", 0, "coords"], "12"),
        damage(["objects", 0, "prompts", 0, "is_positive"], 1),
        damage(["objects", 0, "prompts", 0], {**PromptRecord.of_mask(square(1), 0).to_json(), "counts": "0"}),
        damage(["objects", 0, "frames", 0], [0, 1, 0.5]),
        damage(["objects", 0, "frames", 0], [0, 1, 0.5, "0"]),
        damage(["objects", 0, "frames", 0], [0, 1, 0.5, 7]),
        damage(["objects", 0, "frames", 0], [0, 1, None, None]),
        damage(["objects", 0, "frames", 0], [-1, 1, 0.5, None]),
        damage(["objects", 0, "frames", 0], [0, 10**6, 0.5, None]),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(bank: ObjectMemoryBank, tmp_path: Path, change: Any) -> None:
    bank.save(tmp_path)
    content = json.loads((tmp_path / BANK_FILE).read_text())
    (tmp_path / BANK_FILE).write_text(json.dumps(change(content)))
    with pytest.raises(ValueError, match=r"bank\.json is not an object memory"):
        ObjectMemoryBank.load(tmp_path)


@pytest.mark.parametrize("content", [{}, {"format": "unipixel-object-memory-0", "objects": []}])
def test_a_file_of_another_version_is_refused_with_its_format(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / BANK_FILE).write_text(json.dumps(content))
    message = r"has (no format|the format 'unipixel-object-memory-0') and was written by another version"
    with pytest.raises(ValueError, match=message) as error:
        ObjectMemoryBank.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}'])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / BANK_FILE).write_bytes(content)
    with pytest.raises(ValueError, match="is not an object memory"):
        ObjectMemoryBank.load(tmp_path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=BANK_FILE):
        ObjectMemoryBank.load(tmp_path)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_file_cut_or_altered_anywhere_never_crashes(tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("bank")
    bank = ObjectMemoryBank(SIZE)
    fill(bank, 3)
    bank.save(folder)
    content = bytearray((folder / BANK_FILE).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] = data.draw(st.integers(0, 255))
    (folder / BANK_FILE).write_bytes(content[: data.draw(st.integers(position, len(content)))])
    try:
        loaded = ObjectMemoryBank.load(folder)
    except ValueError:
        return
    loaded.masks_on([0, 1, 2])


class SpillingBank(RuleBasedStateMachine):
    """A bank with `max_frames` and a folder has the same masks as one without."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.plain = ObjectMemoryBank(SIZE)
        self.spilling = ObjectMemoryBank(SIZE, max_frames=2, spill_folder=self.folder.name)
        self.both = (self.plain, self.spilling)
        for bank in self.both:
            bank.add(source="box")

    @rule(row=st.integers(0, 3), frame=st.integers(0, 6), left=st.integers(0, 6))
    def update(self, row: int, frame: int, left: int) -> None:
        if self.plain.ids:
            for bank in self.both:
                bank.update(bank.ids[row % len(bank)], frame, square(left) if left < 6 else None)

    @rule()
    def add(self) -> None:
        if len(self.plain) < 4:
            for bank in self.both:
                bank.add(source="language")

    @precondition(lambda self: len(self.plain) > 1)
    @rule()
    def merge(self) -> None:
        for bank in self.both:
            bank.merge(bank.ids[0], bank.ids[1])

    @precondition(lambda self: len(self.plain) > 0)
    @rule(frame=st.integers(0, 6))
    def correct(self, frame: int) -> None:
        for bank in self.both:
            bank.correct(bank.ids[0], PromptRecord("point", frame, (0, 0)))

    @precondition(lambda self: len(self.plain) > 0)
    @rule()
    def forget(self) -> None:
        for bank in self.both:
            bank.forget(bank.ids[-1])

    @rule(frames=st.sets(st.integers(0, 6)))
    def keep_only(self, frames: set[int]) -> None:
        self.spilling.keep_only(frames)

    @invariant()
    def has_the_same_masks(self) -> None:
        assert self.plain.ids == self.spilling.ids
        assert (self.plain.masks_on(range(7)) == self.spilling.masks_on(range(7))).all()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestSpillingBank = SpillingBank.TestCase
TestSpillingBank.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_mask_record_of_an_empty_mask_is_not_visible() -> None:
    assert MaskRecord.of(np.zeros(SIZE), score=1) == MaskRecord.of(None, score=1.0) == MaskRecord(None, 1.0)


def fill(bank: ObjectMemoryBank, num_frames: int) -> None:
    bank.add(1, source="box")
    for frame in range(num_frames):
        bank.update(1, frame, square(frame))
