"""AXI4-Lite: the wires, and the slave of a register map (`rtl.bus.registers`).

A write takes its address and its data in any order and answers two cycles after it has both; a read of a register
answers in the third cycle after its address, one of a window `latency` cycles later. One access of each kind is under
way at a time; a read that would be carried out with a write waits two cycles, so that no memory of a window is read in
the cycle in which it is written. Every access is answered.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.bus.registers import FAULTS, OKAY, SLVERR, WORD, Field, Register, RegisterMap, Window


class AxiLite(wiring.Signature):
    """AXI4-Lite, as its slave sees it: 32 data bits, byte addresses."""

    def __init__(self, address_bits: int):
        self.address_bits = address_bits
        super().__init__(
            {
                "awaddr": In(address_bits),
                "awprot": In(3),
                "awvalid": In(1),
                "awready": Out(1),
                "wdata": In(32),
                "wstrb": In(4),
                "wvalid": In(1),
                "wready": Out(1),
                "bresp": Out(2),
                "bvalid": Out(1),
                "bready": In(1),
                "araddr": In(address_bits),
                "arprot": In(3),
                "arvalid": In(1),
                "arready": Out(1),
                "rdata": Out(32),
                "rresp": Out(2),
                "rvalid": Out(1),
                "rready": In(1),
            }
        )


class WindowPort(wiring.Signature):
    """A window's memory, as the slave sees it.

    write, write_at, data   in a cycle with `write`, word `write_at` becomes the low bits of `data`
    read, read_at, value    `value` is word `read_at` in the cycle `latency` after the one with `read`; `read_at` stays

    `write_at` and `read_at` are numbers of words, the index of every dimension in bits of its own (`index`).
    """

    def __init__(self, window: Window):
        bits = max(1, window.at_bits)
        members = {}
        if window.access != "ro":
            members |= {"write": Out(1), "write_at": Out(bits), "data": Out(WORD)}
        if window.access != "wo":
            members |= {"read": Out(1), "read_at": Out(bits), "value": In(WORD)}
        super().__init__(members)


def index(window: Window, at: Value) -> list[Value]:
    """The index in every dimension, of the number of a word."""
    parts, top = [], window.at_bits
    for bits in window.index_bits:
        parts.append(at[top - bits : top])
        top -= bits
    return parts


class Slave(wiring.Component):
    """Answers AXI4-Lite for a register map, and holds its registers.

    axi                 the bus
    busy                the design is at work: what is `idle` waits
    written             the word of a write that is looked at, for `<register>_refused`
    <member>            of each field (`Register.member`), by its access
                          ro    in: the value (none for a constant)
                          rw    out: the value; with `hardware`, `<member>_set` and `<member>_next` change it
                          w1s   out: the bits; `<member>_done` clears them
                          w1c   in: strobes that set them; the slave's own faults have none
    <register>_refused  in, of a `checked` register: the design does not take the value `written`
    <window>            `WindowPort`

    A write from the bus comes before a change by the design in the same cycle; a fault before its clearing.
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, table: RegisterMap):
        self.map = table
        members = {"axi": Out(AxiLite(table.address_bits)), "written": Out(WORD)}
        if table.idle:
            members["busy"] = In(1)
        for register in table.registers:
            for field in register.fields:
                name = register.member(field)
                if self.is_fault(register, field) or (field.access == "ro" and field.constant):
                    continue
                members[name] = Out(field.bits) if field.access in ("rw", "w1s") else In(field.bits)
                if field.access == "w1s":
                    members[f"{name}_done"] = In(field.bits)
                elif field.hardware:
                    members |= {f"{name}_set": In(1), f"{name}_next": In(field.bits)}
            if register.checked:
                members[f"{register.name.lower()}_refused"] = In(1)
        for window in table.windows:
            members[window.member] = Out(WindowPort(window))
        super().__init__(members)

    def is_fault(self, register: Register, field: Field) -> bool:
        """Whether the slave itself sets the field."""
        return register.name == self.map.errors and field.name in FAULTS

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        self.faults = {fault: Signal(name=f"fault_{fault.lower()}") for fault in FAULTS}
        m.d.comb += [signal.eq(0) for signal in self.faults.values()]  # of what nothing drives, Icarus says X
        self.working = self.busy if self.map.idle else Const(0)
        self.state: dict[str, Signal] = {}
        self.clears: dict[str, Signal] = {}
        for register in self.map.registers:
            for field in register.fields:
                self.hold(m, register, field)
        self.read_channel(m, self.write_channel(m))
        return m

    def hold(self, m: Module, register: Register, field: Field) -> None:
        """The bits of a field, as the design changes them; writes from the bus follow."""
        name = register.member(field)
        if field.access == "ro":
            return
        self.state[name] = now = Signal(field.bits, init=field.reset, name=f"{name}_now")
        if field.access == "w1c":
            self.clears[name] = clear = Signal(field.bits, name=f"{name}_clear")
            m.d.comb += clear.eq(0)
            sets = self.faults[field.name] if self.is_fault(register, field) else getattr(self, name)
            m.d.sync += now.eq((now & ~clear) | sets)
            return
        m.d.comb += getattr(self, name).eq(now)
        if field.access == "w1s":
            m.d.sync += now.eq(now & ~getattr(self, f"{name}_done"))
        elif field.hardware:
            with m.If(getattr(self, f"{name}_set")):
                m.d.sync += now.eq(getattr(self, f"{name}_next"))

    # -- writes --------------------------------------------------------------------------------------------
    def write_channel(self, m: Module) -> Signal:
        """Address and data are taken one by one, then both are looked at; two cycles later the answer is there.

        The signal that is returned says that a write is looked at.
        """
        axi = self.axi
        awaddr, wdata, wstrb = Signal(len(axi.awaddr)), Signal(WORD), Signal(4)
        have_address, have_data, answering, response = Signal(), Signal(), Signal(), Signal(2)
        accepted, whole, compared, looks = Signal(), Signal(), Signal(), Signal(name="write_looks")
        m.d.comb += [
            axi.awready.eq(~have_address),
            axi.wready.eq(~have_data),
            axi.bvalid.eq(answering),
            axi.bresp.eq(response),
            accepted.eq(0),
            looks.eq(compared & ~answering),
            self.written.eq(wdata),
        ]
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [awaddr.eq(axi.awaddr), have_address.eq(1)]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += [wdata.eq(axi.wdata), wstrb.eq(axi.wstrb), have_data.eq(1)]
        with m.If(answering & axi.bready):
            m.d.sync += answering.eq(0)
        # What is compared has its own cycle: data with what is legal, and the address, so that a bit each chooses.
        m.d.sync += [compared.eq(have_address & have_data & ~looks), whole.eq(wstrb == 0xF)]
        meant, within = self.meant(m, "write", awaddr)
        legal = {r.name: self.legal(m, r, wdata) for r in self.map.registers if r.writable}
        in_range = {w.name: self.in_range(m, w, wdata) for w in self.map.windows if w.access != "ro"}
        for window in self.map.windows:
            if window.access != "ro":
                port = getattr(self, window.member)
                m.d.comb += [port.write_at.eq(self.at(window, awaddr)), port.data.eq(wdata), port.write.eq(0)]
        with m.If(looks):
            m.d.sync += [have_address.eq(0), have_data.eq(0), answering.eq(1), response.eq(Mux(accepted, OKAY, SLVERR))]
            for window in self.map.windows:
                with m.If(within[window.name]):
                    self.write_window(m, window, awaddr, whole, in_range, accepted)
            for register in self.map.registers:
                with m.If(meant[register.name]):
                    self.write_register(m, register, wdata, whole, legal, accepted)
            with m.If(~Cat(meant.values(), within.values()).any()):
                m.d.comb += self.faults["ADDRESS"].eq(1)
        return looks

    def legal(self, m: Module, register: Register, wdata: Signal) -> Value:
        """Whether the fields allow the word, a cycle later: values in their ranges, 0 where there is no field."""
        unused = ((1 << WORD) - 1) & ~sum(field.mask for field in register.fields)
        rules = [(wdata & unused) == 0] if unused else []
        for field in register.fields:
            part, (low, high) = wdata[field.low : field.low + field.bits], field.range
            if field.access == "rw" and low > 0:
                rules.append(part >= low)
            if field.access == "rw" and high < (1 << field.bits) - 1:
                rules.append(part <= high)
        if not rules:
            return Const(1)
        found = Signal(name=f"{register.name.lower()}_legal")
        m.d.sync += found.eq(Cat(rules).all())
        return found

    def in_range(self, m: Module, window: Window, wdata: Signal) -> Value:
        """Whether the word is a code of the window's format, a cycle later."""
        fmt, code = window.format, wdata.as_signed() if window.format.signed else wdata
        found = Signal(name=f"{window.member}_legal")
        above = [code >= fmt.low] if fmt.signed else []
        m.d.sync += found.eq(Cat(*above, code <= fmt.high).all())
        return found

    def write_register(self, m: Module, register: Register, wdata, whole, legal, accepted) -> None:
        """A write that has arrived, to a register: carried out, or the reason why it is not."""
        if not register.writable:
            m.d.comb += self.faults["ACCESS"].eq(1)
            return
        refused = getattr(self, f"{register.name.lower()}_refused") if register.checked else Const(0)
        with m.If(self.working if register.idle else Const(0)):
            m.d.comb += self.faults["BUSY"].eq(1)
        with m.Elif(~(whole & legal[register.name]) | refused):
            m.d.comb += self.faults["VALUE"].eq(1)
        with m.Else():
            m.d.comb += accepted.eq(1)
            for field in register.fields:
                name, part = register.member(field), wdata[field.low : field.low + field.bits]
                if field.access == "rw":
                    m.d.sync += self.state[name].eq(part)
                elif field.access == "w1s":
                    m.d.sync += self.state[name].eq((self.state[name] & ~getattr(self, f"{name}_done")) | part)
                elif field.access == "w1c":
                    m.d.comb += self.clears[name].eq(part)

    def write_window(self, m: Module, window: Window, awaddr, whole, in_range, accepted) -> None:
        """A write that has arrived, to a window."""
        with m.If(~self.known(window, awaddr)):
            m.d.comb += self.faults["ADDRESS"].eq(1)
        if window.access == "ro":
            with m.Else():
                m.d.comb += self.faults["ACCESS"].eq(1)
            return
        with m.Elif(self.working if window.idle else Const(0)):
            m.d.comb += self.faults["BUSY"].eq(1)
        with m.Elif(~(whole & in_range[window.name])):
            m.d.comb += self.faults["VALUE"].eq(1)
        with m.Else():
            m.d.comb += [accepted.eq(1), getattr(self, window.member).write.eq(1)]

    # -- reads ---------------------------------------------------------------------------------------------
    def read_channel(self, m: Module, writes: Value) -> None:
        """Registers are answered at once, words of windows as soon as the design has them; both after `writes`."""
        axi = self.axi
        araddr = Signal(len(axi.araddr))
        taken, given, compared = (Signal(name=f"read_{name}") for name in ("taken", "given", "compared"))
        value, answer = Signal(WORD, name="read_value"), Signal(2, name="read_answer")
        readable = [window for window in self.map.windows if window.access != "wo"]
        waits = {w.name: Signal(w.latency, name=f"{w.member}_wait") for w in readable if w.latency}
        m.d.comb += [
            axi.arready.eq(~(taken | given | Cat(waits.values()).any())),
            axi.rvalid.eq(given),
            axi.rdata.eq(value),
            axi.rresp.eq(answer),
        ]
        for window in readable:
            port = getattr(self, window.member)
            m.d.comb += [port.read.eq(0), port.read_at.eq(self.at(window, araddr))]
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [araddr.eq(axi.araddr), taken.eq(1)]
        # Which register or window it is has a cycle of its own; so one bit each chooses the answer.
        m.d.sync += compared.eq(taken & ~compared)
        meant, within = self.meant(m, "read", araddr)
        contents = [Mux(meant[r.name], self.content(r), 0) for r in self.map.registers]
        content: Value = Const(0, WORD)
        for word in contents:
            content = content | word
        with m.If(compared & ~writes):
            m.d.sync += [taken.eq(0), given.eq(1), answer.eq(SLVERR), value.eq(0)]
            for window in self.map.windows:
                with m.If(within[window.name]):
                    with m.If(~self.known(window, araddr)):
                        m.d.comb += self.faults["ADDRESS"].eq(1)
                    with m.Elif(Const(window.access == "wo", 1)):
                        m.d.comb += self.faults["ACCESS"].eq(1)
                    with m.Elif(self.working if window.idle else Const(0)):
                        m.d.comb += self.faults["BUSY"].eq(1)
                    if window.access != "wo":
                        with m.Else():
                            m.d.comb += getattr(self, window.member).read.eq(1)
                            m.d.sync += given.eq(0)
            with m.If(Cat(meant.values()).any()):
                m.d.sync += [answer.eq(OKAY), value.eq(content)]
            with m.Elif(~Cat(within.values()).any()):
                m.d.comb += self.faults["ADDRESS"].eq(1)
        for window in readable:
            port = getattr(self, window.member)
            there = port.read
            if window.latency:
                wait = waits[window.name]
                m.d.sync += wait.eq(Cat(port.read, wait[:-1]))
                there = wait[-1]
            with m.If(there):
                m.d.sync += [given.eq(1), answer.eq(OKAY), value.eq(port.value)]
        with m.If(given & axi.rready):
            m.d.sync += given.eq(0)

    def content(self, register: Register) -> Value:
        """The word that a read of a register gives."""
        parts, place = [], 0
        for field in sorted(register.fields, key=lambda field: field.low):
            name = register.member(field)
            if field.access != "ro":
                value = self.state[name]
            else:
                value = Const(field.reset, field.bits) if field.constant else getattr(self, name)
            parts += [Const(0, field.low - place), value]
            place = field.low + field.bits
        return Cat(*parts)

    def meant(self, m: Module, what: str, address: Value) -> tuple[dict[str, Signal], dict[str, Signal]]:
        """Which register and which window a byte address names, a cycle later: by name, a bit each."""
        registers = {r.name: Signal(name=f"{what}_{r.name.lower()}_meant") for r in self.map.registers}
        windows = {w.name: Signal(name=f"{what}_{w.member}_meant") for w in self.map.windows}
        whole = ~address[:2].any()
        m.d.sync += [registers[r.name].eq(address == r.address) for r in self.map.registers]
        m.d.sync += [windows[w.name].eq(self.inside(w, address) & whole) for w in self.map.windows]
        return registers, windows

    # -- windows -------------------------------------------------------------------------------------------
    def inside(self, window: Window, address: Value) -> Value:
        """Whether a byte address is in the window."""
        low = window.at_bits + 2
        return address[low:] == window.address >> low if low < len(address) else Const(1)

    def at(self, window: Window, address: Value) -> Value:
        """The number of the word that the address names."""
        return address[2 : window.at_bits + 2]

    def known(self, window: Window, address: Value) -> Value:
        """Whether the window has the word."""
        at = self.at(window, address)
        rules = [
            part < size
            for size, bits, part in zip(window.dimensions, window.index_bits, index(window, at), strict=True)
            if size < 1 << bits
        ]
        return Cat(rules).all() if rules else Const(1)
