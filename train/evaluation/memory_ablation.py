"""Ablations of the object memory: exchanged masks, or no memory in the question."""

from __future__ import annotations

from dataclasses import replace

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.injection import MemoryInjection
from unipixel.session.session import Session


class NoMemorySession(Session):
    """A session that fills its memory, but does not inject it into questions.

    Objects are segmented and tracked as usual. For the language model, `[id]` in a question is only a number.
    """

    def _injection(self) -> MemoryInjection | None:
        return None


def exchange_masks(bank: ObjectMemoryBank, first_id: int, second_id: int) -> ObjectMemoryBank:
    """Return a memory of two objects, each with the masks of the other.

    The anchor frames become those of the first prompts, so that a session with this memory chooses the same frames as
    the session that filled it.

    Args:
        bank: Memory with both objects; it is not changed.
        first_id: Id of one object.
        second_id: Id of the other.

    Raises:
        KeyError: One of them is not in the memory.
    """
    records = [bank[first_id], bank[second_id]]
    state = bank.state()
    entries = {entry.record.object_id: entry for entry in state.objects}
    objects = []
    for record, other_id in zip(records, (second_id, first_id), strict=True):
        anchor = record.prompts[0].frame_index if record.prompts else record.anchor_frame
        objects.append(replace(entries[other_id], record=replace(record, anchor_frame=anchor)))
    # In the order in which they were added.
    order = [object_id for object_id in bank.ids if object_id in (first_id, second_id)]
    objects.sort(key=lambda entry: order.index(entry.record.object_id))
    return ObjectMemoryBank.restore(replace(state, objects=tuple(objects)))
