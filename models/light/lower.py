"""Photonic layers to `sim` operations: importing this module teaches `models.graph.lower` about them."""

from __future__ import annotations

import numpy as np

from bittrue.models.graph.lower import Lowering, emit, whole
from bittrue.models.light.array import IntegerPhotonicArray
from bittrue.models.light.integer import IntegerPhotonicTable, IntegerTileSum
from bittrue.sim.contract import Format
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.requantize import Requantize


@emit.register
def _array(layer: IntegerPhotonicArray, lowering: Lowering, name: str, source: str) -> str:
    cells = layer.cells(*layer.codes())
    low, shift = layer.window(cells)
    plus, minus = whole(cells.plus), whole(cells.minus)
    array = PhotonicMac(
        lowering.type(source),
        plus,
        minus,
        layer.array.rows,
        layer.bits,
        shift,
        whole(cells.calibrated + low),
        Format.covering(np.maximum(plus, minus), signed=False),
        layer.noise(),
    )
    return lowering.add(name, array, source, scale=layer.scale)


@emit.register
def _sum(layer: IntegerTileSum, lowering: Lowering, name: str, source: str) -> str:
    shift, constant, step = layer.integers()
    fmt = Format(layer.bits, signed=layer.signed)
    requantize = Requantize(
        len(shift), whole(shift), bias_acc=whole(constant), format=fmt, floor=None if layer.signed else 0
    )
    return lowering.add(name, TileSum(lowering.type(source), step, requantize), source, scale=layer.scale)


@emit.register
def _table(layer: IntegerPhotonicTable, lowering: Lowering, name: str, source: str) -> str:
    operation = Lerp(lowering.type(source), whole(layer.integers())[None], Format(layer.bits, signed=False))
    lowering.functions[name] = {"x_scale": lowering.scales[source], "y_scale": layer.scale, "x_start": layer.start}
    return lowering.add(name, operation, source, scale=layer.scale)
