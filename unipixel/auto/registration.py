"""Registers the models with the auto classes and pipelines of transformers when these are imported, never before.

`import unipixel` imports nothing heavy. transformers has no entry points for other packages, so a finder waits for the
import of its modules and runs the registration after them.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

_CONFIG_MODULE = "transformers.models.auto.configuration_auto"
_MODEL_MODULE = "transformers.models.auto.modeling_auto"
_PROCESSOR_MODULE = "transformers.models.auto.processing_auto"
_PIPELINE_MODULE = "transformers.pipelines"


def register_auto_classes() -> None:
    """Register what is imported already, and wait for the rest; a second call changes nothing."""
    if any(isinstance(finder, _AutoModuleFinder) for finder in sys.meta_path):
        return
    for name, register in _REGISTRATIONS.items():
        module = sys.modules.get(name)
        if module is not None:
            register(module)
    sys.meta_path.insert(0, _AutoModuleFinder())


def _register_config(module: ModuleType) -> None:
    from unipixel.auto.auto_classes import PixelSailPretrainedConfig, UniPixelPretrainedConfig

    for config in (UniPixelPretrainedConfig, PixelSailPretrainedConfig):
        module.CONFIG_MAPPING.register(config.model_type, config, exist_ok=True)


def _register_model(module: ModuleType) -> None:
    from unipixel.auto.auto_classes import PixelSailAutoModel, UniPixelAutoModel

    for model in (UniPixelAutoModel, PixelSailAutoModel):
        module.MODEL_MAPPING.register(model.config_class, model, exist_ok=True)


def _register_processor(module: ModuleType) -> None:
    from unipixel.auto import auto_classes

    mapping = module.PROCESSOR_MAPPING
    mapping.register(auto_classes.UniPixelPretrainedConfig, auto_classes.UniPixelAutoProcessor, exist_ok=True)
    mapping.register(auto_classes.PixelSailPretrainedConfig, auto_classes.PixelSailAutoProcessor, exist_ok=True)


def _register_pipeline(module: ModuleType) -> None:
    del module
    # It registers its task itself, because it may be the module whose import led here.
    importlib.import_module("unipixel.auto.mask_pipeline")


_REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    _CONFIG_MODULE: _register_config,
    _MODEL_MODULE: _register_model,
    _PROCESSOR_MODULE: _register_processor,
    _PIPELINE_MODULE: _register_pipeline,
}


class _AutoModuleFinder(importlib.abc.MetaPathFinder):
    """Finds the auto modules of transformers where they are, and has them registered after their import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _REGISTRATIONS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, _REGISTRATIONS[fullname])
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    """Loads a module as its own loader does, then calls a function with it."""

    def __init__(self, loader: importlib.abc.Loader, register: Callable[[ModuleType], None]) -> None:
        self._loader, self._register = loader, register

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._register(module)
