"""The tiny segmenter of the recorded cases, synthetic videos, and the sam2 package's predictor for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from parity.weights import seeded_tensor, tiny_segmenter_config
from torch import Tensor

from unipixel.tracking.clip_features import normalise_frame
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.sam2_modules import build_modules
from unipixel.tracking.segmenter import Segmenter

HEIGHT, WIDTH = 192, 256
# The settings of configs/sam2.1/*.yaml of the package besides its three sections.
_SETTINGS = {
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "no_obj_embed_spatial": True,
    "use_high_res_features_in_sam": True,
    "multimask_output_in_sam": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "add_tpos_enc_to_obj_ptrs": True,
    "proj_tpos_enc_in_obj_ptrs": True,
    "use_signed_tpos_enc_to_obj_ptrs": True,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "use_mlp_for_obj_ptr_proj": True,
}


def tiny_segmenter(*, score_shift: float = 0.0, config: SegmenterConfig | None = None) -> Segmenter:
    """Return the segmenter of the recorded cases; a negative `score_shift` makes objects absent in some frames."""
    segmenter = Segmenter(config or tiny_segmenter_config())
    state = {}
    for name, tensor in segmenter.state_dict().items():
        # The layer scale of the fuser is named `weight` in the recorded cases.
        recorded = name.replace(".gamma", ".weight") if "fuser" in name else name
        state[name] = seeded_tensor(f"sam2.{recorded}", tuple(tensor.shape))
    state["sam_mask_decoder.pred_obj_score_head.layers.2.bias"] += score_shift
    segmenter.load_state_dict(state)
    return segmenter.eval()


def synthetic_video(num_frames: int = 30, *, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a video (T, H, W, 3) uint8 of discs that move over a colour gradient."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    background = np.stack([x / width, y / height, (x + y) / (height + width)], axis=-1) * 120 + 40
    centres, speeds = rng.uniform(0.2, 0.8, (3, 2)) * (width, height), rng.uniform(-2.5, 2.5, (3, 2))
    radii, colours = rng.uniform(0.1, 0.22, 3) * height, rng.uniform(0, 255, (3, 3))
    video = np.empty((num_frames, height, width, 3), np.uint8)
    for index in range(num_frames):
        image = background.copy()
        for centre, speed, radius, colour in zip(centres, speeds, radii, colours, strict=True):
            where = np.abs((centre + speed * index) % (2 * np.array([width, height])) - (width, height))
            image[(x - where[0]) ** 2 + (y - where[1]) ** 2 < radius**2] = colour
        video[index] = np.clip(image + rng.normal(0, 4, image.shape), 0, 255)
    return video


class OfficialPredictor:
    """The package's predictor with the weights of one of our segmenters, on frames in memory."""

    def __init__(self, segmenter: Segmenter, video: np.ndarray, *, is_optimized: bool = False, **settings: Any) -> None:
        from sam2.sam2_video_predictor import SAM2VideoPredictor, SAM2VideoPredictorVOS

        config = segmenter.config
        modules = build_modules(config)
        sections = {name: modules[name] for name in ("image_encoder", "memory_attention", "memory_encoder")}
        sizes = {"image_size": config.image_size, "num_maskmem": config.num_maskmem}
        predictor = SAM2VideoPredictorVOS if is_optimized else SAM2VideoPredictor
        device = next(segmenter.parameters()).device
        # On its device before `init_state`, which keeps features of the first frame.
        self.predictor = predictor(**sections, **sizes, **_SETTINGS, **settings).eval().to(device)
        self.predictor.load_state_dict(segmenter.state_dict())
        frames = torch.stack([normalise_frame(frame, image_size=config.image_size, device=device) for frame in video])
        loaded = (frames, video.shape[1], video.shape[2])
        with mock.patch("sam2.sam2_video_predictor.load_video_frames", return_value=loaded):
            self.state = self.predictor.init_state("")

    def click(self, frame: int, object_id: int, points: Any, labels: Sequence[int], **options: Any) -> Tensor:
        """Prompt an object by clicks, and return the logits (B, H, W) of all objects on the frame."""
        clicks = {"points": np.array(points, np.float32), "labels": np.array(labels, np.int32)}
        return self.predictor.add_new_points_or_box(self.state, frame, object_id, **clicks, **options)[2][:, 0]

    def box(self, frame: int, object_id: int, box: Sequence[float]) -> Tensor:
        """Prompt an object by a box, and return the logits (B, H, W) of all objects on the frame."""
        add_box = self.predictor.add_new_points_or_box
        return add_box(self.state, frame, object_id, box=np.array(box, np.float32))[2][:, 0]

    def mask(self, frame: int, object_id: int, mask: np.ndarray) -> Tensor:
        """Prompt an object by a mask, and return the logits (B, H, W) of all objects on the frame."""
        return self.predictor.add_new_mask(self.state, frame, object_id, mask)[2][:, 0]

    def propagate(self, **options: Any) -> dict[int, Tensor]:
        """Track all objects, and return logits (B, H, W) by frame index."""
        frames = self.predictor.propagate_in_video(self.state, **options)
        return {index: logits[:, 0].clone() for index, _, logits in frames}


def min_iou(ours: Tensor, theirs: Tensor) -> float:
    """Return the smallest IoU of masks given as logits (..., H, W); it is 1 for two empty masks."""
    a, b = ours > 0, theirs > 0
    union = (a | b).flatten(-2).sum(-1)
    intersection = (a & b).flatten(-2).sum(-1)
    return float(torch.where(union > 0, intersection / union.clamp(min=1), 1.0).min())


def foreground_fraction(logits: Tensor) -> Tensor:
    """Return the fraction of foreground pixels, (...)."""
    return (logits > 0).float().flatten(-2).mean(-1)
