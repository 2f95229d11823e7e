"""Takes the steps of a recipe: transformers' Trainer over an objective that returns its own loss."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from unipixel.train.precision import Float32Attention
from unipixel.train.recipe import LoopRecipe, Recipe

WEIGHTS_FILE = "model.safetensors"
LOG_FILE = "log.jsonl"
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
logger = logging.getLogger(__name__)


class InvalidExampleCounter:
    """Counts samples that could not be used, names each, and stops a run that meets too many."""

    def __init__(self, *, max_share: float = 0.01, least: int = 100) -> None:
        """Begin to count.

        Args:
            max_share: Largest share of broken samples that is put up with.
            least: Samples that are seen before the share is judged.
        """
        self._max_share = max_share
        self._least = least
        self.num_taken = 0
        self.num_broken = 0

    def add(self, broken: Sequence[Any], *, num_taken: int) -> None:
        """Count a micro batch.

        Args:
            broken: Its broken samples (`InvalidExample`).
            num_taken: All its samples.

        Raises:
            ValueError: Too many samples are broken.
        """
        self.num_taken += num_taken
        self.num_broken += len(broken)
        for example in broken:
            logger.warning("broken sample %s: %s", example.name, example.reason)
        if broken and self.num_taken >= self._least and self.num_broken > self._max_share * self.num_taken:
            raise ValueError(
                f"{self.num_broken} of {self.num_taken} samples are broken, allowed is a share of {self._max_share}; "
                f"the last is {broken[-1].name}: {broken[-1].reason}"
            )


class ObjectiveTrainer(Trainer):
    """Trainer of a module whose forward returns `loss` and further figures for the log."""

    def __init__(
        self,
        *args: Any,
        rate_of: Callable[[str], float | None] | None = None,
        broken: InvalidExampleCounter | None = None,
        **options: Any,
    ) -> None:
        """Prepare a run.

        Args:
            *args: As for `Trainer`.
            rate_of: Peak learning rate of a parameter by name; None is the run's.
            broken: Counts samples that could not be used.
            **options: As for `Trainer`.
        """
        super().__init__(*args, **options)
        self.optimizer: torch.optim.Optimizer | None
        self._rate_of = rate_of or (lambda _name: None)
        self._broken = broken or InvalidExampleCounter()
        self._figures: dict[str, list[Tensor]] = defaultdict(list)

    def training_step(self, *given: Any, **options: Any) -> Tensor:
        """Take the loss and its gradient."""
        is_slow = self.args.bf16 and self.args.device.type == "cpu"
        with Float32Attention() if is_slow else nullcontext():
            return super().training_step(*given, **options)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Run the objective and keep its other figures for the log."""
        self._broken.add(getattr(inputs["batch"], "broken", ()), num_taken=self.args.per_device_train_batch_size)
        outputs = model(**inputs)
        for name, value in outputs.items():
            if name != "loss":
                self._figures[name].append(value.detach())
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with the mean of each figure since the last line."""
        if "loss" in logs:
            for name, values in self._figures.items():
                logs[name] = float(torch.stack([value.float() for value in values]).mean())
            self._figures.clear()
        super().log(logs, start_time)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimiser with a group per learning rate; vectors are not decayed."""
        if self.optimizer is None:
            groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
            for name, parameter in (model or self.model).named_parameters():
                if parameter.requires_grad:
                    decay = self.args.weight_decay if parameter.ndim > 1 else 0.0
                    rate = self._rate_of(name) or self.args.learning_rate
                    groups[rate, decay].append(parameter)
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, model or self.model)
            parameters = [
                {"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()
            ]
            self.optimizer = kind(parameters, **options)
        return self.optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # What is frozen comes from the recipe's start; buffers are kept, the random Fourier matrices among them.
        frozen = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        state = {k: v for k, v in (state_dict or self.model.state_dict()).items() if k not in frozen}
        save_file(untied(state), folder / WEIGHTS_FILE, metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / WEIGHTS_FILE
        if not path.is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        target = model or self.model
        missing, unexpected = target.load_state_dict(load_file(path), strict=False)
        trained = {name for name, parameter in target.named_parameters() if parameter.requires_grad}
        if unexpected or trained & set(missing):
            raise ValueError(
                f"{path} does not fit the recipe: missing {sorted(trained & set(missing))[:5]}, "
                f"unexpected {unexpected[:5]}"
            )


class RunLog(TrainerCallback):
    """Appends every logged line to a file that outlives restarts, and validates now and then."""

    def __init__(
        self, folder: Path, *, validate: Callable[[int], dict[str, float]] | None = None, every: int | None = None
    ) -> None:
        """Prepare the log.

        Args:
            folder: Folder of the run.
            validate: Given the step, returns figures.
            every: Steps between validations; None is never.
        """
        self._path = folder / LOG_FILE
        self._validate = validate
        self._every = every

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append a line."""
        if state.is_world_process_zero and logs:
            self._append({"step": state.global_step, **logs})

    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
        """Validate where it is due."""
        is_due = self._every is not None and state.global_step % self._every == 0
        if not is_due or self._validate is None or model is None or not state.is_world_process_zero:
            return
        was_training = model.training
        model.eval()
        # Validation draws nothing from the run's random numbers: a run without it takes the same steps.
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            figures = self._validate(state.global_step)
        model.train(was_training)
        self._append({"step": state.global_step, **{f"validation/{name}": value for name, value in figures.items()}})

    def _append(self, line: Mapping[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "time": round(time.time(), 1)}) + "\n")


def run(
    recipe: Recipe,
    objective: nn.Module,
    dataset: Dataset,
    collate: Callable[[list[Any]], dict[str, Any]],
    *,
    validate: Callable[[int], dict[str, float]] | None = None,
    stop_after: int | None = None,
) -> ObjectiveTrainer:
    """Train to the end of a recipe, from the last checkpoint in its folder where there is one.

    Args:
        recipe: The run.
        objective: Module that returns `loss`.
        dataset: Samples in the order in which they are taken.
        collate: Makes the objective's keyword arguments of a list of samples.
        validate: Given the step, returns figures for the log.
        stop_after: Stop at this step although the recipe goes on, with a checkpoint there.

    Returns:
        The trainer after its last step.
    """
    trainer = build(recipe, objective, dataset, collate, validate=validate)
    if stop_after is not None:
        trainer.add_callback(_StopAfter(stop_after))
    last = get_last_checkpoint(recipe.output) if Path(recipe.output).is_dir() else None
    if last is not None:
        logger.info("resuming from %s", last)
    trainer.train(resume_from_checkpoint=last)
    return trainer


def build(
    recipe: Recipe,
    objective: nn.Module,
    dataset: Dataset,
    collate: Callable[[list[Any]], dict[str, Any]],
    *,
    validate: Callable[[int], dict[str, float]] | None = None,
) -> ObjectiveTrainer:
    """Return the trainer of a recipe before its first step; see `run`."""
    loop = recipe.loop
    return ObjectiveTrainer(
        model=objective,
        args=training_arguments(recipe),
        train_dataset=dataset,
        data_collator=collate,
        callbacks=[RunLog(Path(recipe.output), validate=validate, every=loop.validate_every)],
        broken=InvalidExampleCounter(max_share=recipe.data.max_broken_share),
        rate_of=lambda name: loop.sam2_learning_rate if name.startswith("model.sam2.") else None,
    )


def training_arguments(recipe: Recipe) -> TrainingArguments:
    """Translate a recipe for transformers."""
    loop = recipe.loop
    # Read by transformers' TensorBoard callback, which has no argument for it any more.
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(Path(recipe.output) / "tensorboard")
    return TrainingArguments(
        output_dir=recipe.output,
        max_steps=loop.max_steps,
        per_device_train_batch_size=loop.batch_size,
        gradient_accumulation_steps=loop.accumulation,
        learning_rate=loop.learning_rate,
        lr_scheduler_type=_SCHEDULES[loop.schedule],
        warmup_steps=math.ceil(loop.warmup_share * loop.max_steps),
        weight_decay=loop.weight_decay,
        max_grad_norm=loop.clip_norm,
        bf16=loop.precision == "bfloat16",
        save_strategy="steps",
        save_steps=loop.save_every,
        save_total_limit=loop.keep,
        logging_steps=loop.log_every,
        logging_first_step=True,
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=loop.num_workers,
        dataloader_persistent_workers=loop.num_workers > 0,
        dataloader_pin_memory=torch.cuda.is_available(),
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        label_names=[],
        report_to=["tensorboard"] if _has_tensorboard() else [],
        ddp_find_unused_parameters=True,
        **_sharding(loop),
    )


def _sharding(loop: LoopRecipe) -> dict[str, Any]:
    return {name: value for name, value in (("deepspeed", loop.deepspeed), ("fsdp", loop.fsdp)) if value}


def untied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state without the second name of tensors that share their storage."""
    seen: set[tuple[int, int]] = set()
    kept = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.numel())
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        kept[name] = tensor.detach().contiguous()
    return kept


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
