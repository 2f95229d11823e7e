"""Pixel-SAIL against recorded outputs of the published implementation, and against its tensor names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from parity.run_sail_case import KEYS, SailCase, read_tensors
from unipixel import CheckpointError, PixelSail, PixelSailConfig, RegionPrompt, SailProcessor, Turn
from unipixel.sail.image_block import ImageSpan, block_attention, block_bounds, prefix_positions
from unipixel.sail.patch_grid import fit_area, fit_long_side, mask_to_cells
from unipixel.sail.sail_inputs import ImagePatches
from unipixel.train.sail.sail_losses import sample_points, values_at

GOLDEN = Path(__file__).parent / "sail"
CHECKPOINT = GOLDEN / "checkpoint"
CASES = sorted(path.name for path in GOLDEN.glob("case_*") if path.name != "case_preprocess")
# float32 on the CPU against another implementation.
TOLERANCES = {
    "embeds_max_abs_diff": 1e-5,
    "hidden_max_abs_diff": 1e-4,
    "logits_max_abs_diff": 1e-3,
    "mask_logits_max_abs_diff": 1e-3,
    "losses_max_abs_diff": 1e-4,
}
LOSSES = set(KEYS) - {"embeds_max_abs_diff", "hidden_max_abs_diff", "logits_max_abs_diff", "generated_ids_equal",
                      "generated_mask_iou_min"}  # fmt: skip
# What each case records, so that a comparison that finds nothing fails.
RECORDED = {
    "case_losses": LOSSES,
    "case_wide_heads": {"mask_logits_max_abs_diff"},
    "case_text_only": set(TOLERANCES) - {"mask_logits_max_abs_diff"},
    "case_region_one": set(KEYS) - {"mask_logits_max_abs_diff", "generated_mask_iou_min"},
    "case_region_three": set(KEYS) - {"mask_logits_max_abs_diff", "generated_mask_iou_min"},
}


@pytest.fixture(scope="module")
def preprocessed() -> dict[str, torch.Tensor]:
    return read_tensors(GOLDEN / "case_preprocess" / "tensors.safetensors")


@pytest.fixture(scope="module")
def sizes() -> list[dict[str, list[int]]]:
    fields = json.loads((GOLDEN / "case_preprocess" / "case.json").read_text(encoding="utf-8"))
    found: list[dict[str, list[int]]] = fields["sizes"]
    return found


@pytest.fixture(scope="module")
def processor() -> SailProcessor:
    return SailProcessor.from_pretrained(CHECKPOINT)


@pytest.mark.parametrize("case", CASES)
def test_recorded_case_is_reproduced(case: str) -> None:
    differences = SailCase(CHECKPOINT, GOLDEN / case).compare()
    assert {key for key, value in differences.items() if value is not None} == RECORDED.get(case, set(KEYS))
    for key, tolerance in TOLERANCES.items():
        value = differences[key]
        assert value is None or value <= tolerance, key
    assert differences["generated_ids_equal"] in (True, None)
    iou = differences["generated_mask_iou_min"]
    assert iou is None or iou >= 0.995


def test_image_sizes_are_the_published_ones(sizes: list[dict[str, list[int]]]) -> None:
    for entry in sizes:
        width, height = entry["image"]
        for patch, name in ((16, "resized"), (32, "resized_patch32")):
            assert list(fit_long_side(height, width, patch=patch, max_side=1024)[::-1]) == entry[name]


def test_image_sizes_of_eve_are_the_published_ones() -> None:
    fields = json.loads((GOLDEN / "case_eve" / "case.json").read_text(encoding="utf-8"))
    for entry in fields["sizes_at_800"]:
        width, height = entry["image"]
        assert list(fit_area(height, width, patch=32, side=800)[::-1]) == entry["resized"]


@pytest.mark.parametrize("name", ["a", "b"])
def test_patches_are_the_published_ones(
    name: str, preprocessed: dict[str, torch.Tensor], processor: SailProcessor
) -> None:
    fields = json.loads((GOLDEN / "case_preprocess" / "case.json").read_text(encoding="utf-8"))[f"image_{name}"]
    image = processor.image(preprocessed[f"{name}.image"].numpy())
    rows = slice(None) if fields["rows"] == "all" else fields["rows"]
    assert list(image.grid) == fields["grid"]
    torch.testing.assert_close(image.patches[rows], preprocessed[f"{name}.patches"], rtol=0, atol=1e-6)


def test_masks_cover_the_published_cells(preprocessed: dict[str, torch.Tensor]) -> None:
    names = [name.removeprefix("cells.") for name in preprocessed if name.startswith("cells.")]
    assert len(names) == 7
    for name in names:
        cells = mask_to_cells(preprocessed[f"mask.{name}"].numpy(), (80, 112), patch=16)
        assert torch.equal(torch.from_numpy(cells), preprocessed[f"cells.{name}"]), name


@pytest.mark.parametrize(("order", "recorded"), [("area", "sorted"), ("given", "as_given")])
def test_overlapping_prompts_are_drawn_in_the_recorded_order(
    order: str, recorded: str, preprocessed: dict[str, torch.Tensor], processor: SailProcessor
) -> None:
    prompts = [RegionPrompt(7, preprocessed["index_map.small"].numpy()),
               RegionPrompt(0, preprocessed["index_map.big"].numpy())]  # fmt: skip
    image = torch.zeros(75, 110, 3, dtype=torch.uint8).numpy()
    index = processor.image(image, prompts, order="area" if order == "area" else "given").prompt_ids
    # The recorded map has the whole sequence: one token before the patches, -2 for a cell without a prompt.
    expected = preprocessed[f"index_map.{recorded}"][1:36]
    assert torch.equal(index, torch.where(expected == -2, -1, expected))


def test_positions_are_the_published_ones(preprocessed: dict[str, torch.Tensor]) -> None:
    for name in ("positions.5x7", "positions.1x1", "positions.2x9", "positions.9x2"):
        recorded = preprocessed[name]
        rows, columns = map(int, name.removeprefix("positions.").split("x"))
        span = ImageSpan(1, 1 + rows * columns, _blank((rows, columns)))
        length = recorded.shape[1]
        positions, following = prefix_positions([length], [span], num_tokens=length)
        assert torch.equal(positions[:, 0], recorded)
        assert following == int(recorded.max()) + 1


def test_attention_of_an_image_block_is_the_published_one(preprocessed: dict[str, torch.Tensor]) -> None:
    recorded = preprocessed["attention.5x7"]
    bounds = block_bounds([ImageSpan(1, 36, _blank((5, 7)))], num_border_tokens=1)
    assert bounds is not None
    index = torch.arange(len(recorded))
    zero = torch.zeros(1, dtype=torch.long)
    block = block_attention(bounds)(zero, zero, index[:, None], index[None])
    assert torch.equal(block | (index[:, None] >= index[None]), recorded)


def test_sequence_and_labels_are_the_published_ones(
    preprocessed: dict[str, torch.Tensor], processor: SailProcessor
) -> None:
    turns = [Turn(" Please segment it. ", "It is [SEG]. "), Turn("<image>\nAnd this?", "No target [SEG].")]
    for name, length in (("full", None), ("cut", 60)):
        sample = processor.encode(turns, image=_blank((5, 7)), max_tokens=length)
        assert torch.equal(sample.inputs.input_ids[0], preprocessed[f"sequence.{name}.input_ids"])
        assert torch.equal(sample.labels[0], preprocessed[f"sequence.{name}.labels"])


def test_sequence_of_eve_is_the_published_one(processor: SailProcessor) -> None:
    case = SailCase(CHECKPOINT, GOLDEN / "case_eve")
    case._load()
    talk = case.fields["conversation"]
    image = case._image()[0]
    sample = case.processor.encode([Turn(talk[0], talk[1]), Turn(talk[2], talk[3])], image=image)
    ids = sample.inputs.input_ids[0]
    assert torch.equal(case._ids(case.inputs["input_ids"], placeholder=-200, image=(image,))[0], ids)
    assert torch.equal(case.outputs["labels_after_insertion"], sample.labels[0])


@pytest.mark.parametrize(
    ("name", "sizes"), [("0_5b", (896, 24, 14, 4864)), ("3b", (2048, 36, 16, 11008))], ids=["0.5B", "3B"]
)
def test_published_tensor_names_and_shapes(name: str, sizes: tuple[int, int, int, int]) -> None:
    from unipixel.sail.sail_checkpoint import named_as_published

    width, layers, heads, inner = sizes
    fields = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    fields |= {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": 151690,
               "intermediate_size": inner, "mask_channels": 512, "tie_word_embeddings": True}  # fmt: skip
    model = PixelSail.build_empty(PixelSailConfig.from_dict(fields))
    state = named_as_published(model).state_dict()
    assert all(tensor.is_meta for tensor in state.values())
    published = json.loads((GOLDEN / f"published_keys_{name}.json").read_text(encoding="utf-8"))
    assert {key: list(tensor.shape) for key, tensor in state.items()} == published


def test_saved_checkpoint_has_the_published_names_and_loads_equal(tmp_path: Path) -> None:
    model = PixelSail.from_pretrained(CHECKPOINT)
    model.save_pretrained(tmp_path)
    saved, recorded = load_file(tmp_path / "model.safetensors"), load_file(CHECKPOINT / "model.safetensors")
    assert saved.keys() == recorded.keys()
    assert all(torch.equal(saved[name], recorded[name]) for name in recorded)
    again = PixelSail.from_pretrained(tmp_path)
    assert again.config.to_dict() == PixelSailConfig.from_dict(again.config.extra).to_dict()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again.parameters(), model.parameters(), strict=True))


def test_checkpoint_with_a_missing_tensor_names_it(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = PixelSail.from_pretrained(CHECKPOINT)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["single_transformer.model.vp_embed.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing: single_transformer\.model\.vp_embed\.weight"):
        PixelSail.from_pretrained(tmp_path)


def test_sampled_points_prefer_uncertain_pixels() -> None:
    # A mask whose logits are 0 in the left tenth of the image and certain elsewhere.
    logits = torch.full((1, 10, 100), 9.0)
    logits[:, :, :10] = 0
    points = sample_points(logits, num_points=400, generator=torch.Generator().manual_seed(0))
    assert points.shape == (1, 400, 2)
    assert bool(((points >= 0) & (points <= 1)).all())
    # 1200 candidates have about 120 on the left, all of which are chosen; of 100 uniform points 10 are there.
    share = float((values_at(logits, points) < 4.5).float().mean())
    assert 0.22 < share < 0.45


def _blank(grid: tuple[int, int]) -> ImagePatches:
    cells = grid[0] * grid[1]
    return ImagePatches(torch.zeros(cells, 768), grid, torch.full((cells,), -1), (grid[0] * 16, grid[1] * 16))
