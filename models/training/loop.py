"""Training: one loop for every network, with progress, seed, checkpoints and resume; a GPU when there is one.

A network is any module with

    encode(images)      images uint8 `[n, h, w, channels]` -> integer codes `[n, ...]`
    forward(codes)      codes `[B, ...]` -> logits `[B, classes]`

(of several inputs or results `encode` gives a tuple, `forward` takes as many and gives a tuple, and labels are one),
where samples go n at a time through it, with `at_a_time = n`, so that it is evaluated on whole groups, and where the
logits depend on which images these are, as they do with noise, with `counts_frames = True` and

    forward(codes, first)   `first` is the index of the batch's first image: in evaluation its place in the set, in
                            training the number of those that were in front of it since the training began

A training ends with the parameters that did best on the validation split: those after one of its epochs, or those it
began with where no epoch did better. Better is a higher accuracy, and of equal ones a smaller loss.

What is random in an epoch is drawn from generators seeded by (seed, epoch), or belongs to the index of an image, so a
run that was interrupted and resumed after any epoch ends with the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bittrue.models.data.augment import augmented
from bittrue.models.data.batches import Batch
from bittrue.models.data.sets import Data, Split
from bittrue.models.settings import Settings
from bittrue.models.training import storage
from bittrue.models.training.precision import flushed_denormals, full_precision, threads
from bittrue.models.training.settings import Train
from bittrue.sim.errors import BittrueError

#: Images evaluated together.
EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Epoch:
    """What an epoch left: mean training loss, accuracy (0..1) and loss on the validation split, seconds."""

    loss: float
    accuracy: float
    validation_loss: float
    seconds: float


@dataclass(frozen=True)
class History(Sequence[Epoch]):
    """The epochs of a training, in order, and which of them the network is left with.

    epochs   every epoch that ran
    start    accuracy on the validation split before the first epoch, 0..1
    kept     number of the epoch whose parameters were kept, from 1; 0: those that the training began with
    """

    epochs: tuple[Epoch, ...]
    start: float
    kept: int

    @property
    def accuracy(self) -> float:
        """Accuracy on the validation split of what was kept, 0..1."""
        return self.epochs[self.kept - 1].accuracy if self.kept else self.start

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, index):
        return self.epochs[index]


@dataclass(frozen=True)
class Progress:
    """What a progress callback gets after every step; `last` is the last complete epoch, None in the first."""

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    last: Epoch | None


#: From logits and labels, of several results tuples.
Loss = Callable[[Any, Any], Tensor]
#: From a network, a split and a loss to accuracy and loss on it.
Judge = Callable[[nn.Module, Split, Loss], tuple[float, float]]
#: From the share of a training that is done, 0..1, to a factor on the learning rates.
Schedule = Callable[[float], float]


def cosine(share: float) -> float:
    """From 1 down to 0."""
    return 0.5 * (1 + math.cos(math.pi * share))


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def logits(model: nn.Module, codes: Batch, first: int) -> Any:
    """Logits of a batch whose first image has this index; of several results a tuple."""
    return model(*codes.parts, first) if getattr(model, "counts_frames", False) else model(*codes.parts)


def predict(model: nn.Module, images: Any, device: torch.device | None = None) -> Any:
    """Logits `[n, classes]` of images, in evaluation mode, on the model's device unless told; of several results a
    tuple."""
    device = device or next(model.parameters()).device
    training = model.training
    model.eval()
    codes = Batch.of(model.encode(images))
    with torch.inference_mode():
        n = getattr(model, "at_a_time", 1)
        size = n * max(1, EVALUATION_BATCH // n)
        parts = [logits(model, codes[k : k + size].to(device), k) for k in range(0, max(len(codes), 1), size)]
    model.train(training)
    results = zip(*(part if isinstance(part, tuple) else (part,) for part in parts), strict=True)
    found = tuple(torch.cat([part.cpu() for part in result]).numpy() for result in results)
    return found if isinstance(parts[0], tuple) else found[0]


def accuracy(model: nn.Module, split: Split) -> float:
    """Share of the images whose largest logit is at the label; of equal logits the first counts."""
    return share(predict(model, split.images), split.labels)


def share(found: Any, labels: Any) -> float:
    """Share of the logits `[n, classes]` whose largest is at the label; of several results the mean of theirs."""
    pairs = zip(found, labels, strict=True) if isinstance(found, tuple) else [(found, labels)]
    right = [
        (logits.reshape(len(logits), int(np.prod(logits.shape[1:]))).argmax(1) == np.asarray(at)).mean()
        for logits, at in pairs
    ]
    return float(np.mean(right))


@dataclass(frozen=True, eq=False)
class _Best:
    """The best parameters so far: number of their epoch (0: before the first), their score, themselves.

    The score is (accuracy, - loss) on the validation split: a larger one is better.
    """

    kept: int
    score: tuple[float, float]
    state: dict[str, Tensor]


def accuracy_and_loss(model: nn.Module, split: Split, loss: Loss) -> tuple[float, float]:
    """Accuracy and loss on a split, on the model's device."""
    found, device = predict(model, split.images), next(model.parameters()).device
    with torch.no_grad():
        value = loss(Batch.of(found).to(device).alone, Batch.of(split.labels).to(device).alone)
    return share(found, split.labels), float(value)


