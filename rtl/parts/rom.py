"""Read-only memories: in the text of the design where they are small, in a file of their own where they are large.

In Amaranth's simulator, and where no file is wanted, such a memory is one of Amaranth's. When a design is emitted with
`Contents` as its platform, a large one becomes an instance of a small module that reads its words with `$readmemh`, so
that the text stays small and neither Amaranth nor yosys carries millions of constants.
"""

from __future__ import annotations

import hashlib

import numpy as np
from amaranth.hdl import ClockSignal, Elaboratable, Instance, Module, Shape, Signal
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

    def module(self, storage: Storage, words: str) -> str:
        """The name of the module that holds these words."""
        name = f"bittrue_rom_{hashlib.sha256(words.encode()).hexdigest()[:16]}"
        self.files[f"{name}.hex"] = words
        self.modules[name] = (
            f"module {name}(clk, addr, data);\n"
            f"  input clk;\n"
            f"  input [{(storage.depth - 1).bit_length() - 1}:0] addr;\n"
            f"  output reg [{storage.width - 1}:0] data;\n"
            f'  (* rom_style = "{storage.style}" *)\n'
            f"  reg [{storage.width - 1}:0] words [0:{storage.depth - 1}];\n"
            f'  initial $readmemh("{name}.hex", words);\n'
            f"  always @(posedge clk) data <= words[addr];\n"
            f"endmodule\n"
        )
        return name


class Rom(Elaboratable):
    """Words of `lanes` codes, lane 0 lowest: `data` is the word at `addr` one cycle later.

    words  integers `[depth, lanes]`
    """

    def __init__(self, storage: Storage, shape: Shape, words: np.ndarray):
        self.storage, self.shape, self.words = storage, shape, words
        self.addr = Signal(range(max(storage.depth, 2)))
        self.data = Signal(data.ArrayLayout(shape, words.shape[1]))

    def elaborate(self, platform):
        m = Module()
        if isinstance(platform, Contents) and self.storage.bits >= platform.large:
            name = platform.module(self.storage, hexadecimal(self.words, self.shape.width))
            ports = {"i_clk": ClockSignal(), "i_addr": self.addr, "o_data": self.data.as_value()}
            m.submodules.memory = Instance(name, **ports)
            return m
        m.submodules.memory = memory = self.storage.memory(self.data.shape(), self.words.tolist())
        port = memory.read_port(domain="sync")
        m.d.comb += [port.addr.eq(self.addr), port.en.eq(1), self.data.eq(port.data)]
        return m


def hexadecimal(words: np.ndarray, bits: int) -> str:
    """A line for every word of `[depth, lanes]` codes of so many bits, in two's complement, lane 0 lowest."""
    each = (words[:, :, None] >> np.arange(bits)) & 1
    flat = each.reshape(len(words), -1).astype(np.uint8)
    digits = -(-flat.shape[1] // 4)
    whole = np.zeros((len(words), 8 * (-(-flat.shape[1] // 8))), np.uint8)
    whole[:, : flat.shape[1]] = flat
    lines = np.packbits(whole[:, ::-1], axis=1)
    return "".join(f"{line.tobytes().hex()[-digits:]}\n" for line in lines)
