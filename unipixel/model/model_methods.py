"""What users and other libraries call on a model of transformers, for the models of this package."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel


class ModelMethods(nn.Module):
    """Methods of `PreTrainedModel` for a model whose transformers are modules of transformers.

    `PreTrainedModel` itself would bring its `generate`, its loading and a mutable configuration, which do not fit.

    Attributes:
        name_or_path: Folder of the checkpoint that the weights were read from; empty for new weights.
    """

    name_or_path = ""

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Return the number of parameters, each counted once, as in transformers."""
        return sum(
            parameter.numel() for parameter in self.parameters() if parameter.requires_grad or not only_trainable
        )

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Return the bytes of the parameters and, where wanted, the buffers, each counted once."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Compute the activations of the transformers again in the backward pass, to save memory.

        Args:
            gradient_checkpointing_kwargs: Arguments of `torch.utils.checkpoint.checkpoint`; by default without reentry.
        """
        for part in self._transformers():
            # The method's name differs among the releases of transformers 5.
            enable = getattr(part, "activation_checkpointing_enable", part.gradient_checkpointing_enable)
            enable(gradient_checkpointing_kwargs or {"use_reentrant": False})

    def gradient_checkpointing_disable(self) -> None:
        """Keep the activations again."""
        for part in self._transformers():
            getattr(part, "activation_checkpointing_disable", part.gradient_checkpointing_disable)()

    def _transformers(self) -> list[PreTrainedModel]:
        return [part for part in self.modules() if isinstance(part, PreTrainedModel)]
