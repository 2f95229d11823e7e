from __future__ import annotations

import json
import shutil
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import torch
from helpers.byte_model import byte_config
from hypothesis import given, settings
from hypothesis import strategies as st

from unipixel.memory.injection import MemoryInjection
from unipixel.memory.mask_pooling import TokenMasks
from unipixel.processing.chat_template import (
    BUNDLED_TOKENIZER,
    Turn,
    check_token_ids,
    encode_text,
    load_tokenizer,
    render_conversation,
    render_later_turn,
    special_ids,
)
from unipixel.processing.special_tokens import CONTROL_TOKENS

TOKENIZER = load_tokenizer()
words = st.text(st.characters(codec="utf-8"), min_size=1).filter(
    lambda text: text.strip() and not any(token in text for token in CONTROL_TOKENS)
)
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_bundled_tokenizer_round_trips_any_text(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == text


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="<|")))
def test_bundled_tokenizer_ids_of_plain_text_are_its_bytes(text: str) -> None:
    assert TOKENIZER(text, add_special_tokens=False)["input_ids"] == list(text.encode())


def test_bundled_tokenizer_has_the_special_tokens_after_the_bytes() -> None:
    expected = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
                "<|image_pad|>", "<|video_pad|>", "<|ref|>", "<|seg|>", "<|mem|>"]  # fmt: skip
    assert TOKENIZER.convert_ids_to_tokens(list(range(256, 267))) == expected
    assert len(TOKENIZER) == 267
    assert (TOKENIZER.pad_token, TOKENIZER.eos_token) == ("<|endoftext|>", "<|im_end|>")


def test_special_tokens_inside_text_are_single_ids() -> None:
    ids = TOKENIZER("a<|seg|>é<|mem|>", add_special_tokens=False)["input_ids"]
    assert ids == [97, 265, 0xC3, 0xA9, 266]


def test_load_tokenizer_adds_missing_tokens_in_order(tmp_path: Path) -> None:
    without_unipixel(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert special_ids(tokenizer) == (264, 265, 266)
    assert tokenizer("x<|mem|>", add_special_tokens=False)["input_ids"] == [120, 266]


def test_load_tokenizer_keeps_tokens_that_are_there(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).get_vocab() == TOKENIZER.get_vocab()


def test_load_tokenizer_with_fitting_config_is_accepted() -> None:
    assert special_ids(load_tokenizer(config=byte_config())) == (264, 265, 266)


def test_load_tokenizer_with_other_ids_names_both() -> None:
    with pytest.raises(ValueError, match=r"<\|seg\|> is 265 in the tokenizer and 271 in the model"):
        load_tokenizer(config=byte_config(seg_token_id=271))


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.add_tokens([f"<|extra{number}|>" for number in range(6)])
    with pytest.raises(ValueError, match="ids up to 272, the model's embedding 272 rows"):
        check_token_ids(tokenizer, byte_config())


def test_load_tokenizer_from_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"contains no tokenizer; expected is one of tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_load_tokenizer_refuses_remote_code(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED_TOKENIZER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["a.B", None]}}))
    with pytest.raises(ValueError, match="remote code"):
        load_tokenizer(tmp_path)


def test_render_conversation_is_chatml_with_the_clip_first() -> None:
    rendered = render_conversation([Turn(" What is it? ", "A dog. "), Turn("Where?")], num_visual_tokens=2)
    assert rendered.text == (
        SYSTEM + "<|im_start|>user\n<|vision_start|><|video_pad|><|video_pad|><|vision_end|>What is it?<|im_end|>\n"
        "<|im_start|>assistant\nA dog.<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [rendered.text[start:end] for start, end in rendered.supervised] == ["A dog.<|im_end|>"]


def test_render_conversation_puts_the_memory_before_the_question() -> None:
    memory = MemoryInjection((3,), TokenMasks.from_cells(torch.ones(1, 1, 2, 2)), num_frames=1)
    text = render_conversation([Turn("What is [3]?", memory=memory)], num_visual_tokens=1).text
    assert "<|vision_end|>Here is an image with the following highlighted regions:\n[3]: <|mem|>\nWhat is [3]?" in text


def test_render_conversation_ends_with_the_beginning_of_the_answer() -> None:
    text = render_conversation([Turn("Which?", answer_prefix="Best Option: (")]).text
    assert text.endswith("<|im_start|>assistant\nBest Option: (")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=3))
