"""Settings of photonic networks and of their training, with the published values per data set and activation.

Source of the values: the configurations published with Kirtas, Passalis, Pleros and Tefas, "Non-negative isomorphic
neural networks for photonic neuromorphic accelerators", arXiv 2310.01084; those of `digits` are ours.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from models.settings import Settings
from sim.errors import BittrueError

PhotonicActivation = Literal["sigmoid", "sinusoid", "relu"]
Scenario = Literal["transform", "post", "scratch"]
NonNegativeOptimizer = Literal["nnsgd", "csgd"]
Positive = Annotated[float, Field(gt=0)]
Bound = Annotated[float, Field(gt=0, le=1)]


class PhotonicPerceptron(Settings):
    """Hidden layers of a SimpleMLP and their function; `grey` turns colours to luminance first."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (100, 200)
    activation: PhotonicActivation = "sinusoid"
    grey: bool = False

    @field_validator("hidden")
    @classmethod
    def _some(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("give the size of at least one hidden layer")
        return value


class Calibrate(Settings):
    """How each layer's alpha, the upper bound of its inputs, is found; the first layer's is 1, its inputs are light.

    bound        the largest value of the activation in front; an unbounded ReLU has none and is refused
    percentile   that percentile of the layer's inputs over `images` training images; what exceeds it is clipped
    constant     the number `alpha`, for all layers but the first, as published for ReLU networks
    """

    method: Literal["bound", "percentile", "constant"] = "bound"
    percentile: float = Field(99.9, gt=50, le=100)
    alpha: float | None = Field(None, gt=0)
    images: int = Field(1000, ge=1)

    @model_validator(mode="after")
    def _number(self) -> Calibrate:
        if (self.method == "constant") != (self.alpha is not None):
            raise ValueError("`alpha` is the number of the method `constant`, and of no other")
        return self


class PhotonicTrain(Settings):
    """A scenario. Batches in the order of the data set unless shuffled, constant learning rates.

    transform   `epochs` of SGD at `lr`, then the transformation
    post        `epochs` of SGD at `lr`, the transformation, then `non_negative_epochs` of the non-negative optimiser
    scratch     initialisation, the transformation, then `non_negative_epochs` of the non-negative optimiser

    `lr_in` and `lr_out` are NNSGD's, `clip_lr` is CSGD's.
    """

    scenario: Scenario = "transform"
    optimizer: NonNegativeOptimizer = "nnsgd"
    epochs: int = Field(50, ge=0)
    non_negative_epochs: int = Field(0, ge=0)
    batch: int = Field(256, ge=1)
    lr: Positive = 0.16
    lr_in: Positive = 0.63
    lr_out: Bound = 0.5
    clip_lr: Positive = 0.05
    shuffle: bool = False
    seed: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _phases(self) -> PhotonicTrain:
        regular, non_negative = self.scenario != "scratch", self.scenario != "transform"
        for name, value, used in (
            ("epochs", self.epochs, regular),
            ("non_negative_epochs", self.non_negative_epochs, non_negative),
        ):
            if bool(value) != used:
                raise ValueError(f"scenario {self.scenario}: `{name}` is {value}, it is {'1 or more' if used else '0'}")
        return self


#: Per data set and activation: SGD; NNSGD and CSGD after training; NNSGD and CSGD from scratch.
_RATES: dict[tuple[str, str], tuple[float, tuple[float, float], float, tuple[float, float], float]] = {
    ("mnist", "sigmoid"): (0.092, (0.78, 0.23), 0.002, (0.64, 0.6), 0.0067),
    ("mnist", "sinusoid"): (0.5, (0.9, 0.68), 0.009, (1.0, 1.0), 0.034),
    ("fashion-mnist", "sigmoid"): (0.01, (0.28, 0.3), 0.0027, (0.28, 0.91), 0.0091),
    ("fashion-mnist", "sinusoid"): (0.16, (0.9, 0.6), 0.008, (0.63, 0.5), 0.05),
    ("cifar10", "sigmoid"): (0.002, (0.37, 0.3), 0.0034, (0.5, 0.5), 0.0049),
    ("cifar10", "sinusoid"): (0.047, (0.91, 0.086), 0.002, (0.86, 0.68), 0.024),
    ("digits", "sigmoid"): (0.05, (0.28, 0.3), 0.005, (0.28, 0.9), 0.01),
    ("digits", "sinusoid"): (0.2, (0.9, 0.6), 0.01, (0.63, 0.5), 0.05),
}
#: Epochs of a whole training, and of each of the two phases of `post`.
_EPOCHS = {"mnist": (50, 5), "fashion-mnist": (50, 5), "cifar10": (100, 15), "digits": (60, 30)}


def published(
    data: str,
    activation: PhotonicActivation = "sinusoid",
    scenario: Scenario = "transform",
    optimizer: NonNegativeOptimizer = "nnsgd",
    seed: int = 1,
) -> PhotonicTrain:
    """The published settings of an MLP (`digits`: our own). A ReLU network is published for `transform` alone."""
    whole, phase = _EPOCHS.get(data, (0, 0))
    if not whole:
        raise BittrueError(f"no photonic settings for the data set {data!r}; known are {', '.join(_EPOCHS)}")
    batch = 32 if data == "digits" else 256
    if activation == "relu":
        if scenario != "transform":
            raise BittrueError(f"no settings of scenario {scenario} were published for ReLU networks; use `transform`")
        return PhotonicTrain(epochs=whole, lr=0.01, batch=batch, seed=seed)
    if (data, activation) not in _RATES:
        raise BittrueError(f"no photonic settings for the activation {activation!r}; known are sigmoid, sinusoid, relu")
    lr, post_nn, post_clip, scratch_nn, scratch_clip = _RATES[data, activation]
    (lr_in, lr_out), clip = (scratch_nn, scratch_clip) if scenario == "scratch" else (post_nn, post_clip)
    epochs = {"transform": (whole, 0), "post": (phase, phase), "scratch": (0, whole)}
    if scenario not in epochs:
        raise BittrueError(f"no scenario is named {scenario!r}; known are {', '.join(epochs)}")
    first, second = epochs[scenario]
    return PhotonicTrain(
        scenario=scenario,
        optimizer=optimizer,
        epochs=first,
        non_negative_epochs=second,
        batch=batch,
        lr=lr,
        lr_in=lr_in,
        lr_out=lr_out,
        clip_lr=clip,
        seed=seed,
    )


def architecture(data: str, activation: PhotonicActivation = "sinusoid") -> PhotonicPerceptron:
    """The published SimpleMLP of a data set; CIFAR-10 in grey levels."""
    if data == "cifar10":
        return PhotonicPerceptron(hidden=(1024, 512), activation=activation, grey=True)
    return PhotonicPerceptron(activation=activation)
