"""Questions about marked objects: what is asked word for word, points and boxes, rounds of PixelQA, drawn marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.byte_model import tiny_model_and_processor
from helpers.golden_evaluation import expected_of, golden_case

from unipixel.model.generation import GenerationSettings, prefill
from unipixel.processing.chat_template import Turn
from unipixel.processing.image_processing import FrameBudget
from unipixel.processing.processor import Processor
from unipixel.processing.prompt_templates import CHOICE_REQUEST
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt
from unipixel.session.conversation import Conversation
from unipixel.session.session import Session
from unipixel.session.settings import SessionSettings
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS
from unipixel.train.evaluation.running.asking_pixelqa import forced_tokens, round_two_memory
from unipixel.train.evaluation.running.asking_regions import BEST_OPTION
from unipixel.train.evaluation.running.clip_frames import open_media
from unipixel.train.evaluation.running.predictions import PredictionFile
from unipixel.train.evaluation.running.sample_context import SampleContext
from unipixel.train.evaluation.running.set_of_mark import draw_marks
from unipixel.train.evaluation.scoring.mask_scores import prediction_masks

QUESTIONS = "VideoRefer-Bench-Q.json"
SETTINGS = SessionSettings(generation=GenerationSettings(max_new_tokens=2))


def read(name: str, variant: str | None = None, data: Path | None = None) -> list[BenchmarkSample]:
    benchmark = BENCHMARKS[name]
    folder = data or golden_case("videorefer") / "data"
    return list(benchmark.read(folder, split="test", variant=benchmark.variant(variant)))


def context_of(
    sample: BenchmarkSample, variant: str = "", *, is_published: bool = True, num_frames: int = 16
) -> SampleContext:
    model, whole = tiny_model_and_processor()
    budget = FrameBudget(num_frames=num_frames, min_tokens=4, max_tokens=4)
    processor = Processor(model.config, whole.tokenizer, budget=budget)

    def session() -> Session:
        return Session(model, processor, open_media(sample.media, decoder="av"), settings=SETTINGS)

    return SampleContext(
        sample=sample,
        variant=variant,
        model=model,
        processor=processor,
        settings=SETTINGS,
        has_published_wording=is_published,
        session=session,
        clip_session=session,
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The whole text of each conversation that a model is asked with, without the clip."""
    texts: list[str] = []
    encode = Processor.encode

    def recording(self: Processor, *args: Any, **kwargs: Any) -> Any:
        encoded = encode(self, *args, **kwargs)
        texts.append(encoded.texts[0].split("<|vision_end|>")[-1].replace("<|im_end|>\n<|im_start|>assistant\n", ""))
        return encoded

    monkeypatch.setattr(Processor, "encode", recording)
    return texts


@pytest.mark.parametrize("variant", ["multi", "single"])
def test_questions_about_masks_are_asked_word_for_word(variant: str, asked: list[str]) -> None:
    benchmark = BENCHMARKS["videorefer-bench-q"]
    for sample in read("videorefer-bench-q", variant):
        benchmark.ask(context_of(sample, variant))
    assert asked == expected_of("videorefer")[f"prompts_{variant}"]


def test_descriptions_are_asked_word_for_word(asked: list[str]) -> None:
    for sample in read("videorefer-bench-d"):
        BENCHMARKS["videorefer-bench-d"].ask(context_of(sample))
    assert asked == [row["question"] for row in expected_of("videorefer", "expected-d.json")["reader"]]


def test_wording_of_sessions_has_no_beginning_of_the_answer(asked: list[str]) -> None:
    sample = read("videorefer-bench-q")[0]
    BENCHMARKS["videorefer-bench-q"].ask(context_of(sample, is_published=False))
    assert asked == [sample.question]


def test_first_round_is_the_published_one_with_given_ids(asked: list[str]) -> None:
    expected = expected_of("videorefer", "expected-pixelqa.json")["round1"]
    for sample, row in zip(read("pixelqa-forced"), expected, strict=True):
        context = context_of(sample)
        video = context.session().objects.video
        images = [frame.image for frame in video.read(range(len(sample.frames)))]
        prompts = sample.prompts()
        forced_tokens(context, images, [given[0] for given in prompts.values()], list(prompts))  # type: ignore[misc]
        assert asked.pop() == row["question"] + row["response"] + "<|im_end|>\n"


