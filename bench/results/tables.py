"""Every table of results in README, and how long the demo takes: its rows and columns, by the name of its place there.

A table is a function that gives its text; `grid` draws all of them. What a cell says is in `bench.results.cells`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.results import stored
from bench.results.cells import Bench, Flow, origin, span, wrapped
from bittrue.flow.engine.durations import measured, told

Cells = Sequence[str]
ECP5, ULTRA = "ecp5-85k", "xilinx-us+"


def grid(columns: Cells, rows: Sequence[Cells], sources: Mapping[str, str]) -> str:
    """A table in Markdown, and under it where its figures are from: by column or row, one sentence for all if equal."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    grouped: dict[str, list[str]] = {}
    for name, source in sources.items():
        grouped.setdefault(source, []).append(name)
    if len(grouped) == 1:
        said = [f"{source[0].upper()}{source[1:]}." for source in grouped]
    else:
        said = [f"{' and '.join(names)}: {source}." for source, names in grouped.items()]
    return "\n".join([*lines, "", *map(wrapped, said)])


def columns(head: str, flows: Mapping[str, Flow], rows: Mapping[str, Callable[[Flow], str]]) -> str:
    """A recipe a column."""
    body = [[title, *(cell(flow) for flow in flows.values())] for title, cell in rows.items()]
    return grid([head, *flows], body, {title: flow.source() for title, flow in flows.items()})


def rows(head: str, flows: Mapping[str, Flow], cells: Mapping[str, Callable[[Flow], str]]) -> str:
    """A recipe a row."""
    body = [[title, *(cell(flow) for cell in cells.values())] for title, flow in flows.items()]
    return grid([head, *cells], body, {title: flow.source() for title, flow in flows.items()})


def kept(name: str, folder: Path) -> str:
    """A table of which only the figures are left."""
    content = stored.load(name, "table", folder)
    return grid(content["columns"], content["rows"], {"": content["note"]})


# -- how long it takes ---------------------------------------------------------------------------------
def demo(folder: Path) -> str:  # noqa: ARG001
    """What `make demo` takes once set up, by step, as `bittrue flow` tells it before its first run in a folder."""
    known = measured("lerp-psa-digits")
    parts = ", ".join(f"{step} {told(taken)}" for step, taken in known["seconds"].items() if taken >= 1)
    return wrapped(
        f"Once set up, `make demo` takes about {told(sum(known['seconds'].values()))} ({parts}), measured on "
        f"{origin([known])}. A flow says beforehand about how long its steps take."
    )


# -- networks ------------------------------------------------------------------------------------------
def lerp_psa(folder: Path) -> str:
    flows = {
        "digits, LERP-PSA": Flow("lerp-psa-digits", folder=folder),
        "digits, ReLU (2x hidden)": Flow("relu-digits", folder=folder),
        "Fashion-MNIST, LERP-PSA": Flow("lerp-psa-fashion-mnist", folder=folder),
        "Fashion-MNIST, ReLU": Flow("relu-fashion-mnist", folder=folder),
    }
    return columns(
        "",
        flows,
        {
            "accuracy, float": lambda f: f.share("float"),
            "quantised, before integer training": lambda f: f.share("converted"),
            "integers, in golden, RTL and HLS": lambda f: f.share("golden"),
            "interval, cycles, planned = simulated": lambda f: f.cycles("interval"),
            "latency, cycles, planned = simulated": lambda f: f.cycles("latency"),
            "compiled RTL, images and mismatches": lambda f: f.checked("compiled", stalls=False),
            "HLS kernels under g++": lambda f: f.checked("gxx"),
            "cocotb with stalls, Icarus": lambda f: f.checked("icarus"),
            "cocotb with stalls, Verilator": lambda f: f.checked("verilator"),
            "ECP5-85k: LUT (planned)": lambda f: f.resource("lut", ECP5),
            "DSP; block RAM (planned)": lambda f: _pair(f.resource("dsp", ECP5), f.resource("bram", ECP5)),
            "clock": lambda f: f.clock(ECP5),
            "UltraScale+: LUT, DSP, block RAM, cell counts": lambda f: f.area(ULTRA),
        },
    )


def _pair(first: str, second: str) -> str:
    return first if first == second else f"{first}; {second}"


