"""A register map as data: from one declaration come the bus slave (`rtl.bus.lite`), a table, and an SVD file.

    address of a register            a multiple of 4; it has 32 bits
    address of word (i, j) of a window of dimensions (m, n)
                                     base + 4 * (i * 2^ceil(log2 n) + j): every dimension but the first is padded

Field access, as a program on the bus sees it:

    ro    read only: the design gives the value, or `constant` does
    rw    read and written; with `hardware`, the design can change it, too
    w1s   a 1 sets the bit, a 0 leaves it; the design clears it (commands that wait until they are carried out)
    w1c   the design sets the bit, a 1 clears it, a 0 leaves it (sticky errors)

Whatever is illegal is answered with SLVERR and changes nothing; where the map has a register of `errors`, it also sets
the bit of a fault there (`FAULTS`).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import cached_property

from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError

OKAY, SLVERR = 0, 2
#: What the slave itself finds wrong with an access; `errors` makes bits of them, in this order.
FAULTS = {
    "ADDRESS": "no register at this address",
    "ACCESS": "a write of what can only be read, or a read of what can only be written",
    "VALUE": "a write of an illegal value, or of a part of a word",
    "BUSY": "an access that has to wait until the design is idle",
}
WORD = 32
_SVD_ACCESS = {"ro": "read-only", "wo": "write-only", "rw": "read-write", "w1s": "read-write", "w1c": "read-write"}
_SVD_WRITES = {"w1s": "oneToSet", "w1c": "oneToClear"}


@dataclass(frozen=True)
class Field:
    """Some bits of a register.

    name, low, bits   the lowest bit is `low`; a field that has its register's name is the register's only one
    access            ro, rw, w1s or w1c
    reset             value after reset
    values            legal values (lowest, highest) of an rw field; None: all that `bits` can hold
    constant          an ro field that is always `reset`
    hardware          an rw field that the design can change, too
    """

    name: str
    low: int = 0
    bits: int = 1
    access: str = "rw"
    description: str = ""
    reset: int = 0
    values: tuple[int, int] | None = None
    constant: bool = False
    hardware: bool = False

    def __post_init__(self) -> None:
        _named(self.name, "field")
        if self.access not in ("ro", "rw", "w1s", "w1c"):
            raise BittrueError(f"field {self.name}: no access {self.access!r}; use ro, rw, w1s or w1c")
        if self.bits < 1 or self.low < 0 or self.low + self.bits > WORD:
            raise BittrueError(f"field {self.name}: bits {self.low} to {self.low + self.bits - 1} are not in a word")
        low, high = self.range
        if not 0 <= low <= high < 1 << self.bits:
            raise BittrueError(f"field {self.name}: values {low} to {high} do not fit {self.bits} bits")
        if not low <= self.reset <= high:
            raise BittrueError(f"field {self.name}: its value after reset, {self.reset}, is not {low} to {high}")

    @property
    def range(self) -> tuple[int, int]:
        """Legal values."""
        return self.values or (0, (1 << self.bits) - 1)

    @property
    def mask(self) -> int:
        """Its bits in the word."""
        return ((1 << self.bits) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """A word.

    idle      it is written only while the design is not busy
    checked   the design may refuse a value that the fields' own ranges allow (`<register>_refused` of the slave)
    """

    name: str
    address: int
    fields: tuple[Field, ...]
    description: str = ""
    idle: bool = False
    checked: bool = False

    def __post_init__(self) -> None:
        _named(self.name, "register")
        if self.address < 0 or self.address % 4:
            raise BittrueError(f"register {self.name}: its address {self.address:#x} is no multiple of 4")
        taken = 0
        for field in self.fields:
            if taken & field.mask:
                raise BittrueError(f"register {self.name}: field {field.name} overlaps another one")
            taken |= field.mask
        if not self.fields or len({field.name for field in self.fields}) < len(self.fields):
            raise BittrueError(f"register {self.name}: it needs fields, each with a name of its own")

    @property
    def writable(self) -> bool:
        return any(field.access != "ro" for field in self.fields)

    @property
    def access(self) -> str:
        """ro or rw."""
        return "rw" if self.writable else "ro"

    @property
    def reset(self) -> int:
        """The word after reset."""
        return sum(field.reset << field.low for field in self.fields)

    def member(self, field: Field) -> str:
        """The field's name among the members of the slave."""
        return (self.name if field.name == self.name else f"{self.name}_{field.name}").lower()

    def words(self) -> str:
        """What the register holds, for people."""
        parts = [self.description] if self.description else []
        for field in self.fields:
            if field.name != self.name:
                last = field.low + field.bits - 1
                bits = f"bit {field.low}" if field.bits == 1 else f"bits {field.low} to {last}"
                parts.append(f"{bits} `{field.name}`" + (f": {field.description}" if field.description else ""))
            elif field.description:
                parts.append(field.description)
        return "; ".join(parts)


