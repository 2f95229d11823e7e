"""The tokenizer and the conversation: from turns to ids, and which of them are learnt.

The texts of questions are in `unipixel.processing.prompt_templates`, the way back from an answer in `unipixel.processing.answer_parser`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from transformers import AddedToken, AutoTokenizer

from unipixel.memory.injection import MemoryInjection
from unipixel.processing.special_tokens import (
    ADDED_TOKENS,
    CONTROL_TOKENS,
    IM_END,
    IM_START,
    IMAGE_PAD,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
)

if TYPE_CHECKING:
    from unipixel.model.config import UniPixelConfig

BUNDLED_TOKENIZER = Path(__file__).parents[1] / "assets" / "tokenizer"
SYSTEM_PROMPT = "You are a helpful assistant."
Tokenizer: TypeAlias = Any
"""A fast tokenizer of transformers, whose classes carry no types."""

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


@dataclass(frozen=True, eq=False)
class Turn:
    """One question of a conversation and what is known of its answer.

    Attributes:
        question: What the user says.
        answer: The whole answer; None where the model is to write it.
        memory: Objects that are new or changed since the last turn; their text opens the turn.
        prefill: Beginning of an answer that the model is to go on with.
    """

    question: str
    answer: str | None = None
    memory: MemoryInjection | None = None
    prefill: str = ""

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise ValueError("a question is empty: say what is to be answered or segmented")
        if self.answer is not None and not self.answer.strip():
            raise ValueError("an answer is empty: give its words, or None where the model is to write it")
        if self.answer is not None and self.prefill:
            raise ValueError(f"a turn has an answer or the beginning of one, got both ({self.prefill!r})")
        for text in (self.question, self.answer or "", self.prefill):
            if found := [token for token in CONTROL_TOKENS if token in text]:
                raise ValueError(f"the control tokens {found} cannot stand in a question or an answer: leave them out")

    @property
    def user_text(self) -> str:
        """What stands between the user's markers: the memory, then the question."""
        return (self.memory.text if self.memory else "") + self.question.strip()


@dataclass(frozen=True)
class RenderedText:
    """A conversation as the model reads it.

    Attributes:
        text: With all special tokens.
        supervised: Start and end in the text of what is learnt: each answer with its `<|im_end|>`.
    """

    text: str
    supervised: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class EncodedText:
    """A conversation as ids.

    Attributes:
        ids: Token ids.
        is_supervised: For each of them, whether it is learnt.
    """

    ids: tuple[int, ...]
    is_supervised: tuple[bool, ...]


def render_conversation(
    turns: Sequence[Turn], *, num_visual_tokens: int = 0, system: str = SYSTEM_PROMPT
) -> RenderedText:
    """Write a conversation from its start in ChatML; a last turn without an answer asks for one.

    Args:
        turns: Questions and answers in order.
        num_visual_tokens: Merged tokens of the clip, which opens the first turn; 0 without one.
        system: The system prompt.

    Raises:
        ValueError: There is no turn, or one before the last has no answer.
    """
    if not turns:
        raise ValueError("a conversation needs at least one turn")
    for place, turn in enumerate(turns[:-1]):
        if turn.answer is None:
            raise ValueError(f"turn {place} of {len(turns)} has no answer: only the last may be open")
    visual = f"{VISION_START}{VIDEO_PAD * num_visual_tokens}{VISION_END}" if num_visual_tokens else ""
    text = f"{IM_START}system\n{system}{IM_END}\n"
    spans: list[tuple[int, int]] = []
    for place, turn in enumerate(turns):
        text += _user_block(turn, visual if place == 0 else "")
        if turn.answer is None:
            text += turn.prefill
        else:
            start = len(text)
            text += turn.answer.strip() + IM_END
            spans.append((start, len(text)))
            text += "\n"
    return RenderedText(text, tuple(spans))


