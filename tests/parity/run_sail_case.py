"""Compares a Pixel-SAIL checkpoint with recorded outputs of the published implementation.

    python tests/parity/run_sail_case.py --checkpoint DIR --case DIR

Prints one line of JSON with the differences; those that the case does not record are null. Computes in float32 on the
CPU. A case that records `tensor_shapes` has weights that are drawn from their names; the checkpoint then gives only the
ids of special tokens.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file
from torch import Tensor

from unipixel import (
    GenerationSettings,
    ImagePatches,
    ModelInputs,
    PatchStates,
    PixelSail,
    PixelSailConfig,
    RegionPrompt,
    SailOutput,
    SailProcessor,
)
from unipixel.sail.patch_grid import PromptOrder
from unipixel.sail.upsampler import MaskHead
from unipixel.train.losses import text_losses
from unipixel.train.sail.sail_losses import (
    SailMaskLoss,
    distillation_loss,
    point_mask_loss,
    text_scale,
    total_loss,
)
from unipixel.train.sail.sail_recipe import SailLossWeights

Differences = dict[str, float | bool | None]
Tensors = dict[str, Tensor]
KEYS = ("embeds_max_abs_diff", "hidden_max_abs_diff", "logits_max_abs_diff", "mask_logits_max_abs_diff",
        "losses_max_abs_diff", "generated_ids_equal", "generated_mask_iou_min")  # fmt: skip
_EVE_PATCH = 32


def main() -> None:
    """Run one case from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path)
    parser.add_argument("--case", required=True, type=Path)
    arguments = parser.parse_args()
    print(json.dumps(SailCase(arguments.checkpoint, arguments.case).compare()))


