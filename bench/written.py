"""Weights written at run time: a Fashion-MNIST MLP that becomes another one in the middle of a stalled stream.

    python -m bench written

Two MLPs of one geometry are trained from different seeds and quantised alike. The design of the first has its weights
written (`plan(..., weights="written")`); half way through the test images, under stalls, it is given those of the
second. Both halves are compared with the golden simulator, in compiled RTL and in cocotb, and the area and clock of an
ECP5 stand beside those of the constant design.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bench.timing import Row
from bittrue.flow.run import cosim
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.result import RtlRun
from bittrue.flow.run.sets import Write, met
from bittrue.flow.synth.synthesis import synthesize
from bittrue.models.data.sets import Data, load
from bittrue.models.networks.mlp import Mlp
from bittrue.models.networks.settings import MlpSettings
from bittrue.models.training.loop import fit
from bittrue.models.training.settings import Train
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.verilog import emit
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize
from bittrue.sim.written import set_of, written

FOLDER = Path(__file__).parents[1] / "out" / "written"
HIDDEN = (32,)
EPOCHS = 3
#: One pixel a cycle: a small design, quick to simulate.
INTERVAL = 784
FREQUENCY = 100.0
#: Images in cocotb, and the one from which on the second set holds.
FEW, FROM = 8, 5
#: The input is codes of 1/128, hidden values are unsigned.
INPUT_BITS, HIDDEN_FORMAT = 7, Format(8, signed=False)


def train(data: Data, seed: int) -> Mlp:
    """An MLP with ReLU, trained for a few epochs."""
    model = Mlp.for_data(MlpSettings(hidden=HIDDEN, norm=False), data, seed)
    fit(model, data, Train(epochs=EPOCHS, seed=seed))
    return model.eval()


def quantized(model: Mlp, images: np.ndarray) -> Program:
    """Its program: weights of 8 bits by powers of two per output, the range of what is between from the images."""
    codes = model.encode(images)
    build = Builder({"x": TensorType(codes.shape[1:], INT8)})
    x, real, bits = "x", codes.astype(np.float64) / (1 << INPUT_BITS), INPUT_BITS
    layers = [*model.hidden, model.classifier]
    for k, layer in enumerate(layers):
        weight, bias = (v.detach().double().numpy() for v in (layer.weight, layer.bias))
        last = k == len(layers) - 1
        real = real @ weight.T + bias
        real = real if last else np.maximum(real, 0)
        fmt = INT8 if last else HIDDEN_FORMAT
        after = int(np.floor(np.log2(fmt.high / np.quantile(np.abs(real), 0.9999))))
        up = np.floor(np.log2(INT8.high / np.abs(weight).max(axis=1))).astype(np.int64)  # per output
        whole = np.rint(weight * 2.0 ** up[:, None]).astype(np.int64)
        bias_acc = np.rint(bias * 2.0 ** (up + bits)).astype(np.int64)
        requantize = Requantize(len(weight), up + bits - after, bias_acc=bias_acc, format=fmt)
        x = build.add(f"layer{k}", Linear(build.types[x], whole, requantize), x)
        bits = after
    return build.program(x)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose largest logit is that of their class."""
    return float((logits.argmax(-1) == labels).mean())


def compared(p: Plan, run: RtlRun, x: np.ndarray, contents: list) -> tuple[int, int]:
    """The image from which on the second set held, and the codes that differ from the golden simulator's."""
    if run.errors:
        raise AssertionError(f"{run.simulator}: {'; '.join(run.errors)}")
    changes = met(contents, run.meets)
    assert len(changes) == 2, "the set did not change within the run"
    return changes[1][0], run.mismatches(p.program(x, held=changes))


def measure() -> list[Row]:
    """Rows of the table; files are left in `out/written`."""
    rows: list[Row] = []

    def say(what: str, value: float, unit: str = "", note: str = "") -> None:
        rows.append({"bench": "written", "what": what, "value": value, "unit": unit, "note": note})

    data = load("fashion-mnist")
    models = [train(data, seed) for seed in (1, 2)]
    first, second = (quantized(model, data.train.images[:2000]) for model in models)
    x, labels = models[0].encode(data.test.images), data.test.labels
    for name, program in (("first", first), ("second", second)):
        say(f"accuracy of the {name} set", 100 * accuracy(program(x), labels), "%")
    held = written(first, others=[second])
    constant, p = plan(first, INTERVAL), plan(held, INTERVAL)
    say("interval, constant", constant.estimated_interval, "cycles")
    say("interval, written", p.estimated_interval, "cycles")
    say("latency, constant", constant.estimated_latency, "cycles")
    say("latency, written", p.estimated_latency, "cycles")
    contents = [held.initial, set_of(held, second)]
    words = p.pack_set(contents[1])
    say("words of a set", len(words))

    texts = {"constant": emit(constant), "written": emit(p)}
    for name, text in texts.items():
        text.write(FOLDER / f"{name}.v")
    verilog = texts["written"]
    rtl = CompiledRtl(verilog, p.inputs, p.outputs, weights=p.weights)
    half = len(x) // 2
    run = rtl.run(x, stall_seed=1, idle=0.3, backpressure=0.3, writes=[Write(words, half)])
    at, wrong = compared(p, run, x, contents)
    say("compiled RTL: images", len(x), note=f"stalled; the second set from image {at} on")
    say("compiled RTL: codes that differ", wrong)
    say("compiled RTL", run.images_per_second, "images/s")
    say("accuracy before the exchange", 100 * accuracy(run.outputs[:at], labels[:at]), "%")
    say("accuracy after the exchange", 100 * accuracy(run.outputs[at:], labels[at:]), "%")
    plain = rtl.run(x[:200], writes=[Write(words, 20)])
    at, wrong = compared(p, plain, x[:200], contents)
    say("without stalls: codes that differ", wrong, note=f"the second set from image {at} on")
    say("without stalls: interval", float(np.diff(plain.frame_end_cycles).max()), "cycles", "the longest of all")
    for simulator in cosim.SIMULATORS:
        writes = [Write(words, FROM - 2, FROM)]
        options = {"idle": 0.3, "backpressure": 0.3, "weights": p.weights, "writes": writes}
        run = cosim.run(verilog, p.inputs, p.outputs, x[:FEW], simulator=simulator, **options)
        at, wrong = compared(p, run, x[:FEW], contents)
        say(f"cocotb, {simulator}: codes that differ", wrong, note=f"{FEW} images, the second set from image {at} on")
    for name, design in (("constant", constant), ("written", p)):
        area = design.estimate
        say(f"estimate, {name}", area.lut, "LUT", f"{area.ff} FF, {area.dsp} DSP, {area.bram} BRAM")
        if os.environ.get("BITTRUE_SYNTH", "1") != "0":
            made = synthesize(texts[name], "ecp5-85k", FOLDER / name, FREQUENCY)
            say(f"ECP5, {name}", made.lut, "LUT", f"{made.ff} FF, {made.dsp} DSP, {made.bram} BRAM")
            say(f"ECP5, {name}: clock", made.fmax_mhz or 0.0, "MHz")
    return rows
