"""Beside hls4ml, da4ml and AIHWKit: the same integer networks, one process, one thread, taking turns.

    python -m bench peers        # pip install 'bittrue[peers]' brings da4ml and AIHWKit; hls4ml needs g++

Networks are MLPs with ReLU, random seeded 8-bit weights, unsigned 8-bit inputs and activations: 16-64-32-32-5, the
size of jet taggers, and 784-64-64-10. What the rows mean, and where they differ:

* **bittrue** runs the golden program on codes. `first inference` is a fresh process: Python's start, imports, the
  program's file, one inference; and once more with an empty cache of compiled kernels, as after an installation.
* **hls4ml** (Vitis back end, io_parallel) is given types under which nothing but the activations loses a bit, and these
  round half up and saturate; by default it truncates and wraps. So all outputs are equal, and anything else is an error
  here. `first inference` is conversion, g++ and one call, without Python's start and imports; a new process compiles
  again. Both of its strategies are tried, the faster one is shown. `predict` calls the library once for each sample.
* **da4ml** traces the same arithmetic and turns the products into adders; outputs are equal too. `first inference` is
  tracing, solving and one call, without imports; `from its file` is a fresh process, as for bittrue. Its interpreter
  simulates the adders of the hardware, so it has more to do; it is run on byte code that is kept, which
  `CombLogic.predict` would make anew for every call. Layers larger than `SOLVED` are not given to its solver: 64 x 64
  dense weights took it 2.4 s of CPU, 128 x 64 took 12 s, and 784 x 64 had not ended after four
  minutes.
* **AIHWKit** simulates an analog array in float32: signed inputs and weights, Gaussian noise from torch's generator,
  activations that stay floats between DACs. bittrue's photonic program is integer, its light is never negative, its
  noise repeats word for word. Both have the same weights, tiles of at most 64 rows, 8-bit converters with the same
  window, and additive noise at the ADC of the same deviation; but half of the peer's DAC codes are negative and stay
  unused. Without converters and noise its first layer gives the integer sums exactly, which is asserted; with them
  equal results are not promised, and the share of equal classes is shown. The peer runs in the batches that suit it
  best of several. It has tiles in C++ and in torch; each is shown if it runs.

Rates are medians of CPU time; what starts compilers or processes is wall-clock time, with its CPU time beside it.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.first_inference import SCRIPT
from bench.peer_rows import SAMPLES, Mlp, Run, absent, network, rates, row
from bench.timing import Row, taking_turns
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.noise import Noise
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

JETS, IMAGES = (16, 64, 32, 32, 5), (784, 64, 64, 10)
#: Most weights of a layer that da4ml is asked to solve.
SOLVED = 4096
TILE_ROWS = 64
#: Standard deviation of the noise at the converter, in steps of the converter.
NOISE = 0.5
#: What a fresh process does with da4ml's file; its arguments are the file and the number of inputs.
KEPT = """
import sys
import numpy as np
from da4ml._binary import run_interp
from da4ml.types import CombLogic
run_interp(CombLogic.load(sys.argv[1]).to_binary(), np.zeros((1, int(sys.argv[2]))), 1)
"""


@contextlib.contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Seconds by the clock, and of CPU with child processes, appended at the end."""

    def used() -> float:
        mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime

    seconds: list[float] = []
    start, before = time.perf_counter(), used()
    yield seconds
    seconds += [time.perf_counter() - start, used() - before]


def process(script: str, *arguments: str, repeats: int = 5, **environment: str) -> tuple[float, float]:
    """Median seconds by the clock and of CPU of a new Python that runs the script."""
    taken = []
    for _ in range(repeats):
        with stopwatch() as seconds:
            subprocess.run(
                [sys.executable, "-c", script, *arguments],
                check=True,
                capture_output=True,
                cwd=Path(__file__).parents[1],
                env=os.environ | environment,
            )
        taken.append(seconds)
    wall, cpu = zip(*taken, strict=True)
    return median(wall), median(cpu)


def first(what: str, taken: tuple[float, float] | list[float], note: str) -> Row:
    return row(what, taken[0], "s", f"CPU {taken[1]:.2f} s; {note}")


