"""Settings of the regular networks: their geometry, and how integers are made of one.

Unknown keys and values out of range are refused by name. The defaults are the Fashion-MNIST recipe; the small
`digits` set wants `patch=2, embed=32, blocks=2`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from bittrue.models.settings import Settings

Nonlinearity = Literal["lerp_psa", "psa", "relu", "swish"]
#: Fixed functions, in every network; see `models.layers.activations`.
Activation = Literal["relu", "swish", "sigmoid", "gelu"]

#: The widest layer: settings that a damaged file gives must not keep a machine busy for ever.
WIDEST = 1 << 14


class ResMLPSettings(Settings):
    """Geometry of a ResMLP and its non-linearity; `hidden_factor` is hidden width over `embed`."""

    patch: int = Field(default=4, ge=1, le=1024, description="side of a square patch, pixels")
    embed: int = Field(default=64, ge=1, le=WIDEST, description="channels of a token")
    blocks: int = Field(default=3, ge=1, le=1024)
    hidden_factor: float = Field(default=1.0, gt=0, le=64)
    nonlinearity: Nonlinearity = "lerp_psa"
    terms: int = Field(default=8, ge=1, le=1024, description="terms of a PSA function")
    grid_points: int = Field(default=64, ge=2, le=1 << 16, description="points at which a LERP-PSA evaluates its PSA")
    grid_range: float = Field(default=4.0, gt=0, description="the grid spans -range to range")

    @property
    def hidden(self) -> int:
        return max(1, round(self.hidden_factor * self.embed))

    @property
    def learnable(self) -> bool:
        """Whether the non-linearity is a learnable function of each channel, in front of both linears of a block."""
        return self.nonlinearity in ("lerp_psa", "psa")


class MlpSettings(Settings):
    """Sizes of the hidden layers of an MLP, and their function; `norm` puts batch normalisation in front of it."""

    hidden: tuple[Annotated[int, Field(ge=1, le=WIDEST)], ...] = (64, 64, 64)
    nonlinearity: Activation = "relu"
    norm: bool = True

    @field_validator("hidden")
    @classmethod
    def _some(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("give the size of at least one hidden layer")
        return value


class ConvolutionSettings(Settings):
    """Kind and widths of a convolutional network; a ResNet-8 has three widths of one block, a ResNet-20 of three."""

    kind: Literal["plain", "resnet", "mobilenet", "tcn"] = Field(
        default="resnet", description="the first three over images, tcn over time"
    )
    widths: tuple[Annotated[int, Field(ge=1, le=WIDEST)], ...] = Field(
        default=(16, 32, 64),
        min_length=1,
        description="channels of the stages; from one to the next an image halves",
    )
    blocks: int = Field(default=1, ge=1, le=1024, description="blocks of a stage; each of a tcn doubles the dilation")


class Convert(Settings):
    """Quantisation of a trained network as it is (`bittrue.convert`)."""

    bits: int = Field(default=8, ge=2, le=8, description="bits of weights")
    activation_bits: int = Field(default=8, ge=2, le=8, description="bits of every tensor")
    requantize: Literal["shift", "multiplier"] = Field(default="shift", description="how sums become codes again")
    ranges: Literal["mse"] | Annotated[float, Field(gt=50, le=100)] = Field(
        default="mse", description="least mean square error, or a percentile of the magnitudes"
    )


class Quantize(Settings):
    """Post-training quantisation; the percentile is chosen on the validation split, the first one wins a tie."""

    percentiles: tuple[Annotated[float, Field(gt=50, le=100)], ...] = (99.97, 99.99, 100.0, 99.9)
    segments: int = Field(default=64, ge=2, description="segments of a table; it holds one knot more")
    bits: int = Field(default=8, ge=4, le=8, description="bits of activations, weights, biases and knots")
    images: int = Field(default=1000, ge=2, description="training images to calibrate on")

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
