"""Moves pipeline registers of an ECP5 netlist into the hard blocks beside them.

yosys maps a multiplier to MULT18X18D and a memory to DP16KD with every register of those blocks bypassed, so a
register that the RTL put beside a block stays in the fabric: the block RAM shows its 5.6 ns unregistered clock-to-out
and the multiplier its 3.9 ns combinational delay, each with a route on both sides. The blocks own those registers.
This pass works on yosys' JSON netlist after `synth_ecp5` and turns

* flip-flops fed by a DP16KD read port into its output register (`REGMODE_A`/`REGMODE_B` = `OUTREG`),
* flip-flops that feed both operands of a MULT18X18D into its input registers (`REG_INPUTA_CLK`, `REG_INPUTB_CLK`),
* flip-flops fed by a MULT18X18D into its output register (`REG_OUTPUT_CLK`).

A second row of flip-flops behind a product stays in the fabric: there it halves the way to the adder, which may be
right across the chip, while the pipeline register of the block would shorten no path that is timed.

The netlist keeps its function cycle for cycle. A register moves only if

* all bits of the port or operand are plain rising-edge flip-flops of one control set (clock, enable, synchronous
  reset) that start at 0, as the registers of the blocks do; constant-0 operand bits need no flip-flop, constant-1
  bits forbid it (a register would show 0 in the first cycle);
* for an output, the flip-flop is the only reader of the bit; a flip-flop that feeds an operand may have other readers:
  it then stays for them, and the block registers the same value a second time;
* a flip-flop with an enable has no reset (the fabric resets a disabled flip-flop; the blocks are not documented to);
* a block RAM port has no reset, and an enable of the port itself is either constant or the enable of the flip-flops;
* both operands of a multiplier move or neither does: nextpnr has no timing data for one registered operand.

Block RAM outputs are taken before multiplier operands: of a single row of flip-flops between the two, the block RAM
gains more (5.6 ns against 3.9 ns).
"""

from collections import Counter
from dataclasses import dataclass

from bittrue.sim.errors import BittrueError

OPERAND_BITS = 18
PRODUCT_BITS = 36
PORT_BITS = 18


@dataclass(frozen=True)
class Absorbed:
    """What `absorb` moved: blocks per kind of register, and flip-flops that left the fabric."""

    block_ram_outputs: int = 0
    multiplier_inputs: int = 0
    multiplier_outputs: int = 0
    flip_flops: int = 0

    def sentence(self) -> str:
        """One sentence for the notes of a synthesis result."""
        return (
            f"registers moved into hard blocks: {self.block_ram_outputs} block RAM outputs, "
            f"{self.multiplier_inputs} multiplier inputs, {self.multiplier_outputs} multiplier outputs; "
            f"{self.flip_flops} flip-flops left the fabric"
        )


@dataclass(frozen=True)
class _Control:
    """Control set of a flip-flop: nets (integers) or None where the signal is constantly inactive."""

    clock: int
    enable: int | None
    reset: int | None


def absorb(netlist: dict, top: str | None = None) -> Absorbed:
    """Moves registers of a flat ECP5 `netlist` (yosys JSON as a dict, changed in place) into DP16KD and MULT18X18D.

    `top` names the module; by default the one with the attribute `top`. Raises BittrueError where there is none.
    """
    return _Pass(_module(netlist, top)).run()


def _module(netlist: dict, top: str | None) -> dict:
    modules = netlist.get("modules", {})
    if top is None:
        tops = [name for name, module in modules.items() if int(module["attributes"].get("top", "0"), 2)]
        if len(tops) != 1:
            raise BittrueError(f"the netlist has {len(tops)} top modules, one is needed; name it with `top`")
        top = tops[0]
    if top not in modules:
        raise BittrueError(f"the netlist has no module {top!r}; it has {sorted(modules)[:8]}")
    return modules[top]


