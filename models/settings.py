"""Settings of a recipe, validated: networks, training, quantisation and training with it, conversion to spikes.

Unknown keys and values out of range are refused by name. The defaults are the Fashion-MNIST recipe; the small
`digits` set wants `patch=2, embed=32, blocks=2`, 150 epochs of 64 images at 2e-3 with weight decay 0.05, and
20 epochs of quantisation-aware training with 64 images a step.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Nonlinearity = Literal["lerp_psa", "psa", "relu", "swish"]
#: Fixed functions, in every network; see `models.layers.activations`.
Activation = Literal["relu", "swish", "sigmoid", "gelu"]


class Settings(BaseModel):
    """Base of every group of settings: frozen, and no key that is not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Network(Settings):
    """Geometry of a ResMLP and its non-linearity; `hidden_factor` is hidden width over `embed`."""

    patch: int = Field(4, ge=1, description="side of a square patch, pixels")
    embed: int = Field(64, ge=1, description="channels of a token")
    blocks: int = Field(3, ge=1)
    hidden_factor: float = Field(1.0, gt=0)
    nonlinearity: Nonlinearity = "lerp_psa"
    terms: int = Field(8, ge=1, description="terms of a PSA function")
    grid_points: int = Field(64, ge=2, description="points at which a LERP-PSA evaluates its PSA")
    grid_range: float = Field(4.0, gt=0, description="the grid spans -range to range")

    @property
    def hidden(self) -> int:
        return max(1, round(self.hidden_factor * self.embed))

    @property
    def learnable(self) -> bool:
        """Whether the non-linearity is a learnable function of each channel, in front of both linears of a block."""
        return self.nonlinearity in ("lerp_psa", "psa")


class Perceptron(Settings):
    """Sizes of the hidden layers of an MLP, and their function; `norm` puts batch normalisation in front of it."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64, 64, 64)
    nonlinearity: Activation = "relu"
    norm: bool = True

    @field_validator("hidden")
    @classmethod
    def _some(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("give the size of at least one hidden layer")
        return value


class Train(Settings):
    """AdamW with a cosine schedule to zero."""

    epochs: int = Field(8, ge=1)
    batch: int = Field(128, ge=2)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    seed: int = Field(1, ge=0)


class Quantize(Settings):
    """Post-training quantisation; the percentile is chosen on the validation split, the first one wins a tie."""

    percentiles: tuple[Annotated[float, Field(gt=50, le=100)], ...] = (99.97, 99.99, 100.0, 99.9)
    segments: int = Field(64, ge=2, description="segments of a table; it holds one knot more")
    bits: int = Field(8, ge=4, le=8, description="bits of activations, weights, biases and knots")
    images: int = Field(1000, ge=1, description="training images to calibrate on")

    @field_validator("percentiles")
    @classmethod
    def _some(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value:
            raise ValueError("give at least one percentile")
        return value

    @field_validator("segments")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("the number of segments is a power of two")
        return value


class Qat(Settings):
    """Quantisation-aware training on the integers themselves; 0 epochs skips it."""

    epochs: int = Field(2, ge=0)
    batch: int = Field(256, ge=2)
    lr: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    learn_scales: bool = False
    scale_lr: float = Field(1e-3, gt=0, description="learning rate of log-scales, where they are learned")
    seed: int = Field(1, ge=0)


class Convert(Settings):
    """Replacing the activations of a trained network by FS-neurons.

    The percentile is chosen on the validation split, the first one wins a tie; it counts only for neurons that are
    scaled to their data, as those of a ReLU are.
    """

    neurons: str | None = Field(None, description="a neuron set or its file; null: the published one of the function")
    steps: int | None = Field(None, ge=1, le=16, description="time steps K; null: as the set has (10 for a ReLU)")
    bits: int = Field(8, ge=2, le=8, description="bits of the weights that spikes select")
    fraction_bits: int = Field(10, ge=1, le=16, description="fraction bits F of a set that is not scaled")
    rounding: Literal["nearest", "published"] = "nearest"
    first: Literal["spikes", "integer"] = Field("spikes", description="how the first layer reads its 8-bit codes")
    percentiles: tuple[Annotated[float, Field(gt=50, le=100)], ...] = (100.0, 99.99, 99.97, 99.9)
    headroom: float = Field(0.0, ge=0, le=1, description="share by which a scaled range exceeds that percentile")
    images: int = Field(1000, ge=1, description="training images to calibrate on")
    gradient: Literal["straight_through", "triangular"] = "straight_through"
    strict: bool = Field(False, description="refuse inputs outside a neuron's valid range instead of clipping them")

    @field_validator("percentiles")
    @classmethod
    def _some(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value:
            raise ValueError("give at least one percentile")
        return value


class Sweep(Settings):
    """Accuracy against time steps and weight bits, on validation images; no images skips it."""

    steps: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (4, 6, 8, 10)
    bits: tuple[Annotated[int, Field(ge=2, le=8)], ...] = (4, 5, 6, 8)
    fraction_bits: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (4, 6, 8, 10)
    images: int = Field(500, ge=0)