def fit(
    model: nn.Module,
    data: Data,
    settings: Train = Train(),  # noqa: B008  (frozen)
    *,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    device: torch.device | str | None = None,
) -> History:
    """Train in place by AdamW with a cosine schedule, keep the best epoch on the validation split; see `optimize`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    return optimize(
        model,
        data,
        settings,
        optimizer,
        epochs=settings.epochs,
        stage="train",
        schedule=cosine,
        checkpoint=checkpoint,
        progress=progress,
        device=device,
    )


def optimize(
    model: nn.Module,
    data: Data,
    settings: Settings,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    stage: str,
    loss: Loss = cross_entropy,
    before: Callable[[np.random.Generator], None] | None = None,
    judge: Judge | None = None,
    schedule: Schedule | None = None,
    shuffle: bool = True,
    drop_last: bool = True,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    device: torch.device | str | None = None,
) -> History:
    """The loop behind every training, in place; the model is on the CPU afterwards, with the parameters that did best
    on `data.val` (see the module), those it has now among them.

    settings     has `batch` and `seed`, may have `threads` (of the CPU, else one) and `augment` (what is done to the
                 training images, `models.data.augment`), and is part of what a checkpoint must share with a run
    optimizer    over the model's parameters; its groups' `lr` are the rates that `schedule` multiplies, step by step
    before       called in front of every step with the epoch's generator
    judge        accuracy and loss on the validation split, by which an epoch is the best; else those of `predict`
    shuffle      batches in another order in every epoch, or always in that of the data set
    drop_last    leave out an incomplete last batch; else it counts as any other
    checkpoint   file that keeps the state after each epoch; one that is already there, left by an interrupted run of
                 the same settings, is continued to the same weights bit for bit
    """
    if not len(data.val):
        raise BittrueError(
            f"{stage}: the data set {data.name} has no validation images, which decide on the epoch that is kept; "
            "give some of the training images as `val`"
        )
    judge = judge or accuracy_and_loss
    device = torch.device(device) if device is not None else default_device()
    identity = identity_of(model, data, settings, stage)
    codes, labels = Batch.of(model.encode(data.train.images)), Batch.of(data.train.labels)
    batch = min(settings.batch, len(codes))
    steps = len(codes) // batch if drop_last else math.ceil(len(codes) / batch)
    model.to(device)
    codes, labels = codes.to(device), labels.to(device)
    augment = getattr(settings, "augment", "none")
    images = data.train.images
    if augment != "none" and not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4):
        raise BittrueError(
            f"{stage}: augment={augment!r} moves and mirrors images uint8 [n, height, width, channels], and the "
            "training samples are none; set augment to none and change the samples yourself"
        )
    rates = [group["lr"] for group in optimizer.param_groups] if schedule else []
    with full_precision(), flushed_denormals(), threads(getattr(settings, "threads", 1)):
        history, start, best = resume(checkpoint, identity, model, optimizer)
        if best is None:
            start, value = judge(model, data.val, loss)
            best = _Best(0, (start, -value), _copy(model))
        for epoch in range(len(history), epochs):
            begin, total = time.perf_counter(), 0.0
            model.train()
            with torch.random.fork_rng():
                torch.manual_seed(settings.seed * 1_000_003 + epoch)
                order = torch.randperm(len(codes)).to(device) if shuffle else None
                rng = np.random.default_rng((settings.seed, epoch))
                for step in range(steps):
                    if schedule is not None:
                        factor = schedule((epoch * steps + step) / (epochs * steps))
                        for group, rate in zip(optimizer.param_groups, rates, strict=True):
                            group["lr"] = rate * factor
                    if before is not None:
                        before(rng)
                    here = slice(step * batch, (step + 1) * batch)
                    chosen = here if order is None else order[here]
                    x = codes[chosen]
                    if augment != "none":
                        which = chosen if order is None else chosen.cpu().numpy()
                        x = Batch.of(model.encode(augmented(images[which], augment, rng))).to(device)
                    value = loss(logits(model, x, epoch * len(codes) + step * batch), labels[chosen].alone)
                    optimizer.zero_grad()
                    value.backward()
                    optimizer.step()
                    number = value.item()
                    if not math.isfinite(number):
                        raise BittrueError(
                            f"{stage}: the loss is {number} in epoch {epoch + 1}, step {step + 1}, so the training "
                            "diverged; use a smaller learning rate"
                        )
                    total += number
                    if progress is not None:
                        last = history[-1] if history else None
                        progress(Progress(stage, epoch + 1, epochs, step + 1, steps, total / (step + 1), last))
            seconds = time.perf_counter() - begin
            right, value = judge(model, data.val, loss)
            history.append(Epoch(total / steps, right, value, seconds))
            if (right, -value) > best.score:
                best = _Best(epoch + 1, (right, -value), _copy(model))
            if checkpoint is not None:
                content = {"identity": identity, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                content |= {"start": start, "best": {"kept": best.kept, "score": best.score, "state": best.state}}
                storage.write(checkpoint, "checkpoint", content | {"history": [asdict(e) for e in history]})
    model.load_state_dict(best.state)
    model.to("cpu").eval()
    return History(tuple(history), start, best.kept)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def identity_of(model: nn.Module, data: Data, settings: Settings, stage: str) -> str:
    """What a run must have in common with a checkpoint to continue it: settings, data, and where it started."""
    start = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        start.update(name.encode() + str(tuple(tensor.shape)).encode())
        start.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    sets = [data.name, len(data.train), len(data.val)]
    content = {"stage": stage, "settings": settings.model_dump(mode="json"), "data": sets, "start": start.hexdigest()}
    return json.dumps(content | {"keeps": "best"})


def resume(
    checkpoint: str | Path | None, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[list[Epoch], float, _Best | None]:
    """The epochs, the accuracy before the first and the best parameters that a checkpoint has; None: there is none."""
    if checkpoint is None or not Path(checkpoint).exists():
        return [], 0.0, None
    content = storage.read(checkpoint, "checkpoint")
    if content.get("identity") != identity:
        raise BittrueError(
            f"checkpoint {checkpoint}: it was left by a run with other {others(content.get('identity'), identity)}; "
            "delete it to start anew, or give back what it was made with"
        )
    try:
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        kept = content["best"]
        best = _Best(kept["kept"], tuple(kept["score"]), kept["state"])
        return [Epoch(**epoch) for epoch in content["history"]], content["start"], best
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise BittrueError(f"checkpoint {checkpoint}: it does not fit ({error}); delete it to start anew") from error


def others(before: object, now: str) -> str:
    """In what two identities differ, in words."""
    names = {"settings": "settings", "data": "data set", "start": "initial parameters", "stage": "stage"}
    names["keeps"] = "rule for the epoch that is kept"
    try:
        found = json.loads(before)  # type: ignore[arg-type]
        return " and ".join(names[key] for key in names if found.get(key) != json.loads(now)[key])
    except (TypeError, ValueError, AttributeError):
        return "settings"
