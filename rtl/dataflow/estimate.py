"""Area before synthesis: what each stage costs in LUTs, flip-flops, DSPs and block RAMs of an ECP5."""

from __future__ import annotations

from dataclasses import dataclass

from bittrue.rtl.dataflow.network import Network
from bittrue.rtl.dataflow.stage import Structure


@dataclass(frozen=True)
class Area:
    """Resources in the units of the ECP5: LUT4 (TRELLIS_COMB), flip-flop, 18x18 multiplier, 18 kbit block RAM.

    Flip-flops are those of the fabric, without the registers that multipliers and block RAMs take.
    """

    lut: int
    ff: int
    dsp: int
    bram: int

    def over(self, device: Area) -> dict[str, int]:
        """What exceeds the device, and by how much."""
        names = ("lut", "ff", "dsp", "bram")
        return {n: getattr(self, n) - getattr(device, n) for n in names if getattr(self, n) > getattr(device, n)}

    def excess(self, device: Area) -> str:
        return ", ".join(f"{n} {getattr(self, n)} of {getattr(device, n)}" for n in self.over(device))


DEVICES = {
    "ecp5-25k": Area(24288, 24288, 28, 56),
    "ecp5-45k": Area(43848, 43848, 72, 108),
    "ecp5-85k": Area(83640, 83640, 156, 208),
}

#: LUTs per unit of each part of a `Structure`, and per stage; fitted to synthesised stages (`python -m bench area`).
PRICES = {
    "stage": 14.0,
    "adder_bits": 0.927,
    "adders": 3.1,
    "select_bits": 0.961,
    "counter_bits": 1.57,
    "table_bits": 0.0538,
    "lutrams": 6.54,
}


def area(built: Structure, stages: int = 1) -> Area:
    """The price of one stage, or of what is none."""
    lut = stages * PRICES["stage"] + sum(
        price * getattr(built, part) for part, price in PRICES.items() if part != "stage"
    )
    return Area(round(lut), built.registers - built.inside + built.read_bits, built.multipliers, built.block_rams)


def estimate(network: Network, framing: Structure) -> Area:
    """The area of all stages of a pipeline, and of the framing at its ports (`rtl.bus.framing.structure`)."""
    parts = [area(element.stage.structure()) for element in network.elements] + [area(framing, stages=0)]
    if network.loader is not None:
        parts.append(area(network.loader.structure(), stages=0))
    if network.groups is not None:
        parts.append(area(network.groups.structure(), stages=0))
    forks = sum(element.readers > 1 for element in network.elements)
    lut, ff, dsp, bram = (sum(getattr(part, name) for part in parts) for name in ("lut", "ff", "dsp", "bram"))
    return Area(lut + 4 * forks, ff + 2 * forks, dsp, bram)
