"""A segmenter whose steps of tracking are compiled, for a few fixed numbers of objects.

Shape letters: B objects, C embedding width, D memory width, h/w side of the embedding, M memories, P pointers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unipixel.tracking import memory_attention
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.types import FrameFeatures, MemoryBatch, Segmentation, SegmentPrompt

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of objects for which the steps are compiled; a batch is padded to the next one."""
# With these modes the outputs are overwritten by the next call (CUDA graphs), so they are copied.
_CAPTURING_MODES = ("reduce-overhead", "max-autotune")


def bucket_size(num_objects: int) -> int:
    """Return the padded number of objects; above the largest bucket, a multiple of it."""
    if num_objects > BUCKETS[-1]:
        return -(-num_objects // BUCKETS[-1]) * BUCKETS[-1]
    return next(size for size in BUCKETS if size >= num_objects)


def pad_rows(tensor: Tensor, size: int) -> Tensor:
    """Pad a tensor (B, ...) to (size, ...) with copies of its first row, which are valid inputs."""
    missing = size - len(tensor)
    return torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])]) if missing else tensor


class CompiledSegmenter(Segmenter):
    """A segmenter that shares the parameters of another and compiles the four steps of tracking a frame.

    Batches of objects are padded to `BUCKETS`, so that few shapes are compiled. Prompts, and frames before the memory
    is full (`num_maskmem` memories and `max_pointers` pointers), are computed as without compilation, because each
    has another shape. The first frame with a full memory waits for the compilation, up to a minute.
    """

    def __init__(self, segmenter: Segmenter, *, backend: str = "inductor", mode: str | None = None) -> None:
        """Wrap a segmenter; nothing is compiled yet.

        Args:
            segmenter: SAM 2.1 or 2.0, on its device.
            backend: Backend of `torch.compile`; `aot_eager` compiles without generating code, for tests.
            mode: Mode of `torch.compile`; `reduce-overhead` captures the steps as CUDA graphs.
        """
        super(Segmenter, self).__init__()
        self.config = segmenter.config
        for name, module in segmenter.named_children():
            self.add_module(name, module)
        for name, parameter in segmenter._parameters.items():
            self.register_parameter(name, parameter)
        self._copies_outputs = mode in _CAPTURING_MODES
        self._tables: dict[str, Tensor] = {}
        options: dict[str, Any] = {"backend": backend, "dynamic": False} | ({"mode": mode} if mode else {})
        self._encode_step = torch.compile(self._encode_maps, **options)
        self._attend_step = torch.compile(self._attend_tokens, **options)
        self._decode_step = torch.compile(self._decode_tensors, **options)
        self._memory_step = torch.compile(self._memory_of, **options)
        self.eval()

    def encode(self, frames: Tensor) -> FrameFeatures:
        """Encode frames with the image encoder. See `Segmenter.encode`."""
        embedding, fine, finer = self._run(self._encode_step, frames)
        return FrameFeatures(embedding, (fine, finer))

    def prepare_queries(self, features: FrameFeatures) -> Tensor:
        """Return the embedding itself: the first self-attention is part of the compiled `attend_memory`."""
        return features.embedding

    def attend_memory(self, features: FrameFeatures, memory: MemoryBatch, *, queries: Tensor | None = None) -> Tensor:
        """Attend to the memories of B objects. See `Segmenter.attend_memory`; `queries` are not needed."""
        del queries
        layout = (memory.features.shape[1], memory.pointers.shape[1])
        if layout != (self.config.num_maskmem, self.config.max_pointers):
            return super().attend_memory(features, memory, queries=super().prepare_queries(features))
        size, num_objects = bucket_size(len(memory.features)), len(memory.features)
        padded = (pad_rows(each, size) for each in (memory.features, memory.slots, memory.pointers, memory.offsets))
        self._prepare_tables()
        (attended,) = self._run(self._attend_step, features.embedding, *padded, memory.max_offset)
        return attended[:num_objects]

    def decode(
        self, features: FrameFeatures, embedding: Tensor, prompt: SegmentPrompt | None = None, *,
        is_dynamic_multimask: bool = False,
    ) -> Segmentation:  # fmt: skip
        """Decode the masks of B objects on one frame. See `Segmenter.decode`."""
        if prompt is not None or len(features) > 1:
            return super().decode(features, embedding, prompt, is_dynamic_multimask=is_dynamic_multimask)
        padded = pad_rows(embedding, bucket_size(len(embedding)))
        decoded = self._run(self._decode_step, features.embedding, *features.high_res, padded)
        return Segmentation(*(tensor[: len(embedding)] for tensor in decoded))

    def encode_memory(
        self, features: FrameFeatures, segmentation: Segmentation, *, is_binary: bool = False,
        masks: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Encode the memories of B objects from one frame. See `Segmenter.encode_memory`."""
        if is_binary or masks is not None or len(features) > 1 or segmentation.candidate_ious.shape[1] == 1:
            return super().encode_memory(features, segmentation, is_binary=is_binary, masks=masks)
        num_objects = len(segmentation.object_score)
        size = bucket_size(num_objects)
        padded = (pad_rows(each, size) for each in (segmentation.mask_logits, segmentation.object_score))
        (memories,) = self._run(self._memory_step, features.embedding, *features.high_res, *padded)
        return memories[:num_objects]

    def _run(self, step: Callable[..., Any], *values: Any) -> tuple[Tensor, ...]:
        outputs = step(*values)
        return tuple(tensor.clone() for tensor in outputs) if self._copies_outputs else tuple(outputs)

    def _prepare_tables(self) -> None:
        """Compute the rotary tables, which are constants of the compiled steps."""
        for kind in ("self_attention", "cross_attention"):
            if kind not in self._tables or self._tables[kind].device != self.no_mem_embed.device:
                self._tables[kind] = super()._rotations(kind)

    def _rotations(self, kind: str) -> Tensor:
        return self._tables[kind] if kind in self._tables else super()._rotations(kind)

    def _encode_maps(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = super().encode(frames)
        return features.embedding, *features.high_res

    def _attend_tokens(
        self, embedding: Tensor, memories: Tensor, slots: Tensor, pointers: Tensor, offsets: Tensor, max_offset: int
    ) -> tuple[Tensor]:
        tokens = embedding.flatten(2).transpose(1, 2)
        position = self.image_encoder.neck.position_encoding(embedding).to(tokens.dtype).flatten(2).transpose(1, 2)
        rotations = self._tables["self_attention"]
        queries = memory_attention.prepare_queries(self.memory_attention, tokens, position, rotations)
        side = self.config.feature_size
        attended = memory_attention.attend_memory(
            self.memory_attention,
            queries,
            self._memory_tokens(MemoryBatch(memories, slots, pointers, offsets, max_offset), embedding.dtype),
            self._tables["cross_attention"],
            num_rotated=memories.shape[1] * side * side,
        )
        return (attended.transpose(1, 2).unflatten(2, (side, side)),)

    def _decode_tensors(self, frame: Tensor, fine: Tensor, finer: Tensor, embedding: Tensor) -> tuple[Tensor, ...]:
        return super().decode(FrameFeatures(frame, (fine, finer)), embedding).tensors

    def _memory_of(
        self, frame: Tensor, fine: Tensor, finer: Tensor, mask_logits: Tensor, object_score: Tensor
    ) -> tuple[Tensor]:
        # The candidates only tell a CPU how the package resizes: all three of them at once.
        three = mask_logits[:, None].expand(-1, 3, -1, -1)
        segmentation = Segmentation(mask_logits, object_score, object_score, three, three[..., 0, 0])
        return (super().encode_memory(FrameFeatures(frame, (fine, finer)), segmentation),)


def compile_segmenter(segmenter: Segmenter, *, mode: str | None = None) -> CompiledSegmenter:
    """Return a segmenter with compiled steps that shares the parameters of another one.

    Args:
        segmenter: SAM 2.1 or 2.0, on its device.
        mode: By default CUDA graphs on a GPU, and plain compilation elsewhere.
    """
    is_gpu = segmenter.no_mem_embed.device.type == "cuda"
    return CompiledSegmenter(segmenter, mode=mode or ("reduce-overhead" if is_gpu else None))