# -- digital -------------------------------------------------------------------------------------------
def hls4ml_model(mlp: Mlp, strategy: str, folder: str) -> tuple[Any, float]:
    """The compiled model, and what its outputs are to be multiplied with to be codes.

    A value is its code times 2^-fraction, with 8 fractional digits for the inputs and 7 for the weights.
    """
    import hls4ml
    import torch

    modules, precision, fraction = [], {}, 8
    for k, layer in enumerate(mlp.layers):
        requantize, last = layer.requantize, layer is mlp.layers[-1]
        weight, bias = layer.weight / 128, requantize.bias_acc * 2.0 ** -(fraction + 7)
        module = torch.nn.Linear(layer.input.channels, len(weight))
        module.weight.data[:], module.bias.data[:] = torch.from_numpy(weight), torch.from_numpy(bias)
        bits, digits = layer.accumulator.bits, fraction + 7
        fraction = digits - int(requantize.shift[0])
        exact = f"ap_fixed<{bits},{bits - digits}>"
        rounded = f"ap_{'' if last else 'u'}fixed<8,{8 - fraction},AP_RND,AP_SAT>"
        bits = Format.covering(requantize.bias_acc, signed=True).bits
        modules += [module] if last else [module, torch.nn.ReLU()]
        precision[f"_{2 * k}"] = {
            "weight": "ap_fixed<8,1>",
            "bias": f"ap_fixed<{bits},{bits - digits}>",
            "accum": exact,
            "result": rounded if last else exact,
        }
        if not last:
            precision[f"_{2 * k + 1}"] = {"result": rounded}
    torch_model, shape = torch.nn.Sequential(*modules), (mlp.layers[0].input.channels,)
    with contextlib.redirect_stdout(io.StringIO()):
        config = hls4ml.utils.config_from_pytorch_model(torch_model, shape, granularity="name", backend="Vitis")
        config["LayerName"]["input_1"]["Precision"] = {"result": "ap_ufixed<8,0>"}
        for name, types in precision.items():
            config["LayerName"][name]["Precision"] = types
            config["LayerName"][name]["Strategy"] = strategy
        model = hls4ml.converters.convert_from_pytorch_model(
            torch_model, hls_config=config, output_dir=folder, backend="Vitis", io_type="io_parallel"
        )
        model.compile()
    return model, 2.0**fraction


def hls4ml_peer(mlp: Mlp, folder: str) -> tuple[Row, Run, np.ndarray]:
    """Its first inference; the faster of its strategies; its inputs."""
    import hls4ml  # noqa: F401  (its time is not the model's)
    import torch  # noqa: F401

    if shutil.which("g++") is None:
        raise FileNotFoundError("hls4ml compiles its models with g++, which is not installed: apt install g++")
    x = np.ascontiguousarray(mlp.codes / 256, dtype=np.float32)
    found = {}
    for strategy in ("Latency", "Resource"):
        with stopwatch() as seconds:
            model, scale = hls4ml_model(mlp, strategy, f"{folder}/{mlp.title}-{strategy}")
            model.predict(x[:1])
        found[strategy] = seconds, model
    speed = taking_turns({name: lambda m=model: m.predict(x[:200]) for name, (_, model) in found.items()}, repeats=3)
    best = min(speed, key=lambda name: median(speed[name]))
    seconds, model = found[best]
    outputs = len(mlp.layers[-1].weight)
    note = f"conversion, g++, one inference; strategy {best}"
    return (
        first(f"{mlp.title}: hls4ml, first inference", seconds, note),
        lambda x: model.predict(x).reshape(-1, outputs) * scale,
        x,
    )


def da4ml_peer(mlp: Mlp, folder: str) -> tuple[list[Row], Run, np.ndarray]:
    """Its first inference, and that from a file; its interpreter; its inputs."""
    from da4ml._binary import run_interp
    from da4ml.trace import FixedVariableArray, HWConfig, comb_trace

    inputs = mlp.layers[0].input.channels
    x = mlp.codes.astype(np.float64)
    with stopwatch() as seconds:
        zeros, eights = np.zeros(inputs, int), np.full(inputs, 8)
        options = {"search_all_decompose_dc": False}  # within 1 % of the adders, in less than half of the time
        given = v = FixedVariableArray.from_kif(
            zeros, eights, zeros, hwconf=HWConfig(1, -1, -1), solver_options=options
        )
        for layer in mlp.layers:
            requantize, signed = layer.requantize, layer.output.format.signed
            v = (v @ layer.weight.T.astype(float) + requantize.bias_acc.astype(float)) * 2.0 ** -int(
                requantize.shift[0]
            )
            v = v.quantize(k=int(signed), i=8 - signed, f=0, overflow_mode="SAT", round_mode="RND")
        logic = comb_trace(given, v)
        code = logic.to_binary()
        run_interp(code, x[:1], 1)
    path = f"{folder}/{mlp.title}.json"
    logic.save(path)
    title = f"{mlp.title}: da4ml, first inference"
    rows = [
        first(title, seconds, f"tracing, solving ({len(logic.ops):,} operations), one inference"),
        first(f"{title} from its file", process(KEPT, path, str(inputs)), "a fresh process"),
    ]
    return rows, lambda x: run_interp(code, x, 1), x