def spikes(folder: Path) -> str:
    names = {
        "`fs-mlp-digits`, ReLU, K = 10": "fs-mlp-digits",
        "`fs-swish-mlp-digits`, K = 16": "fs-swish-mlp-digits",
        "`fs-resmlp-fashion-mnist`, ReLU, K = 10": "fs-resmlp-fashion-mnist",
        "`fs-swish-resmlp-fashion-mnist`, K = 16": "fs-swish-resmlp-fashion-mnist",
    }
    return rows(
        "",
        {title: Flow(name, folder=folder) for title, name in names.items()},
        {
            "float": lambda f: f.share("float"),
            "converted": lambda f: f.share("converted"),
            "fine-tuned": lambda f: f.share("golden"),
            "RTL, images and mismatches": lambda f: f.checked("compiled", stalls=False),
            "HLS": lambda f: f.checked("gxx"),
        },
    )


def spikes_area(folder: Path) -> str:
    events = {"rtl.architecture": "events", "rtl.interval": 2560}
    flows = {
        "parallel: all inputs of a time step are added": Flow("fs-mlp-digits", folder=folder),
        "events (`rtl.architecture=events rtl.interval=2560`): a spike costs cycles": Flow(
            "fs-mlp-digits", events, folder
        ),
    }
    return rows(
        "`fs-mlp-digits` on ECP5-85k, speed grade 6",
        flows,
        {
            "cycles an image": lambda f: f.beats("compiled", "interval"),
            "LUT": lambda f: f.resource("lut", ECP5),
            "DSP": lambda f: f.resource("dsp", ECP5),
            "block RAM": lambda f: f.resource("bram", ECP5),
            "clock": lambda f: f.clock(ECP5),
        },
    )


def photonic(folder: Path) -> str:
    flows = {
        "digits, 64-100-200-10": Flow("photonic-mlp-digits", folder=folder),
    }
    return columns(
        "sinusoid, 64x64 array, 8 bits everywhere",
        flows,
        {
            "accuracy, float": lambda f: f.share("float"),
            "converted to the array": lambda f: f.share("converted"),
            "then trained in integers": lambda f: f.share("golden"),
            "the same with a full-scale converter window": lambda f: f.share("accuracy", "full_scale"),
            "array as pipeline stages: compiled RTL, images and mismatches": lambda f: f.checked(
                "compiled", stalls=False
            ),
            "the same: HLS": lambda f: f.checked("gxx"),
            "controller with twin: compiled RTL": lambda f: f.checked("compiled", "beside", False),
            "controller with twin: cycles an image": lambda f: f.beats("compiled", "interval", "beside"),
            "controller alone, ECP5-85k: LUT, DSP, block RAM, clock": lambda f: f.area(ECP5, "controller"),
        },
    )


# -- benchmarks ----------------------------------------------------------------------------------------
def written(folder: Path) -> str:
    b = Bench("written", folder)
    few = "cocotb, {}: codes that differ"
    body = [
        [
            "accuracy, first and second set",
            f"{b(A.format('first'), TWO)} %, {b(A.format('second'), TWO)} %",
            "the same",
        ],
        [
            "compiled RTL, stalled: images, codes that differ",
            "",
            f"{b('compiled RTL: images')}, {b('compiled RTL: codes that differ')}",
        ],
        ["cocotb, Icarus: codes that differ", "", f"{b(few.format('icarus'))} ({b.note(few.format('icarus'))})"],
        ["cocotb, Verilator: codes that differ", "", f"{b(few.format('verilator'))}"],
        *([f"{what}, cycles", b(f"{what}, constant"), b(f"{what}, written")] for what in ("interval", "latency")),
        ["ECP5-85k", *(f"{b(f'ECP5, {one}')} LUT, {b.note(f'ECP5, {one}')}" for one in ("constant", "written"))],
        ["clock", *(f"{b(f'ECP5, {one}: clock', '{:.1f}')} MHz" for one in ("constant", "written"))],
    ]
    return grid(["", "constant", "written"], body, {"": b.source()})


def adders(folder: Path) -> str:
    b = Bench("adders", folder)
    layers = ("layer0, 16 x 64", "layer1, 64 x 32", "layer2, 32 x 32", "layer3, 32 x 5", "all layers")
    body = [[what, *(f"{b(f'{what}: {who}')} LUT; {b.note(f'{what}: {who}')}" for who in PAIR)] for what in layers]
    samples = b.note("compiled RTL, codes that differ")
    cycles = f"interval {b('whole network, interval')}, latency {b('whole network, latency')}"
    body.append(["whole network", f"{cycles}; {b('compiled RTL, codes that differ')} codes differ ({samples})", ""])
    return grid(["16-64-32-32-5, INT8, on ECP5", *PAIR], body, {"": b.source()})


