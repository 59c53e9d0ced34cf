"""Memories with contents: in the text of the design where they are small, in a file of their own where they are large.

In Amaranth's simulator, and where no file is wanted, such a memory is one of Amaranth's. When a design is emitted with
`Contents` as its platform, a large one becomes an instance of a small module that reads its words with `$readmemh`, so
that the text stays small and neither Amaranth nor yosys carries millions of constants.
"""

from __future__ import annotations

import hashlib

import numpy as np
from amaranth.hdl import Cat, ClockSignal, Elaboratable, Instance, Module, Shape, Signal, unsigned
from amaranth.lib import data

from bittrue.rtl.dataflow.stage import Storage

#: Bits from which on the words of a memory go to a file.
LARGE = 1 << 16


class Contents:
    """What large memories hold and the modules that read it, collected while a design is elaborated.

    files    text of the memory files, by name: one hexadecimal word a line
    modules  Verilog of the modules that read them, by name
    """

    def __init__(self, large: int | None = None):
        self.large = LARGE if large is None else large
        self.files: dict[str, str] = {}
        self.modules: dict[str, str] = {}

    def module(self, storage: Storage, words: str, written: bool = False) -> str:
        """The name of the module that holds these words, at first where they are `written`."""
        parts = storage.parted
        parted = f" {parts}" if parts > 1 else ""
        told = f"{storage.width} {storage.style}{parted}\n{words}"  # words of 5 and of 7 bits may look alike
        name = f"bittrue_{'ram' if written else 'rom'}_{hashlib.sha256(told.encode()).hexdigest()[:16]}"
        bits, top = max(storage.depth - 1, 1).bit_length() - 1, storage.width - 1
        ports = "clk, addr, data, write, write_addr, write_data" if written else "clk, addr, data"
        each = storage.width // parts
        write = f"[{parts - 1}:0] write" if parts > 1 else "write"
        inputs = f"  input {write};\n  input [{bits}:0] write_addr;\n  input [{top}:0] write_data;\n" if written else ""
        puts = ["  always @(posedge clk) if (write) words[write_addr] <= write_data;\n"]
        if parts > 1:
            spans = [f"[{k * each} +: {each}]" for k in range(parts)]
            puts = [
                f"  always @(posedge clk) if (write[{k}]) words[write_addr]{span} <= write_data{span};\n"
                for k, span in enumerate(spans)
            ]
        writes = "".join(puts) if written else ""
        asked = [f'{what} = "{style}"' for what, style in storage.attributes.items()] + ["no_rw_check"] * written
        attributes = f"  (* {', '.join(asked)} *)\n" if asked else ""
        self.files[f"{name}.hex"] = words
        self.modules[name] = (
            f"module {name}({ports});\n"
            f"  input clk;\n"
            f"  input [{bits}:0] addr;\n"
            f"  output reg [{top}:0] data;\n"
            f"{inputs}"
            f"{attributes}"
            f"  reg [{top}:0] words [0:{storage.depth - 1}];\n"
            f'  initial $readmemh("{name}.hex", words);\n'
            f"{writes}"
            f"  always @(posedge clk) data <= words[addr];\n"
            f"endmodule\n"
        )
        return name