def test_forced_mask_tokens_are_those_before_each_given_token() -> None:
    sample = read("pixelqa-forced", "point")[1]
    context = context_of(sample, "point")
    images = [frame.image for frame in context.session().objects.video.read(range(len(sample.frames)))]
    prompts = {key: given[0] for key, given in sample.prompts().items()}
    tokens = forced_tokens(context, images, list(prompts.values()), list(prompts))  # type: ignore[arg-type]
    for object_id, beginning in ((1, "[1] "), (2, "[1] <|seg|> [2] ")):
        turn = Turn(sample.question, answer_prefix=beginning)
        encoded = context.processor.encode([turn], clip=context.processor.clip(images), prompts=list(prompts.values()))
        state = prefill(context.model, encoded.inputs).hidden_states[0, -1]
        assert tokens[object_id].allclose(context.model.mask_tokens(state), atol=1e-5)


def test_second_round_names_the_predicted_masks() -> None:
    predictions = PredictionFile(golden_case("videorefer") / "predictions" / "pixelqa")
    expected = expected_of("videorefer", "expected-pixelqa.json")["round2_prompts"]
    for sample, prompt in zip(read("pixelqa"), expected, strict=True):
        context, prediction = context_of(sample), predictions.get(sample.name)
        assert prediction is not None
        ids = list(sample.prompts())
        masks = prediction_masks(sample, prediction, size=(48, 64), num_objects=len(ids)).transpose(1, 0, 2, 3)
        clip = context.processor.clip([np.zeros((48, 64, 3), np.uint8)] * len(sample.frames))
        conversation = Conversation(context.model, context.processor, clip)
        memory = round_two_memory(context, conversation, ids, masks)
        assert memory.text + f"{sample.fields['query']}\n{CHOICE_REQUEST}" + BEST_OPTION == prompt


@pytest.mark.parametrize("name", ["pixelqa", "pixelqa-forced"])
def test_pixelqa_predicts_a_mask_of_every_object_on_every_frame(name: str, asked: list[str]) -> None:
    sample = read(name, "mixed")[3]
    prediction = BENCHMARKS[name].ask(context_of(sample, "mixed"))
    assert prediction.masks is not None
    assert [list(track) for track in prediction.masks] == [list(sample.frames)]
    assert prediction.text is not None
    first, second = asked
    assert first.startswith(sample.question)
    assert second.endswith(f"{sample.fields['query']}\n{CHOICE_REQUEST}{BEST_OPTION}")
    assert second.startswith("Here is a video with 3 frames")


def test_pixelqa_in_the_wording_of_sessions_asks_the_whole_question(asked: list[str]) -> None:
    sample = read("pixelqa", "box")[3]
    prediction = BENCHMARKS["pixelqa"].ask(context_of(sample, "box", is_published=False))
    assert asked[-1].endswith(f"{sample.fields['query']}\n{CHOICE_REQUEST}")
    assert prediction.masks is not None


@pytest.mark.parametrize("name", ["videorefer-bench-q", "pixelqa", "pixelqa-forced"])
def test_a_checkpoint_for_fewer_frames_gets_those_with_the_prompts_among_them(name: str, asked: list[str]) -> None:
    sample = read(name, "single" if name == "videorefer-bench-q" else "point")[2]
    prediction = BENCHMARKS[name].ask(context_of(sample, num_frames=4))
    assert asked[-1].startswith("Here is a video with 4 frames denoted as <1> to <4>")
    assert "[7]: " in asked[-1]
    if prediction.masks is not None:
        assert [len(track) for track in prediction.masks] == [16, 16]


def test_set_of_mark_asks_about_drawn_marks_alone(asked: list[str]) -> None:
    sample = read("pixelqa-set-of-mark", "point")[3]
    prediction = BENCHMARKS["pixelqa-set-of-mark"].ask(context_of(sample, "point"))
    assert asked == [f"{sample.fields['query']}\n{CHOICE_REQUEST}{BEST_OPTION}"]
    assert prediction.masks is None


def test_marks_are_drawn_at_the_prompt_with_their_number() -> None:
    frame = np.zeros((100, 120, 3), np.uint8)
    marked = draw_marks(frame, {1: PointPrompt(60.5, 50.5), 2: BoxPrompt((80, 60, 110, 90))})
    assert not frame.any()
    assert marked[50, 60].any()
    assert marked[60, 90].tolist() == marked[89, 109].tolist() != [0, 0, 0]
    assert not marked[75, 95].any()
    corner = draw_marks(frame, {3: PointPrompt(119.5, 0.5)})
    assert corner[:20, 95:].any()
    assert not corner[40:].any()


