"""Sessions with Pixel-SAIL: answers, masks, prompts, later turns, and videos with a segmenter."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers.sail_model import (
    CHECKPOINT,
    GOLDEN,
    recorded_generation,
    recorded_image,
    recorded_prompts,
    recorded_sail,
)
from numpy.typing import NDArray

from unipixel import (
    BoxPrompt,
    GenerationSettings,
    LiveSession,
    MaskPrompt,
    PixelSail,
    PointPrompt,
    SailProcessor,
    Session,
    SessionSettings,
    Turn,
    open_session,
)
from unipixel.sail.sail_conversation import SailConversation
from unipixel.sail.upsampler import MaskHead
from unipixel.session.callbacks import Cancelled
from unipixel.tracking.segmenter import Segmenter

SEGMENT = "Please segment the blue square in this image."


@pytest.fixture(scope="module")
def sail() -> PixelSail:
    return recorded_sail()[0]


@pytest.fixture(scope="module")
def processor() -> SailProcessor:
    return recorded_sail()[1]


@pytest.fixture
def session(sail: PixelSail, processor: SailProcessor) -> Session:
    return open_session(sail, processor, [recorded_image("case_refer")])


def _mask(session: Session, object_id: int, frame_index: int = 0) -> NDArray[np.bool_]:
    record = session.bank.mask_record(object_id, frame_index)
    assert record is not None
    return np.asarray(record.mask(session.bank.frame_size))


def test_answer_has_the_recorded_mask_as_an_object(session: Session) -> None:
    result = session.ask(SEGMENT)
    assert result.answer == "It is [1]."
    assert session.bank.ids == (1,)
    assert session.bank[1].source == "language"
    expected = recorded_generation("case_refer", 0)
    np.testing.assert_array_equal(_mask(session, 1), expected["masks"][0].numpy() > 0)
    record = session.bank.mask_record(1, 0)
    logits = torch.nn.functional.interpolate(expected["mask_logits"][None], size=(75, 110), mode="bilinear")[0, 0]
    assert record is not None
    assert record.score == pytest.approx(float(logits[logits > 0].sigmoid().mean()), abs=1e-4)


def test_segment_asks_the_question_of_the_published_evaluation(session: Session) -> None:
    result = session.segment("the blue square")
    assert (result.question, result.answer) == (SEGMENT, "It is [1].")


def test_second_question_reads_its_own_tokens_only(session: Session, processor: SailProcessor) -> None:
    first = session.ask(SEGMENT).turn
    second = session.ask("Please segment the yellow triangle in this image.").turn
    assert first is not None
    assert second is not None
    # The grid of 5 x 7 patches with two border tokens, then the text.
    first_text = processor.encode([Turn(SEGMENT)]).inputs.input_ids.shape[1]
    assert first.num_read_tokens == 37 + first_text
    own = processor.encode_later_turn(Turn("Please segment the yellow triangle in this image.")).inputs
    # With the token that ended the first answer, which was generated but not processed.
    assert second.num_read_tokens == own.input_ids.shape[1] + 1


def test_later_turn_answers_as_the_whole_conversation_does(
    session: Session, sail: PixelSail, processor: SailProcessor
) -> None:
    question = "Please segment the yellow triangle in this image."
    session.ask(SEGMENT)
    session.ask(question)
    image = processor.image(recorded_image("case_refer"))
    turns = [Turn(SEGMENT, "It is [SEG]."), Turn(question)]
    whole = sail.generate(processor.encode(turns, image=image).inputs)[0]
    assert whole.prompt_cache is not None
    masks = sail.segment(whole.prompt_cache.video, whole.mask_tokens) > 0  # type: ignore[arg-type]
    np.testing.assert_array_equal(_mask(session, 2), masks[0].numpy())


def test_prompts_are_drawn_and_named_in_the_answer(sail: PixelSail, processor: SailProcessor) -> None:
    session = open_session(sail, processor, [recorded_image("case_region_one")])
    (prompt,) = recorded_prompts("case_region_one")
    session.prompt(3, MaskPrompt(np.asarray(prompt.mask) > 0))
    pieces: list[str] = []
    result = session.ask("Please describe the region [3] in the image in detail.", on_text=pieces.append)
    # The recorded answer, whose id is wrong: the tiny model confuses ids.
    assert result.answer == "[7]: a red circle."
    assert "".join(pieces) == result.answer
    assert session.bank[3].source == "mask"


def test_new_prompt_lets_the_image_be_read_again_with_all_turns(session: Session, processor: SailProcessor) -> None:
    session.ask(SEGMENT)
    session.prompt(3, BoxPrompt((10, 10, 40, 50)))
    turns = [Turn(SEGMENT, "It is [SEG]."), Turn("What is <Prompt3>?")]
    again = session.ask("What is [3]?").turn
    assert again is not None
    assert again.num_read_tokens == 37 + processor.encode(turns).inputs.input_ids.shape[1]
    # An object of an answer becomes a prompt when a question names it.
    renewed = session.ask("What is [1]?").turn
    assert renewed is not None
    assert renewed.num_read_tokens > again.num_read_tokens
    repeated = session.ask("And [1]?").turn
    assert repeated is not None
    assert repeated.num_read_tokens < 20


def test_box_is_filled_and_point_marks_its_patch(session: Session) -> None:
    session.prompt(1, BoxPrompt((10, 10, 40, 50)))
    session.prompt(2, PointPrompt(70.0, 30.0))
    session.objects.track()
    expected = np.zeros((75, 110), dtype=bool)
    expected[10:50, 10:40] = True
    np.testing.assert_array_equal(_mask(session, 1), expected)
    patch = _mask(session, 2)
    rows, columns = np.nonzero(patch)
    # The image of 75 x 110 pixels is resized to 80 x 112: a patch has about 15 x 15.7 pixels.
    assert (rows.min(), rows.max() + 1) == (30, 45)
    assert (columns.min(), columns.max() + 1) == (63, 79)
    assert patch[30, 70]


@pytest.mark.parametrize("size", [(75, 110), (480, 641), (3000, 4000), (16, 16), (37, 1000)])
def test_point_marks_exactly_one_cell(size: tuple[int, int], sail: PixelSail, processor: SailProcessor) -> None:
    from unipixel.sail.patch_grid import mask_to_cells

    session = open_session(sail, processor, [np.zeros((*size, 3), dtype=np.uint8)])
    generator = np.random.default_rng(0)
    for _ in range(5):
        x, y = generator.uniform(0, size[1]), generator.uniform(0, size[0])
        session.prompt(1, PointPrompt(x, y))
        mask = session.objects.segment_pending(1, 0).mask
        resized = processor.fit_size(*size)
        cells = mask_to_cells(mask, resized, patch=16)
        row, column = int(y * resized[0] / size[0]) // 16, int(x * resized[1] / size[1]) // 16
        assert cells[row, column]
        assert cells.sum() == 1
        session.forget(1)


def test_points_add_up_and_a_mask_replaces_them(session: Session) -> None:
    session.prompt(1, PointPrompt(5, 5))
    session.objects.track()
    first = _mask(session, 1)
    session.prompt(1, PointPrompt(100, 70))
    session.objects.track()
    both = _mask(session, 1)
    assert both[first].all()
    assert both[70, 100]
    mask = np.zeros((75, 110), dtype=bool)
    mask[20:30, 20:30] = True
    session.prompt(1, MaskPrompt(mask))
    session.objects.track()
    np.testing.assert_array_equal(_mask(session, 1), mask)


def test_segment_forces_a_mask_where_the_answer_has_none(
    sail: PixelSail, processor: SailProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(sail, processor, [recorded_image("case_forced_mask")])
    for prompt in recorded_prompts("case_forced_mask"):
        session.prompt(prompt.prompt_id, MaskPrompt(np.asarray(prompt.mask) > 0))
    monkeypatch.setattr("unipixel.session.base_session.segmentation_question", lambda query, **_: query)
    # The free answer to this question names a category; the recorded mask is that of "It is [SEG]." after it.
    result = session.segment("What is [4]?")
    assert result.answer == "It is [1]."
    np.testing.assert_array_equal(_mask(session, 1), recorded_generation("case_forced_mask", 2)["masks"][0].numpy() > 0)
    # The rejected free answer is not a part of the conversation.
    assert session.ask(SEGMENT).turn is not None


def test_forced_answer_generates_no_token(sail: PixelSail, processor: SailProcessor) -> None:
    talk = SailConversation(sail, processor, recorded_image("case_forced_mask"))
    reply = talk.ask(Turn("What is it?", answer_prefix="It is [SEG]."))
    assert (reply.text, reply.num_masks, len(reply.mask_tokens)) == ("It is <|seg|>.", 1, 1)
    cache = talk.snapshot().prompt_cache
    assert cache is not None
    assert cache.pending_ids == ()
    assert cache.num_tokens == reply.num_read_tokens


def test_empty_mask_means_that_there_is_no_target(sail: PixelSail, processor: SailProcessor) -> None:
    blind = copy.deepcopy(sail)
    head = blind.mask_head
    assert isinstance(head, MaskHead)
    last = head.seg_token_projector[2]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    session = open_session(blind, processor, [recorded_image("case_refer")])
    result = session.segment("the blue square")
    assert (result.answer, session.bank.ids) == ("It is.", ())


def test_upsampled_image_is_kept_only_if_it_is_small_enough(sail: PixelSail, processor: SailProcessor) -> None:
    masks = {}
    for limit in (1, 2**30):
        session = open_session(
            sail, processor, [recorded_image("case_refer")], settings=SessionSettings(max_upsampled_bytes=limit)
        )
        session.ask(SEGMENT)
        masks[limit] = (_mask(session, 1), session.num_bytes)
    np.testing.assert_array_equal(masks[1][0], masks[2**30][0])
    assert masks[2**30][1] - masks[1][1] == 40 * 56 * 64 * 4


def test_default_keeps_the_upsampled_image_of_the_largest_picture() -> None:
    """One of 1024 x 1024 pixels at a stride of 2, with 896 or 1024 channels in float32, fits exactly."""
    assert 512 * 512 * 896 * 4 < SessionSettings().max_upsampled_bytes == 512 * 512 * 1024 * 4


def test_bfloat16_gives_nearly_the_same_mask(processor: SailProcessor) -> None:
    half = PixelSail.from_pretrained(CHECKPOINT, dtype=torch.bfloat16)
    # The rotary frequencies stay in float32: in bfloat16 distant positions coincide.
    assert half.single_transformer.model.rotary_emb.inv_freq.dtype == torch.float32
    session = open_session(half, processor, [recorded_image("case_refer")])
    session.ask(SEGMENT)
    ours, theirs = _mask(session, 1), recorded_generation("case_refer", 0)["masks"][0].numpy() > 0
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.9


def test_cancelled_question_changes_nothing(session: Session) -> None:
    session.ask(SEGMENT)
    before = session.num_bytes
    with pytest.raises(Cancelled, match="cancelled"):
        session.ask(SEGMENT, should_stop=lambda: True)
    assert session.num_bytes == before
    assert session.ask(SEGMENT).answer == "It is [2]."


def test_restart_forgets_the_turns_but_not_the_objects(session: Session) -> None:
    first = session.ask(SEGMENT).turn
    session.restart()
    again = session.ask(SEGMENT).turn
    assert first is not None
    assert again is not None
    assert again.num_read_tokens == first.num_read_tokens
    assert session.bank.ids == (1, 2)


def test_mask_on_the_anchor_frame_starts_the_tracker_of_a_video(
    sail: PixelSail, processor: SailProcessor, segmenter: Segmenter, frames: list[NDArray[np.uint8]]
) -> None:
    settings = SessionSettings(segmenter=segmenter, memory_dtype=torch.float32)
    session = open_session(sail, processor, frames, settings=settings)
    session.segment("the red square")
    still = open_session(sail, processor, frames[:1])
    still.segment("the red square")
    np.testing.assert_array_equal(_mask(session, 1), _mask(still, 1))
    assert [index for index, _ in session.bank.mask_records(1)] == list(range(len(frames)))
    assert session.num_encoded_frames == len(frames)


def test_model_reads_the_first_prompted_frame_of_a_video(
    sail: PixelSail, processor: SailProcessor, segmenter: Segmenter, frames: list[NDArray[np.uint8]]
) -> None:
    session = open_session(sail, processor, frames, settings=SessionSettings(segmenter=segmenter))
    mask = np.zeros((40, 56), dtype=bool)
    mask[10:30, 10:30] = True
    session.prompt(2, MaskPrompt(mask, frame_index=3))
    session.segment("the object next to [2]")
    assert session.bank[2].anchor_frame == 3
    assert {session.bank[key].anchor_frame for key in session.bank.ids} == {3}


def test_eve_variant_answers_in_sessions_and_keeps_its_cache() -> None:
    from parity.run_sail_case import SailCase

    case = SailCase(CHECKPOINT, GOLDEN / "case_eve")
    case._load()
    settings = SessionSettings(generation=GenerationSettings(max_new_tokens=4))
    session = open_session(case.model, case.processor, [case.inputs["image"].numpy()], settings=settings)
    # Drawn weights answer without [SEG], so that the mask is forced.
    assert session.segment("the red square").answer == "It is [1]."
    later = session.ask("Why?").turn
    session.prompt(2, BoxPrompt((10, 10, 60, 60)))
    renewed = session.ask("What is [2]?").turn
    assert later is not None
    assert renewed is not None
    num_image_tokens = 1 + 5 * 8
    assert later.num_read_tokens < num_image_tokens < renewed.num_read_tokens


def test_bad_input_names_the_value_and_the_remedy(
    session: Session, sail: PixelSail, processor: SailProcessor, frames: list[NDArray[np.uint8]]
) -> None:
    with pytest.raises(ValueError, match="object id 15 is out of range: Pixel-SAIL has prompt ids 0 to 14"):
        session.prompt(15, PointPrompt(3, 3))
    with pytest.raises(ValueError, match=r"corrects masks of SAM 2\.1 only: give a segmenter"):
        session.prompt(1, PointPrompt(3, 3, is_positive=False))
    with pytest.raises(ValueError, match=r"the mask has shape \(3, 3\)"):
        session.prompt(1, MaskPrompt(np.ones((3, 3), dtype=bool)))
    with pytest.raises(ValueError, match=r"names \[9\], which is neither prompted nor in the object memory"):
        session.ask("What is [9]?")
    with pytest.raises(ValueError, match="a video of 6 frames, which Pixel-SAIL cannot track alone: give a segm"):
        open_session(sail, processor, frames)
    with pytest.raises(TypeError, match="a stream needs a UniPixel, PixelSail reads images"):
        LiveSession(sail, processor)  # type: ignore[arg-type]
    assert session.bank.ids == ()


def test_conversation_longer_than_the_positions_is_refused(sail: PixelSail, processor: SailProcessor) -> None:
    session = open_session(
        sail, processor, [recorded_image("case_refer")],
        settings=SessionSettings(generation=GenerationSettings(max_new_tokens=2)),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"have \d{4} tokens, the model takes at most 2047: start a new session"):
        session.ask("Why? " * 1000)
