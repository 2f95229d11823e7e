"""Distribution of weights over processes: the bundled configurations, and the weights of a model that FSDP divides.

In FSDP each decoder layer of the language model is one unit; everything else, the vision transformer and SAM 2.1 among
it, belongs to the root, which stays gathered during a step. A unit is gathered by all processes together, and only the
decoder layers run in every process at every step: some samples have no clip, and some no masks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict

WHOLE = "ddp"
"""Every process has the whole model (DistributedDataParallel)."""
_ZERO = "zero_optimization"


def num_processes() -> int:
    """Return the number of processes that torchrun or accelerate started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def bundled_shardings() -> list[str]:
    """Return the names of the bundled configurations."""
    return sorted(file.name.removesuffix(".json") for file in _folder().iterdir() if file.name.endswith(".json"))


def sharding_arguments(name: str) -> dict[str, Any]:
    """Return the training arguments of transformers for a distribution of weights.

    Args:
        name: `ddp`, a bundled configuration, or the path of a JSON file: one with `zero_optimization` is a DeepSpeed
            configuration, any other one has the options of FSDP as transformers reads them.

    Raises:
        ValueError: There is no such configuration, it is not an object in JSON, or it is stage 3 of DeepSpeed.
        OSError: The file cannot be read.
        ImportError: DeepSpeed is not installed.
    """
    if name == WHOLE:
        return {}
    settings = read_sharding(name)
    if _ZERO in settings:
        _check_deepspeed(name, settings[_ZERO])
        return {"deepspeed": settings}
    # One process has nothing to share.
    return {"fsdp": True, "fsdp_config": settings} if num_processes() > 1 else {}


def read_sharding(name: str) -> dict[str, Any]:
    """Read a configuration; arguments and errors as for `sharding_arguments`."""
    file = _folder() / f"{name}.json"
    if not file.is_file():
        path = Path(name)
        if not path.is_file():
            known = ", ".join([WHOLE, *bundled_shardings()])
            raise ValueError(f"training.sharding must be one of {known} or the path of a JSON file, got {name!r}")
        file = path
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{name} must contain a JSON object, got {type(settings).__name__}")
    return settings


def _folder() -> Any:
    return resources.files("unipixel.train") / "recipes"


def _check_deepspeed(name: str, zero: Any) -> None:
    from importlib.util import find_spec

    if not isinstance(zero, Mapping) or zero.get("stage") not in (0, 1, 2):
        raise ValueError(
            f"{name}: {_ZERO}.stage must be 0, 1 or 2, because stage 3 divides the weights: take fsdp2 for that"
        )
    if find_spec("deepspeed") is None:
        raise ImportError(f"training.sharding={name} needs DeepSpeed: python -m pip install deepspeed, or take fsdp2")


def gather_state(model: nn.Module, *, only_trained: bool) -> dict[str, Tensor]:
    """Gather the whole weights of a sharded model; all processes call this together.

    Args:
        model: A model that FSDP divides.
        only_trained: Whether frozen parameters are left out; buffers are included in any case.

    Returns:
        Weights on the CPU in the first process, nothing in the others.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=only_trained)
    state = get_model_state_dict(model, options=options)
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set some weights of a sharded model from whole ones, which every process has read."""
    options = StateDictOptions(full_state_dict=True, strict=False)
    set_model_state_dict(model, dict(state), options=options)


def unshard(model: nn.Module) -> None:
    """Give the modules of a sharded model their whole weights in the first process, on the CPU, to save them.

    All processes call this together; afterwards the model is of no use in the others.
    """
    state = gather_state(model, only_trained=False)
    if not state:
        return
    whole: dict[int, nn.Parameter] = {}
    for prefix, module in model.named_modules():
        for name, sharded in list(module.named_parameters(recurse=False)):
            # Tied parameters stay one object, of which the state has one name or both.
            path = f"{prefix}.{name}" if prefix else name
            if id(sharded) not in whole and path in state:
                whole[id(sharded)] = nn.Parameter(state[path], requires_grad=sharded.requires_grad)
            module.register_parameter(name, whole[id(sharded)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to("cpu"))
