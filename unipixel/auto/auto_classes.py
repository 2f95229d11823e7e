"""The classes that AutoConfig, AutoModel and AutoProcessor of transformers use for checkpoints of this package.

They are small: they find the folder, and return the model and the processor themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers.configuration_utils import PreTrainedConfig

from unipixel.checkpoints.files import read_config
from unipixel.checkpoints.hub_options import HUB_OPTIONS, resolve_with_options
from unipixel.model.config import MODEL_TYPE, UniPixelConfig
from unipixel.sail.model_type import SAIL_MODEL_TYPE

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.sail.pixel_sail import PixelSail
    from unipixel.sail.sail_config import PixelSailConfig
    from unipixel.sail.sail_processor import SailProcessor


class FileConfig(PreTrainedConfig):
    """The config.json of a checkpoint as a configuration of transformers; its fields are attributes."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Create a configuration from the content of config.json, as AutoConfig does.

        Args:
            config_dict: Content of the file.
            kwargs: `name_or_path`, `return_unused_kwargs`, and options that are returned unused.
        """
        is_pair = kwargs.pop("return_unused_kwargs", False)
        config = cls(name_or_path=str(kwargs.pop("name_or_path", "")))
        # Not set one by one: transformers would interpret them, and warn of what it does not know.
        config.__dict__["fields"] = dict(config_dict)
        unused = {name: value for name, value in kwargs.items() if not name.startswith("_")}
        return (config, unused) if is_pair else config

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get("fields", {})
        if name in fields:
            return fields[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class UniPixelPretrainedConfig(FileConfig):
    """The configuration of a UniPixel checkpoint; `read` gives the one of this package."""

    model_type = MODEL_TYPE

    def read(self) -> UniPixelConfig:
        """Return the configuration, read from the folder or hub id that this one was loaded from.

        Raises:
            OSError: The checkpoint cannot be found or read.
            ValueError: It is incomplete or inconsistent.
        """
        return read_config(resolve_with_options(self.name_or_path))


class PixelSailPretrainedConfig(FileConfig):
    """The configuration of a Pixel-SAIL checkpoint; `read` gives the one of this package."""

    model_type = SAIL_MODEL_TYPE

    def read(self) -> PixelSailConfig:
        """Return the configuration; see `UniPixelPretrainedConfig.read`."""
        from unipixel.sail.sail_checkpoint import read_sail_config

        return read_sail_config(resolve_with_options(self.name_or_path))


class UniPixelAutoModel:
    """Entry of AutoModel: loads a `UniPixel`."""

    config_class = UniPixelPretrainedConfig

    @classmethod
    def from_pretrained(cls, source: str, *, config: Any = None, **options: Any) -> UniPixel:
        """Load a checkpoint. See `UniPixel.from_pretrained`; the configuration is read from the checkpoint."""
        from unipixel.model.unipixel import UniPixel

        del config
        return UniPixel.from_pretrained(source, **options)

    @classmethod
    def _from_config(cls, config: UniPixelPretrainedConfig, **options: Any) -> UniPixel:
        """Build a model with new weights, as `AutoModel.from_config`."""
        from unipixel.model.unipixel import UniPixel

        return UniPixel(config.read(), attention=options.get("attn_implementation") or "sdpa")


class PixelSailAutoModel:
    """Entry of AutoModel: loads a `PixelSail`."""

    config_class = PixelSailPretrainedConfig

    @classmethod
    def from_pretrained(cls, source: str, *, config: Any = None, **options: Any) -> PixelSail:
        """Load a checkpoint. See `PixelSail.from_pretrained`; the configuration is read from the checkpoint."""
        from unipixel.sail.pixel_sail import PixelSail

        del config
        return PixelSail.from_pretrained(source, **options)

    @classmethod
    def _from_config(cls, config: PixelSailPretrainedConfig, **options: Any) -> PixelSail:
        """Build a model with new weights, as `AutoModel.from_config`."""
        from unipixel.sail.pixel_sail import PixelSail

        return PixelSail(config.read(), attention=options.get("attn_implementation") or "sdpa")


class UniPixelAutoProcessor:
    """Entry of AutoProcessor: loads a `Processor`."""

    @classmethod
    def from_pretrained(cls, source: str, **options: Any) -> Processor:
        """Load the processor of a checkpoint. See `Processor.from_pretrained`."""
        from unipixel.processing.processor import Processor

        return Processor.from_pretrained(source, **_hub_options(options))


class PixelSailAutoProcessor:
    """Entry of AutoProcessor: loads a `SailProcessor`."""

    @classmethod
    def from_pretrained(cls, source: str, **options: Any) -> SailProcessor:
        """Load the processor of a checkpoint. See `SailProcessor.from_pretrained`."""
        from unipixel.sail.sail_processor import SailProcessor

        return SailProcessor.from_pretrained(resolve_with_options(source, **_hub_options(options)))


def _hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out the options of the model, which a pipeline gives to the processor too."""
    return {name: value for name, value in options.items() if name in HUB_OPTIONS}
