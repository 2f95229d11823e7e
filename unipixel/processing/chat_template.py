"""The tokenizer and the chat template: turns as text, token ids, and which of them are supervised.

Questions are in `unipixel.processing.prompt_templates`, parsing of answers in `unipixel.processing.answer_parser`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from transformers import AddedToken, AutoTokenizer

from unipixel.memory.injection import MemoryInjection
from unipixel.memory.representation import short_repr
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
"""A fast tokenizer of transformers, which has no type annotations."""

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


@dataclass(frozen=True)
class ChatFormat:
    """How a model renders a conversation.

    Attributes:
        system: Text before the first turn.
        visual_start: Text before the visual tokens.
        visual_token: The token, of which there is one per patch or merged patches.
        visual_end: Text after the visual tokens.
        is_visual_first: Whether the visual tokens precede the first message, instead of beginning its text.
        answer_start: Text before an answer.
        answer_end: Token that ends an answer; it is supervised.
        separator: Text between an answer and the next turn.
    """

    system: str
    visual_start: str
    visual_token: str
    visual_end: str
    is_visual_first: bool
    answer_start: str
    answer_end: str
    separator: str

    def visual_block(self, num_tokens: int) -> str:
        """Return the visual tokens with the text around them; nothing without visual tokens."""
        return f"{self.visual_start}{self.visual_token * num_tokens}{self.visual_end}" if num_tokens else ""


QWEN_FORMAT = ChatFormat(
    system=f"{IM_START}system\n{SYSTEM_PROMPT}{IM_END}\n",
    visual_start=VISION_START,
    visual_token=VIDEO_PAD,
    visual_end=VISION_END,
    is_visual_first=False,
    answer_start=f"{IM_START}assistant\n",
    answer_end=IM_END,
    separator="\n",
)
"""The format of Qwen2.5-VL (ChatML), which UniPixel uses."""


@dataclass(frozen=True, eq=False)
class Turn:
    """One question of a conversation, with its answer or the beginning of one.

    Attributes:
        question: Text of the user.
        answer: The whole answer; None if the model is to generate it.
        memory: Objects that are new or changed since the last turn; their text precedes the question.
        answer_prefix: Beginning of the answer, which the model continues.
    """

    __repr__ = short_repr

    question: str
    answer: str | None = None
    memory: MemoryInjection | None = None
    answer_prefix: str = ""

    def __post_init__(self) -> None:
        for name in ("question", "answer", "answer_prefix"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "answer" and value is None):
                raise TypeError(f"the {name} is a text, got {type(value).__name__}")
        if not self.question.strip():
            raise ValueError("the question is empty: say what is to be answered or segmented")
        if self.answer is not None and not self.answer.strip():
            raise ValueError("the answer is empty: give its text, or None if the model is to generate it")
        if self.answer is not None and self.answer_prefix:
            raise ValueError(f"a turn has an answer or an answer_prefix, got both ({self.answer_prefix!r})")
        for text in (self.question, self.answer or "", self.answer_prefix):
            if found := [token for token in CONTROL_TOKENS if token in text]:
                raise ValueError(f"questions and answers must not contain the control tokens {found}")

    @property
    def user_text(self) -> str:
        """The text of the user's message: the memory, then the question."""
        return (self.memory.text if self.memory else "") + self.question.strip()


@dataclass(frozen=True)
class RenderedText:
    """A conversation as text.

    Attributes:
        text: The conversation with all special tokens.
        supervised: Start and end of each supervised span of the text: each answer with its `<|im_end|>`.
    """

    text: str
    supervised: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class EncodedText:
    """A conversation as token ids.

    Attributes:
        ids: Token ids.
        is_supervised: Whether each token is supervised.
    """

    ids: tuple[int, ...]
    is_supervised: tuple[bool, ...]