class SailCase:
    """One recorded case and the model that it was recorded with."""

    def __init__(self, checkpoint: Path, case: Path) -> None:
        """Read a case and build its model.

        Args:
            checkpoint: Folder of a checkpoint.
            case: Folder of the case.
        """
        self.folder = case
        self.fields: dict[str, Any] = json.loads((case / "case.json").read_text(encoding="utf-8"))
        self.inputs, self.outputs, self.tensors = (
            read_tensors(case / f"{name}.safetensors") for name in ("inputs", "outputs", "tensors")
        )
        self.differences: Differences = dict.fromkeys(KEYS)
        self.checkpoint = checkpoint

    @torch.no_grad()
    def compare(self) -> Differences:
        """Compute the case and return the differences from the recorded outputs."""
        if "patch_states" in self.inputs:
            self._compare_heads()
        elif any(f"{name}.input_ids" in self.tensors for name in self.fields):
            self._compare_losses()
        elif "input_ids" in self.inputs:
            self._load()
            self._compare_forward()
            self._compare_generations()
        return self.differences

    def _load(self) -> None:
        if "tensor_shapes" not in self.fields:
            self.model = PixelSail.from_pretrained(self.checkpoint, dtype=torch.float32, attention="eager")
        else:
            self.model = drawn_model(eve_config(self.fields["config"], self.checkpoint))
        tokenizer = SailProcessor.from_pretrained(self.checkpoint).tokenizer
        self.processor = SailProcessor(self.model.config, tokenizer)

    def _image(self, *, is_generation: bool = False) -> tuple[ImagePatches, ...]:
        """Return the image with its prompts: by area in training, as given at inference."""
        if "image" not in self.inputs:
            return ()
        none = torch.zeros(0)
        pairs = zip(self.inputs.get("prompt_ids", none), self.inputs.get("prompt_masks", none), strict=True)
        prompts = [RegionPrompt(int(key), mask.numpy()) for key, mask in pairs]
        if is_generation:
            prompts = [prompts[index] for index in self.fields.get("generation_prompt_order", range(len(prompts)))]
            # The recorded generation of this variant has no prompts: the published code fails with them.
            prompts = [] if self.model.config.decoder == "eve" else prompts
        order: PromptOrder = "given" if is_generation else "area"
        image = self.processor.image(self.inputs["image"].numpy(), prompts, order=order)
        return (image,)

    def _ids(self, ids: Tensor, *, placeholder: int, image: tuple[ImagePatches, ...]) -> Tensor:
        """Repeat the placeholder of an image, of which recorded ids of the EVEv2 variant have one."""
        if self.model.config.decoder != "eve" or not image:
            return ids[None]
        position = ids.tolist().index(placeholder)
        count = self.model.config.num_image_tokens(image[0].grid)
        token = torch.full((count,), self.model.config.image_token_id)
        return torch.cat([ids[:position], token, ids[position + 1 :]])[None]

    def _compare_forward(self) -> None:
        image = self._image()
        ids = self._ids(self.inputs["input_ids"], placeholder=self.model.config.image_token_id, image=image)
        labels = self._ids(self.inputs["labels"], placeholder=-100, image=image)
        if self.model.config.decoder == "eve":
            labels = self.outputs["labels_after_insertion"][None]
        output = self.model(ModelInputs(ids, videos=image))
        self._compare_output(output, ids, labels)
        text = text_losses(output.hidden_states, labels, logits_of=self.model.logits)[0]
        if "llm_loss_unscaled" in self.fields:
            self._note("losses_max_abs_diff", abs(float(text) - self.fields["llm_loss_unscaled"]))
        elif "losses" in self.fields:
            # Without the recorded points only the text loss can be compared; it is scaled beside a mask loss.
            scale = SailLossWeights().text_beside_masks if self.fields["losses"]["loss_mask"] else 1.0
            self._note("losses_max_abs_diff", abs(float(text) * scale - self.fields["losses"]["llm_loss"]))

    def _compare_output(self, output: SailOutput, ids: Tensor, labels: Tensor) -> None:
        recorded = self.outputs
        if "inputs_embeds" in recorded:
            self._note("embeds_max_abs_diff", max_abs_diff(output.inputs_embeds[0], recorded["inputs_embeds"]))
        if hidden := sorted(name for name in recorded if name.startswith("hidden_")):
            self._note("hidden_max_abs_diff", max_abs_diff(output.hidden_states[0], recorded[hidden[-1]]))
        if "answer_logits" in recorded:
            logits = output.logits[0][recorded["answer_positions"]]
            self._note("logits_max_abs_diff", max_abs_diff(logits, recorded["answer_logits"]))
        if "logits" in recorded:
            self._note("logits_max_abs_diff", max_abs_diff(output.logits[0], recorded["logits"]))
        if "mask_logits" in recorded:
            is_seg = ids[0] == self.model.config.seg_token_id
            # The EVEv2 variant looks for [SEG] in the labels in training.
            rows = labels[0][is_seg] != -100 if self.model.config.decoder == "eve" else slice(None)
            queries = self.model.mask_tokens(output.seg_states[0][rows])
            logits = self.model.mask_logits(output.patch_states[0], queries)
            self._note("mask_logits_max_abs_diff", max_abs_diff(logits, recorded["mask_logits"]))

    def _compare_generations(self) -> None:
        image = self._image(is_generation=True)
        model = self.model
        for file in sorted(self.folder.glob("generated_*.safetensors")):
            recorded = load_file(file)
            if seg_id := self.fields.get("generation", {}).get("seg_token_id_for_the_mask"):
                model.config = replace(model.config, token_ids=dict(model.config.token_ids) | {"[SEG]": seg_id})
            prompt = recorded["prompt_ids" if "prompt_ids" in recorded else "prompt_ids_image_as_0"]
            ids = self._ids(prompt, placeholder=0, image=image)
            expected = recorded["generated_ids"].tolist()
            settings = GenerationSettings(max_new_tokens=len(expected))
            answer = model.generate(ModelInputs(ids, videos=image), settings=settings)[0]
            is_equal = list(answer.token_ids) == expected
            self.differences["generated_ids_equal"] = self.differences["generated_ids_equal"] is not False and is_equal
            patches = answer.prompt_cache.video if answer.prompt_cache else None
            if "masks" not in recorded or not isinstance(patches, PatchStates):
                continue
            # The published code also returns a mask for each [SEG] of the prompt, before those of the answer.
            tokens = torch.cat([answer.prompt_mask_tokens, answer.mask_tokens])
            masks = model.segment(patches, tokens) > 0
            iou = iou_min(masks, recorded["masks"].bool())
            self._note(
                "mask_logits_max_abs_diff",
                max_abs_diff(model.mask_logits(patches, tokens), recorded["mask_logits"]),
            )
            previous = self.differences["generated_mask_iou_min"]
            self.differences["generated_mask_iou_min"] = iou if previous is None else min(float(previous), iou)

    def _compare_heads(self) -> None:
        """Compare a mask head alone, for states that the case records."""
        shapes = self.fields["tensor_shapes"]
        head = MaskHead(
            self.fields["hidden_size"],
            mask_channels=self.fields["mask_channels"],
            num_blocks=self.fields["num_upsample_blocks"],
        )
        head.load_state_dict({name: drawn_tensor(name, tuple(shape)) for name, shape in shapes.items()})
        states, queries = self.inputs["patch_states"], head.queries(self.inputs["seg_states"])
        self._note("mask_logits_max_abs_diff", max_abs_diff(queries, self.outputs["seg_queries"]))
        logits = head.mask_logits(states, queries)
        self._note("mask_logits_max_abs_diff", max_abs_diff(logits, self.outputs["mask_logits"]))
        if "mask_features" in self.outputs:
            features = head.mask_features(states)
            self._note("mask_logits_max_abs_diff", max_abs_diff(features, self.outputs["mask_features"]))

    def _compare_losses(self) -> None:
        """Compare all losses of samples whose sampled points and teacher features are recorded."""
        self._load()
        for name, expected in self.fields.items():
            prefix = f"{name}."
            sample = {key.removeprefix(prefix): self.tensors[key] for key in self.tensors if key.startswith(prefix)}
            for part, value in self._losses(sample).items():
                if part in expected:
                    self._note("losses_max_abs_diff", abs(value - expected[part]))

    def _losses(self, sample: Tensors) -> dict[str, float]:
        model, weights = self.model, SailLossWeights()
        image: tuple[ImagePatches, ...] = ()
        if "image" in sample:
            is_patch = sample["vision_patch_indices"] >= 0
            prompt_ids = sample["vp_token_indices"][is_patch].clamp(min=-1)
            patches = self.processor.image(sample["image"].numpy())
            image = (replace(patches, prompt_ids=torch.where(prompt_ids < 0, -1, prompt_ids)),)
        output = model(ModelInputs(sample["input_ids"][None], videos=image))
        text = text_losses(output.hidden_states, sample["labels"][None], logits_of=model.logits)[0]
        masks: SailMaskLoss | None = None
        distillations: tuple[Tensor, ...] = ()
        if image:
            patches_of = output.patch_states[0]
            if "masks" in sample:
                logits = model.mask_logits(patches_of, model.mask_tokens(output.seg_states[0]))
                masks = point_mask_loss(logits, sample["masks"], sample["points"])
                self._note("mask_logits_max_abs_diff", max_abs_diff(logits, sample["mask_logits"]))
            states = patches_of.states.view(*patches_of.grid, -1)
            students = {"mask2former": model.mask_head.mask_features(states), "sam2": states}
            distillations = tuple(
                distillation_loss(self._mapped(teacher, student), self.tensors[f"teacher.{teacher}"][0])
                for teacher, student in students.items()
                if f"teacher.{teacher}" in self.tensors
            )
        total = total_loss(text, masks, distillations, weights=weights)
        values = {"llm_loss_unscaled": text, "llm_loss": text * text_scale(masks, weights), "total": total}
        if masks is not None:
            values |= {"loss_mask": weights.mask * masks.mask, "loss_dice": weights.dice * masks.dice}
        if distillations:
            values |= {
                f"{teacher}_distill_loss": weights.distillation * loss
                for teacher, loss in zip(("mask2former", "sam2"), distillations, strict=True)
            }
        return {name: float(value) for name, value in values.items()}

    def _mapped(self, teacher: str, student: Tensor) -> Tensor:
        prefix = f"{teacher}_distill_linear"
        return F.linear(student, self.tensors[f"{prefix}.weight"], self.tensors[f"{prefix}.bias"])

    def _note(self, key: str, value: float) -> None:
        """Keep the largest difference."""
        previous = self.differences[key]
        self.differences[key] = value if previous is None else max(float(previous), value)


