"""Training of a generator, as published.

    loss = w_rec L_rec + w_att L_att + w_kd L_kd

of the target with generated kernels against the same with its own, both as in evaluation; labels are not used. The
first `loss_warmup_iterations` steps have the first term alone, and see no images. In every step all kernels are
generated, and those of the batch (`models.nern.batches`) have a gradient; with `warmup_on_batch` (ours) the first steps
generate and compare only these.

The target is evaluated on validation images after every `eval_epochs_interval` epochs, every
`eval_iterations_interval` steps, at the end, and greedily: every `eval_loss_window_interval` steps L_att + L_kd goes
into a window of the last `eval_loss_window_size`, and whenever it is the least of a full one. The best is kept, of
equal ones the first; published is the best on the test images. Images that are drawn (`use_random_data`) are values
uniform in -2..2 of what the first layer sees; a step whose loss is not a number is then left out.

What is random in an epoch is drawn from generators seeded by (seed, epoch), so that a run that was interrupted and
resumed after any epoch ends with the same weights, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bittrue.models.data.augment import augmented
from bittrue.models.data.sets import INPUT_SCALE, Data
from bittrue.models.nern import losses
from bittrue.models.nern.batches import Batches
from bittrue.models.nern.evaluate import accuracy
from bittrue.models.nern.generator import Generator
from bittrue.models.nern.optimisers import clip, optimiser, rate
from bittrue.models.nern.settings import Generate, Optim
from bittrue.models.nern.target import Target, sampled
from bittrue.models.training import storage
from bittrue.models.training.loop import Epoch, History, Progress, default_device
from bittrue.models.training.precision import flushed_denormals, full_precision, threads
from bittrue.sim.errors import BittrueError

STAGE = "generate"
#: Drawn values lie from minus this to this.
DRAWN = 2.0
Figures = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What a training left besides the generator.

    history    epochs, the mean of their losses and the validation accuracy at their end (that of the last evaluation
               where they have none of their own); the kept one is the epoch of the best evaluation
    step       after so many steps it was, and `accuracy` its validation accuracy, 0..1
    greedy     how many evaluations the window of losses led to
    """

    history: History
    step: int
    accuracy: float
    greedy: int


def fit(
    generator: Generator,
    target: Target,
    data: Data,
    optim: Optim,
    settings: Generate,
    *,
    random_data: bool = False,
    checkpoint: str | Path | None = None,
    folder: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    log: Callable[[int, Figures], None] | None = None,
    log_interval: int = 20,
    device: torch.device | str | None = None,
) -> Outcome:
    """Train in place; the generator is on the CPU afterwards, as its best evaluation found it.

    random_data   see no images, as `settings.use_random_data`
    checkpoint    file that keeps the state after each epoch; one that is already there, left by an interrupted run of
                  the same settings, is continued
    folder        where `generator-epoch-3.pt` and `generator-step-100.pt` go, as the settings' intervals ask for
    log           called every `log_interval` steps with the number of the step, from 1, and its figures
    """
    generator.belongs_to(target)
    run = _Run(generator, target, data, optim, settings, random_data or settings.use_random_data, device)
    run.folder, run.progress, run.log, run.log_interval = folder, progress, log, log_interval
    return run.go(checkpoint)


