"""Training of a generator in its own integers, through the integers of the target that computes with its codes.

    loss = w_rec sqrt(mean (units[l] code - W)^2) + w_kd L_kd(logits of the integers, logits of the original)

Every step generates all kernels in whole numbers, those of the batch (`models.nern.batches`) with a gradient, which
goes straight through all rounding. So what is trained is what a boot writes. Evaluated is the target in integers on
validation images, at the beginning, every `eval_iterations_interval` steps and at the end; the best is kept, of equal
ones the first, and with it what there was before. Steps of codes stay as they were set.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bittrue.models.data.sets import Data
from bittrue.models.int8.converted import Converted
from bittrue.models.nern import accelerator, losses
from bittrue.models.nern.batches import Batches
from bittrue.models.nern.generator import Generator
from bittrue.models.nern.integers import OBSERVED, Integers
from bittrue.models.nern.settings import Integers as Settings
from bittrue.models.nern.target import Target
from bittrue.models.training.loop import Progress, accuracy
from bittrue.models.training.precision import flushed_denormals, full_precision, threads
from bittrue.sim.errors import BittrueError

STAGE = "exact"


@dataclass(frozen=True)
class Outcome:
    """What a training did.

    evaluations   (step, validation accuracy, mean loss since the evaluation before), the first of step 0
    step          after which the kept one was
    """

    evaluations: tuple[tuple[int, float, float], ...]
    step: int

    @property
    def accuracy(self) -> float:
        return dict((step, right) for step, right, _ in self.evaluations)[self.step]


def kernels(integers: Integers, generator: Generator, which: Tensor | None = None) -> Tensor:
    """The codes of all kernels `[K, k^2]`, in the order of the target's weights; those of the numbers `which`, or all,
    have a gradient."""
    placed = generator.placed
    if which is None:
        return torch.cat([integers(part) for part in placed.split(OBSERVED)])
    with torch.no_grad():
        every = torch.cat([integers(part) for part in placed.split(OBSERVED)])
    return every.index_put((which,), integers(placed[which]))


@torch.no_grad()
def codes(integers: Integers, generator: Generator, target: Target) -> list[Tensor]:
    """The generated codes of each layer `[filters, channels, k, k]`."""
    return target.split(kernels(integers, generator))


def fit(
    integers: Integers,
    network: Converted,
    generator: Generator,
    target: Target,
    data: Data,
    settings: Settings,
    progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Train the generator's integers in place, with the target's integers, which in the end keep the codes of the best.

    The order of images and kernels is drawn from the seed; torch's own generator stays as it is.
    """
    generator.belongs_to(target)
    original, nern = target.network.cpu().eval(), generator.settings
    weights = target.weights()
    units = integers.units
    distillation = losses.DISTILLATION[nern.distillation_loss_type]
    parameters = [p for p in integers.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=0.0)
    seen, own = (torch.from_numpy(of.encode(data.train.images)) for of in (original, network))
    count = min(settings.batch_size, len(seen))
    found: list[tuple[int, float, float]] = []
    best: dict[str, Tensor] = {}
    total = [0.0, 0]

    def evaluate(step: int) -> None:
        with torch.no_grad():
            accelerator.keep(network, target, kernels(integers, generator))
        right = accuracy(network, data.val)
        if not best or right > max(one[1] for one in found):
            best.clear()
            best.update({name: value.clone() for name, value in integers.state_dict().items()}, step=step)
        found.append((step, right, total[0] / max(total[1], 1)))
        total[:] = [0.0, 0]

    with full_precision(), flushed_denormals(), threads(settings.threads), torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        batches, order = Batches(nern, target), torch.randperm(0)
        evaluate(0)
        for step in range(1, settings.num_iterations + 1):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * (step - 1) / settings.num_iterations))
            if len(order) < count:
                order = torch.randperm(len(seen))
            chosen, order = order[:count], order[count:]
            made = kernels(integers, generator, batches.next())
            parts = zip(target.split(made), units, weights, strict=True)
            square = sum((part * unit.float() - weight).square().sum() for part, unit, weight in parts)
            reconstruction = (square / sum(w.numel() for w in weights)).clamp_min(1e-30).sqrt()
            accelerator.give(network, target, made)
            logits = network(own[chosen]) * network.scale
            with torch.no_grad():
                expected = original(seen[chosen])
            loss = settings.reconstruction_loss_weight * reconstruction
            loss = loss + settings.distillation_loss_weight * distillation(logits.flatten(1), expected)
            value = loss.item()
            if not math.isfinite(value):
                raise BittrueError(
                    f"{STAGE}: the loss is {value} in step {step}, so the training diverged; use a smaller learning "
                    "rate"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total[0], total[1] = total[0] + value, total[1] + 1
            if progress is not None:
                progress(Progress(STAGE, 1, 1, step, settings.num_iterations, total[0] / total[1], None))
            if step % settings.eval_iterations_interval == 0 or step == settings.num_iterations:
                evaluate(step)
        kept = copy.copy(best)
        at = int(kept.pop("step"))
        integers.load_state_dict(kept)
        with torch.no_grad():
            accelerator.keep(network, target, kernels(integers, generator))
    return Outcome(tuple(found), at)