class Rom(Elaboratable):
    """Words of `lanes` codes, lane 0 lowest: `data` is the word at `addr` one cycle later.

    A deep one in block RAM is made of slices as wide as a block is at that depth: what is read comes from blocks alone,
    without logic that chooses among those of other addresses, and they take in the register behind it.

    words  integers `[depth, lanes]`
    bits   that tell whether the words go to a file: all of a memory of which this may be a slice
    """

    def __init__(self, storage: Storage, shape: Shape, words: np.ndarray):
        self.storage, self.shape, self.words, self.bits = storage, shape, words, storage.bits
        self.addr = Signal(range(max(storage.depth, 2)))
        self.data = Signal(data.ArrayLayout(shape, words.shape[1]))

    def elaborate(self, platform):
        m = Module()
        pieces = self.storage.pieces(self.shape.width)
        if len(pieces) > 1:
            first = 0
            for k, storage in enumerate(pieces):
                stop = first + storage.width // self.shape.width
                m.submodules[f"piece{k}"] = piece = Rom(storage, self.shape, self.words[:, first:stop])
                m.d.comb += [
                    piece.addr.eq(self.addr),
                    *(self.data[i].eq(piece.data[i - first]) for i in range(first, stop)),
                ]
                first = stop
            return m
        if len(slices := self.storage.parts) > 1:
            parts = []
            for k, storage in enumerate(slices):
                words = sliced(self.words, self.shape.width, k * self.storage.slice, storage.width)
                m.submodules[f"slice{k}"] = part = Rom(storage, unsigned(storage.width), words)
                part.bits = self.bits
                m.d.comb += part.addr.eq(self.addr)
                parts.append(part.data.as_value())
            m.d.comb += self.data.as_value().eq(Cat(parts))
            return m
        if isinstance(platform, Contents) and self.bits >= platform.large:
            name = platform.module(self.storage, hexadecimal(self.words, self.shape.width))
            ports = {"i_clk": ClockSignal(), "i_addr": self.addr, "o_data": self.data.as_value()}
            m.submodules.memory = Instance(name, **ports)
            return m
        m.submodules.memory = memory = self.storage.memory(self.data.shape(), self.words.tolist())
        port = memory.read_port(domain="sync")
        m.d.comb += [port.addr.eq(self.addr), port.en.eq(1), self.data.eq(port.data)]
        return m


class Ram(Elaboratable):
    """Words of `lanes` codes that are written, too: `data` is the word at `addr` one cycle later.

    Nobody reads a word in the cycle in which it is written.

    words  integers `[n, lanes]`, what the first n words hold at first; the others are 0
    write, write_addr, write_data  in a cycle with `write`, the word is written; of a storage that is `parted`, each
    lane by a bit of its own
    """

    def __init__(self, storage: Storage, shape: Shape, words: np.ndarray):
        self.storage, self.shape, self.words = storage, shape, words
        layout = data.ArrayLayout(shape, words.shape[1])
        self.addr, self.write_addr = (Signal(range(max(storage.depth, 2))) for _ in range(2))
        self.data, self.write_data, self.write = Signal(layout), Signal(layout), Signal(storage.parted)

    def elaborate(self, platform):
        m = Module()
        if isinstance(platform, Contents) and self.storage.bits >= platform.large:
            whole = np.zeros((self.storage.depth, self.words.shape[1]), np.int64)
            whole[: len(self.words)] = self.words
            name = platform.module(self.storage, hexadecimal(whole, self.shape.width), written=True)
            ports = {"i_clk": ClockSignal(), "i_addr": self.addr, "o_data": self.data.as_value()}
            ports |= {"i_write": self.write, "i_write_addr": self.write_addr}
            m.submodules.memory = Instance(name, **ports, i_write_data=self.write_data.as_value())
            return m
        m.submodules.memory = memory = self.storage.memory(self.data.shape(), self.words.tolist(), apart=True)
        write = memory.write_port(granularity=1 if self.storage.parted > 1 else None)
        read = memory.read_port(domain="sync")
        m.d.comb += [read.addr.eq(self.addr), read.en.eq(1), self.data.eq(read.data)]
        m.d.comb += [write.addr.eq(self.write_addr), write.data.eq(self.write_data), write.en.eq(self.write)]
        return m


def sliced(words: np.ndarray, bits: int, low: int, width: int) -> np.ndarray:
    """Bits `low` to `low + width` of every word of `[depth, lanes]` codes of so many bits, as integers `[depth, 1]`."""
    places = np.arange(low, low + width)
    each = (words[:, places // bits] >> (places % bits)) & 1
    return (each << np.arange(width)).sum(axis=1, keepdims=True)


def hexadecimal(words: np.ndarray, bits: int) -> str:
    """A line for every word of `[depth, lanes]` codes of so many bits, in two's complement, lane 0 lowest."""
    each = (words[:, :, None] >> np.arange(bits)) & 1
    flat = each.reshape(len(words), -1).astype(np.uint8)
    digits = -(-flat.shape[1] // 4)
    whole = np.zeros((len(words), 8 * (-(-flat.shape[1] // 8))), np.uint8)
    whole[:, : flat.shape[1]] = flat
    lines = np.packbits(whole[:, ::-1], axis=1)
    return "".join(f"{line.tobytes().hex()[-digits:]}\n" for line in lines)
