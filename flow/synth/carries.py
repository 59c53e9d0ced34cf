"""Trims the carry chains of an ECP5 netlist of what nextpnr would put at their ends.

nextpnr brings a constant into a chain through a CCU2C of its own, and takes the carry of the last CCU2C out through
another, even where nobody reads it: four LUT sites an adder. This pass works on yosys' JSON netlist after `synth_ecp5`:

* a carry that nobody reads is left open;
* where the last half of a chain is spare, all move up by half, and the first half makes the constant: its LUTs say that
  a carry is generated (1) or not (0), whatever comes in, so the carry in of the chain is left open.

The netlist keeps its function.
"""

from collections import defaultdict
from typing import Any

#: What nextpnr takes for open.
OPEN = ["x"]
PINS, PARAMETERS = "ABCDS", ("INIT{}", "INJECT1_{}")
#: The parameters of a half that makes a constant carry: the table of its four inputs is 0 while D is 1, and that of
#: two of them, the lowest four bits, generates the carry.
CONSTANT = {"0": ("0" * 16, "NO"), "1": ("0" * 12 + "1" * 4, "NO")}


def trim(module: dict[str, Any]) -> int:
    """Trims all chains of a flat module (yosys' JSON, changed in place): the LUT sites that are saved."""
    readers: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for name, port in module["ports"].items():
        for bit in port["bits"] if port["direction"] != "input" else ():
            readers[bit].append(("", name))
    for name, cell in module["cells"].items():
        for pin, bits in cell["connections"].items():
            for bit in bits if cell["port_directions"].get(pin) != "output" else ():
                readers[bit].append((name, pin))
    cells = {name: cell["connections"] for name, cell in module["cells"].items() if cell["type"] == "CCU2C"}
    saved = 0
    for pins in cells.values():
        if not readers[pins["COUT"][0]]:
            pins["COUT"] = OPEN
            saved += 2
    for name, pins in cells.items():
        if pins["CIN"][0] in CONSTANT:
            chain = [name]
            while pins["COUT"] != OPEN and [pin for _, pin in readers[pins["COUT"][0]]] == ["CIN"]:
                chain.append(readers[pins["COUT"][0]][0][0])
                pins = cells[chain[-1]]
            if pins["COUT"] == OPEN and not readers[pins["S1"][0]]:
                _move_up([module["cells"][link] for link in chain])
                saved += 2
    return saved


def leave_open(module: dict[str, Any]) -> None:
    """Takes open pins out of a module, changed in place: as Verilog they are not there."""
    for cell in module["cells"].values():
        for pin in [pin for pin, bits in cell["connections"].items() if bits == OPEN]:
            del cell["connections"][pin]


def _move_up(chain: list[dict[str, Any]]) -> None:
    """The halves of a chain, the last of which is spare, each one further, and the constant carry in the first."""
    halves = [_half(cell, half) for cell in chain for half in (0, 1)][:-1]
    first = chain[0]["connections"]
    pins = dict(zip(PINS, (["0"], ["0"], ["0"], ["1"], OPEN), strict=True))
    halves.insert(0, (pins, CONSTANT[first["CIN"][0]]))
    first["CIN"] = OPEN
    for k, (pins, values) in enumerate(halves):
        cell, half = chain[k // 2], k % 2
        cell["connections"].update({f"{pin}{half}": bits for pin, bits in pins.items()})
        cell["parameters"].update(zip((name.format(half) for name in PARAMETERS), values, strict=True))


def _half(cell: dict[str, Any], half: int) -> tuple[dict[str, list], tuple[str, ...]]:
    """Its pins, and the values of its parameters."""
    pins = {pin: cell["connections"][f"{pin}{half}"] for pin in PINS}
    return pins, tuple(cell["parameters"][name.format(half)] for name in PARAMETERS)