@dataclass(frozen=True)
class Window:
    """A memory: words of one format, in one dimension or more.

    format    of the codes, in the low bits of a word; the other bits extend it
    access    rw, wo or ro
    idle      read and written only while the design is not busy
    latency   cycles until the design has a word that is read (`rtl.bus.lite.WindowPort`)
    where     for documents, words in place of an address that depends on the design
    """

    name: str
    address: int
    dimensions: tuple[int, ...]
    format: Format
    access: str = "rw"
    description: str = ""
    idle: bool = False
    latency: int = 2
    where: str = ""

    def __post_init__(self) -> None:
        _named(self.name, "window")
        if not self.dimensions or min(self.dimensions) < 1:
            raise BittrueError(f"window {self.name}: dimensions {self.dimensions}; each is at least 1")
        if self.access not in ("rw", "wo", "ro") or self.latency < 0:
            raise BittrueError(f"window {self.name}: access {self.access!r}, latency {self.latency}; use rw, wo or ro")
        if self.format.bits > WORD:
            raise BittrueError(f"window {self.name}: codes of {self.format} do not fit a word of {WORD} bits")
        if self.address % self.span:
            raise BittrueError(
                f"window {self.name}: its address {self.address:#x} is no multiple of its size {self.span:#x}"
            )

    @property
    def index_bits(self) -> tuple[int, ...]:
        """Address bits of every dimension, the last one lowest."""
        return tuple((size - 1).bit_length() for size in self.dimensions)

    @property
    def at_bits(self) -> int:
        """Bits of a word's number in the window."""
        return sum(self.index_bits)

    @property
    def span(self) -> int:
        """Bytes that it takes, a power of two."""
        return 4 << self.at_bits

    def at(self, *index: int) -> int:
        """Address of a word."""
        if len(index) != len(self.dimensions) or any(
            not 0 <= k < n for k, n in zip(index, self.dimensions, strict=True)
        ):
            raise BittrueError(f"window {self.name}: no word {index}; its dimensions are {self.dimensions}")
        place = 0
        for k, bits in zip(index, self.index_bits, strict=True):
            place = place << bits | k
        return self.address + 4 * place

    @property
    def member(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class RegisterMap:
    """All that a bus slave answers to. `errors` names the register whose lowest bits are the slave's `FAULTS`."""

    name: str
    registers: tuple[Register, ...]
    windows: tuple[Window, ...] = ()
    errors: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        _named(self.name, "register map")
        names = [part.name.lower() for part in (*self.registers, *self.windows)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise BittrueError(f"register map {self.name}: {sorted(twice)[0]!r} is there twice")
        spans = sorted(
            [(r.address, r.address + 4, r.name) for r in self.registers]
            + [(w.address, w.address + w.span, w.name) for w in self.windows]
        )
        for (_, end, name), (start, _, other) in zip(spans, spans[1:], strict=False):
            if start < end:
                raise BittrueError(f"register map {self.name}: {name} and {other} overlap at {start:#x}")
        if self.errors is not None:
            found = [field.name for field in self[self.errors].fields[: len(FAULTS)]]
            if found != list(FAULTS):
                raise BittrueError(
                    f"register map {self.name}: {self.errors} begins with {found}, not with {list(FAULTS)}; "
                    "make it with `errors`"
                )

    def __getitem__(self, name: str) -> Register:
        for register in self.registers:
            if register.name == name:
                return register
        raise BittrueError(f"register map {self.name}: no register {name!r}; it has {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(register.name for register in self.registers)

    def window(self, name: str) -> Window:
        for window in self.windows:
            if window.name == name:
                return window
        raise BittrueError(f"register map {self.name}: no window {name!r}")

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return max([r.address + 4 for r in self.registers] + [w.address + w.span for w in self.windows], default=4)

    @property
    def address_bits(self) -> int:
        """Bits of a byte address."""
        return max(3, (self.end - 1).bit_length())

    @cached_property
    def idle(self) -> bool:
        """Whether any access waits for the design to be idle."""
        return any(part.idle for part in (*self.registers, *self.windows))

    # -- for people and tools ------------------------------------------------------------------------------
    def markdown(self) -> str:
        """A table: address, name, access, what it holds."""
        rows = ["| Address | Register | Access | |", "|---|---|---|---|"]
        for register in sorted(self.registers, key=lambda r: r.address):
            rows.append(f"| `0x{register.address:02X}` | {register.name} | {register.access} | {register.words()} |")
        for window in sorted(self.windows, key=lambda w: w.address):
            where = window.where or f"`0x{window.address:02X}` to `0x{window.address + window.span - 1:02X}`"
            size = "" if window.where else f" ({' x '.join(map(str, window.dimensions))})"
            rows.append(f"| {where} | {window.name}{size} | {window.access} | {window.description} |")
        return "\n".join(rows) + "\n"

    def svd(self, version: str = "1.0") -> str:
        """A CMSIS-SVD file (schema 1.3.9) with one peripheral at address 0."""
        device = ET.Element("device", schemaVersion="1.3")
        head = {"name": self.name, "version": version, "description": self.description or self.name}
        for name, text in (head | {"addressUnitBits": "8", "width": str(WORD)}).items():
            _element(device, name, text)
        peripheral = ET.SubElement(ET.SubElement(device, "peripherals"), "peripheral")
        for name, text in (("name", self.name), ("description", head["description"]), ("baseAddress", "0x0")):
            _element(peripheral, name, text)
        block = ET.SubElement(peripheral, "addressBlock")
        for name, text in (("offset", "0x0"), ("size", hex(1 << self.address_bits)), ("usage", "registers")):
            _element(block, name, text)
        registers = ET.SubElement(peripheral, "registers")
        for register in sorted(self.registers, key=lambda r: r.address):
            _svd_register(ET.SubElement(registers, "register"), register)
        for window in sorted(self.windows, key=lambda w: w.address):
            _svd_window(registers, window)
        ET.indent(device)
        return ET.tostring(device, encoding="unicode", xml_declaration=True) + "\n"


def errors(name: str, address: int, *own: Field, description: str = "") -> Register:
    """A register of sticky errors: the slave's `FAULTS` in its lowest bits, then the design's own, as w1c fields."""
    faults = [Field(fault, bit, 1, "w1c", text) for bit, (fault, text) in enumerate(FAULTS.items())]
    return Register(name, address, (*faults, *own), description)


def _named(name: str, what: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise BittrueError(f"{what} {name!r}: a name has letters, digits and underscores, and a letter first")


# -- SVD ---------------------------------------------------------------------------------------------------
def _element(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = text


def _svd_register(element: ET.Element, register: Register) -> None:
    _element(element, "name", register.name)
    _element(element, "description", register.description or register.words())
    _element(element, "addressOffset", hex(register.address))
    _element(element, "size", str(WORD))
    _element(element, "access", _SVD_ACCESS[register.access])
    _element(element, "resetValue", hex(register.reset))
    fields = ET.SubElement(element, "fields")
    for field in register.fields:
        entry = ET.SubElement(fields, "field")
        _element(entry, "name", field.name)
        _element(entry, "description", field.description or field.name)
        _element(entry, "bitOffset", str(field.low))
        _element(entry, "bitWidth", str(field.bits))
        _element(entry, "access", _SVD_ACCESS[field.access])
        if field.access in _SVD_WRITES:
            _element(entry, "modifiedWriteValues", _SVD_WRITES[field.access])
        if field.access == "rw" and field.values:
            legal = ET.SubElement(ET.SubElement(entry, "writeConstraint"), "range")
            _element(legal, "minimum", str(field.range[0]))
            _element(legal, "maximum", str(field.range[1]))


def _svd_window(parent: ET.Element, window: Window) -> None:
    """Arrays of clusters, and of registers in the last dimension."""
    steps = [4 << sum(window.index_bits[k + 1 :]) for k in range(len(window.dimensions))]
    offset = window.address
    for k, (size, step) in enumerate(zip(window.dimensions, steps, strict=True)):
        last = k == len(steps) - 1
        parent = ET.SubElement(parent, "register" if last else "cluster")
        if size > 1 or not last:
            _element(parent, "dim", str(size))
            _element(parent, "dimIncrement", hex(step))
        name = window.name if k == 0 else f"AT{k}"
        _element(parent, "name", f"{name}[%s]" if parent.find("dim") is not None else name)
        _element(parent, "description", window.description or window.name)
        _element(parent, "addressOffset", hex(offset))
        offset = 0
    _element(parent, "size", str(WORD))
    _element(parent, "access", _SVD_ACCESS[window.access])
    fields = ET.SubElement(ET.SubElement(parent, "fields"), "field")
    _element(fields, "name", "CODE")
    _element(fields, "description", f"a code of {window.format}, extended to the word")
    _element(fields, "bitOffset", "0")
    _element(fields, "bitWidth", str(window.format.bits))
