"""The options of `from_pretrained` under the names of transformers, and their translation to those of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unipixel.checkpoints.files import resolve

HUB_OPTIONS = ("revision", "token", "local_files_only", "cache_dir", "force_download")
# What AutoModel and AutoProcessor add to the options of the caller; code of a checkpoint is never executed, and an
# adapter is recognised by its folder.
_AUTO_OPTIONS = {
    "trust_remote_code",
    "code_revision",
    "adapter_kwargs",
    "_from_auto",
    "_from_pipeline",
    "name_or_path",
    "_commit_hash",
}
_NAMES = {"torch_dtype": "dtype", "device_map": "device", "attn_implementation": "attention"}
_DTYPES = ("auto", "float32", "bfloat16", "float16")


def resolve_with_options(source: str | Path, **hub_options: Any) -> Path:
    """Return the folder of a checkpoint, with options of the hub such as `revision`; see `resolve`."""
    given = {name: value for name, value in hub_options.items() if value not in (None, False)}
    return resolve(source, **given)


def split_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the options of the hub from the others, which are translated.

    Args:
        options: Options of `from_pretrained`, in the names of transformers or of this package.

    Returns:
        Options of `resolve_with_options`, and options of `unipixel.checkpoints.loading.load`.

    Raises:
        TypeError: An option is given under both of its names.
        ValueError: A device map divides the model among devices, or a type is unknown.
    """
    hub = {name: options[name] for name in HUB_OPTIONS if name in options}
    load: dict[str, Any] = {}
    for name, value in options.items():
        if name in HUB_OPTIONS or name in _AUTO_OPTIONS:
            continue
        own_name = _NAMES.get(name, name)
        if own_name in load:
            raise TypeError(f"{own_name} is given twice, once as {name}: give one of them")
        # transformers passes None where the user gave nothing.
        if value is not None or name not in _NAMES:
            load[own_name] = value
    if "device_map" in options and "device" in load:
        load["device"] = _device_of_map(load["device"])
    if isinstance(load.get("dtype"), str):
        load["dtype"] = _dtype_of_name(load["dtype"])
    if load.get("attention") is None:
        load.pop("attention", None)
    return hub, load


def _device_of_map(device_map: Any) -> Any:
    """Return the one device of a device map: `auto`, a device, or a mapping of the whole model to one."""
    import torch

    if isinstance(device_map, dict):
        devices = set(map(str, device_map.values()))
        if len(devices) != 1:
            raise ValueError(
                f"device_map divides the model among {sorted(devices)}: give one device, or `auto` for the first GPU"
            )
        device_map = next(iter(device_map.values()))
    if device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return f"cuda:{device_map}" if isinstance(device_map, int) else device_map


def _dtype_of_name(name: str) -> Any:
    import torch

    short = name.removeprefix("torch.")
    if short not in _DTYPES:
        raise ValueError(f"dtype {name!r} is not supported: allowed are {', '.join(_DTYPES)}")
    return short if short == "auto" else getattr(torch, short)
