"""Initialisation of small Pixel-SAIL models."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.sail_sizes import TINY_SAIL_SIZES
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLAttention

from unipixel.model.inputs import ModelInputs
from unipixel.processing.chat_template import Turn
from unipixel.sail.patch_grid import RegionPrompt
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.datasets.synthetic.attributes import COLOURS
from unipixel.train.recipe_files import find_recipe, load_any_recipe
from unipixel.train.sail.sail_recipe import SailRecipe
from unipixel.train.sail.sail_run import load_initial_sail


def new_model(folder: Path, sizes: str) -> tuple[PixelSail, SailProcessor]:
    file = folder / "sizes.toml"
    file.write_text(sizes)
    recipe = load_any_recipe("sail/nano", [f'model.sizes="{file}"'])
    assert isinstance(recipe, SailRecipe)
    torch.manual_seed(0)
    return load_initial_sail(recipe)


def attention_weights(model: PixelSail, inputs: ModelInputs) -> list[Tensor]:
    """Return the attention (heads, queries, keys) of each layer."""
    caught: list[Tensor] = []
    attentions = [part for part in model.modules() if isinstance(part, Qwen2_5_VLAttention)]
    hooks = [own.register_forward_hook(lambda _, __, output: caught.append(output[1][0])) for own in attentions]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return caught


def test_answers_of_a_new_small_model_depend_on_the_question(tmp_path: Path) -> None:
    sizes = (find_recipe("sail/nano").parent / "sizes.toml").read_text(encoding="utf-8")
    model, processor = new_model(tmp_path, sizes.replace("num_samples = 2000", "num_samples = 200"))
    image = processor.image(np.full((60, 96, 3), 127, np.uint8), ())
    questions = [processor.encode((Turn(f"Segment the {word} circle.", None),), image=image) for word in COLOURS]

    def change() -> float:
        """Return by how much, on average, another colour changes the scores of the first word of the answer."""
        with torch.no_grad():
            first, *others = (model(question.inputs).logits[0, -1] for question in questions)
        return float(torch.stack([(first - other).norm() / first.norm() for other in others]).mean())

    initialised = change()
    # The standard deviation of large models.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.02)
    assert initialised > 2 * change()


def test_a_prompt_of_a_new_small_model_attends_to_the_patches_that_it_marks(tmp_path: Path) -> None:
    model, processor = new_model(tmp_path, TINY_SAIL_SIZES.replace("hidden_size = 32", "hidden_size = 128"))
    pixels = np.random.default_rng(0).integers(0, 256, (60, 96, 3), dtype=np.uint8)
    marked = []
    for column in range(0, 96, 12):
        mask = np.zeros((60, 96), np.bool_)
        mask[24:48, column : column + 12] = True
        marked.append(mask)
    ids = (3, 14, 0, 8, 1, 11, 6, 9)
    prompts = [RegionPrompt(number, mask) for number, mask in zip(ids, marked, strict=True)]
    image = processor.image(pixels, prompts)
    own, others = [], []
    for number in ids:
        inputs = processor.encode((Turn(f"Describe <Prompt{number}>.", None),), image=image).inputs
        tokens = inputs.input_ids[0]
        position = int((tokens == model.config.prompt_token_ids[number]).nonzero()[0, 0])
        for weights in attention_weights(model, inputs):
            of_patches = weights[0, position, tokens == model.config.image_token_id]
            own.append(of_patches[image.prompt_ids == number].mean())
            others.append(of_patches[(image.prompt_ids >= 0) & (image.prompt_ids != number)].mean())
    assert torch.stack(own).mean() > 4 * torch.stack(others).mean()


def test_heads_of_a_new_small_model_attend_to_neighbouring_patches(tmp_path: Path) -> None:
    sizes = TINY_SAIL_SIZES.replace("hidden_size = 32", "hidden_size = 192").replace("_heads = 2", "_heads = 3")
    sizes = sizes.replace("tie_word", "rope_theta = 10000.0\ntie_word")
    model, processor = new_model(tmp_path, sizes + 'rotary_layout = "interleaved"\n')
    image = processor.image(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8), ())
    inputs = processor.encode((Turn("Describe the image.", None),), image=image).inputs
    is_patch = inputs.input_ids[0] == model.config.image_token_id
    attended = []
    for weights in attention_weights(model, inputs)[:2]:
        grid = weights[1:][:, is_patch][:, :, is_patch].unflatten(2, (8, 8)).unflatten(1, (8, 8))
        for head in grid:
            shares = {
                (row, column): float(
                    torch.stack([head[y, x, y + row, x + column] for y in range(1, 7) for x in range(1, 7)]).mean()
                )
                for row in (-1, 0, 1)
                for column in (-1, 0, 1)
            }
            attended.append(max(shares, key=lambda offset: shares[offset]))
            assert shares[attended[-1]] > 0.3
    assert attended == [(0, -1), (0, 1), (-1, 0), (1, 0)]


def test_the_mask_of_a_new_small_model_is_where_patches_are_similar_to_the_query(tmp_path: Path) -> None:
    sizes = TINY_SAIL_SIZES.replace("hidden_size = 32", "hidden_size = 128").replace("= 16\n", "= 64\n")
    head = new_model(tmp_path, sizes)[0].mask_head
    states = torch.randn(5, 7, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = head.mask_logits(states, head.queries(states[2, 4:5]))[0]
    assert logits.shape == (20, 28)
    cells = F.avg_pool2d(logits[None], 4)[0]
    own = float(cells[2, 4])
    others = torch.cat([cells.flatten()[:18], cells.flatten()[19:]])
    assert own > 2
    assert float(others.mean().abs()) < 0.5
    assert own > float(others.max()) + 1