def convolution(folder: Path) -> str:
    b, peer = Bench("convolution", folder), "oneDNN INT8"
    who = ("torch float", peer, "bittrue, vnni", "oneDNN INT8, AVX2", "bittrue, avx2, AVX2")
    layers = ("3 to 16, 3x3 / 1, 32x32", "16 to 16, 3x3 / 1, 32x32", "16 to 32, 3x3 / 2, 32x32")
    layers += ("32 to 32, 3x3 / 1, 16x16", "64 to 64, 3x3 / 1, 8x8", "256 to 256, 3x3 / 1, 8x8")
    layers += ("32 to 64, 1x1 / 1, 24x24", "depthwise 32, 3x3 / 1, 24x24", "depthwise 64, 3x3 / 1, 16x16")
    layers += ("depthwise 64, 3x3 / 2, 24x24",)
    pools = ("maximum of 64, 16x16", "mean of 64, 16x16", "global of 64, 8x8")

    def line(what: str, unit: str) -> list[str]:
        gain = f"{b.gain(f'{what}: bittrue, vnni')}; {b.gain(f'{what}: bittrue, avx2, AVX2')}"
        return [f"{what}, {unit}", *(b(f"{what}: {one}") for one in who), gain, b.note(f"{what}: {peer}, AVX2")]

    body = [line(what, "GOP/s") for what in layers]
    body += [line(what, "images/s") for what in (*pools, "ResNet-8", "ResNet-20")]
    head = ("torch float", peer, "bittrue", "oneDNN INT8 held to AVX2", "bittrue held to AVX2")
    head += ("times oneDNN's", "oneDNN's results held to AVX2")
    return grid(["one thread, 64 images", *head], body, {"": b.source()})


def superposition(folder: Path) -> str:
    b, held = Bench("superposition", folder), ", AVX2"
    torch = ("torch float", "torch INT8 (oneDNN)")
    networks = ("ordinary, 1 at a time", *(f"MIMONet, {n} at a time" for n in (1, 2, 4)))

    def cells(network: str) -> list[str]:
        ours = f"{network}: bittrue, avx2{held}"
        return [network, *(b(f"{network}: {who}{held}") for who in torch), b(ours), b.gain(ours)]

    head = ("torch float", "torch INT8", "bittrue", "times torch float")
    return grid(
        ["images/s, one thread, held to AVX2", *head], [cells(network) for network in networks], {"": b.source()}
    )


def placed(folder: Path) -> str:
    b = Bench("placed", folder)
    body, trades = [], []
    for run in b.content["runs"]:
        for what in [row["what"] for row in run["rows"]]:
            title, _, kind = what.rpartition(": ")
            if kind == "area":
                clock = f"{title}: clock"
                body.append([title, f"{b(what)} LUT, {b.note(what)}", f"{b(clock, '{:.1f}')} MHz ({b.note(clock)})"])
            elif kind != "clock":
                trades.append([what, f"{b(what)} LUT, {b.note(what)}", "not placed"])
    head = ["ECP5-85k, speed grade 6", "area", "clock, mean of three seeds"]
    return grid(head, body + trades, {"": origin([run["made"] for run in b.content["runs"]])})


def packed(folder: Path) -> str:
    """Every way of a design a row, against the one with a product in a DSP."""
    b = Bench("packed", folder)
    body = []
    for row in (row for run in b.content["runs"] for row in run["rows"]):
        title, _, how = row["what"].rpartition(": ")
        plain = b.row(f"{title}: plain")[0]
        share = f"{row['linear']:,} for {row['products']:,}: {row['linear'] / row['products']:.2f}"
        more = "" if how == "plain" else f" ({row['value'] / plain['value'] - 1:+.1%})"
        body.append([title, how, share, f"{row['value']:,}{more}", row["note"]])
    head = ["", "", "DSPs of linear layers, for products a cycle", "LUT", "and"]
    return grid(head, body, {"": origin([run["made"] for run in b.content["runs"]])})


def area(folder: Path) -> str:
    """Of each kind of sample, how far planned LUTs lie from counted ones."""
    b = Bench("area", folder)
    kinds: dict[str, list[tuple[float, float]]] = {}
    for row in (row for run in b.content["runs"] for row in run["rows"] if "planned" in row):
        kinds.setdefault(row["what"].rpartition(" (")[0], []).append((row["value"], row["planned"]))
    body = []
    for kind, pairs in kinds.items():
        off = sorted((100 * (told / found - 1) for found, told in pairs), key=abs)
        body.append([kind, str(len(pairs)), span([int(found) for found, _ in pairs]), span(off, "{:+.0f} %")])
    return grid(["ECP5, packed", "samples", "LUT counted", "planned, against that"], body, {"": b.source()})


