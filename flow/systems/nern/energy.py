"""The energy of a boot beside that of reading the weights from another chip, once or for every inference.

    once = bits E        times = boot / once        inferences = ceil(boot / once)

Read once, after power-up, into the same memories, weights cost `once`, and a boot `times` as much: energy speaks for a
boot only where `times` is below 1. Where nothing is held on the chip and the weights are read again for every
inference, a boot has paid after `inferences` of them.

DRAM: M. Horowitz, ISSCC 2014: 1.3 to 2.6 nJ for 64 bits. Serial NOR flash: data sheet of GigaDevice's GD25Q16, at most
20 mA at up to 3.6 V (3.3 V are taken) while four lines give up to 360 Mbit/s; the current is a most, so this is one.
"""

from __future__ import annotations

import math
from typing import Any

#: What a bit costs, pJ.
MEMORIES = {
    "DRAM, least": 1300 / 64,
    "DRAM, most": 2600 / 64,
    "serial flash": 0.020 * 3.3 / 360e6 * 1e12,
}
SOURCES = {
    "DRAM": "M. Horowitz, ISSCC 2014: 1.3 to 2.6 nJ for 64 bits",
    "serial flash": "GD25Q16 data sheet, GigaDevice: at most 20 mA, here at 3.3 V, while four lines read 360 Mbit/s",
}


def beside(boot: float, bits: int) -> list[dict[str, Any]]:
    """For each memory: what a bit costs, reading all bits `once`, how many `times` as much a boot of so many pJ costs,
    and after how many `inferences` it has paid that read them every time."""
    rows = []
    for name, each in MEMORIES.items():
        once = bits * each
        rows.append(
            {"memory": name, "pj": each, "once": once, "times": boot / once, "inferences": math.ceil(boot / once)}
        )
    return rows
