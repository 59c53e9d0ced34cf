"""Sweeps of photonic networks: accuracy of one trained network over settings of its array and seeds of its noise.

Every point converts the network to its own array and runs the golden simulator. From `array.seed` noise, errors of
setting and drift are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bittrue.flow.engine.sweeper import Shared, Sweeper, correct

if TYPE_CHECKING:
    from pathlib import Path

    from bittrue.flow.systems.light.recipe import Recipe
    from bittrue.models.data.sets import Data
    from bittrue.models.light.settings import Array, Calibrate
    from bittrue.models.training.settings import Qat


@dataclass(frozen=True)
class Settings:
    """Of a point; `training` is None for a conversion without training."""

    array: Array
    calibrate: Calibrate
    training: Qat | None


@dataclass(frozen=True, eq=False)
class Trained(Shared):
    """Both trained networks, and the calibration of the twin."""

    regular: Any
    twin: Any
    calibrate: Calibrate


class Conversions(Sweeper):
    """Conversions of one trained network."""

    sections = ("array", "calibrate")
    because = "a sweep converts one trained network"
    seed = "array.seed"
    files = ("network.pt", "twin.pt")
    training = "finetune"
    names = {
        "array.rows": "rows of a tile",
        "array.columns": "columns of a tile",
        "array.input_bits": "bits of the input DAC",
        "array.weight_bits": "bits of the weight DAC",
        "array.adc_bits": "bits of the ADC",
        "array.window": "window of the ADC",
        "array.window_percentile": "percentile within the ADC's window, %",
        "array.rails": "rails",
        "array.extinction_db": "extinction ratio, dB",
        "array.crosstalk_db": "crosstalk to a neighbouring column, dB",
        "array.weight_error": "deviation of setting a cell, of an open cell",
        "array.drift": "deviation by drift, of an open cell",
        "array.sum_bits": "bits of a layer's sum",
        "array.noise.relative": "relative intensity noise, of the signal",
        "array.noise.rin_db_per_hz": "relative intensity noise, dB/Hz",
        "array.noise.photons": "photons detected of a full product",
        "array.noise.thermal": "thermal noise, in full products",
        "array.noise.current_a_per_rthz": "noise current of the receiver, A/√Hz",
        "array.noise.bandwidth_hz": "bandwidth, Hz",
        "array.noise.power_w": "optical power of a full product, W",
        "array.noise.wavelength_m": "wavelength, m",
        "array.noise.integration_s": "integration time, s",
        "array.noise.quantum_efficiency": "quantum efficiency",
        "calibrate.method": "calibration of alpha",
        "calibrate.percentile": "percentile of the inputs within alpha, %",
        "calibrate.alpha": "alpha",
    }
    examples = (
        "bittrue sweep photonic-mlp-digits --over array.adc_bits=4,5,6,8 --over array.rows=16,64",
        "bittrue sweep photonic-mlp-digits --over array.noise.thermal=0,0.01,0.1 --over array.adc_bits=6,8 --seeds 16",
        "bittrue sweep photonic-mlp-digits --over array.noise.rin_db_per_hz=-150,-110 array.noise.bandwidth_hz=1e9",
        "bittrue sweep photonic-mlp-digits --over calibrate.method=constant --over calibrate.alpha=0.5,0.8,1",
        "bittrue sweep photonic-mlp-fashion-mnist --over array.window=pedestal,full --scheduler tcp://head:8786",
    )

    def random(self, variant: Recipe) -> bool:
        return bool(variant.array.noise.on or variant.array.weight_error or variant.array.drift)

    def share(self, base: Recipe, variants: Sequence[Recipe], folder: Path, data: Data, trained: bool) -> Trained:
        """Without training as many training images as any point looks at."""
        from bittrue.models.data.sets import Split
        from bittrue.models.light.network import SimpleMLP
        from bittrue.models.light.transform import NonNegativeNetwork
        from bittrue.models.training import storage

        if not trained:
            needed = max(max(variant.array.images, variant.calibrate.images) for variant in variants)
            train = Split(data.train.images[:needed], data.train.labels[:needed])
            data = replace(data, train=train, val=Split(data.val.images[:0], data.val.labels[:0]))
        networks = (
            storage.load(folder / name, kind)
            for name, kind in zip(self.files, (SimpleMLP, NonNegativeNetwork), strict=True)
        )
        return Trained(data, *networks, base.calibrate)

    def task(self, base: Recipe, variant: Recipe, seed: int, trained: bool) -> tuple[Settings, dict[str, Any]]:
        array = type(variant.array).model_validate(variant.array.model_dump() | {"seed": seed})
        training = variant.finetune if trained else None
        return Settings(array, variant.calibrate, training), {
            "array": array.model_dump(mode="json"),
            "calibrate": variant.calibrate.model_dump(mode="json"),
            "training": training and training.model_dump(mode="json"),
            "trained_with": base.calibrate.model_dump(mode="json"),
        }

    def evaluate(self, settings: Settings, shared: Trained) -> dict[str, Any]:
        from bittrue.models.graph.lower import lower
        from bittrue.models.light.convert import convert
        from bittrue.models.light.transform import transform
        from bittrue.models.training import qat

        data, twin = shared.data, shared.twin
        if settings.calibrate != shared.calibrate:
            twin = transform(shared.regular, settings.calibrate, images=data.train.images)
        network = convert(twin, data, settings.array)
        if settings.training is not None and settings.training.epochs:
            qat.fit(network, data, settings.training)
        program = lower(network, name="sweep", dataset=data.name, classes=list(data.classes))
        return {"correct": correct(program, network, data.test)}

    def accuracy(self, shared: Trained) -> float:
        from bittrue.models.training.loop import accuracy

        return accuracy(shared.twin, shared.data.test)
