"""Training of networks that take several images in one pass, as published.

SGD, whose rate rises from a 25th of the highest to it in three tenths of the updates and falls to nothing, and whose
momentum goes the other way, from 0.95 down to 0.85 and back (torch's one-cycle policy). An update takes `batch` passes
of N images, and an epoch sees every image N times, so that the number of updates does not depend on N. In another
share of them (`frequency`) the same images go in `low` at a time, in N / low times as many passes.

    loss = l H(f(x), y) + (1 - l) H(f(x), y') + key_penalty R(keys) + isometry_penalty R(convolutions)

with x = l a + (1 - l) a' of the batch a, y and the same in another order a', y', l by Beta(mixup, mixup) for a batch.

The guard leaves out an update whose gradient is `guard` times as long as the mean of the epoch before, or not finite.
The published code means to test the latter, too, but names `isfinite` without calling it, so that the test holds for
every gradient. A gradient longer than 1,000 is shortened to that. The last epoch is kept, as published.

What is random in an epoch is drawn from generators seeded by (seed, epoch), so that a run that was interrupted and
resumed after any epoch ends with the same weights, bit for bit, as one that was not. The loop of `models.training`
would need a hook at each of these places, and is not used.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

from bittrue.models.data.augment import augmented
from bittrue.models.data.sets import Data, Split
from bittrue.models.superposition.evaluate import judge, pairing
from bittrue.models.superposition.networks import ShiftedReLU, Superposition
from bittrue.models.superposition.settings import SuperpositionTrain
from bittrue.models.superposition.transfer import Transferred, transfer
from bittrue.models.training import storage
from bittrue.models.training.loop import Epoch, History, Progress, default_device, identity_of, others
from bittrue.models.training.precision import flushed_denormals, full_precision, threads
from bittrue.sim.errors import BittrueError

#: A gradient is shortened to this length.
LONGEST = 1e3
STAGE = "superposition"
#: Figures of an epoch under the published names; told to whoever logs them.
Figures = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What a training left besides the network.

    history       epochs, as of every training; the last one is kept
    figures       of each epoch, under the published names
    transferred   what came from another network; None where nothing was asked for
    """

    history: History
    figures: tuple[Figures, ...]
    transferred: Transferred | None


def fit(
    model: Superposition,
    data: Data,
    settings: SuperpositionTrain,
    *,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    log: Callable[[int, Figures], None] | None = None,
    device: torch.device | str | None = None,
) -> Outcome:
    """Train in place; the model is on the CPU afterwards, as its last epoch left it, N images at a time.

    checkpoint   file that keeps the state after each epoch; one that is already there, left by an interrupted run of
                 the same settings, is continued
    log          called with the number of an epoch, from 1, and its figures; of a resumed run also with the old ones
    """
    return _Run(model, data, settings, device).go(checkpoint, progress, log)