def digital(widths: tuple[int, ...]) -> list[Row]:
    mlp = network(widths)
    expected = mlp.program.reference(mlp.codes)
    with tempfile.TemporaryDirectory() as folder:
        path = str(mlp.program.save(Path(folder) / "program.npz"))
        title = f"{mlp.title}: bittrue, first inference"
        cold = process(SCRIPT, path, repeats=1, NUMBA_CACHE_DIR=f"{folder}/cache")
        rows = [
            first(f"{title} from its file", process(SCRIPT, path), "a fresh process"),
            first(f"{title}, nothing cached", cold, "once after installation: kernels are compiled"),
        ]
        candidates: dict[str, tuple[Run, np.ndarray]] = {"bittrue": (mlp.program, mlp.codes)}
        try:
            row, run, x = hls4ml_peer(mlp, folder)
            rows.append(row)
            candidates["hls4ml"] = run, x
        except (ImportError, FileNotFoundError) as reason:
            rows.append(absent(mlp.title, "hls4ml", reason))
        largest = max(layer.weight.size for layer in mlp.layers)
        try:
            if largest > SOLVED:
                raise ValueError(f"its solver is given layers of at most {SOLVED:,} weights here, not {largest:,}")
            made, run, x = da4ml_peer(mlp, folder)
            rows += made
            candidates["da4ml"] = run, x
        except (ImportError, ValueError) as reason:
            rows.append(absent(mlp.title, "da4ml", reason))
        notes = {}
        for name, (run, x) in candidates.items():
            got = run(x)
            equal = int((got == expected).all(axis=1).sum())
            if equal != SAMPLES:
                raise AssertionError(
                    f"{mlp.title}: {name} gives other codes for {SAMPLES - equal} of {SAMPLES} samples"
                )
            notes[name] = f"{equal:,} of {SAMPLES:,} outputs equal the reference"
        return rows + rates(mlp.title, candidates, notes)


# -- analog --------------------------------------------------------------------------------------------
def windows(mlp: Mlp) -> list[int]:
    """Steps of the converters, as powers of two: 256 of them, around 0, hold 99.9 % of the sums of every tile."""
    tensors, steps = mlp.program.trace(mlp.codes[:1000]).tensors, []
    for node in mlp.program.nodes:
        x, weight = tensors[node.operands[0]].astype(np.int64), node.operation.weight
        parts = [slice(start, start + TILE_ROWS) for start in range(0, weight.shape[1], TILE_ROWS)]
        sums = np.stack([x[:, part] @ weight[:, part].T for part in parts])
        steps.append(max(0, int(np.quantile(np.abs(sums), 0.999)).bit_length() - 7))
    return steps


def photonic(mlp: Mlp, noise: float) -> Program:
    """The network on photonic tiles; `noise` is a standard deviation in steps of the converter."""
    build, name = Builder(mlp.program.inputs), mlp.program.nodes[0].operands[0]
    for k, (layer, step) in enumerate(zip(mlp.layers, windows(mlp), strict=True)):
        kind, made = build.types[name], layer.requantize
        plus, minus = np.maximum(layer.weight, 0), np.maximum(-layer.weight, 0)
        dark = np.add.reduceat(minus, np.arange(0, kind.channels, TILE_ROWS), axis=1).T * kind.format.high
        source = Noise.from_physics(1, k, thermal=noise * 2.0**step) if noise else None
        mac = PhotonicMac(kind, plus, minus, TILE_ROWS, 8, step, dark - (128 << step), noise=source)
        tiles = build.add(f"light{k}", mac, name)
        bias = made.bias_acc - (mac.tiles * 128 << step)
        total = Requantize(len(plus), made.shift, bias_acc=bias, format=made.format, floor=made.floor)
        name = build.add(f"layer{k}", TileSum(mac.output, step, total), tiles)
    return build.program(name)