class _Pass:
    def __init__(self, module: dict) -> None:
        self.cells = module["cells"]
        self.counts: Counter[str] = Counter()
        self.readers: Counter[int] = Counter()  # how many cell inputs and module outputs read a net
        self.by_d: dict[int, str] = {}  # flip-flop that registers a net (the only one, where `readers` says one)
        self.by_q: dict[int, str] = {}  # flip-flop that drives a net
        for port in module["ports"].values():
            if port["direction"] != "input":
                self.readers.update(bit for bit in port["bits"] if isinstance(bit, int))
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                if cell["port_directions"].get(port) != "output":
                    self.readers.update(bit for bit in bits if isinstance(bit, int))
            if cell["type"] == "TRELLIS_FF":
                if "DI" in cell["connections"] and isinstance(cell["connections"]["DI"][0], int):
                    self.by_d[cell["connections"]["DI"][0]] = name
                self.by_q[cell["connections"]["Q"][0]] = name

    def run(self) -> Absorbed:
        blocks = {
            kind: [cell for cell in self.cells.values() if cell["type"] == kind] for kind in ("DP16KD", "MULT18X18D")
        }
        for cell in blocks["DP16KD"]:
            self._block_ram(cell)
        for cell in blocks["MULT18X18D"]:
            registers = _MultiplierRegisters(cell)
            self._operands(cell, registers)
            self._product(cell, registers)
        return Absorbed(**self.counts)

    # -- flip-flops --------------------------------------------------------------------------------------------------

    def _control(self, name: str) -> _Control | None:
        """The control set of a flip-flop that a block register can replace, None for any other."""
        cell = self.cells[name]
        parameters, pins = cell["parameters"], cell["connections"]
        clock = pins.get("CLK", ["x"])[0]
        plain = (
            isinstance(clock, int)
            and parameters.get("CLKMUX", "CLK") == "CLK"
            and parameters.get("REGSET", "RESET") == "RESET"
            and parameters.get("LSRMODE", "LSR") == "LSR"
            and len(pins.get("DI", [])) == 1
        )
        enable = self._active(pins, "CE", parameters.get("CEMUX", "1").strip())
        reset = self._active(pins, "LSR", parameters.get("LSRMUX", "LSR"))
        if not plain or enable is False or reset is False or reset == "1":
            return None
        if reset is not None and parameters.get("SRMODE", "LSR_OVER_CE") != "LSR_OVER_CE":
            return None
        if enable is not None and reset is not None:
            return None
        return _Control(clock, enable, reset)

    @staticmethod
    def _active(pins: dict, pin: str, mux: str) -> int | None | bool:
        """The net of an enable or reset, None if it never acts, False if it cannot be expressed by a block."""
        net = pins.get(pin, ["0" if pin == "LSR" else "1"])[0]
        idle = "0" if pin == "LSR" else "1"
        if mux == idle or (mux == pin and net in (idle, "x")):
            return None
        return net if mux == pin and isinstance(net, int) else False

    def _behind(self, bits: list) -> tuple[_Control, list[str]] | None:
        """The flip-flops that are the only readers of `bits` and their one control set; unread bits have none."""
        read = [bit for bit in bits if isinstance(bit, int) and self.readers[bit]]
        if not read or any(self.readers[bit] != 1 or bit not in self.by_d for bit in read):
            return None
        names = [self.by_d[bit] for bit in read]
        controls = {self._control(name) for name in names}
        control = controls.pop()
        return None if controls or control is None else (control, names)

    def _before(self, bits: list) -> tuple[_Control, list[str]] | None:
        """The flip-flops that drive `bits` (one name per non-constant bit) and their one control set."""
        if "1" in bits or all(not isinstance(bit, int) for bit in bits):
            return None
        names = [self.by_q.get(bit) for bit in bits if isinstance(bit, int)]
        if None in names:
            return None
        controls = {self._control(name) for name in names}
        control = controls.pop()
        return None if controls or control is None else (control, names)

    def _remove(self, name: str) -> None:
        pins = self.cells.pop(name)["connections"]
        for pin in ("CLK", "CE", "LSR", "DI", "M"):
            self.readers.subtract(bit for bit in pins.get(pin, []) if isinstance(bit, int))
        self.by_d.pop(pins["DI"][0], None)
        self.by_q.pop(pins["Q"][0], None)
        self.counts["flip_flops"] += 1

    def _replace(self, cell: dict, pins: list[str], names: list[str]) -> None:
        """Lets the block drive what the flip-flops drove, and removes them."""
        driven = {self.cells[name]["connections"]["DI"][0]: self.cells[name]["connections"]["Q"][0] for name in names}
        for pin in pins:
            bits = cell["connections"].get(pin)
            if bits and bits[0] in driven:
                cell["connections"][pin] = [driven[bits[0]]]
            elif bits:
                cell["connections"].pop(pin)  # nobody read it unregistered, nobody reads it registered
        for name in names:
            self._remove(name)

    # -- block RAM ---------------------------------------------------------------------------------------------------

    def _block_ram(self, cell: dict) -> None:
        wide = _width(cell, "A") == 36 or _width(cell, "B") == 36  # one read port, B, on the outputs of both halves
        for port in "B" if wide else "AB":
            halves = "AB" if wide else port
            pins = [f"DO{half}{index}" for half in halves for index in range(PORT_BITS)]
            found = self._behind([bit for pin in pins for bit in cell["connections"].get(pin, [])])
            if found is None or not self._port_agrees(cell, port, found[0]):
                continue
            control, names = found
            for half in halves:
                cell["parameters"][f"REGMODE_{half}"] = "OUTREG"
                cell["connections"][f"OCE{half}"] = ["1" if control.enable is None else control.enable]
            if control.enable is not None:
                self.readers[control.enable] += len(halves)
            self._replace(cell, pins, names)
            self.counts["block_ram_outputs"] += 1

    def _port_agrees(self, cell: dict, port: str, control: _Control) -> bool:
        pins, parameters = cell["connections"], cell["parameters"]
        clock = f"CLK{port}"
        enabled = pins.get(f"CE{port}", ["1"])[0]
        return (
            parameters.get(f"REGMODE_{port}", "NOREG") == "NOREG"
            and parameters.get(f"{clock}MUX", clock) == clock
            and pins.get(clock, ["x"])[0] == control.clock
            and control.reset is None
            and pins.get(f"RST{port}", ["0"])[0] in ("0", "x")
            and parameters.get(f"RST{port}MUX", f"RST{port}") == f"RST{port}"
            and (enabled == "1" or enabled == control.enable)
        )

    # -- multiplier --------------------------------------------------------------------------------------------------

    def _operands(self, cell: dict, registers: "_MultiplierRegisters") -> None:
        if not registers.free("INPUTA", "INPUTB") or cell["connections"].get("SOURCEA", ["0"])[0] not in ("0", "x"):
            return
        if cell["connections"].get("SOURCEB", ["0"])[0] not in ("0", "x"):
            return
        found = {side: self._before(_operand(cell, side)) for side in "AB"}
        if None in found.values() or len({control.clock for control, _ in found.values()}) != 1:
            return
        for side, (control, names) in found.items():
            registers.use(f"INPUT{side}", control)
            bits = [index for index, bit in enumerate(_operand(cell, side)) if isinstance(bit, int)]
            for index, name in zip(bits, names, strict=True):
                q, d = (self.cells[name]["connections"][pin][0] for pin in ("Q", "DI"))
                cell["connections"][f"{side}{index}"] = [d]
                self.readers[q] -= 1
                self.readers[d] += isinstance(d, int)
        for name in {name for _, names in found.values() for name in names}:
            if not self.readers[self.cells[name]["connections"]["Q"][0]]:
                self._remove(name)
        self.counts["multiplier_inputs"] += 1

    def _product(self, cell: dict, registers: "_MultiplierRegisters") -> None:
        pins = [f"P{index}" for index in range(PRODUCT_BITS)]
        found = self._behind([bit for pin in pins for bit in cell["connections"].get(pin, [])])
        if found is not None and registers.free("OUTPUT") and registers.takes(found[0]):
            registers.use("OUTPUT", found[0])
            self._replace(cell, pins, found[1])
            self.counts["multiplier_outputs"] += 1


