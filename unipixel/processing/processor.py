"""Prepares the model's inputs from frames, clicks, boxes, masks and questions, for training and inference.

Shape letters: n sampled frames, O objects, H, W frame size, L tokens, S SAM image size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unipixel.memory.injection import MEM, MemoryInjection, inject
from unipixel.memory.mask_pooling import TokenMasks
from unipixel.memory.representation import short_value
from unipixel.model.config import UniPixelConfig
from unipixel.model.inputs import ModelInputs, VideoInput
from unipixel.processing.answer_parser import parse_answer
from unipixel.processing.chat_template import (
    EncodedText,
    RenderedText,
    Tokenizer,
    Turn,
    check_token_ids,
    encode_text,
    load_tokenizer,
    render_conversation,
    render_later_turn,
)
from unipixel.processing.clip_layout import ClipInput, ClipLayout, to_references
from unipixel.processing.frame_sampling import select_frames
from unipixel.processing.image_processing import (
    FRAMES_PER_PAIR,
    FrameBudget,
    PatchSizes,
    check_frames,
    fit_size,
    resize_frame,
    to_patches,
)
from unipixel.processing.special_tokens import IM_END, REF
from unipixel.processing.visual_prompts import VisualPrompt
from unipixel.tracking.clip_features import normalise_frame
from unipixel.video.open import Video, open_video

IGNORED_LABEL = -100
"""Label of tokens that are not supervised, which PyTorch's cross-entropy ignores."""


@dataclass(frozen=True)
class EncodedSample:
    """One or several conversations as inputs of the model.

    Attributes:
        inputs: Inputs of the model.
        labels: (B, L) ids of supervised tokens, `IGNORED_LABEL` elsewhere.
        texts: The conversations with their special tokens.
    """

    inputs: ModelInputs
    labels: Tensor
    texts: tuple[str, ...]