class _Run:
    """One training: its data, optimiser, schedule, and what a step is."""

    folder: str | Path | None = None
    progress: Callable[[Progress], None] | None = None
    log: Callable[[int, Figures], None] | None = None
    log_interval = 20

    def __init__(
        self, generator: Generator, target: Target, data: Data, optim: Optim, settings: Generate, random_data: bool,
        device: torch.device | str | None,
    ) -> None:  # fmt: skip
        if not len(data.train) or not len(data.val):
            raise BittrueError(
                f"{STAGE}: the data set {data.name} has {len(data.train)} training and {len(data.val)} validation "
                "images; give some of both"
            )
        self.generator, self.target, self.data, self.settings, self.optim = generator, target, data, settings, optim
        self.nern, self.random_data = generator.settings, random_data
        self.identity = self._identity()
        self.device = torch.device(device) if device is not None else default_device()
        generator.to(self.device)
        target.network.to(self.device).eval().requires_grad_(False)
        self.batch = min(settings.batch_size, len(data.train))
        self.epoch_steps = math.ceil(len(data.train) / self.batch)
        self.steps = settings.num_iterations or settings.epochs * self.epoch_steps  # type: ignore[operator]
        self.epochs = math.ceil(self.steps / self.epoch_steps)
        self.original = target.weights()
        self.flat = [weight.flatten(0, 1).flatten(1) for weight in self.original]
        self.parameters = [p for p in generator.parameters() if p.requires_grad]
        self.optimizer = optimiser(self.parameters, optim)
        self.batches = Batches(self.nern, target)
        kinds = (losses.RECONSTRUCTION, losses.ATTENTION, losses.DISTILLATION)
        names = (self.nern.reconstruction_loss_type, self.nern.attention_loss_type, self.nern.distillation_loss_type)
        self.rec, self.att, self.kd = (of[name] for of, name in zip(kinds, names, strict=True))  # type: ignore[index]
        augment = settings.augment != "none"
        self.codes = None if augment or random_data else torch.from_numpy(target.network.encode(data.train.images))
        self.history: list[Epoch] = []
        self.window: deque[float] = deque(maxlen=settings.eval_loss_window_size)
        self.best: dict[str, Any] = {"accuracy": -1.0, "step": 0, "epoch": 0, "state": {}}
        self.last, self.start, self.greedy, self.done = 0.0, 0.0, 0, 0

    def _identity(self) -> str:
        """What a run must have in common with a checkpoint to continue it."""
        start = hashlib.sha256()
        for name, tensor in self.generator.state_dict().items():
            start.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        content = {
            "settings": [of.model_dump(mode="json") for of in (self.nern, self.optim, self.settings)],
            "data set": [self.data.name, len(self.data.train), len(self.data.val), self.random_data],
            "initial parameters": start.hexdigest(),
            "target": self.target.sha256(),
        }
        return json.dumps(content)

    # -- the whole -------------------------------------------------------------------------------------
    def go(self, checkpoint: str | Path | None) -> Outcome:
        with full_precision(), flushed_denormals(), threads(self.settings.threads):
            if checkpoint is not None and Path(checkpoint).exists():
                self._resume(checkpoint)
            else:
                self.start = self.last = accuracy(self.target, self.generator, self.data.val)
            for epoch in range(len(self.history), self.epochs):
                self._epoch(epoch)
                if checkpoint is not None:
                    self._keep(checkpoint)
        self.generator.load_state_dict(self.best["state"])
        self.generator.to("cpu").eval()
        self.target.network.to("cpu")
        history = History(tuple(self.history), self.start, self.best["epoch"])
        return Outcome(history, self.best["step"], self.best["accuracy"], self.greedy)

    def _keep(self, checkpoint: str | Path) -> None:
        content = {"identity": self.identity, "generator": self.generator.state_dict(), "best": self.best}
        content |= {"optimizer": self.optimizer.state_dict(), "batches": self.batches.state()}
        content |= {"history": [asdict(one) for one in self.history], "window": list(self.window)}
        content |= {"told": [self.last, self.start, self.greedy, self.done]}
        storage.write(checkpoint, "checkpoint", content)

    def _resume(self, checkpoint: str | Path) -> None:
        content = storage.read(checkpoint, "checkpoint")
        if content.get("identity") != self.identity:
            raise BittrueError(
                f"checkpoint {checkpoint}: it was left by a run with other "
                f"{_others(content.get('identity'), self.identity)}; delete it to start anew, or give back what it was "
                "made with"
            )
        try:
            self.generator.load_state_dict(content["generator"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.batches.load(content["batches"])
            self.history = [Epoch(**one) for one in content["history"]]
            self.window.extend(content["window"])
            self.best = content["best"]
            self.last, self.start, self.greedy, self.done = content["told"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise BittrueError(
                f"checkpoint {checkpoint}: it does not fit ({error}); delete it to start anew"
            ) from error

    # -- an epoch --------------------------------------------------------------------------------------
    def _epoch(self, epoch: int) -> None:
        settings, begin, total, counted = self.settings, time.perf_counter(), 0.0, 0
        steps = min(self.epoch_steps, self.steps - self.done)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed * 1_000_003 + epoch)
            order, rng = torch.randperm(len(self.data.train)), np.random.default_rng((settings.seed, epoch))
            for step in range(steps):
                value = self._step(order[step * self.batch : (step + 1) * self.batch], rng, epoch)
                if value is not None:
                    total, counted = total + value, counted + 1
                self.done += 1
                every = settings.eval_iterations_interval
                if every is not None and self.done % every == 0:
                    self._evaluate(epoch)
                every = settings.save_iterations_interval
                if every is not None and self.done % every == 0:
                    self._save(f"step-{self.done}")
                if self.progress is not None:
                    mean, last = total / max(counted, 1), self.history[-1] if self.history else None
                    self.progress(Progress(STAGE, epoch + 1, self.epochs, step + 1, steps, mean, last))
        if not counted:
            raise BittrueError(
                f"{STAGE}: no step of epoch {epoch + 1} had a loss that is a number; use a smaller learning rate"
            )
        every = settings.eval_epochs_interval
        if self.done == self.steps or (every is not None and (epoch + 1) % every == 0):
            self._evaluate(epoch)
        every = settings.save_epochs_interval
        if every is not None and (epoch + 1) % every == 0:
            self._save(f"epoch-{epoch + 1}")
        mean = total / counted
        self.history.append(Epoch(mean, self.last, mean, time.perf_counter() - begin))

    def _step(self, chosen: Tensor, rng: np.random.Generator, epoch: int) -> float | None:
        """One update; the loss, None where it was not a number and the images were drawn."""
        warm, nern = self.done < self.settings.loss_warmup_iterations, self.nern
        group = self.optimizer.param_groups[0]
        group["lr"] = rate(self.optim, self.done, self.steps)
        self.optimizer.zero_grad()
        which = self.batches.next()
        attention = distillation = torch.zeros((), device=self.device)
        if warm and self.settings.warmup_on_batch and which is not None:
            reconstruction = self._of_batch(which.to(self.device))
        else:
            made = self.target.split(self._generated(which), nern.sampling_mode)
            reconstruction = self.rec(made, self.original)
            if not warm:
                attention, distillation = self._compared(made, self._images(chosen, rng))
        loss = nern.reconstruction_loss_weight * reconstruction
        if not warm:
            loss = loss + nern.attention_loss_weight * attention + nern.distillation_loss_weight * distillation
        value = loss.item()
        if not math.isfinite(value):
            if self.random_data:
                return None
            raise BittrueError(
                f"{STAGE}: the loss is {value} in step {self.done + 1}, so the training diverged; use a smaller "
                "learning rate"
            )
        loss.backward()
        if not warm and self.done % self.settings.eval_loss_window_interval == 0:
            self.window.append((attention + distillation).item())
            if len(self.window) == self.window.maxlen and self.window[-1] <= min(self.window):
                self.greedy += 1
                self._evaluate(epoch)
        clip(self.parameters, self.optim)
        self.optimizer.step()
        if self.log is not None and self.done % self.log_interval == 0:
            parts = {"reconstruction": reconstruction, "attention": attention, "distillation": distillation}
            figures = {f"{name}_loss": part.item() for name, part in parts.items()}
            self.log(self.done + 1, {"loss": value, **figures, "learning_rate": group["lr"]})
        return value

    def _generated(self, which: Tensor | None) -> Tensor:
        """All kernels, of which those of these numbers have a gradient."""
        if which is None:
            return self.generator.kernels()
        which = which.to(self.device)
        rest = torch.ones(self.target.kernels, dtype=torch.bool, device=self.device)
        rest[which] = False
        every = torch.zeros(self.target.kernels, self.nern.output_size**2, device=self.device)
        with torch.no_grad():
            every[rest] = self.generator.kernels(rest.nonzero().flatten())
        return every.index_put((which,), self.generator.kernels(which))

    def _of_batch(self, which: Tensor) -> Tensor:
        """The reconstruction loss of these kernels alone: the root of the mean square, or the mean square."""
        made, total, count = self.generator.kernels(which), torch.zeros((), device=self.device), 0
        for own, first, layer in zip(self.flat, self.target.starts, self.target.layers, strict=False):
            inside = (which >= first) & (which < first + layer.kernels)
            values = own[which[inside] - first]
            if layer.side == self.target.side:
                total = total + (made[inside] - values).square().sum()
            else:
                total = total + (sampled(made[inside], self.nern.sampling_mode) - values[:, 0]).square().sum()
            count += values.numel()
        mean = total / count
        return mean.clamp_min(1e-30).sqrt() if self.nern.reconstruction_loss_type == "L2Loss" else mean

    def _compared(self, made: list[Tensor], codes: Tensor) -> tuple[Tensor, Tensor]:
        """Attention and distillation losses on a batch."""
        with self.target.watched() as maps:
            logits = self.target.run(made, codes, self.generator.others())
            of_made = list(maps)
            maps.clear()
            with torch.no_grad():
                original = self.target.network(codes)
            attention = self.att(of_made, list(maps)) if self.nern.attention_loss_weight else logits.new_zeros(())
        return attention, self.kd(logits, original)

    def _images(self, chosen: Tensor, rng: np.random.Generator) -> Tensor:
        """Codes of a batch, or drawn ones."""
        if self.random_data:
            height, width, channels = self.data.shape
            drawn = (2 * torch.rand(len(chosen), channels, height, width) - 1) * DRAWN
            return (drawn / INPUT_SCALE).to(self.device)
        if self.codes is not None:
            return self.codes[chosen].to(self.device).float()
        images = augmented(self.data.train.images[chosen.numpy()], self.settings.augment, rng)
        return torch.from_numpy(self.target.network.encode(images)).to(self.device).float()

    def _evaluate(self, epoch: int) -> None:
        self.last = accuracy(self.target, self.generator, self.data.val)
        if self.last > self.best["accuracy"]:
            state = {name: tensor.detach().cpu().clone() for name, tensor in self.generator.state_dict().items()}
            self.best = {"accuracy": self.last, "step": self.done, "epoch": epoch + 1, "state": state}

    def _save(self, name: str) -> None:
        if self.folder is not None:
            storage.save(self.generator, Path(self.folder) / f"generator-{name}.pt")


def _others(before: object, now: str) -> str:
    """In what two identities differ, in words."""
    try:
        there, here = json.loads(before), json.loads(now)  # type: ignore[arg-type]
        return " and ".join(key for key in here if there.get(key) != here[key])
    except (TypeError, ValueError, AttributeError):
        return "settings"