class _MultiplierRegisters:
    """The registers of one MULT18X18D: all on clock input 0 (nextpnr times no other), four enables and resets."""

    def __init__(self, cell: dict) -> None:
        self.cell = cell
        self.used: dict[str, _Control] = {}

    def free(self, *registers: str) -> bool:
        return all(self.cell["parameters"].get(f"REG_{register}_CLK", "NONE") == "NONE" for register in registers)

    def takes(self, control: _Control) -> bool:
        return all(other.clock == control.clock for other in self.used.values())

    def use(self, register: str, control: _Control) -> None:
        self.used[register] = control
        pins, parameters = self.cell["connections"], self.cell["parameters"]
        parameters["RESETMODE"] = "SYNC"
        parameters["GSR"] = "DISABLED"
        parameters[f"REG_{register}_CLK"] = "CLK0"
        pins["CLK0"] = [control.clock]
        for signal, net, idle in (("CE", control.enable, "1"), ("RST", control.reset, "0")):
            parameters[f"REG_{register}_{signal}"] = self._pin(signal, idle if net is None else net)
        for pin in ("CLK0", *(name for name in pins if name.startswith(("CE", "RST")))):
            self.cell["port_directions"][pin] = "input"

    def _pin(self, signal: str, net: int | str) -> str:
        """The pin that carries `net`: the one that already does, or the next free of four."""
        pins = self.cell["connections"]
        names = [f"{signal}{index}" for index in range(4)]
        name = next((name for name in names if pins.get(name) == [net]), None)
        name = name or next(name for name in names if name not in pins)
        pins[name] = [net]
        return name


def _width(cell: dict, port: str) -> int:
    value = cell["parameters"].get(f"DATA_WIDTH_{port}", "10010")
    return value if isinstance(value, int) else int(value, 2)


def _operand(cell: dict, side: str) -> list:
    return [cell["connections"].get(f"{side}{index}", ["0"])[0] for index in range(OPERAND_BITS)]
