"""Embeddings of points and boxes on a frame, `<|ref|>`, and of the positions of memory tokens.

Shape letters: D language width, R references, N memory tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unipixel.model.inputs import ReferencePrompt
from unipixel.tracking.precision import Float32Module
from unipixel.tracking.sam2_modules import build_prompt_encoder

# SAM's labels (arXiv:2304.02643): a positive click, the two corners of a box.
_POINT_LABELS, _BOX_LABELS = (1,), (2, 3)


class FourierTime(Float32Module):
    """Random Fourier features of a time in [0, 1]; the frequencies are part of every checkpoint."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_frequencies: int, *, seed: int = 0) -> None:
        """Draw the frequencies from a fixed seed, so that they are the same in every process."""
        super().__init__()
        matrix = torch.randn(1, num_frequencies, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("positional_encoding_gaussian_matrix", matrix)

    def forward(self, times: Tensor) -> Tensor:
        """Encode (R,) times as (R, 2 * num_frequencies)."""
        angles = 2 * math.pi * (2 * times[:, None] - 1) @ self.positional_encoding_gaussian_matrix
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class VisualPromptEncoder(Float32Module):
    """Embeds points and boxes on a frame (UniPixel, section 3.1).

    Runs in float32 whatever the type of the language model: in bfloat16, coordinates shift by up to 4 pixels.
    Parameter names are those of the published checkpoints.
    """

    def __init__(self, *, width: int, sam_width: int, image_size: int, has_memory_positions: bool = False) -> None:
        """Build the encoder.

        Args:
            width: Channels of the language model.
            sam_width: Channels of SAM's prompt encoder.
            image_size: Side of the square SAM input in pixels, in which points and boxes are given.
            has_memory_positions: Whether it can embed the positions of memory tokens, see `memory_positions`.
        """
        super().__init__()
        self.image_size = image_size
        self.ref_encoder = build_prompt_encoder(embed_dim=sam_width, image_size=image_size)
        self.ref_proj_single = nn.Linear(2 * sam_width, 3 * sam_width)
        self.ref_proj_double = nn.Linear(3 * sam_width, 3 * sam_width)
        self.ref_proj = nn.Sequential(nn.GELU(), nn.Linear(6 * sam_width, width))
        self.tem_pe = FourierTime(sam_width // 2)
        self.tem_emb = nn.Embedding(1, sam_width)
        self.tem_proj = nn.Linear(sam_width, 3 * sam_width)
        init_linears(self.ref_proj_single, self.ref_proj_double, self.ref_proj, self.tem_proj)
        nn.init.normal_(self.tem_emb.weight, std=0.02)
        self.mem_pos_proj: nn.Sequential | None = None
        if has_memory_positions:
            self.add_memory_positions()

    def add_memory_positions(self) -> None:
        """Add the projection of memory positions, initialised with zeros: it changes no `<|mem|>` before training."""
        self.mem_pos_proj = copy.deepcopy(self.ref_proj)
        for parameter in self.mem_pos_proj.parameters():
            nn.init.zeros_(parameter)

    def forward(self, references: Sequence[ReferencePrompt]) -> Tensor:
        """Embed references as (R, D), in the given order."""
        device = self.tem_proj.weight.device
        # Autocast would compute in a shorter type too.
        with torch.autocast(device.type, enabled=False):
            return self._encode(references, device)

    def memory_positions(self, boxes_xyxy: Tensor, times: Tensor) -> Tensor:
        """Embed the boxes and times of memory tokens, with the encoders of `<|ref|>` and a separate projection.

        Not part of the published model, whose pooled features contain neither position nor time.

        Args:
            boxes_xyxy: (N, 4) in [0, 1], shares of the frame's width and height.
            times: (N,) in [0, 1].

        Returns:
            (N, D) float32.

        Raises:
            RuntimeError: The encoder was built without memory positions.
        """
        if self.mem_pos_proj is None:
            raise RuntimeError("this model has no memory positions: call UniPixel.add_memory_positions first")
        device = self.tem_proj.weight.device
        with torch.autocast(device.type, enabled=False):
            corners = boxes_xyxy.to(device).float().view(-1, 2, 2) * self.image_size
            labels = torch.tensor(_BOX_LABELS, device=device).expand(len(corners), -1)
            tokens, _ = self.ref_encoder(points=(corners, labels), boxes=None, masks=None)
            spatial = self.ref_proj_double(tokens.flatten(1))
            return self.mem_pos_proj(torch.cat([spatial, self._temporal(times.to(device).float())], dim=-1))

    def _encode(self, references: Sequence[ReferencePrompt], device: torch.device) -> Tensor:
        spatial = self.tem_proj.weight.new_zeros(len(references), self.tem_proj.out_features)
        for is_box, labels, project in (
            (False, _POINT_LABELS, self.ref_proj_single),
            (True, _BOX_LABELS, self.ref_proj_double),
        ):
            rows = [row for row, reference in enumerate(references) if reference.is_box == is_box]
            if not rows:
                continue
            coords = torch.stack([references[row].coords for row in rows]).to(device)
            point_labels = torch.tensor([labels] * len(rows), device=device)
            tokens, _ = self.ref_encoder(points=(coords, point_labels), boxes=None, masks=None)
            spatial = spatial.index_put((torch.tensor(rows, device=device),), project(tokens.flatten(1)))
        times = [reference.frame / max(reference.num_frames - 1, 1) for reference in references]
        return self.ref_proj(torch.cat([spatial, self._temporal(torch.tensor(times, device=device))], dim=-1))

    def _temporal(self, times: Tensor) -> Tensor:
        return self.tem_proj(self.tem_pe(times) + self.tem_emb.weight)


def init_linears(*modules: nn.Module) -> None:
    """Initialise all linear layers of modules by Xavier, with biases of zero."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