def aihwkit_model(mlp: Mlp, kind: str, noise: float, perfect: bool = False) -> Any:
    """The network as a torch module on tiles of `kind`, a class of AIHWKit's configurations; values are codes / 256."""
    import torch
    from aihwkit.nn import AnalogLinear
    from aihwkit.simulator import configs
    from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType

    modules: list[Any] = []
    for layer, step in zip(mlp.layers, windows(mlp), strict=True):
        config = getattr(configs, kind)()
        config.mapping.max_input_size, config.mapping.max_output_size = TILE_ROWS, 0
        scale = 2.0 ** -int(layer.requantize.shift[0])  # in the weights: the next layer's inputs are codes / 256 again
        analog = config.forward
        analog.is_perfect = perfect
        analog.inp_bound, analog.inp_res = 1.0, 1 / 254
        analog.out_bound, analog.out_res = (128 << step) * scale / 256, 1 / 254
        analog.out_noise = noise * (1 << step) * scale / 256
        analog.noise_management, analog.bound_management = NoiseManagementType.NONE, BoundManagementType.NONE
        module = AnalogLinear(layer.input.channels, len(layer.weight), bias=True, rpu_config=config)
        weight, bias = layer.weight * scale, layer.requantize.bias_acc * scale / 256
        module.set_weights(torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32)))
        modules += [module, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1]).eval()


def aihwkit_peer(mlp: Mlp, kind: str) -> tuple[dict[str, Run], int]:
    """Its runs with noise off and on, and the batch that suits it best."""
    import torch

    def runner(model: Any, size: int) -> Run:
        def run(x: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return torch.cat([model(part) for part in torch.from_numpy(x).split(size)]).numpy()

        return run

    torch.set_num_threads(1)
    layer, x = mlp.layers[0], np.float32(mlp.codes / 256)
    scale = 2.0 ** -int(layer.requantize.shift[0]) / 256
    sums = runner(aihwkit_model(mlp, kind, 0, perfect=True)[0], SAMPLES)(x[:1000])
    if not np.array_equal(sums / scale, mlp.codes[:1000].astype(int) @ layer.weight.T + layer.requantize.bias_acc):
        raise AssertionError(f"{mlp.title}: AIHWKit without converters gives other sums")
    models = {"noise off": aihwkit_model(mlp, kind, 0), "noise on": aihwkit_model(mlp, kind, NOISE)}
    sizes = {size: lambda size=size: runner(models["noise on"], size)(x[:2000]) for size in (2000, 1000, 250)}
    best = min((median(values), size) for size, values in taking_turns(sizes, repeats=5).items())[1]
    return {name: runner(model, best) for name, model in models.items()}, best


def analog(widths: tuple[int, ...]) -> list[Row]:
    mlp = network(widths)
    title, rows, notes = f"{mlp.title}, tiles of {TILE_ROWS} rows", [], {}
    x, values = mlp.codes, np.float32(mlp.codes / 256)
    candidates: dict[str, tuple[Run, np.ndarray]] = {}
    classes = {}
    for name, noise in (("noise off", 0.0), ("noise on", NOISE)):
        program = photonic(mlp, noise)
        if not np.array_equal(program(x[:64]), program.reference(x[:64])):
            raise AssertionError(f"{title}: {name} gives other codes than the reference")
        candidates[f"bittrue, {name}"] = program, x
        classes[f"bittrue, {name}"] = program(x).argmax(axis=1)
    for kind, which in (("InferenceRPUConfig", "C++ tiles"), ("TorchInferenceRPUConfig", "torch tiles")):
        try:
            runs, size = aihwkit_peer(mlp, kind)
        except (ImportError, RuntimeError) as reason:
            if isinstance(reason, RuntimeError):  # a library that was built for another version of torch fails in use
                reason = RuntimeError(f"fails beside torch {version('torch')}: {reason}")
            rows.append(absent(f"{title}, {which}", "aihwkit", reason))
            continue
        for name, run in runs.items():
            who = f"aihwkit ({which}), {name}"
            candidates[who] = run, values
            classes[who] = run(values).argmax(axis=1)
            notes[who] = f"in batches of {size:,}; "
    for name, found in classes.items():
        agree = 100 * np.mean(found == classes["bittrue, noise off"])
        notes[name] = notes.get(name, "") + f"class of bittrue without noise: {agree:.1f} %"
    return rows + rates(title, candidates, notes)


def measure() -> list[Row]:
    return [*digital(JETS), *digital(IMAGES), *analog(IMAGES)]
