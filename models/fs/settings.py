"""Settings of the conversion to FS-neurons, and of the table of accuracies beside it.

Unknown keys and values out of range are refused by name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from bittrue.models.settings import Settings


class Convert(Settings):
    """Replacing the activations of a trained network by FS-neurons.

    The percentile is chosen on the validation split, the first one wins a tie; it counts only for neurons that are
    scaled to their data, as those of a ReLU are.
    """

    neurons: str | None = Field(
        default=None, description="a neuron set or its file; null: the published one of the function"
    )
    steps: int | None = Field(
        default=None, ge=1, le=16, description="time steps K; null: as the set has (10 for a ReLU)"
    )
    bits: int = Field(default=8, ge=2, le=8, description="bits of the weights that spikes select")
    fraction_bits: int = Field(default=10, ge=1, le=16, description="fraction bits F of a set that is not scaled")
    rounding: Literal["nearest", "published"] = "nearest"
    first: Literal["spikes", "integer"] = Field(
        default="spikes", description="how the first layer reads its 8-bit codes"
    )
    percentiles: tuple[Annotated[float, Field(gt=50, le=100)], ...] = (100.0, 99.99, 99.97, 99.9)
    headroom: float = Field(
        default=0.0, ge=0, le=1, description="share by which a scaled range exceeds that percentile"
    )
    images: int = Field(default=1000, ge=1, description="training images to calibrate on")
    gradient: Literal["straight_through", "triangular"] = "straight_through"
    strict: bool = Field(
        default=False, description="refuse inputs outside a neuron's valid range instead of clipping them"
    )

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
    images: int = Field(default=500, ge=0)
