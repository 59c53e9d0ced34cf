"""An estimate of what an inference on a photonic array costs, beside the same layers in INT8.

Counted per image from the geometry: an input DAC for every rail, input and pass over the columns; a weight DAC for
every cell that is loaded; a converter with its amplifier for every tile and output; the digital sums over the tiles and
the table of the activation. Both networks read their weights from memory, and the array loads them into its cells, once
for `images_per_load` images.

Figures, at 8 bits; a converter's energy doubles with every bit, as in Walden's figure of merit:

    ADC         14.8 mW at 10 GS/s: "A 10GS/s 8b 25fJ/c-s 2850um2 Two-Step Time-Domain ADC", 14 nm, ISSCC 2022
    DAC         50 mW at 14 GS/s, amplifier 3 mW at the rate of the ADC: component table of the simulator published
                with Zhu et al., "Lightening-Transformer", HPCA 2024
    digital     `flow.report.energy`: M. Horowitz, ISSCC 2014, 45 nm

Light is counted where the noise says how much there is: every input lights `columns` cells with one full product,
divided by the quantum efficiency and by a wall-plug efficiency of 0.2 (an assumption of ours). Holding and tuning the
cells, drivers of modulators, clock and control are left out: the figures compare, they predict no chip.
"""

from __future__ import annotations

import math
from typing import Any

from bittrue.flow.report.energy import SOURCE, addition, memory, multiplication
from bittrue.models.light.settings import LIGHT_SPEED, PLANCK, Array

ADC_PJ, DAC_PJ, AMPLIFIER_PJ = 14.8 / 10, 50 / 14, 3 / 10
WALL_PLUG = 0.2
SOURCES = (
    '"A 10GS/s 8b 25fJ/c-s 2850um2 Two-Step Time-Domain ADC", 14 nm, ISSCC 2022 (ADC)',
    'component table of Zhu et al., "Lightening-Transformer", HPCA 2024 (DAC, amplifier)',
    SOURCE,
)
ACCUMULATOR_BITS = 32


def estimate(sizes: tuple[int, ...], array: Array, images_per_load: int = 1) -> dict[str, Any]:
    """pJ an image by purpose, of the photonic network and of its INT8 twin, for layers of these sizes."""
    layers = list(zip(sizes[:-1], sizes[1:], strict=True))
    rails = 2 if array.rails == "two" else 1
    passes = [math.ceil(outputs / array.columns) for _, outputs in layers]
    tiles = [math.ceil(inputs / array.rows) for inputs, _ in layers]
    inputs = sum(2 * width * count for (width, _), count in zip(layers, passes, strict=True))
    cells = sum(rails * width * outputs for width, outputs in layers)
    samples = sum(count * outputs for count, (_, outputs) in zip(tiles, layers, strict=True))
    table = sum(memory(array.input_bits, array.input_bits << array.sum_bits) * width for width in sizes[1:-1])
    weights = sum(memory(8 * width * outputs, 8 * width * outputs) for width, outputs in layers) / images_per_load
    photonic = {
        "input_dacs": inputs * DAC_PJ * 2.0 ** (array.input_bits - 8),
        "weight_dacs": cells * DAC_PJ * 2.0 ** (array.weight_bits - 8) / images_per_load,
        "weights": weights,
        "converters": samples * (ADC_PJ * 2.0 ** (array.adc_bits - 8) + AMPLIFIER_PJ),
        "digital": samples * addition(ACCUMULATOR_BITS) + table,
    }
    factors = array.noise.factors
    if math.isfinite(factors.photons):
        photon = PLANCK * LIGHT_SPEED / array.noise.wavelength_m / array.noise.quantum_efficiency / WALL_PLUG
        lit = sum(width * count * array.columns for (width, _), count in zip(layers, passes, strict=True))
        photonic["light"] = lit * factors.photons * photon * 1e12
    macs = sum(width * outputs for width, outputs in layers)
    int8 = {
        "products": macs * (multiplication(8, 8) + addition(ACCUMULATOR_BITS)),
        "weights": weights,
        "digital": table,
    }
    return {
        "images_per_load": images_per_load,
        "photonic_pj": photonic,
        "int8_pj": int8,
        "photonic_total_pj": sum(photonic.values()),
        "int8_total_pj": sum(int8.values()),
        "conversions": {"inputs": inputs, "cells": cells, "samples": samples},
        "sources": list(SOURCES),
    }