def read_tensors(file: Path) -> Tensors:
    """Read a safetensors file; nothing if there is none."""
    return load_file(file) if file.is_file() else {}


def eve_config(fields: Mapping[str, Any], checkpoint: Path) -> PixelSailConfig:
    """Return the configuration of a case of the EVEv2 variant, with the token ids of a checkpoint."""
    token_ids = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["token_ids"]
    own = {
        "model_type": "pixel_sail",
        "decoder": "eve",
        "token_ids": token_ids,
        "vision_patch_size": fields.get("patch_stride", _EVE_PATCH // 2) * fields.get("dense_stride", 2),
        "eve_width": fields["mm_hidden_size"],
        "max_side": fields["max_size"],
        "tie_word_embeddings": False,
    }
    return PixelSailConfig.from_dict({**fields, **own})


def drawn_model(config: PixelSailConfig) -> PixelSail:
    """Return a model whose tensors are drawn from their published names."""
    model = PixelSail(config).eval()
    prefix = "mask_head."
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: drawn_tensor(name.removeprefix(prefix), shape) for name, shape in shapes.items()})
    return model


def drawn_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw a tensor from its name, by the rule of the recorded cases."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) == 1:
        values = 1 + 0.1 * values if name.endswith("weight") else 0.1 * values
    elif "embed_tokens" in name:
        values = 0.5 * values
    else:
        values = 1.4 * values / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def max_abs_diff(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference; infinity for different shapes, 0 for two empty tensors."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max()) if ours.numel() else 0.0


def iou_min(ours: Tensor, theirs: Tensor) -> float:
    """Return the smallest IoU of masks (K, H, W); 1 for two empty masks, 0 where their numbers differ."""
    if ours.shape != theirs.shape:
        return 0.0
    union = (ours | theirs).flatten(1).sum(-1)
    intersection = (ours & theirs).flatten(1).sum(-1)
    return float(torch.where(union > 0, intersection / union.clamp(min=1), 1.0).min()) if len(ours) else 1.0


if __name__ == "__main__":
    main()