PAIR = ("bittrue", "da4ml")
A, TWO = "accuracy of the {} set", "{:.2f}"


def layer(folder: Path) -> str:
    b = Bench("layer", folder)
    names = {
        "`vnni` (vpdpbusd)": "bittrue, vnni",
        "`avx2` (vpmaddwd)": "bittrue, avx2",
        "`sgemm` (portable)": "bittrue, sgemm",
        "`numba` (plain loops)": "bittrue, numba",
        "numpy sgemm with a 256-entry table": "numpy sgemm, 256-entry table",
    }
    body = [[title, f"{b.gain(what)} times numpy int32"] for title, what in names.items()]
    for title, what, held in (
        ("without table", "bittrue, vnni, no table", ""),
        ("without table, held to AVX2", "bittrue, avx2, no table", ", AVX2"),
    ):
        peer = f"oneDNN INT8, no table{held}"
        times = span([row["speed-up"] for row in b.row(f"{what}{held}")], "{:.2f}")
        body.append([title, f"{times} times oneDNN INT8, of whose results {b.note(peer)}"])
    head = "whole layer, 65536x96x96 with requantise and table, one thread"
    return grid([head, "speed"], body, {"": b.source()})


def emulation(folder: Path) -> str:
    b = Bench("emulation", folder)
    ours, theirs = (f"ResNet-8: {who}" for who in ("bittrue", "hls4ml"))
    body = [
        ["bittrue", b(ours), f"{b.gain(ours)} times", b.note(ours)],
        ["hls4ml (Vitis types, g++)", b(theirs, "{:.1f}"), "", b.note(theirs)],
    ]
    return grid(["ResNet-8, one thread", "images/s", "", "first"], body, {"": b.source()})


def photonic_speed(folder: Path) -> str:
    b, alone = Bench("photonic", folder), "tiles of {} rows, 13.8 % clipped: {}"
    body = []
    for title, what in {
        "`vnni` (vpdpbusd)": "bittrue, vnni",
        "`sgemm` (portable)": "bittrue, sgemm",
        "`numba` (plain loops)": "bittrue, numba",
        "numpy sgemm": "numpy sgemm",
    }.items():
        both = [(alone.format(n, what), f"tiles of {n} rows and their sum: {what}") for n in (16, 64)]
        body.append([title, *(f"{b.gain(mac)}; {b.gain(total)} times" for mac, total in both)])
    head = "against numpy int32: photonic MAC with 8-bit ADC; with the sum over tiles; 16384x192x96, one thread"
    return grid([head, "tiles of 16 rows", "of 64 rows"], body, {"": b.source()})


def spikes_speed(folder: Path) -> str:
    b, sets = Bench("spikes", folder), {"swish, K = 16": "swish K=16", "ReLU, K = 10": "relu K=10"}
    body = [
        [title, *(f"{b.gain(f'{one}{layer}: bittrue, {how}')} times" for one in sets.values())]
        for title, how, layer in (
            ("neurons by table, against numpy's loop over K", "by table", ""),
            ("step by step, with every spike", "step by step", ""),
            ("by table, with the layer 256 -> 256 behind them", "by table", ", layer 256 -> 256"),
        )
    ]
    steps = (f"a neuron-step, K={k}: bittrue, step by step" for k in (16, 10))
    body.append(["a neuron and step, against `snntorch.Leaky`", *(f"{b.gain(what)} times" for what in steps)])
    return grid(["one thread", *sets], body, {"": b.source()})


#: By the name of a table's place in README, what draws it from a folder of results.
TABLES: dict[str, Callable[[Path], str]] = {
    "demo": demo,
    "lerp-psa": lerp_psa,
    "layer": layer,
    "peers": lambda folder: kept("peers", folder),
    "spikes": spikes,
    "spikes-area": spikes_area,
    "spikes-speed": spikes_speed,
    "neuron-sets": lambda folder: kept("neuron-sets", folder),
    "photonic": photonic,
    "photonic-fashion-mnist": lambda folder: kept("photonic-fashion-mnist", folder),
    "photonic-speed": photonic_speed,
    "written": written,
    "adders": adders,
    "convolution": convolution,
    "superposition": superposition,
    "emulation": emulation,
    "placed": placed,
    "packed": packed,
    "area": area,
}
