"""A chosen segmenter tracks and takes clicks; masks from language stay those of the model's own SAM 2.1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.byte_model import byte_config
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, clip_frames
from helpers.tracker_reference import tiny_segmenter
from numpy.typing import NDArray
from torch import Tensor

from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.processing.visual_prompts import MaskPrompt, PointPrompt
from unipixel.session.live_session import LiveSession, LiveSettings
from unipixel.session.session import Session
from unipixel.session.settings import SessionSettings
from unipixel.session.stream_objects import StreamObjects
from unipixel.session.video_objects import VideoObjects
from unipixel.tracking.propagation import ClipPrompt
from unipixel.tracking.segmenter import Segmenter
from unipixel.video.open import open_video

SIZE = (HEIGHT, WIDTH)
ANCHOR = 2


@pytest.fixture(scope="module")
def chosen() -> Segmenter:
    """A segmenter of another image size than the model's own, with other weights."""
    segmenter = tiny_segmenter(config=byte_config(image_size=96).segmenter)
    with torch.no_grad():
        for parameter in segmenter.image_encoder.parameters():
            parameter.mul_(0.9)
    return segmenter


@pytest.fixture(scope="module")
def tokens() -> dict[int, Tensor]:
    return {4: torch.randn(2, 32, generator=torch.Generator().manual_seed(1))}


@pytest.fixture
def session(model: UniPixel, processor: Processor, chosen: Segmenter) -> Session:
    return Session(model, processor, clip_frames(), settings=SessionSettings(segmenter=chosen))


def _alone(segmenter: Segmenter) -> VideoObjects:
    return VideoObjects(segmenter, open_video(clip_frames()), memory_dtype=torch.float32)


def _masks(objects: VideoObjects, object_id: int) -> NDArray[np.bool_]:
    masks = np.zeros((NUM_FRAMES, *SIZE), bool)
    for index, record in objects.bank.mask_records(object_id):
        masks[index] = record.mask(SIZE)
    return masks


def _own_mask(model: UniPixel, tokens: dict[int, Tensor]) -> NDArray[np.bool_]:
    """Return the mask of the model's own segmenter on the anchor frame."""
    masks = _alone(model.sam2).tracker.segment_frame(tokens, ANCHOR).resized(*SIZE)
    return masks[0].numpy() > 0


def test_clicks_are_segmented_and_tracked_by_the_chosen_segmenter(session: Session, chosen: Segmenter) -> None:
    alone, point = _alone(chosen), PointPrompt(10, 12, ANCHOR)
    for objects in (alone, session.objects):
        objects.prompt(1, point)
        objects.track()
    assert np.array_equal(_masks(session.objects, 1), _masks(alone, 1))
    assert session.num_encoded_frames == alone.tracker.num_encoded_frames


def test_masks_from_language_are_those_of_the_model_and_are_tracked_by_the_chosen_segmenter(
    session: Session, model: UniPixel, chosen: Segmenter, tokens: dict[int, Tensor]
) -> None:
    own = _own_mask(model, tokens)
    assert 0.05 < own.mean() < 0.95
    session.objects.add_tokens(tokens, {4: ANCHOR}, expression="it")
    masks = _masks(session.objects, 4)
    # Resized once to the SAM input of the chosen segmenter, so only the outline may differ.
    assert (masks[ANCHOR] == own).mean() > 0.95
    side = chosen.config.image_size
    given = _alone(model.sam2).tracker.segment_frame(tokens, ANCHOR).resized(side, side) > 0
    for tracked in _alone(chosen).tracker.track([ClipPrompt(4, ANCHOR, given.float())]):
        assert np.array_equal(tracked.objects[4].mask & tracked.objects[4].visible, masks[tracked.frame.index])


def test_each_segmenter_encodes_its_own_frames(session: Session, tokens: dict[int, Tensor]) -> None:
    session.objects.add_tokens(tokens, {4: ANCHOR}, expression="it")
    # The chosen one encodes the clip, in both directions at most once with the cache, the model's own the anchor frame.
    assert session.num_encoded_frames == NUM_FRAMES + 1


def test_chosen_segmenter_decodes_language_on_request(
    model: UniPixel, processor: Processor, chosen: Segmenter, tokens: dict[int, Tensor]
) -> None:
    settings = SessionSettings(segmenter=chosen, language_masks="segmenter")
    session, alone = Session(model, processor, clip_frames(), settings=settings), _alone(chosen)
    for objects in (session.objects, alone):
        objects.add_tokens(tokens, {4: ANCHOR}, expression="it")
    assert np.array_equal(_masks(session.objects, 4), _masks(alone, 4))


def test_segmenter_of_another_width_cannot_decode_language(model: UniPixel, processor: Processor) -> None:
    settings = SessionSettings(segmenter=tiny_segmenter(), language_masks="segmenter")
    with pytest.raises(ValueError, match=r"have 32 channels, the segmenter takes 64: use language_masks='model'"):
        Session(model, processor, clip_frames(), settings=settings)
    with pytest.raises(ValueError, match="language_masks must be one of model, segmenter"):
        SessionSettings(language_masks="both")  # type: ignore[arg-type]


def test_stream_tracks_what_the_model_finds_with_the_chosen_segmenter(
    model: UniPixel, processor: Processor, chosen: Segmenter, tokens: dict[int, Tensor]
) -> None:
    session = LiveSession(model, processor, settings=LiveSettings(segmenter=chosen))
    alone = StreamObjects(chosen, memory_dtype=model.dtype)
    for index, image in enumerate(clip_frames()):
        for objects in (session.objects, alone):
            objects.step(image)
        if index == ANCHOR:
            session.objects.add_tokens(tokens, expression="it")
            alone.prompt(4, MaskPrompt(_own_mask(model, tokens), ANCHOR))
    assert session.objects.tracker.object_ids == (4,)
    assert np.array_equal(session.objects.masks[4].mask, alone.masks[4].mask)


def test_stream_searches_every_frame_for_an_absent_object(
    model: UniPixel, chosen: Segmenter, tokens: dict[int, Tensor]
) -> None:
    own = tiny_segmenter(config=model.config.segmenter, score_shift=-1000)
    objects = StreamObjects(chosen, language_segmenter=own)
    for index, image in enumerate(clip_frames()[: ANCHOR + 1]):
        objects.step(image)
        if index == 0:
            objects.add_tokens(tokens, expression="it")
        assert not objects.masks[4].visible
    assert objects.tracker.object_ids == ()
    own.load_state_dict(model.sam2.state_dict())
    assert objects.step(clip_frames()[ANCHOR + 1])[4].visible
    assert objects.tracker.object_ids == (4,)


def test_settings_can_be_replaced(chosen: Segmenter) -> None:
    assert replace(SessionSettings(segmenter=chosen), num_frames=4).segmenter is chosen