def render_conversation(
    turns: Sequence[Turn], *, num_visual_tokens: int = 0, chat_format: ChatFormat = QWEN_FORMAT
) -> RenderedText:
    """Render a conversation from its start; a last turn without an answer ends with the generation prompt.

    Args:
        turns: Questions and answers in order.
        num_visual_tokens: Visual tokens, which precede the first question; 0 without a clip or image.
        chat_format: Format of the model.

    Raises:
        ValueError: There is no turn, or a turn before the last has no answer.
    """
    if not turns:
        raise ValueError("a conversation needs at least one turn")
    for index, turn in enumerate(turns[:-1]):
        if turn.answer is None:
            raise ValueError(f"turn {index} of {len(turns)} has no answer: only the last turn may lack one")
    visual = chat_format.visual_block(num_visual_tokens)
    text = chat_format.system + (visual if chat_format.is_visual_first else "")
    spans: list[tuple[int, int]] = []
    for index, turn in enumerate(turns):
        has_visual = index == 0 and not chat_format.is_visual_first
        text += _user_block(turn, visual if has_visual else "", chat_format)
        if turn.answer is None:
            text += turn.answer_prefix
        else:
            start = len(text)
            text += turn.answer.strip() + chat_format.answer_end
            spans.append((start, len(text)))
            text += chat_format.separator
    return RenderedText(text, tuple(spans))


def render_later_turn(turn: Turn, *, has_ended: bool = True, chat_format: ChatFormat = QWEN_FORMAT) -> RenderedText:
    """Render a turn that continues a conversation after its last answer.

    Args:
        turn: The next question, without an answer.
        has_ended: Whether the last answer ended with its end token; otherwise it is added.
        chat_format: Format of the model.

    Raises:
        ValueError: The turn has an answer.
    """
    if turn.answer is not None:
        raise ValueError("a turn that continues a conversation must not have an answer")
    start = ("" if has_ended else chat_format.answer_end) + chat_format.separator
    return RenderedText(start + _user_block(turn, "", chat_format) + turn.answer_prefix)


def encode_text(tokenizer: Tokenizer, rendered: RenderedText) -> EncodedText:
    """Tokenize a rendered conversation."""
    encoded = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    flags = [False] * len(encoded["input_ids"])
    spans = iter(rendered.supervised)
    span = next(spans, None)
    for index, (start, end) in enumerate(encoded["offset_mapping"]):
        while span is not None and start >= span[1]:
            span = next(spans, None)
        flags[index] = span is not None and span[0] <= start and end <= span[1]
    return EncodedText(tuple(encoded["input_ids"]), tuple(flags))


def load_tokenizer(
    folder: str | Path | None = None,
    *,
    config: UniPixelConfig | None = None,
    added_tokens: Sequence[str] = ADDED_TOKENS,
) -> Tokenizer:
    """Load the tokenizer of a checkpoint, or the bundled one, whose tokens are bytes.

    No code of a checkpoint is run, and nothing is downloaded.

    Args:
        folder: Folder with the files of a tokenizer; None is the bundled tokenizer.
        config: Configuration whose token ids the tokenizer must have.
        added_tokens: Special tokens that are added, in this order, if they are missing.

    Raises:
        OSError: The folder contains no tokenizer, or a damaged one.
        ValueError: A token's id differs from that in the configuration.
    """
    source = BUNDLED_TOKENIZER if folder is None else Path(folder)
    if not any((source / name).is_file() for name in _TOKENIZER_FILES):
        raise OSError(f"{source} contains no tokenizer; expected is one of {', '.join(_TOKENIZER_FILES)}")
    _refuse_remote_code(source / "tokenizer_config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True, trust_remote_code=False)
        known = tokenizer.get_vocab()
        if missing := [token for token in added_tokens if token not in known]:
            tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    # The tokenizers library raises Exception itself for a damaged file, and transformers what its values cause.
    except Exception as error:
        raise OSError(f"the tokenizer in {source} is damaged: {' '.join(str(error).split())}") from error
    if config is not None:
        check_token_ids(tokenizer, config)
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Return the ids of `<|ref|>`, `<|seg|>` and `<|mem|>`."""
    ref, seg, mem = (int(tokenizer.convert_tokens_to_ids(token)) for token in ADDED_TOKENS)
    return ref, seg, mem


def check_token_ids(tokenizer: Tokenizer, config: UniPixelConfig) -> None:
    """Check that a tokenizer and a model's configuration agree on the ids of special tokens.

    Raises:
        ValueError: They do not, or the tokenizer has more tokens than the model.
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


def _user_block(turn: Turn, visual: str, chat_format: ChatFormat) -> str:
    return f"{IM_START}user\n{visual}{turn.user_text}{IM_END}\n{chat_format.answer_start}"


def _refuse_remote_code(file: Path) -> None:
    if not file.is_file():
        return
    fields = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(fields, dict) and fields.get("auto_map"):
        raise ValueError(f"{file.name} requires remote code (auto_map = {fields['auto_map']}): it is refused")