def render_later_turn(turn: Turn, *, has_ended: bool = True) -> RenderedText:
    """Write a turn that continues a conversation up to and with the end of its last answer.

    Args:
        turn: The next question, without an answer.
        has_ended: Whether the last answer ended with `<|im_end|>`; one that was cut gets it now.

    Raises:
        ValueError: The turn has an answer already.
    """
    if turn.answer is not None:
        raise ValueError("a turn that continues a conversation asks for an answer, this one has it")
    return RenderedText(("" if has_ended else IM_END) + "\n" + _user_block(turn, "") + turn.prefill)


def encode_text(tokenizer: Tokenizer, rendered: RenderedText) -> EncodedText:
    """Turn a rendered conversation into ids."""
    encoded = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    flags = [False] * len(encoded["input_ids"])
    spans = iter(rendered.supervised)
    span = next(spans, None)
    for place, (start, end) in enumerate(encoded["offset_mapping"]):
        while span is not None and start >= span[1]:
            span = next(spans, None)
        flags[place] = span is not None and span[0] <= start and end <= span[1]
    return EncodedText(tuple(encoded["input_ids"]), tuple(flags))


def load_tokenizer(folder: str | Path | None = None, *, config: UniPixelConfig | None = None) -> Tokenizer:
    """Load the tokenizer of a checkpoint, or the bundled one, whose tokens are bytes.

    `<|ref|>`, `<|seg|>` and `<|mem|>` are added, in this order, where they are missing. No code of a
    checkpoint is run, and nothing is fetched.

    Args:
        folder: Holds a tokenizer's files; None is the bundled tokenizer.
        config: Configuration whose token ids the tokenizer must have.

    Raises:
        OSError: The folder holds no tokenizer.
        ValueError: A token's id differs from that of the configuration.
    """
    source = BUNDLED_TOKENIZER if folder is None else Path(folder)
    if not any((source / name).is_file() for name in _TOKENIZER_FILES):
        raise OSError(f"{source}: no tokenizer in it; expected is one of {', '.join(_TOKENIZER_FILES)}")
    _refuse_remote_code(source / "tokenizer_config.json")
    tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True, trust_remote_code=False)
    known = tokenizer.get_vocab()
    if missing := [token for token in ADDED_TOKENS if token not in known]:
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    if config is not None:
        check_token_ids(tokenizer, config)
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Return the ids of `<|ref|>`, `<|seg|>` and `<|mem|>`."""
    ref, seg, mem = (int(tokenizer.convert_tokens_to_ids(token)) for token in ADDED_TOKENS)
    return ref, seg, mem


def check_token_ids(tokenizer: Tokenizer, config: UniPixelConfig) -> None:
    """Check that a tokenizer and a model mean the same tokens.

    Raises:
        ValueError: They do not.
    """
    expected = dict(zip(ADDED_TOKENS, (config.ref_token_id, config.seg_token_id, config.mem_token_id), strict=True))
    expected |= {VIDEO_PAD: config.qwen.video_token_id, IMAGE_PAD: config.qwen.image_token_id}
    known = tokenizer.get_vocab()
    for token, model_id in expected.items():
        if known.get(token) != model_id:
            raise ValueError(
                f"{token} is {known.get(token)} in the tokenizer and {model_id} in the model's configuration: "
                "load the tokenizer that the checkpoint was trained with"
            )
    vocabulary = config.qwen.text_config.vocab_size
    if max(known.values()) >= vocabulary:
        raise ValueError(f"the tokenizer has ids up to {max(known.values())}, the model's embedding {vocabulary} rows")


def _user_block(turn: Turn, visual: str) -> str:
    return f"{IM_START}user\n{visual}{turn.user_text}{IM_END}\n{IM_START}assistant\n"


def _refuse_remote_code(file: Path) -> None:
    if not file.is_file():
        return
    fields = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(fields, dict) and fields.get("auto_map"):
        raise ValueError(f"{file.name} asks for remote code (auto_map = {fields['auto_map']}): it is refused")
