"""Tensors on disk: their names, their files, and the check that they fit a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from unipixel.checkpoints.files import read_json

# Names and shapes are checked before torch is imported.
if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
PARTIAL_FILE = "pytorch_model.safetensors"
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# An earlier transformers loader rewrote "gamma", so the published code renamed this parameter of SAM 2.
_FUSER_SCALE = re.compile(r"(sam2\.memory_encoder\.fuser\.layers\.\d+)\.(weight|gamma)")
_PROMPT_ENCODER_PREFIXES = ("ref_encoder.", "ref_proj", "tem_pe.", "tem_emb.", "tem_proj.", "mem_pos_proj.")
_MAX_LISTED = 20


class CheckpointError(ValueError):
    """The tensors of a checkpoint are not those that its configuration requires."""


def from_disk_name(name: str) -> str:
    """Return the name in memory of a published tensor, in the legacy or the current transformers layout."""
    if scale := _FUSER_SCALE.fullmatch(name):
        return f"{scale[1]}.gamma"
    if name.startswith("visual."):
        return f"model.{name}"
    if name.startswith("model.") and not name.startswith(("model.visual.", "model.language_model.")):
        return f"model.language_model.{name.removeprefix('model.')}"
    if name.startswith(_PROMPT_ENCODER_PREFIXES):
        return f"prompt_encoder.{name}"
    return name


def to_disk_name(name: str) -> str:
    """Return the published name of a tensor in memory; the inverse of `from_disk_name`."""
    if scale := _FUSER_SCALE.fullmatch(name):
        return f"{scale[1]}.weight"
    if name.startswith("model.visual."):
        return name.removeprefix("model.")
    if name.startswith("model.language_model."):
        return f"model.{name.removeprefix('model.language_model.')}"
    return name.removeprefix("prompt_encoder.")


class TensorFiles:
    """The tensors in the safetensors files of a folder, read one by one."""

    def __init__(self, files: Iterable[Path]) -> None:
        """List the tensors of the files without loading them.

        Raises:
            OSError: A file is missing or is not a complete safetensors file.
        """
        self._files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            # As numpy arrays, of which none is read: with `pt` safetensors would import torch.
            with _open(file, framework="np") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a mapping
                    self._files[name] = file
                    self.shapes[name] = tuple(tensors.get_slice(name).get_shape())

    @classmethod
    def of_folder(cls, folder: Path) -> TensorFiles:
        """Open a sharded or single checkpoint.

        Raises:
            OSError: There are no safetensors, a shard is missing or truncated, or the index names files
                outside the folder.
        """
        index = folder / INDEX_FILE
        if index.is_file():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise OSError(f"{index} has no weight_map: it is not an index of safetensors files")
            names = sorted(set(weight_map.values()))
            if outside := [name for name in names if Path(name).name != name]:
                raise OSError(f"{index} names files outside its folder: {outside}")
            opened = cls(folder / name for name in names)
            if lost := sorted(set(weight_map) - set(opened.shapes)):
                raise OSError(f"{index} lists tensors that its files do not contain: {_listed(lost)}")
            return opened
        if (folder / SINGLE_FILE).is_file():
            return cls([folder / SINGLE_FILE])
        if pickles := sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern)):
            raise OSError(
                f"{folder} contains pickles only ({_listed(pickles)}), which can run code and are not loaded; "
                "convert the checkpoint to safetensors"
            )
        raise FileNotFoundError(f"{folder} contains neither {SINGLE_FILE} nor {INDEX_FILE}")

    def only(self, prefix: str) -> TensorFiles:
        """Return the tensors whose name on disk starts with a prefix."""
        subset = TensorFiles([])
        subset._files = {name: file for name, file in self._files.items() if name.startswith(prefix)}
        subset.shapes = {name: self.shapes[name] for name in subset._files}
        return subset

    def read(
        self, names: Iterable[str], *, dtypes: Mapping[str, torch.dtype | None], device: str
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield tensors, file by file.

        Args:
            names: Names on disk.
            dtypes: Type to convert each floating-point tensor to; None keeps the type in the file.
            device: Device of the tensors.
        """
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self._files[name], []).append(name)
        for file, members in by_file.items():
            with _open(file, device=device) as tensors:
                for name in members:
                    tensor = tensors.get_tensor(name)
                    dtype = dtypes.get(name)
                    yield name, tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor


def is_adapter_folder(folder: Path) -> bool:
    """Return whether a folder contains an adapter or partial weights instead of a full checkpoint."""
    if (folder / SINGLE_FILE).is_file() or (folder / INDEX_FILE).is_file():
        return False
    return (folder / ADAPTER_CONFIG).is_file() or (folder / PARTIAL_FILE).is_file()


def _open(file: Path, *, framework: str = "pt", device: str = "cpu") -> safe_open:
    if not file.is_file():
        raise FileNotFoundError(f"checkpoint file {file} is missing")
    try:
        return safe_open(file, framework=framework, device=device)
    except SafetensorError as error:
        raise OSError(f"{file} is not a complete safetensors file ({error}): download it again") from error


def load_tensors(
    model: nn.Module,
    files: TensorFiles,
    *,
    dtype: torch.dtype | None,
    device: str = "cpu",
    tied: Mapping[str, str] | None = None,
) -> None:
    """Assign tensors to a model on the meta device, after checking all names and shapes.

    Args:
        model: The model, from `UniPixel.build_empty`.
        files: Tensors, in either layout on disk.
        dtype: Type of the floating-point tensors, except those of modules that keep float32; None keeps
            the type in the files.
        device: Device of the tensors.
        tied: Names in memory of tensors that share another tensor, with the name of that tensor.

    Raises:
        CheckpointError: Tensors are missing, unexpected or of a wrong shape.
    """
    import torch

    tied = dict(tied or {})
    on_disk = {from_disk_name(name): name for name in files.shapes}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}
    check_tensors(
        expected,
        {name: files.shapes[disk] for name, disk in on_disk.items() if name not in tied},
    )
    kept = float32_names(model)
    dtypes = {on_disk[name]: torch.float32 if name in kept else dtype for name in expected}
    state = {
        from_disk_name(name): tensor
        for name, tensor in files.read(dtypes, dtypes=dtypes, device=device)
    }  # fmt: skip
    for name, source in tied.items():
        state[name] = state[source]
    model.load_state_dict(state, strict=True, assign=True)


def check_tensors(
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    *,
    disk_name: Callable[[str], str] = to_disk_name,
) -> None:
    """Compare names and shapes.

    Args:
        expected: Shapes by name.
        found: Shapes by name.
        disk_name: Returns the name that an error message has for a tensor.

    Raises:
        CheckpointError: They differ; the message lists missing, unexpected and mis-shaped tensors, or says
            that the layout is unknown where most tensors are missing.
    """
    missing = [disk_name(name) for name in expected if name not in found]
    unexpected = [disk_name(name) for name in found if name not in expected]
    shapes = [
        f"{disk_name(name)} is {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if 2 * len(missing) > len(expected):
        raise CheckpointError(
            f"this is a checkpoint of another or earlier layout: its {len(found)} tensors, such as "
            f"{_listed([disk_name(name) for name in found], 2) or 'none'}, include {len(expected) - len(missing)} "
            f"of the {len(expected)} that its configuration requires, which has {_listed(missing, 2)}: give a "
            "checkpoint of this architecture"
        )
    problems = [
        f"{len(names)} {kind}: {_listed(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shapes))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"the tensors do not fit the configuration; {'; '.join(problems)}; "
            "download the checkpoint again, or take config.json and tensors of the same one"
        )


def float32_names(model: nn.Module) -> set[str]:
    """Return the names of the tensors that stay in float32 when the model is cast."""
    from unipixel.tracking.precision import Float32Module

    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, Float32Module)
        for name in module.state_dict()
    }


def _listed(names: list[str], limit: int = _MAX_LISTED) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