def test_points_and_boxes_are_inside_the_object_on_the_prompted_frame() -> None:
    for variant in ("point", "box"):
        for sample in read("pixelqa", variant):
            assert sample.truth is not None
            masks = sample.truth().masks
            assert masks is not None
            for mask, (prompt,) in zip(masks, sample.prompts().values(), strict=True):
                marked = mask[prompt.frame_index]
                if isinstance(prompt, PointPrompt):
                    assert marked[int(prompt.y), int(prompt.x)]
                else:
                    assert isinstance(prompt, BoxPrompt)
                    rows, columns = np.nonzero(marked)
                    tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                    assert prompt.xyxy == tight


def test_mixed_prompts_are_half_points_and_the_same_at_every_reading() -> None:
    first, second = (read("pixelqa", "mixed") for _ in range(2))
    kinds = [[type(given[0]) for given in sample.prompts().values()] for sample in first]
    assert all(set(row) == {PointPrompt, BoxPrompt} for row in kinds if len(row) == 2)
    assert {row[0] for row in kinds if len(row) == 1} == {PointPrompt, BoxPrompt}
    assert [sample.prompts() for sample in first] == [sample.prompts() for sample in second]


def test_masks_of_one_object_are_given_on_the_prompted_frame_alone() -> None:
    for sample in read("videorefer-bench-q", "single"):
        for given in sample.prompts().values():
            assert len(given) == 1
            assert isinstance(given[0], MaskPrompt)
            assert given[0].mask.any()


def rewritten(folder: Path, change: Any) -> Path:
    entries = json.loads((golden_case("videorefer") / "data" / QUESTIONS).read_text())
    change(entries[0])
    (folder / QUESTIONS).write_text(json.dumps(entries[:1]))
    return folder


def empty_mask() -> dict[str, Any]:
    return {"segmentation": {"size": [48, 64], "counts": [48 * 64]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry.pop("options"), "`options` is missing"),
        (lambda entry: entry.update(Question="What?"), "annotated are 1"),
        (lambda entry: entry.update(annotation=[{"x": empty_mask()}]), "masks by frame number"),
        (lambda entry: entry.update(annotation=[{}]), "annotated on any frame"),
        (lambda entry: entry["annotation"][0]["0"]["segmentation"].update(counts=[7]), "do not fill"),
        (lambda entry: entry.update(video="../secret"), "below the data folder"),
        (lambda entry: entry.update(frame_idx="one"), "`frame_idx` must be a frame number"),
    ],
)
def test_bad_entries_are_named(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{QUESTIONS}, entry 0.*{message}"):
        read("videorefer-bench-q", data=rewritten(tmp_path, change))


def test_an_object_without_a_pixel_is_not_shown_and_cannot_be_prompted(tmp_path: Path) -> None:
    data = rewritten(tmp_path, lambda entry: entry.update(annotation=[{"3": empty_mask(), "5": empty_mask()}]))
    sample = read("videorefer-bench-q", data=data)[0]
    assert sample.question.splitlines()[1] == "What is [1]?"
    assert sample.prompts() == {}
    with pytest.raises(ValueError, match="object 1 is empty on all sampled frames"):
        read("pixelqa", data=data)[0].prompts()


def test_an_object_that_is_not_annotated_on_the_prompted_frame_is_shown_on_the_nearest(tmp_path: Path) -> None:
    def change(entry: dict[str, Any]) -> None:
        masks = entry["annotation"][0]
        entry["annotation"] = [{key: masks[key] for key in ("1", "7", "8")}]
        entry["frame_idx"] = "5"

    sample = read("videorefer-bench-q", "single", data=rewritten(tmp_path, change))[0]
    assert sample.frames == ("00001", "00007", "00008")
    assert [given[0].frame_index for given in sample.prompts().values()] == [1]


def test_a_mention_without_a_region_has_no_mask(tmp_path: Path) -> None:
    question = "What is <object1><region> near <object4> and <object1>?"
    sample = read("videorefer-bench-q", data=rewritten(tmp_path, lambda entry: entry.update(Question=question)))[0]
    assert "\nWhat is [1] near [4] and [1]?\n" in sample.question
    assert list(sample.prompts()) == [1]


def test_frames_of_a_missing_video_are_named_when_they_are_opened(tmp_path: Path) -> None:
    sample = read("videorefer-bench-q", data=rewritten(tmp_path, lambda entry: None))[0]
    with pytest.raises(OSError, match="videos/DAVIS/JPEGImages/480p/arena"):
        open_media(sample.media, decoder="av")