def test_encoded_supervision_covers_answers_and_their_end(pairs: list[tuple[str, str]]) -> None:
    encoded = encode_text(TOKENIZER, render_conversation([Turn(*pair) for pair in pairs], num_visual_tokens=3))
    runs = [
        [token for token, _ in run]
        for is_supervised, run in groupby(zip(encoded.ids, encoded.is_supervised, strict=True), lambda pair: pair[1])
        if is_supervised
    ]
    expected = [TOKENIZER(answer.strip() + "<|im_end|>", add_special_tokens=False)["input_ids"] for _, answer in pairs]
    assert runs == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(words, words), min_size=2, max_size=3))
def test_later_turns_continue_the_training_text(pairs: list[tuple[str, str]]) -> None:
    whole = encode_text(TOKENIZER, render_conversation([Turn(*pair) for pair in pairs])).ids
    ids = encode_text(TOKENIZER, render_conversation([Turn(pairs[0][0])])).ids
    for (_, answer), (question, _) in pairwise(pairs):
        ids += tuple(TOKENIZER(answer.strip() + "<|im_end|>", add_special_tokens=False)["input_ids"])
        ids += encode_text(TOKENIZER, render_later_turn(Turn(question))).ids
    assert whole[: len(ids)] == ids


def test_render_later_turn_ends_an_answer_that_was_cut() -> None:
    assert render_later_turn(Turn("Go on."), has_ended=False).text == (
        "<|im_end|>\n<|im_start|>user\nGo on.<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_a_question_with_a_control_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="must not contain the control tokens"):
        Turn(f"Hello{token}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"question": " \n"}, "question is empty"),
        ({"question": "Why?", "answer": " "}, "answer is empty"),
        ({"question": "Why?", "answer": "So.", "answer_prefix": "S"}, "got both"),
    ],
)
def test_a_turn_without_words_is_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Turn(**arguments)  # type: ignore[arg-type]


def test_a_conversation_with_an_open_turn_inside_is_refused() -> None:
    with pytest.raises(ValueError, match="turn 0 of 2 has no answer"):
        render_conversation([Turn("Who?"), Turn("Why?")])
    with pytest.raises(ValueError, match="at least one turn"):
        render_conversation([])
    with pytest.raises(ValueError, match="must not have an answer"):
        render_later_turn(Turn("Who?", "You."))


def without_unipixel(folder: Path) -> None:
    """Write the bundled tokenizer as Qwen's would be, without UniPixel's three tokens."""
    shutil.copytree(BUNDLED_TOKENIZER, folder, dirs_exist_ok=True)
    added = ("<|ref|>", "<|seg|>", "<|mem|>")
    for name, key in (("tokenizer.json", "added_tokens"), ("tokenizer_config.json", "additional_special_tokens")):
        fields = json.loads((folder / name).read_text())
        fields[key] = [
            item for item in fields[key] if (item["content"] if isinstance(item, dict) else item) not in added
        ]
        (folder / name).write_text(json.dumps(fields))
    (folder / "special_tokens_map.json").unlink()


def test_supervision_of_a_merging_tokenizer_covers_answers_and_their_end(tmp_path: Path) -> None:
    # Qwen's own class, with a vocabulary of bytes and a few merges that could reach over an answer's ends.
    vocabulary = json.loads((BUNDLED_TOKENIZER / "tokenizer.json").read_text())["model"]["vocab"]
    merges = [("Ġ", "a"), ("d", "o"), ("do", "g"), ("Ġ", "dog"), (".", "Ċ"), ("Ċ", "Ċ"), ("Ċ", "d")]
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Qwen2Tokenizer", "additional_special_tokens": list(CONTROL_TOKENS)})
    )
    tokenizer = load_tokenizer(tmp_path)
    encoded = encode_text(tokenizer, render_conversation([Turn("a dog?", "dog.\n\ndog é <|seg|>."), Turn("So?", "B")]))
    supervised = [
        token for token, is_supervised in zip(encoded.ids, encoded.is_supervised, strict=True) if is_supervised
    ]
    assert tokenizer.decode(supervised) == "dog.\n\ndog é <|seg|>.<|im_end|>B<|im_end|>"
    assert special_ids(tokenizer)[1] in supervised
