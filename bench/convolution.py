"""Convolutions and pools, one thread: single layers and whole residual networks, beside torch in float and in INT8.

    python -m bench convolution

torch's INT8 convolutions are oneDNN's. All is measured twice: with what this CPU has, and in a process held to AVX2
(`bench.held`). bittrue's codes are those of the reference. Without VNNI oneDNN's products saturate: how many of its
results are off by more than one from the exact ones is counted beside, for codes of 7 bits as they are behind bittrue's
ReLU, and for the 8 bits that its own activations have. Weights are spread as trained ones are. Each takes nine
turns of three calls, the best is shown.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from bench import held
from bench.layer import with_backend
from bench.timing import Row, best
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.kernels.matrix import backends
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.clamp import Clamp
from bittrue.sim.operations.depthwise import Depthwise
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.maximum import Maximum
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.window import Window
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

#: Codes between layers: those of a ReLU.
ACTIVATION = Format(7, signed=False)
#: torch's INT8, whose convolutions are oneDNN's.
PEER = "oneDNN INT8"
#: Images of a batch.
BATCH = 64
#: Inputs, outputs, kernel, stride, side of the image.
LAYERS = (
    (3, 16, 3, 1, 32),
    (16, 16, 3, 1, 32),
    (16, 32, 3, 2, 32),
    (32, 32, 3, 1, 16),
    (64, 64, 3, 1, 8),
    (256, 256, 3, 1, 8),
    (32, 64, 1, 1, 24),
)
#: Channels, stride, side of the image.
DEPTHWISE = ((32, 1, 24), (64, 1, 16), (64, 2, 24))
#: What is taken over 2 x 2 or over the whole image, channels, side.
POOLS = (("maximum", 64, 16), ("mean", 64, 16), ("global", 64, 8))
#: Blocks of a stage of residual networks on images of 32 x 32 x 3.
NETWORKS = {"ResNet-8": 1, "ResNet-20": 3}


def bell(rng: np.random.Generator, outputs: int, inputs: int) -> np.ndarray:
    """Weights int `[outputs, inputs]`, spread as trained ones are: a bell curve, the largest of an output 127."""
    weight = rng.normal(size=(outputs, inputs))
    return np.round(127 * weight / np.abs(weight).max(1, keepdims=True)).astype(np.int64)


class Growing:
    """A network of convolutions with random weights, whose ReLU is the floor of the requantiser."""

    def __init__(self, seed: int, inputs: int, side: int, fmt: Format = INT8):
        self.rng = np.random.default_rng(seed)
        self.build = Builder({"x": TensorType((side, side, inputs), fmt)})

    def convolution(self, name: str, x: str, outputs: int, kernel: int, stride: int, floor: int | None) -> str:
        kind = self.build.types[x]
        pad = kernel // 2
        window = Window(kind, (kernel, kernel), (stride, stride), padding=(pad,) * 4)
        w = x if window.whole else self.build.add(f"{name}.window", window, x)
        down, across, width = *window.windows, window.taps * kind.channels
        rows = self.build.add(f"{name}.rows", Reshape(self.build.types[w], (down, across, width)), w)
        weight = bell(self.rng, outputs, width)
        shift = int(np.log2(60 * np.sqrt(width))) + 1
        requantize = Requantize(outputs, np.full(outputs, shift), format=INT8, floor=floor)
        return self.build.add(name, Linear(self.build.types[rows], weight, requantize), rows)

    def add(self, name: str, a: str, b: str) -> str:
        total = self.build.add(f"{name}.sum", Add(self.build.types[a], self.build.types[b]), a, b)
        return self.build.add(name, Clamp(self.build.types[total], 0, 127, INT8), total)

    def classify(self, x: str) -> Program:
        height, width, channels = self.build.types[x].shape
        pixels = self.build.add("pixels", Reshape(self.build.types[x], (height * width, channels)), x)
        mean = Mean(self.build.types[pixels], Requantize(channels, np.full(channels, 6)))
        y = self.build.add("mean", mean, pixels)
        weight = bell(self.rng, 10, channels)
        linear = Linear(self.build.types[y], weight, Requantize(10, np.full(10, 8)))
        return self.build.program(self.build.add("classifier", linear, y))


def layer(inputs: int, outputs: int, kernel: int, stride: int, side: int) -> Program:
    grow = Growing(inputs, inputs, side, INT8 if inputs == 3 else ACTIVATION)
    return grow.build.program(grow.convolution("y", "x", outputs, kernel, stride, floor=0))


def residual(blocks: int) -> Program:
    grow = Growing(blocks, 3, 32)
    x = grow.convolution("stem", "x", 16, 3, 1, floor=0)
    for stage, width in enumerate((16, 32, 64)):
        for block in range(blocks):
            name, stride = f"s{stage}.{block}", 2 if stage and not block else 1
            a = grow.convolution(f"{name}.a", x, width, 3, stride, floor=0)
            b = grow.convolution(f"{name}.b", a, width, 3, 1, floor=None)
            other = grow.convolution(f"{name}.c", x, width, 1, stride, floor=None) if stride == 2 else x
            x = grow.add(name, b, other)
    return grow.classify(x)


# -- the same in torch ------------------------------------------------------------------------------------------
def quantised(relu: bool, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> nn.Module:
    """A convolution in oneDNN's INT8, with random weights."""
    import torch.ao.nn.intrinsic.quantized as fused
    import torch.ao.nn.quantized as plain

    made = (fused.ConvReLU2d if relu else plain.Conv2d)(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    weight = bell(np.random.default_rng(0), outputs, inputs // groups * kernel * kernel)
    weight = torch.from_numpy(weight).reshape(outputs, inputs // groups, kernel, kernel).float()
    zeros = torch.zeros(outputs, dtype=torch.int64)
    made.set_weight_bias(
        torch.quantize_per_channel(weight, torch.ones(outputs), zeros, 0, torch.qint8), torch.zeros(outputs)
    )
    made.scale, made.zero_point = 40.0 * kernel * float(np.sqrt(inputs)), 0 if relu else 64
    return made


class Peer(nn.Module):
    """A residual network whose convolutions `make` makes, and whose additions `add` does."""

    def __init__(self, blocks: int, make: Callable[..., nn.Module], add: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.stem, self.blocks, self.add, channels = make(True, 3, 16, 3, 1), nn.ModuleList(), add, 16
        for stage, width in enumerate((16, 32, 64)):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                parts = [make(True, channels, width, 3, stride), make(False, width, width, 3, 1)]
                parts += [make(False, channels, width, 1, stride)] if stride == 2 else []
                self.blocks.append(nn.ModuleList(parts))
                channels = width
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for parts in self.blocks:
            x = self.add(parts[1](parts[0](x)), parts[2](x) if len(parts) > 2 else x)
        x = x.dequantize() if x.is_quantized else x
        return self.classifier(x.mean((2, 3)))


def floating(relu: bool, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    convolution = convolution.to(memory_format=torch.channels_last)
    return nn.Sequential(convolution, nn.ReLU()) if relu else convolution


def off(module: nn.Module, x: Tensor) -> float:
    """The share of a quantised convolution's results that are off by more than one from the exact ones."""
    weight = module.weight().int_repr().double()
    stride = module.stride
    exact = torch.nn.functional.conv2d(x.int_repr().double(), weight, None, stride, module.padding)
    exact = (exact / module.scale).round().clamp(0, 255)
    return float(((module(x).int_repr().double() - exact).abs() > 1).double().mean())


def depthwise(channels: int, stride: int, side: int) -> Program:
    kind = TensorType((side, side, channels), INT8)
    build, window = Builder({"x": kind}), Window(kind, (3, 3), (stride, stride), padding=(1,) * 4)
    build.add("w", window, "x")
    weight = bell(np.random.default_rng(channels), channels, 9).T
    requantize = Requantize(channels, np.full(channels, 8), format=INT8, floor=0)
    return build.program(build.add("y", Depthwise(window.output, weight, requantize), "w"))


def pool(what: str, channels: int, side: int) -> Program:
    kind = TensorType((side, side, channels), INT8)
    build, shift = Builder({"x": kind}), 2 if what == "mean" else int(np.log2(side * side))
    requantize = Requantize(channels, np.full(channels, shift))
    if what == "global":
        build.add("w", Reshape(kind, (side * side, channels)), "x")
    else:
        build.add("w", Window(kind, (2, 2), (2, 2)), "x")
    rows = build.types["w"]
    return build.program(build.add("y", Maximum(rows) if what == "maximum" else Mean(rows, requantize), "w"))


def candidates(real: nn.Module, int8: nn.Module, inputs: int, side: int, most: int = 127) -> tuple[dict, Tensor]:
    """The peers on random codes up to `most`, and those codes."""
    x = torch.randint(0, most + 1, (BATCH, inputs, side, side)).float().contiguous(memory_format=torch.channels_last)
    q = torch.quantize_per_tensor(x, 1.0, 0, torch.quint8)
    return {"torch float": lambda: real(x), PEER: lambda: int8(q)}, q


def pooling(what: str) -> Callable[[Tensor], Tensor]:
    functional = torch.nn.functional
    return {
        "maximum": lambda x: functional.max_pool2d(x, 2, 2),
        "mean": lambda x: functional.avg_pool2d(x, 2, 2),
        "global": lambda x: functional.adaptive_avg_pool2d(x, 1),
    }[what]


def measured(names: Sequence[str], suffix: str) -> list[Row]:
    """The rows for these back ends; `suffix` says in their names what the CPU is held to."""
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.backends.quantized.engine = "onednn"
    rng, result = np.random.default_rng(1), []

    def add(what: str, program: Program, peers: dict, worth: float, unit: str, note: str = "") -> None:
        result.extend(rows(what, program, names, peers, rng, worth, unit, note, suffix))

    with torch.inference_mode():
        for geometry in LAYERS:
            inputs, _, _, _, side = geometry
            program, int8 = layer(*geometry), quantised(True, *geometry[:4])
            peers, q = candidates(floating(True, *geometry[:4]), int8, inputs, side, 255 if inputs == 3 else 127)
            wide = off(int8, torch.quantize_per_tensor(2 * q.dequantize(), 1.0, 0, torch.quint8))
            note = f"{100 * off(int8, q):.1f} % off by more than 1; {100 * wide:.1f} % for codes of 8 bits"
            what = f"{geometry[0]} to {geometry[1]}, {geometry[2]}x{geometry[2]} / {geometry[3]}, {side}x{side}"
            add(what, program, peers, 2e-9 * program.macs, "GOP/s", note)
        for channels, stride, side in DEPTHWISE:
            program, shape = depthwise(channels, stride, side), (channels, channels, 3, stride)
            peers, _ = candidates(floating(True, *shape, channels), quantised(True, *shape, channels), channels, side)
            what = f"depthwise {channels}, 3x3 / {stride}, {side}x{side}"
            add(what, program, peers, 2e-9 * program.macs, "GOP/s")
        for what, channels, side in POOLS:
            peers, _ = candidates(pooling(what), pooling(what), channels, side)
            add(f"{what} of {channels}, {side}x{side}", pool(what, channels, side), peers, 1.0, "images/s")
        for name, blocks in NETWORKS.items():
            int8 = Peer(blocks, quantised, lambda a, b: torch.ops.quantized.add_relu(a, b, 400.0, 0)).eval()
            real = Peer(blocks, floating, lambda a, b: torch.relu(a + b)).eval()
            add(name, residual(blocks), candidates(real, int8, 3, 32, 255)[0], 1.0, "images/s")
    return result


def measure() -> list[Row]:
    names = [name for name in ("vnni", "sgemm") if name in backends()]
    return measured(names, "") + (held.rows("bench.convolution") if "avx2" in backends() else [])


def measure_held() -> list[Row]:
    """What is measured in a process that is held to AVX2."""
    return measured(["avx2"], ", AVX2")


def rows(
    what: str,
    program: Program,
    names: Sequence[str],
    peers: dict,
    rng: np.random.Generator,
    worth: float,
    unit: str,
    note: str,
    suffix: str,
) -> list[Row]:
    """The peers' and our back ends' rows; `worth` of an image in units."""
    (kind,) = program.inputs.values()
    x = rng.integers(kind.format.low, kind.format.high + 1, (BATCH, *kind.shape)).astype(kind.format.dtype)
    expected, calls = program.reference(x[:2]), dict(peers)
    for name in names:
        copy = with_backend(program, name, x[:1])
        if not np.array_equal(copy(x)[:2], expected):
            raise AssertionError(f"{what}: {name} gives other codes")
        calls[f"bittrue, {name}"] = lambda copy=copy: copy(x)
    seconds = best(calls, repeats=9, calls=3)
    return [
        {
            "bench": "convolution",
            "what": f"{what}: {name}{suffix}",
            "value": BATCH * worth / value,
            "unit": unit,
            "speed-up": seconds[PEER] / value,
            "note": note if name == PEER else "",
        }
        for name, value in seconds.items()
    ]
