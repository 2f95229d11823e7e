"""Sessions whose memory is not what was seen: objects that traded places, or nothing told at all."""

from __future__ import annotations

from dataclasses import replace

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.injection import MemoryInjection
from unipixel.session.session import Session


class NoMemorySession(Session):
    """A session that fills its memory as others do, but never tells the language model of it.

    Objects are segmented and followed all the same. To the model, `[id]` in a question is a bare number.
    """

    def _injection(self) -> MemoryInjection | None:
        return None


def exchange_masks(bank: ObjectMemoryBank, first_id: int, second_id: int) -> ObjectMemoryBank:
    """Return a memory of two objects, each with the masks of the other; everything else stays in its place.

    A session over it sees the frames that the session which filled the memory saw, as long as that kept
    the prompted ones: the anchors become the frames of the first prompts.

    Args:
        bank: Holds both objects; it is not changed.
        first_id: One of them.
        second_id: The other.

    Raises:
        KeyError: One of them is not in the memory.
    """
    records = [bank[first_id], bank[second_id]]
    state = bank.state()
    held = {entry.record.object_id: entry for entry in state.objects}
    objects = []
    for record, other_id in zip(records, (second_id, first_id), strict=True):
        anchor = record.prompts[0].frame_index if record.prompts else record.anchor_frame
        objects.append(replace(held[other_id], record=replace(record, anchor_frame=anchor)))
    # In the order in which they were added, as they were told of.
    order = [object_id for object_id in bank.ids if object_id in (first_id, second_id)]
    objects.sort(key=lambda entry: order.index(entry.record.object_id))
    return ObjectMemoryBank.restore(replace(state, objects=tuple(objects)))
