"""SAM 2.1 or SAM 2.0 alone: found and checked without torch, then loaded.

A source is a UniPixel checkpoint, a checkpoint of transformers' `Sam2VideoModel` (as the hub has them, such as
facebook/sam2.1-hiera-tiny), or an official file.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unipixel.checkpoints.files import CONFIG_FILE, read_json, read_segmenter_config, resolve
from unipixel.checkpoints.segmenter_configs import infer_official_config, read_transformers_config
from unipixel.checkpoints.segmenter_tensors import (
    GAUSSIAN,
    TRANSFORMERS_GAUSSIANS,
    official_shapes,
    point_row,
    transformers_name,
    transformers_shapes,
)
from unipixel.checkpoints.tensor_layout import (
    CheckpointError,
    TensorFiles,
    check_tensors,
    from_disk_name,
    is_adapter_folder,
)
from unipixel.model.config import MODEL_TYPE
from unipixel.tracking.config import SegmenterConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unipixel.tracking.segmenter import Segmenter

_PREFIX = "sam2."
_PICKLE_SUFFIXES = (".pt", ".pth")


@dataclass(frozen=True)
class SegmenterSource:
    """A checkpoint with a segmenter, whose names and shapes were checked.

    Attributes:
        path: Folder, or official file.
        layout: `unipixel`, `transformers`, or `official`.
        config: Sizes; None for an official `.pt` file, which only torch can read.
        files: Its tensors; None for an official `.pt` file.
    """

    path: Path
    layout: Literal["unipixel", "transformers", "official"]
    config: SegmenterConfig | None
    files: TensorFiles | None


def find_segmenter(source: str | Path) -> SegmenterSource:
    """Find a segmenter and check its configuration and the names and shapes of its tensors, without torch.

    Args:
        source: A UniPixel checkpoint (bundled name, folder or hub id), a folder or hub id in the layout of
            transformers' `Sam2VideoModel`, or an official file: `.pt` or safetensors.

    Raises:
        OSError: The source cannot be found, downloaded or read.
        CheckpointError: Tensors are missing, unexpected or of a wrong shape.
        ValueError: The configuration is of another model, incomplete or requires remote code.
    """
    if Path(source).is_file():
        return _find_official(Path(source))
    folder = resolve(source)
    if is_adapter_folder(folder):
        raise ValueError(f"{source} contains an adapter without SAM 2.1: give the full checkpoint it was trained from")
    fields = read_json(folder / CONFIG_FILE)
    if fields.get("model_type") == MODEL_TYPE:
        config = read_segmenter_config(folder)
        files = TensorFiles.of_folder(folder).only(_PREFIX)
        expected = {_PREFIX + name: shape for name, shape in official_shapes(config).items()}
        check_tensors(expected, {from_disk_name(name): shape for name, shape in files.shapes.items()})
        return SegmenterSource(folder, "unipixel", config, files)
    config = read_transformers_config(fields)
    files = TensorFiles.of_folder(folder)
    found = dict(files.shapes)
    # Both names of the one matrix are written by some versions of transformers.
    gaussians = [found.pop(name) for name in TRANSFORMERS_GAUSSIANS if name in found]
    if gaussians:
        found[TRANSFORMERS_GAUSSIANS[0]] = gaussians[0]
    check_tensors(transformers_shapes(official_shapes(config)), found, disk_name=str)
    return SegmenterSource(folder, "transformers", config, files)


def _find_official(file: Path) -> SegmenterSource:
    if file.suffix in _PICKLE_SUFFIXES:
        return SegmenterSource(file, "official", None, None)
    if file.suffix != ".safetensors":
        raise ValueError(f"{file} is no checkpoint: give a folder, a hub id, or an official .pt or .safetensors file")
    files = TensorFiles([file])
    config = infer_official_config(files.shapes)
    check_tensors(official_shapes(config), files.shapes, disk_name=str)
    return SegmenterSource(file, "official", config, files)


def load_segmenter(
    source: str | Path | SegmenterSource, *, device: str | torch.device = "cpu", image_size: int | None = None
) -> Segmenter:
    """Load SAM 2.1 or SAM 2.0 alone, for tracking without a language model.

    Args:
        source: See `find_segmenter`, or its result.
        device: Device of the segmenter.
        image_size: Side of the SAM input in pixels, a multiple of 32; by default that of the checkpoint, 1024 for an
            official file. A smaller one is faster and less accurate.

    Raises:
        OSError: The source cannot be found, downloaded or read.
        CheckpointError: Tensors are missing, unexpected or of a wrong shape.
        ValueError: The configuration is of another model, incomplete or requires remote code, or the device is
            not available.
    """
    found = source if isinstance(source, SegmenterSource) else find_segmenter(source)
    from unipixel.checkpoints.devices import available_device

    chosen = available_device(device)
    config, state = _read(found)
    if image_size is not None:
        config = SegmenterConfig.from_tree(config.to_tree() | {"image_size": image_size})
    return build_segmenter(config, state).to(chosen)


def _read(found: SegmenterSource) -> tuple[SegmenterConfig, dict[str, Tensor]]:
    """Read the tensors of a checkpoint by their official names, with their sizes."""
    if found.config is None or found.files is None:
        state = read_official(found.path)
        return infer_official_config({name: tuple(tensor.shape) for name, tensor in state.items()}), state
    tensors = dict(found.files.read(found.files.shapes, dtypes={}, device="cpu"))
    if found.layout == "unipixel":
        return found.config, {from_disk_name(name).removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    if found.layout == "transformers":
        return found.config, _from_transformers(found.config, tensors)
    return found.config, tensors


def _from_transformers(config: SegmenterConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    gaussians = [tensors[name] for name in TRANSFORMERS_GAUSSIANS if name in tensors]
    if any(gaussian.shape != gaussians[0].shape or not gaussian.equal(gaussians[0]) for gaussian in gaussians):
        raise CheckpointError(f"{' and '.join(TRANSFORMERS_GAUSSIANS)} differ: they are one matrix")
    state = {}
    for name in official_shapes(config):
        row = point_row(name)
        tensor = gaussians[0] if name == GAUSSIAN else tensors[transformers_name(name)]
        state[name] = tensor if row is None else tensor[row : row + 1]
    return state


def build_segmenter(config: SegmenterConfig, state: Mapping[str, Tensor]) -> Segmenter:
    """Return a segmenter, in evaluation mode, that has the given tensors; these are converted to float32.

    Raises:
        CheckpointError: Tensors are missing, unexpected or of a wrong shape.
    """
    from unipixel.tracking.segmenter import Segmenter

    check_tensors(official_shapes(config), {name: tuple(tensor.shape) for name, tensor in state.items()}, disk_name=str)
    with _without_initialization():
        segmenter = Segmenter(config)
    segmenter.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return segmenter.eval()


def read_official(file: Path) -> dict[str, Tensor]:
    """Read the tensors of an official file.

    A `.pt` of Meta is the only pickle that is ever opened, and it may contain tensors only.

    Raises:
        OSError: The file is missing, truncated, or contains other objects.
    """
    import torch

    if not file.is_file():
        raise FileNotFoundError(f"SAM 2.1 checkpoint {file} is missing: give the official .pt or safetensors")
    if file.suffix == ".safetensors":
        files = TensorFiles([file])
        return dict(files.read(files.shapes, dtypes={}, device="cpu"))
    try:
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)["model"]
        return dict(state)
    except pickle.UnpicklingError as error:
        raise OSError(f"{file} contains objects other than tensors and is not loaded") from error
    except (KeyError, TypeError, ValueError, RuntimeError, EOFError) as error:
        raise OSError(f"{file} is not an official SAM 2.1 checkpoint, or is truncated: {error}") from error


def _without_initialization() -> AbstractContextManager[Any]:
    """Build modules without drawing random weights, which a checkpoint replaces.

    accelerate's `init_empty_weights` puts them on the meta device instead, whose first use imports torch's compiler:
    it takes a second.
    """
    from torch.overrides import TorchFunctionMode

    class SkipInitialization(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if getattr(function, "__module__", None) == "torch.nn.init":
                return kwargs["tensor"] if "tensor" in kwargs else args[0]
            return function(*args, **kwargs)

    return SkipInitialization()