class Processor:
    """Prepares inputs for one model; stateless."""

    def __init__(self, config: UniPixelConfig, tokenizer: Tokenizer, *, budget: FrameBudget | None = None) -> None:
        """Set up the preparation of inputs for a model.

        Args:
            config: Configuration of the model.
            tokenizer: From `load_tokenizer`.
            budget: Number of frames and of tokens per frame; None is the published budget.

        Raises:
            ValueError: Tokenizer and configuration disagree on a token, or the vision transformer does not merge
                frames in pairs.
        """
        check_token_ids(tokenizer, config)
        vision = config.qwen.vision_config
        if vision.temporal_patch_size != 2:
            raise ValueError(
                f"prompts name pairs of frames: temporal_patch_size must be 2, got {vision.temporal_patch_size}"
            )
        self.config = config
        self.tokenizer = tokenizer
        self.budget = budget or FrameBudget()
        self.sizes = PatchSizes(patch=vision.patch_size, merge=vision.spatial_merge_size)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, budget: FrameBudget | None = None, **hub_options: Any) -> Processor:
        """Set up the preparation of inputs for a checkpoint: a bundled name, a folder or a hub id.

        The bundled tokenizer is used for a checkpoint without one.

        Args:
            source: As for `UniPixel.from_pretrained`.
            budget: Overrides that of the checkpoint.
            hub_options: `revision`, `token`, `local_files_only` and `cache_dir` of the hub.

        Raises:
            OSError: The checkpoint cannot be found, or has no tokenizer and the bundled one does not match.
            ValueError: It is incomplete, or its tokenizer does not match.
        """
        from unipixel.checkpoints.files import read_config
        from unipixel.checkpoints.hub_options import resolve_with_options, split_options

        hub_options, unknown = split_options(hub_options)
        if unknown:
            raise TypeError(f"unknown options {sorted(unknown)}: a processor takes budget and the options of the hub")
        folder = resolve_with_options(source, **hub_options)
        has_tokenizer = (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()
        tokenizer = load_tokenizer(folder if has_tokenizer else None)
        config, budget = read_config(folder), budget or FrameBudget.read(folder)
        try:
            return cls(config, tokenizer, budget=budget)
        except ValueError as error:
            if has_tokenizer:
                raise
            raise FileNotFoundError(
                f"{folder} has no tokenizer (tokenizer.json, or vocab.json with merges.txt), and the bundled one does "
                f"not fit ({error}): add the files of the tokenizer that the model was trained with"
            ) from error

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer, and the budget unless it is the published one, into a checkpoint folder."""
        self.tokenizer.save_pretrained(str(folder))
        if self.budget != FrameBudget():
            self.budget.write(folder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the tokenizer and the budget. See `unipixel.checkpoints.uploading.upload`."""
        from unipixel.checkpoints.uploading import upload

        return upload(self.save_pretrained, repo_id, **options)

    def __call__(
        self,
        text: str | Sequence[Turn],
        *,
        videos: Any = None,
        images: Any = None,
        prompts: Sequence[VisualPrompt] = (),
    ) -> ModelInputs:
        """Prepare one question, as processors of transformers are called.

        Args:
            text: The question, or the turns of a conversation.
            videos: One video: any source that `open_video` accepts. Frames are sampled as in a session.
            images: One image, as a video of one frame; give either.
            prompts: Points and boxes, one for each `<|ref|>` of the text.

        Returns:
            Inputs of `UniPixel.generate` and of a forward pass.

        Raises:
            TypeError: The text or the prompts have another type.
            ValueError: Both a video and an image are given, or the text does not match the prompts.
            OSError: The video cannot be read.
        """
        if videos is not None and images is not None:
            raise ValueError("give videos or images, not both: a conversation is about one clip")
        if not isinstance(text, str) and not (isinstance(text, Sequence) and all(isinstance(t, Turn) for t in text)):
            raise TypeError(f"text is a question or a list of Turn, got {short_value(text)}")
        if not isinstance(prompts, Sequence) or not all(isinstance(prompt, VisualPrompt) for prompt in prompts):
            raise TypeError(f"prompts is a list of PointPrompt and BoxPrompt, got {short_value(prompts)}")
        source = videos if videos is not None else images
        turns = [Turn(text)] if isinstance(text, str) else text
        clip = None if source is None else self._open_clip(source, prompts)
        return self.encode(turns, clip=clip, prompts=prompts).inputs

    def _open_clip(self, source: Any, prompts: Sequence[VisualPrompt]) -> ClipInput:
        """Sample the frames of a video, first of all those on which there are prompts."""
        video = source if isinstance(source, Video) else open_video(source)
        count = self.budget.num_frames
        indices = select_frames(len(video), count, kept=sorted({prompt.frame_index for prompt in prompts})[:count])
        frames = [frame.image for frame in video.read(indices)]
        return self.clip(frames, frame_indices=indices, num_video_frames=len(video))

    def decode(self, token_ids: Sequence[int] | Tensor) -> str:
        """Return the text of an answer, with objects as `[id]` and without special tokens.

        Raises:
            TypeError: It is not a sequence of ids.
        """
        ids = np.asarray(token_ids.cpu() if isinstance(token_ids, Tensor) else token_ids)
        if ids.ndim != 1 or not (np.issubdtype(ids.dtype, np.integer) or not ids.size) or (ids < 0).any():
            raise TypeError(f"token_ids is a sequence of token ids, got {short_value(token_ids)}")
        text = self.tokenizer.decode(ids.astype(np.int64).tolist(), skip_special_tokens=False)
        return parse_answer(text.removesuffix(IM_END)).display

    def __repr__(self) -> str:
        sizes = f"{self.budget.num_frames} frames of at most {self.budget.max_tokens_of(self.budget.num_frames)} tokens"
        return f"<Processor: {sizes}, vocabulary of {len(self.tokenizer)}>"

    def clip(
        self,
        frames: Sequence[NDArray[np.uint8]],
        *,
        frame_indices: Sequence[int] | None = None,
        num_video_frames: int | None = None,
    ) -> ClipInput:
        """Resize and patch the sampled frames of a video.

        Args:
            frames: (H, W, 3) uint8 RGB arrays of one size.
            frame_indices: Index in the video of each frame; None if they are the whole video.
            num_video_frames: Number of frames of the whole video; None if the last one given is its last.

        Raises:
            TypeError: A frame is not a uint8 array.
            ValueError: Frames differ in size, or their number from that of the indices.
        """
        height, width = check_frames(frames)
        indices = tuple(range(len(frames)) if frame_indices is None else map(int, frame_indices))
        if len(indices) != len(frames):
            raise ValueError(f"{len(frames)} frames were given with {len(indices)} frame_indices")
        size = fit_size(
            height,
            width,
            cell=self.sizes.cell,
            min_tokens=self.budget.min_tokens,
            max_tokens=self.budget.max_tokens_of(len(frames)),
        )
        resized = [resize_frame(frame, size) for frame in frames]
        if self.budget.is_still:
            resized = [frame for frame in resized for _ in range(FRAMES_PER_PAIR)]
        patches, grid = to_patches(resized, self.sizes)
        count = max(indices) + 1 if num_video_frames is None else num_video_frames
        layout = ClipLayout(
            indices, (height, width), count, grid, patch_size=self.sizes.patch, merge_size=self.sizes.merge
        )
        return ClipInput(VideoInput(patches, grid), layout)

    def sam_frames(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[Tensor]:
        """Yield frames (H, W, 3) as the input of SAM, (3, S, S) each; stack them for `segment_video`."""
        for frame in frames:
            yield normalise_frame(frame, image_size=self.config.segmenter.image_size)

    def memory(
        self,
        object_ids: Sequence[int],
        masks: NDArray[Any] | Tensor,
        layout: ClipLayout,
        *,
        is_update: bool = False,
    ) -> MemoryInjection:
        """Convert masks on the sampled frames to the memory of a turn.

        Args:
            object_ids: Ids in the order of the masks.
            masks: (n, O, H, W) at the size of the original frames.
            layout: The sampled frames.
            is_update: Whether an earlier turn of the conversation has a memory.

        Raises:
            ValueError: Masks do not match the frames or ids, or an object is visible on no frame.
        """
        expected = (layout.num_frames, len(object_ids), *layout.frame_size)
        if tuple(masks.shape) != expected:
            raise ValueError(
                f"masks must be (sampled frames, objects, H, W) = {expected}, got {tuple(masks.shape)}: "
                "give one mask per object and frame at the size of the video"
            )
        if layout.is_still and layout.num_frames > 1:
            masks = torch.as_tensor(masks).repeat_interleave(FRAMES_PER_PAIR, dim=0)
        return inject(
            object_ids,
            masks,
            grid_hw=layout.grid_thw[1:],
            is_update=is_update,
            patch_size=self.sizes.patch,
            merge_size=self.sizes.merge,
        )

    def encode(
        self, turns: Sequence[Turn], *, clip: ClipInput | None = None, prompts: Sequence[VisualPrompt] = ()
    ) -> EncodedSample:
        """Encode a conversation from its start, for training or for a first answer.

        Args:
            turns: Questions and answers; only the last may lack an answer.
            clip: The clip that they are about.
            prompts: Points and boxes, one per `<|ref|>`, in the order of the text.

        Raises:
            ValueError: Placeholders in the text do not match prompts, memories or the clip.
        """
        rendered = render_conversation(turns, num_visual_tokens=clip.layout.num_tokens if clip else 0)
        videos = (clip.video,) if clip else ()
        return self._sample(rendered, turns, clip.layout if clip else None, prompts=prompts, videos=videos)

    def encode_later_turn(
        self,
        turn: Turn,
        *,
        layout: ClipLayout | None = None,
        prompts: Sequence[VisualPrompt] = (),
        has_ended: bool = True,
    ) -> EncodedSample:
        """Encode a turn that continues a prompt cache, which contains the clip.

        Args:
            turn: The next question.
            layout: Layout of the clip in the prompt cache.
            prompts: Points and boxes, one per `<|ref|>`, in the order of the text.
            has_ended: Whether the last answer ended with `<|im_end|>`; otherwise it is added.

        Raises:
            ValueError: Placeholders in the text do not match prompts or memories.
        """
        return self._sample(render_later_turn(turn, has_ended=has_ended), [turn], layout, prompts=prompts)

    def stack(self, samples: Sequence[EncodedSample]) -> EncodedSample:
        """Join samples into one batch; see `stack_samples`."""
        return stack_samples(samples, padding_id=self.tokenizer.pad_token_id or 0)

    def _sample(
        self,
        rendered: RenderedText,
        turns: Sequence[Turn],
        layout: ClipLayout | None,
        *,
        prompts: Sequence[VisualPrompt],
        videos: tuple[VideoInput, ...] = (),
    ) -> EncodedSample:
        memories = [turn.memory for turn in turns if turn.memory is not None]
        _check_placeholders(rendered.text, memories, prompts, layout)
        references = to_references(prompts, layout, image_size=self.config.segmenter.image_size) if layout else ()
        ids, labels = ids_and_labels(encode_text(self.tokenizer, rendered))
        # Features are pooled object by object in the order of the text: memories of later turns are further objects.
        memory_masks = (TokenMasks.cat([memory.masks for memory in memories]),) if memories else ()
        inputs = ModelInputs(ids, videos=videos, references=references, memory_masks=memory_masks)
        return EncodedSample(inputs, labels, (rendered.text,))


def ids_and_labels(encoded: EncodedText) -> tuple[Tensor, Tensor]:
    """Return the (1, L) ids of a text, and its labels: the ids of supervised tokens, `IGNORED_LABEL` elsewhere."""
    ids = torch.tensor([encoded.ids], dtype=torch.long)
    return ids, torch.where(torch.tensor([encoded.is_supervised]), ids, IGNORED_LABEL)


def stack_samples(samples: Sequence[EncodedSample], *, padding_id: int) -> EncodedSample:
    """Join samples into one batch, padded on the right.

    Args:
        samples: At least one.
        padding_id: Id of padding tokens.

    Raises:
        ValueError: There is no sample.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample")
    labels = [row for sample in samples for row in sample.labels]
    inputs = stack_inputs([sample.inputs for sample in samples], padding_id=padding_id)
    return EncodedSample(
        inputs,
        pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL)[:, : max(inputs.lengths)],
        tuple(text for sample in samples for text in sample.texts),
    )


def stack_inputs(parts: Sequence[ModelInputs], *, padding_id: int) -> ModelInputs:
    """Join inputs into one batch, padded on the right.

    Args:
        parts: At least one.
        padding_id: Id of padding tokens.
    """
    rows = [row[:length] for part in parts for row, length in zip(part.input_ids, part.lengths, strict=True)]
    is_even = len({len(row) for row in rows}) == 1
    mask = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in rows], batch_first=True)
    return ModelInputs(
        pad_sequence(rows, batch_first=True, padding_value=padding_id),
        attention_mask=None if is_even else mask,
        videos=tuple(video for part in parts for video in part.videos),
        references=tuple(reference for part in parts for reference in part.references),
        memory_masks=_join_memories(parts),
    )


def _check_placeholders(
    text: str, memories: Sequence[MemoryInjection], prompts: Sequence[VisualPrompt], layout: ClipLayout | None
) -> None:
    num_references, num_memories = text.count(REF), text.count(MEM)
    if num_references != len(prompts):
        raise ValueError(
            f"the text has {num_references} {REF}, {len(prompts)} points and boxes were given: give one for each"
        )
    rows = sum(memory.num_tokens for memory in memories)
    if num_memories != rows:
        raise ValueError(
            f"the text has {num_memories} {MEM}, the masks require {rows}: do not write {MEM} into a question, "
            "pass the masks as Turn.memory, which adds it"
        )
    if layout is None and (prompts or memories):
        raise ValueError(f"{len(prompts)} prompts and {len(memories)} memories were given without a clip")
    for memory in memories:
        t, h, w = layout.grid_thw if layout else (0, 0, 0)
        merge = layout.merge_size if layout else 1
        shape = (t, len(memory.object_ids), h // merge, w // merge)
        if tuple(memory.masks.coverage.shape) != shape:
            raise ValueError(
                f"the memory of {list(memory.object_ids)} is on a grid {tuple(memory.masks.coverage.shape)}, "
                f"the clip requires {shape}: create it with Processor.memory and the layout of this clip"
            )


def _join_memories(parts: Sequence[ModelInputs]) -> tuple[TokenMasks | None, ...]:
    """Return one memory, or None, per clip, or per sample if the clips are in prompt caches."""
    if not any(part.memory_masks for part in parts):
        return ()
    has_clips = any(part.videos for part in parts)
    memories: list[TokenMasks | None] = []
    for part in parts:
        memories += part.memory_masks or [None] * (len(part.videos) if has_clips else len(part.input_ids))
    return tuple(memories)
