"""Area before synthesis: what each stage costs in LUTs, flip-flops, DSPs and block RAMs of an ECP5."""

from __future__ import annotations

from dataclasses import dataclass

from rtl.pipeline import Network


@dataclass(frozen=True)
class Area:
    """Resources in the units of the ECP5: LUT4, flip-flop, 18x18 multiplier, 18 kbit block RAM."""

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


def estimate(network: Network) -> Area:  # placeholder until calibrated below
    raise NotImplementedError