class _Run:
    """One training: its data, optimiser, cycle, and what an epoch is."""

    def __init__(
        self, model: Superposition, data: Data, settings: SuperpositionTrain, device: torch.device | str | None
    ) -> None:
        self.model, self.settings, self.slots = model, settings, model.network.slots
        try:
            settings.trained(self.slots)
        except ValueError as error:
            raise BittrueError(f"{STAGE}: {error}") from error
        self.train = _joined(data.train, data.val) if settings.final else data.train
        self.held = data.test if settings.final else data.val
        if not len(self.held) or not len(self.train):
            raise BittrueError(
                f"{STAGE}: the data set {data.name} has {len(self.train)} training images and {len(self.held)} to tell "
                "each epoch of; give at least one of both"
            )
        self.transferred = transfer(model, settings.transfer) if settings.transfer is not None else None
        self.identity = identity_of(model, data, settings, STAGE)
        self.device = torch.device(device) if device is not None else default_device()
        model.to(self.device)
        self.batch = min(settings.batch, len(self.train)) * self.slots  # images
        self.steps = len(self.train) * self.slots // self.batch
        if settings.augment == "none":
            self.codes: Tensor | None = torch.from_numpy(model.encode(self.train.images))
        else:
            self.codes = None
        self.labels = torch.from_numpy(self.train.labels.copy())
        parameters = [p for p in model.parameters() if p.requires_grad]
        shaping = {id(p) for m in model.modules() if isinstance(m, (nn.PReLU, ShiftedReLU)) for p in m.parameters()}
        groups = [
            {"params": [p for p in parameters if id(p) not in shaping], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if id(p) in shaping], "weight_decay": 0.0},
        ]
        self.parameters = parameters
        self.optimizer = torch.optim.SGD([group for group in groups if group["params"]], lr=settings.lr)
        self.cycle = OneCycleLR(self.optimizer, settings.lr, total_steps=settings.epochs * self.steps)
        self.history: list[Epoch] = []
        self.figures: list[Figures] = []
        self.start = 0.0

    # -- the whole -------------------------------------------------------------------------------------
    def go(
        self,
        checkpoint: str | Path | None,
        progress: Callable[[Progress], None] | None,
        log: Callable[[int, Figures], None] | None,
    ) -> Outcome:
        with full_precision(), flushed_denormals(), threads(self.settings.threads), warnings.catch_warnings():
            # the guard may leave out the very first update, after which the cycle goes on all the same
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            if checkpoint is not None and Path(checkpoint).exists():
                self._resume(checkpoint)
            else:
                self.start = judge(self.model, self.held, self.slots, self._order(-1))[0]
            for number, figures in enumerate(self.figures, 1):
                if log is not None:
                    log(number, figures)
            for epoch in range(len(self.history), self.settings.epochs):
                self._epoch(epoch, progress)
                if log is not None:
                    log(epoch + 1, self.figures[-1])
                if checkpoint is not None:
                    self._keep(checkpoint)
        self.model.at_a_time = self.slots
        self.model.to("cpu").eval()
        history = History(tuple(self.history), self.start, len(self.history))
        return Outcome(history, tuple(self.figures), self.transferred)

    def _order(self, epoch: int) -> np.ndarray:
        """The pairing on which an epoch is told."""
        return pairing(len(self.held), self.settings.seed, epoch + 1)

    # -- checkpoints -----------------------------------------------------------------------------------
    def _keep(self, checkpoint: str | Path) -> None:
        content = {"identity": self.identity, "network": self.model.describe(), "model": self.model.state_dict()}
        content |= {"optimizer": self.optimizer.state_dict(), "cycle": self.cycle.state_dict(), "start": self.start}
        content |= {"history": [asdict(one) for one in self.history], "figures": self.figures}
        storage.write(checkpoint, "checkpoint", content)

    def _resume(self, checkpoint: str | Path) -> None:
        content = storage.read(checkpoint, "checkpoint")
        _same_network(content.get("network"), self.model, checkpoint)
        if content.get("identity") != self.identity:
            raise BittrueError(
                f"checkpoint {checkpoint}: it was left by a run with other "
                f"{others(content.get('identity'), self.identity)}; delete it to start anew, or give back what it was "
                "made with"
            )
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.cycle.load_state_dict(content["cycle"])
            self.history = [Epoch(**one) for one in content["history"]]
            self.figures, self.start = list(content["figures"]), content["start"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise BittrueError(
                f"checkpoint {checkpoint}: it does not fit ({error}); delete it to start anew"
            ) from error

    # -- an epoch --------------------------------------------------------------------------------------
    def _epoch(self, epoch: int, progress: Callable[[Progress], None] | None) -> None:
        settings, begin = self.settings, time.perf_counter()
        last = self.history[-1] if self.history else None
        mean = self.figures[-1]["GradientNorm/Total"] if self.figures else math.inf
        limit = settings.guard * mean if mean > 0 else math.inf
        told = _Told()
        self.model.train()
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed * 1_000_003 + epoch)
            rng = np.random.default_rng((settings.seed, epoch))
            for step, (codes, labels) in enumerate(self._batches(rng)):
                low = rng.random() > settings.frequency
                self.model.at_a_time = settings.low if low and settings.low is not None else self.slots
                weight = rng.beta(settings.mixup, settings.mixup) if settings.mixup else 1.0
                other = torch.randperm(len(codes)).to(self.device)
                self._update(epoch * self.steps + step, codes, labels, other, weight, limit, told)
                if progress is not None:
                    mean_loss = told.loss / max(told.finite, 1)
                    progress(Progress("train", epoch + 1, settings.epochs, step + 1, self.steps, mean_loss, last))
        if not told.applied:
            raise BittrueError(
                f"{STAGE}: no update of epoch {epoch + 1} had a usable gradient ({told.nonfinite} of {self.steps} were "
                "not finite), so the training diverged; use a smaller learning rate"
            )
        seconds = time.perf_counter() - begin
        right, value = judge(self.model, self.held, self.slots, self._order(epoch))
        figures = told.figures(self.steps) | self._state()
        figures |= {"Accuracy/validation_at_capacity": right, "Loss/validation_at_capacity": value}
        if settings.low is not None:
            right_low, value_low = judge(self.model, self.held, settings.low, self._order(epoch))
            figures |= {"Accuracy/validation_at_sup_low": right_low, "Loss/validation_at_sup_low": value_low}
        self.figures.append(figures)
        self.history.append(Epoch(figures["Loss/train"], right, value, seconds))

    def _batches(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Codes and labels, each of `batch` images: the set N times, each time in another order."""
        order = torch.cat([torch.randperm(len(self.train)) for _ in range(self.slots)])
        for step in range(self.steps):
            chosen = order[step * self.batch : (step + 1) * self.batch]
            if self.codes is not None:
                codes = self.codes[chosen]
            else:
                images = augmented(self.train.images[chosen.numpy()], self.settings.augment, rng)
                codes = torch.from_numpy(self.model.encode(images))
            yield codes.to(self.device).float(), self.labels[chosen].to(self.device)

    def _update(
        self, number: int, codes: Tensor, labels: Tensor, other: Tensor, weight: float, limit: float, told: _Told
    ) -> None:
        """One update, or none where the guard finds its gradient too long."""
        settings = self.settings
        self.optimizer.zero_grad()
        isometry = 0.0
        if settings.isometry_penalty and number % settings.isometry_every == 0:
            penalty = self.model.isometry_penalty()
            if penalty.requires_grad:
                (settings.isometry_penalty * settings.isometry_every * penalty).backward()
                isometry = float(nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None]))
            told.isometry(penalty.item(), isometry)
        mixed = weight * codes + (1 - weight) * codes[other] if weight < 1 else codes
        logits = self.model(mixed)
        loss = weight * cross_entropy(logits, labels)
        if weight < 1:
            loss = loss + (1 - weight) * cross_entropy(logits, labels[other])
        keys = self.model.binding.penalty()
        (loss + settings.key_penalty * keys).backward()
        norm = float(nn.utils.clip_grad_norm_(self.parameters, LONGEST))
        applied = math.isfinite(norm) and norm < limit
        if applied:
            self.optimizer.step()
        guess = logits.detach().argmax(1)
        right = weight * (guess == labels).float().mean() + (1 - weight) * (guess == labels[other]).float().mean()
        told.update(loss.item(), right.item(), norm, applied)
        told.keys, told.rate = keys.item(), self.optimizer.param_groups[0]["lr"]
        if number + 1 < settings.epochs * self.steps:  # the cycle ends with the last update
            self.cycle.step()

    def _state(self) -> Figures:
        """What the parameters of blocks are like."""
        alphas = [p.abs() for name, p in self.model.named_parameters() if name.endswith(".alpha")]
        shapes = [p for m in self.model.modules() if isinstance(m, (nn.PReLU, ShiftedReLU)) for p in m.parameters()]
        found: Figures = {}
        with torch.no_grad():
            if alphas:
                found["AbsoluteAlpha"] = torch.stack(alphas).mean().item()
            if shapes:
                joined = torch.cat(shapes)
                found |= {"AverageReLUParam": joined.mean().item()}
                found |= {"VarianceReLUParam": joined.var(correction=0).item()}
        return found


class _Told:
    """Sums over an epoch's updates."""

    def __init__(self) -> None:
        self.loss = self.right = self.norms = self.keys = self.rate = 0.0
        self.finite = self.nonfinite = self.applied = 0
        self.isometries: list[tuple[float, float]] = []

    def isometry(self, penalty: float, norm: float) -> None:
        self.isometries.append((penalty, norm))

    def update(self, loss: float, right: float, norm: float, applied: bool) -> None:
        self.applied += applied
        if not (math.isfinite(norm) and math.isfinite(loss)):
            self.nonfinite += 1
            return
        self.finite += 1
        self.loss, self.right, self.norms = self.loss + loss, self.right + right, self.norms + norm

    def figures(self, steps: int) -> Figures:
        finite = max(self.finite, 1)
        found = {"Loss/train": self.loss / finite, "Accuracy/train": self.right / finite, "LearningRate": self.rate}
        found |= {"GradientNorm/Total": self.norms / finite, "GradientNonfiniteFraction": self.nonfinite / steps}
        found |= {"GradientSkippedFraction": 1 - self.applied / steps, "Binding_Regularization": self.keys}
        if self.isometries:
            penalty, norm = (sum(column) / len(column) for column in zip(*self.isometries, strict=True))
            found |= {"Isometry_Regularization": penalty, "GradientNorm/IsometryRegularization": norm}
        return found


def _joined(first: Split, second: Split) -> Split:
    return Split(np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels]))


def _same_network(before: object, model: Superposition, checkpoint: str | Path) -> None:
    """An error that names what differs between the network of a checkpoint and this one."""
    if not isinstance(before, dict):
        return  # what is no description is no such checkpoint, and is refused by what else it lacks
    differ = differences(before, model.describe())
    if differ:
        raise BittrueError(
            f"checkpoint {checkpoint}: its network differs from this one: {differ}; delete it to start anew, or give "
            "back the network it was made with"
        )


def differences(there: dict, here: dict) -> str:
    """In what two descriptions of networks differ: `slots is 4 there and 2 here`; nothing where they do not."""
    flat = [of.get("network", {}) | {k: v for k, v in of.items() if k != "network"} for of in (there, here)]
    keys = [key for key in dict.fromkeys([*flat[1], *flat[0]]) if flat[0].get(key) != flat[1].get(key)]
    return ", ".join(f"{key} is {flat[0].get(key)} there and {flat[1].get(key)} here" for key in keys)
