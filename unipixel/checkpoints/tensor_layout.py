"""Tensors on disk: their names, their files, and whether they are those a model needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from unipixel.tracking.precision import Float32Module

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
PARTIAL_FILE = "pytorch_model.safetensors"
ADAPTER_FILE = "adapter_model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# transformers' loader once rewrote "gamma", so the published code renamed this parameter of SAM 2.
_FUSER_SCALE = re.compile(r"(sam2\.memory_encoder\.fuser\.layers\.\d+)\.(weight|gamma)")
_HOISTED = ("ref_encoder.", "ref_proj", "tem_pe.", "tem_emb.", "tem_proj.")
_MAX_LISTED = 20


class CheckpointError(ValueError):
    """The tensors of a checkpoint are not those that its configuration asks for."""


def from_disk_name(name: str) -> str:
    """Return the name in memory of a published tensor, in the legacy or the current transformers layout."""
    if scale := _FUSER_SCALE.fullmatch(name):
        return f"{scale[1]}.gamma"
    if name.startswith("visual."):
        return f"model.{name}"
    if name.startswith("model.") and not name.startswith(("model.visual.", "model.language_model.")):
        return f"model.language_model.{name.removeprefix('model.')}"
    if name.startswith(_HOISTED):
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
    """The safetensors of a folder, read tensor by tensor."""

    def __init__(self, files: Iterable[Path]) -> None:
        """List the tensors of the files; nothing is loaded yet.

        Raises:
            OSError: A file is missing, or is no complete safetensors file.
        """
        self._files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            with _opened(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118 - no mapping
                    self._files[name] = file
                    self.shapes[name] = tuple(tensors.get_slice(name).get_shape())

    @classmethod
    def of_folder(cls, folder: Path) -> TensorFiles:
        """Open a sharded or single checkpoint.

        Raises:
            OSError: No safetensors, a missing or truncated shard, or an index that leaves the folder.
        """
        index = folder / INDEX_FILE
        if index.is_file():
            weight_map = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
            names = sorted(set(weight_map.values()))
            if outside := [name for name in names if Path(name).name != name]:
                raise OSError(f"{index} names files outside its folder: {outside}")
            opened = cls(folder / name for name in names)
            if lost := sorted(set(weight_map) - set(opened.shapes)):
                raise OSError(f"{index} lists tensors that its files do not hold: {_listed(lost)}")
            return opened
        if (folder / SINGLE_FILE).is_file():
            return cls([folder / SINGLE_FILE])
        if pickles := sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern)):
            raise OSError(
                f"{folder} holds pickles only ({_listed(pickles)}): loading one runs code, so they are refused; "
                "convert the checkpoint to safetensors"
            )
        raise FileNotFoundError(f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}")

    def only(self, prefix: str) -> TensorFiles:
        """Return those tensors whose name on disk begins with a prefix."""
        part = TensorFiles([])
        part._files = {name: file for name, file in self._files.items() if name.startswith(prefix)}
        part.shapes = {name: self.shapes[name] for name in part._files}
        return part

    def read(
        self, names: Iterable[str], *, dtypes: Mapping[str, torch.dtype | None], device: str
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield tensors, file by file.

        Args:
            names: Names on disk.
            dtypes: Type to convert each floating-point tensor to; None keeps the file's.
            device: Where to put them.
        """
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self._files[name], []).append(name)
        for file, members in by_file.items():
            with _opened(file, device=device) as tensors:
                for name in members:
                    tensor = tensors.get_tensor(name)
                    dtype = dtypes.get(name)
                    yield name, tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor


def _opened(file: Path, *, device: str = "cpu") -> safe_open:
    if not file.is_file():
        raise FileNotFoundError(f"checkpoint file {file} is missing")
    try:
        return safe_open(file, framework="pt", device=device)
    except SafetensorError as error:
        raise OSError(f"{file} is not a complete safetensors file ({error}): fetch it again") from error


def load_tensors(
    model: nn.Module,
    files: TensorFiles,
    *,
    dtype: torch.dtype | None,
    device: str = "cpu",
    tied: Mapping[str, str] | None = None,
) -> None:
    """Give a model that was built without memory its tensors, after checking all names and shapes.

    Args:
        model: The model, in memory names.
        files: Tensors, in either layout on disk.
        dtype: Type of the floating-point tensors; modules that keep float32 keep it. None is the files'.
        device: Where to put them.
        tied: Names in memory that share the tensor of another name.

    Raises:
        CheckpointError: Missing, unexpected or mis-shaped tensors, all listed.
    """
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


def check_tensors(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Compare names and shapes.

    Raises:
        CheckpointError: They differ; missing, unexpected and mis-shaped tensors are listed.
    """
    missing = [to_disk_name(name) for name in expected if name not in found]
    unexpected = [to_disk_name(name) for name in found if name not in expected]
    shapes = [
        f"{to_disk_name(name)} is {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    problems = [
        f"{len(names)} {kind}: {_listed(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shapes))
        if names
    ]
    if problems:
        raise CheckpointError("the tensors do not fit the configuration; " + "; ".join(problems))


def float32_names(model: nn.Module) -> set[str]:
    """Return the names of the tensors that keep float32 whatever the model's type."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, Float32Module)
        for name in module.state_dict()
    }


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
