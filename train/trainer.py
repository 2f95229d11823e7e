"""Training loop of a recipe: transformers' Trainer for an objective that returns its loss."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import OPTIMIZER_NAME, gather_object, save_fsdp_optimizer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_utils import get_last_checkpoint

from unipixel.train.optimizer import MuonAdamW, is_matrix
from unipixel.train.recipe import OptimizerName, Recipe
from unipixel.train.run_log import InvalidExampleCounter, RunLog
from unipixel.train.sail.sail_recipe import SailRecipe
from unipixel.train.sharding import gather_state, load_state, sharding_arguments, unshard

WEIGHTS_FILE = "model.safetensors"
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
logger = logging.getLogger(__name__)


class ObjectiveTrainer(Trainer):
    """Trainer of a module whose forward returns `loss` and further metrics for the log."""

    def __init__(
        self,
        *args: Any,
        learning_rate_of: Callable[[str], float | None] | None = None,
        invalid_counter: InvalidExampleCounter | None = None,
        optimizer_name: OptimizerName = "adamw",
        **options: Any,
    ) -> None:
        """Prepare a run.

        Args:
            *args: As for `Trainer`.
            learning_rate_of: Peak learning rate of a parameter by name; None is the run's.
            invalid_counter: Counts invalid samples.
            optimizer_name: `muon` moves the matrices of transformer blocks by Muon.
            **options: As for `Trainer`.
        """
        super().__init__(*args, **options)
        if self.is_fsdp_enabled:
            # SAM 2.1 computes in float32: autocast casts the others, instead of all weights when they are gathered.
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = None
        self.optimizer: torch.optim.Optimizer | None
        self._learning_rate_of = learning_rate_of or (lambda _name: None)
        self._invalid_counter = invalid_counter or InvalidExampleCounter()
        self._optimizer_name = optimizer_name
        self._metrics: dict[str, list[Tensor]] = defaultdict(list)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute the objective and store its other metrics for the log."""
        invalid = getattr(inputs["batch"], "invalid", ())
        self._invalid_counter.add(invalid, num_samples=self.args.per_device_train_batch_size)
        outputs = model(**inputs)
        for name, value in outputs.items():
            if name != "loss":
                self._metrics[name].append(value.detach())
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with the mean of each metric since the last line, over the batches of all processes."""
        if "loss" in logs:
            logs |= self._mean_metrics()
        super().log(logs, start_time)

    def _mean_metrics(self) -> dict[str, float]:
        own = {name: (float(torch.stack(values).float().sum()), len(values)) for name, values in self._metrics.items()}
        self._metrics.clear()
        means = {}
        # Processes may have different metrics: those of masks, for example, where a batch has some.
        gathered = gather_object([own])
        for name in dict.fromkeys(name for metrics in gathered for name in metrics):
            pairs = [metrics[name] for metrics in gathered if name in metrics]
            means[name] = sum(total for total, _ in pairs) / sum(count for _, count in pairs)
        return means

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimiser with a parameter group per learning rate and weight decay; vectors are not decayed."""
        if self.optimizer is None:
            groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
            matrices: list[nn.Parameter] = []
            for name, parameter in (model or self.model).named_parameters():
                if not parameter.requires_grad:
                    continue
                if self._optimizer_name == "muon" and is_matrix(name, parameter):
                    matrices.append(parameter)
                else:
                    decay = self.args.weight_decay if parameter.ndim > 1 else 0.0
                    rate = self._learning_rate_of(name) or self.args.learning_rate
                    groups[rate, decay].append(parameter)
            parameters = [
                {"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()
            ]
            if self._optimizer_name == "muon":
                rate, decay = self.args.learning_rate, self.args.weight_decay
                self.optimizer = MuonAdamW(matrices, parameters, lr=rate, weight_decay=decay)
            else:
                kind, options = self.get_optimizer_cls_and_kwargs(self.args, model or self.model)
                self.optimizer = kind(parameters, **options)
        return self.optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trained weights into a folder, gathered from all processes where they are sharded."""
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        self._save(output_dir, gather_state(self.model, only_trained=True))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        # Without the weights, which transformers would write a second time.
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        self.accelerator.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # Frozen parameters come from the recipe's initial weights; buffers are stored, such as random Fourier matrices.
        frozen = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        state = {k: v for k, v in (state_dict or self.model.state_dict()).items() if k not in frozen}
        save_file(drop_shared_tensors(state), folder / WEIGHTS_FILE, metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / WEIGHTS_FILE
        if not path.is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        has_sharded_optimizer = (path.parent / f"{OPTIMIZER_NAME}.bin").is_file()
        if has_sharded_optimizer != self.is_fsdp_enabled:
            raise ValueError(
                f"{path.parent} was written {'with' if has_sharded_optimizer else 'without'} FSDP: resume it with the "
                "same training.sharding and, with FSDP, in several processes, or give another output"
            )
        target, state = model or self.model, load_file(path)
        trained = {name for name, parameter in target.named_parameters() if parameter.requires_grad}
        missing = sorted(trained - state.keys())
        unexpected = sorted(state.keys() - target.state_dict().keys())
        if missing or unexpected:
            raise ValueError(f"{path} does not match the recipe: missing {missing[:5]}, unexpected {unexpected[:5]}")
        if self.is_fsdp_enabled:
            load_state(target, state)
        else:
            target.load_state_dict(state, strict=False)


def run(
    recipe: Recipe | SailRecipe,
    objective: nn.Module,
    dataset: Dataset,
    collate: Callable[[list[Any]], dict[str, Any]],
    *,
    validate: Callable[[int], dict[str, float]] | None = None,
    stop_after: int | None = None,
) -> ObjectiveTrainer:
    """Train to the end of a recipe, from the last checkpoint in its folder where there is one.

    Args:
        recipe: Settings of the run.
        objective: Module that returns `loss`.
        dataset: Samples in the order of training.
        collate: Makes the objective's keyword arguments from a list of samples.
        validate: Returns metrics for the log, given the step.
        stop_after: Step at which to stop early, with a checkpoint.

    Returns:
        The trainer after its last step. The objective has its whole weights in the first process.
    """
    trainer = build(recipe, objective, dataset, collate, validate=validate)
    if stop_after is not None:
        trainer.add_callback(_StopAfter(stop_after))
    last = get_last_checkpoint(recipe.output) if Path(recipe.output).is_dir() else None
    if last is not None:
        logger.info("resuming from %s", last)
    with warnings.catch_warnings():
        # Of DistributedDataParallel, about the strides of dimensions of size 1, which cost nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        trainer.train(resume_from_checkpoint=last)
    if trainer.is_fsdp_enabled:
        unshard(objective)
    return trainer


def build(
    recipe: Recipe | SailRecipe,
    objective: nn.Module,
    dataset: Dataset,
    collate: Callable[[list[Any]], dict[str, Any]],
    *,
    validate: Callable[[int], dict[str, float]] | None = None,
) -> ObjectiveTrainer:
    """Return the trainer of a recipe before its first step; see `run`."""
    settings = recipe.training
    trainer = ObjectiveTrainer(
        model=objective,
        args=training_arguments(recipe),
        train_dataset=dataset,
        data_collator=collate,
        callbacks=[RunLog(Path(recipe.output), validate=validate, every=settings.validate_every)],
        invalid_counter=InvalidExampleCounter(max_fraction=recipe.data.max_invalid_fraction),
        optimizer_name=settings.optimizer,
        learning_rate_of=lambda name: settings.sam2_learning_rate if name.startswith("model.sam2.") else None,
    )
    if trainer.args.process_index:
        # The same seed would give the dropout of all processes the same masks.
        set_seed(recipe.seed + trainer.args.process_index)
    return trainer


def training_arguments(recipe: Recipe | SailRecipe) -> TrainingArguments:
    """Return the training arguments of transformers for a recipe."""
    settings = recipe.training
    # Transformers' TensorBoard callback takes its folder from the environment alone.
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(Path(recipe.output) / "tensorboard")
    return TrainingArguments(
        output_dir=recipe.output,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=_SCHEDULES[settings.learning_rate_schedule],
        warmup_steps=math.ceil(settings.warmup_fraction * settings.max_steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        bf16=settings.precision == "bfloat16",
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=settings.max_checkpoints,
        logging_steps=settings.log_every,
        logging_first_step=True,
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=settings.num_workers,
        dataloader_persistent_workers=settings.num_workers > 0,
        dataloader_pin_memory=torch.cuda.is_available(),
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        label_names=[],
        report_to=["tensorboard"] if _has_tensorboard() else [],
        ddp_find_unused_parameters=True,
        **sharding_arguments(settings.sharding),
    )


def drop_shared_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with one name for each group of tensors that share their storage."""
    keys: set[tuple[int, int]] = set()
    unique = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.numel())
        if tensor.numel() and key in keys:
            continue
        keys.add(key)
        unique[name] = tensor.detach().contiguous()
    return unique


def _has_tensorboard() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None


class _StopAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if state.global_step >= self._step:
            control.should_training_stop = True
            control.should_save = True
        return control
