"""Finding a checkpoint folder and reading its JSON files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipixel.model.config import SEGMENTER_FILE, PoolOrder, UniPixelConfig, read_segmenter
from unipixel.tracking.config import SegmenterConfig

BUNDLED = Path(__file__).parents[1] / "assets" / "models"
CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
_FILE_SUFFIXES = (".pt", ".pth", ".safetensors")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve(source: str | Path, **hub_options: Any) -> Path:
    """Return the folder of a checkpoint; one on the hub is downloaded first.

    Args:
        source: A folder, the name of a bundled model, or a hub id `owner/name`.
        hub_options: Options of `huggingface_hub.snapshot_download`, such as `revision`, `token`, `local_files_only`.

    Raises:
        OSError: It is none of these, or the download failed.
    """
    if not isinstance(source, str | Path):
        raise TypeError(f"a checkpoint is the name of a folder or of a model, got {type(source).__name__}")
    if not str(source).strip():
        raise FileNotFoundError("the name of the checkpoint is empty: give a folder, a hub id or a bundled model")
    path = Path(source)
    if path.is_dir():
        return path
    if path.is_file():
        raise NotADirectoryError(f"a checkpoint is a folder, {source} is a file")
    name = str(source)
    bundled = sorted(entry.name for entry in BUNDLED.iterdir() if entry.is_dir()) if BUNDLED.is_dir() else []
    if name in bundled:
        return BUNDLED / name
    if isinstance(source, Path) or path.suffix in _FILE_SUFFIXES or _is_path(name) or not _HUB_ID.fullmatch(name):
        raise FileNotFoundError(
            f"no checkpoint {name!r}: give a folder, a hub id (owner/name), or a bundled model ({bundled or 'none'})"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.txt"], **hub_options))
    except (OSError, ValueError) as error:
        # huggingface_hub raises OSError for network and hub errors, ValueError for a malformed id.
        raise OSError(
            f"there is no folder {name!r}, and it could not be downloaded from the hub ({type(error).__name__}): "
            "check the name and the network, or give a folder with the checkpoint"
        ) from error


def _is_path(name: str) -> bool:
    """Return whether a name with a slash is a missing folder: the folder that would contain it exists."""
    parent, _, last = name.partition("/")
    return bool(last) and Path(parent).is_dir()


def read_config(
    folder: Path, *, sam2_config: SegmenterConfig | None = None, memory_pool_order: PoolOrder | None = None
) -> UniPixelConfig:
    """Read the configuration of a checkpoint folder.

    Args:
        folder: Contains config.json, and optionally sam2_config.json and generation_config.json.
        sam2_config: Overrides sam2_config.json.
        memory_pool_order: Overrides the order in config.json.

    Raises:
        OSError: config.json is missing or not valid JSON.
        ValueError: It is incomplete, inconsistent, of another model type, or requires remote code.
    """
    return UniPixelConfig.from_dict(
        read_json(folder / CONFIG_FILE),
        segmenter=sam2_config or _read_segmenter_file(folder),
        memory_pool_order=memory_pool_order,
        generation=read_generation_config(folder),
    )


def read_segmenter_config(folder: Path) -> SegmenterConfig:
    """Read the sizes of SAM 2.1 in a checkpoint folder, without torch.

    Raises:
        OSError: config.json is missing or not valid JSON.
        ValueError: It is incomplete, inconsistent, of another model type, or requires remote code.
    """
    return read_segmenter(read_json(folder / CONFIG_FILE), segmenter=_read_segmenter_file(folder))


def _read_segmenter_file(folder: Path) -> SegmenterConfig | None:
    file = folder / SEGMENTER_FILE
    if not file.is_file():
        return None
    try:
        return SegmenterConfig.from_tree(read_json(file))
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{file} has a value of another type or out of range: {error}") from error


def read_generation_config(folder: Path) -> dict[str, Any]:
    """Return the content of generation_config.json; an empty dictionary if there is no such file."""
    file = folder / GENERATION_FILE
    return read_json(file) if file.is_file() else {}


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        OSError: The file is missing or does not contain a JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is missing: is {file.parent} a checkpoint?") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise OSError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise OSError(f"{file} does not contain a JSON object")
    return content


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, indented and with sorted keys."""
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
