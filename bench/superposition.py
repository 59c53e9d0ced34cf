"""Several images in one pass, images a second on one thread: the golden simulator beside the same network in torch.

    python -m bench superposition

A MIMONet of depth 10 and width 2 with four slots, on images of 28 x 28, one, two and four at a time, its weights random
and its normalisation that of a few batches; the ordinary network of its depth and width, which is bound to nothing,
stands beside it. torch's INT8 is its own quantisation of the graph (`torch.ao.quantization`), whose convolutions are
oneDNN's; what it has no quantised form for, the binding, stays in float there. Images and weights are channels last in
torch, and nothing is compiled by `torch.compile`. bittrue's codes are those of the reference.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import held
from bench.layer import with_backend
from bench.timing import Row, best
from bittrue.models.data.sets import INPUT_SCALE, Data, Split
from bittrue.models.int8.quantize import of_codes
from bittrue.models.superposition.networks import Superposition
from bittrue.models.superposition.settings import SuperpositionSettings
from bittrue.sim.kernels.matrix import backends

#: Images of a batch.
BATCH = 64
SHAPE, CLASSES = (28, 28, 1), 10
COMMON: dict[str, Any] = {"depth": 10, "width": 2, "stem_stride": 2}
NETWORKS = {
    "ordinary": SuperpositionSettings(kind="WideResNet", slots=1, binding="None", initial_width=1, **COMMON),
    "MIMONet": SuperpositionSettings(kind="MIMONet", slots=4, binding="HRR", initial_width=4, **COMMON),
}
REAL, INT8 = "torch float", "torch INT8 (oneDNN)"


class Passes(nn.Module):
    """The network on whole passes of images in float, as torch's tracer takes it."""

    def __init__(self, network: Superposition):
        super().__init__()
        for part in ("stem", "binding", "bulk", "pool", "unbind", "apart", "classifier"):
            setattr(self, part, getattr(network, part))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.bulk(self.binding(self.stem(x))))
        return self.classifier(self.apart(x if self.unbind is None else self.unbind(x)))


def trained(settings: SuperpositionSettings, data: Data) -> Superposition:
    """A network with random weights, whose batch normalisation has seen these images."""
    network = Superposition.for_data(settings, data, seed=0).train()
    codes = torch.from_numpy(network.encode(data.train.images))
    with torch.no_grad():
        for _ in range(20):
            network(codes)
    return network.eval()


def quantised(network: Superposition, x: Tensor) -> Callable[[Tensor], Tensor]:
    """torch's quantisation of the graph, calibrated on these images."""
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    kept = PrepareCustomConfig().set_non_traceable_module_classes([type(network.binding), type(network.apart)])
    prepared = prepare_fx(Passes(network).eval(), get_default_qconfig_mapping("onednn"), (x,), kept)
    prepared(x)
    return convert_fx(prepared)


def images() -> Data:
    """Random images: 512 to calibrate on, a batch to measure with."""
    rng = np.random.default_rng(1)
    some = Split(rng.integers(0, 256, (512, *SHAPE), dtype=np.uint8), rng.integers(0, CLASSES, 512))
    few = Split(some.images[:BATCH], some.labels[:BATCH])
    return Data("random", tuple(map(str, range(CLASSES))), some, few, few)


def measured(names: Sequence[str], suffix: str) -> list[Row]:
    """The rows for these back ends; `suffix` says in their names what the CPU is held to."""
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    torch.backends.quantized.engine = "onednn"
    data, rows = images(), []
    for name, settings in NETWORKS.items():
        network = trained(settings, data)
        codes = torch.from_numpy(network.encode(data.test.images))
        real = codes.float().mul(INPUT_SCALE).contiguous(memory_format=torch.channels_last)
        for n in settings.modes:
            network.at_a_time = n
            rows += one(f"{name}, {n} at a time", network, data, real, names, suffix)
    return rows


def one(what: str, network: Superposition, data: Data, real: Tensor, names: Sequence[str], suffix: str) -> list[Row]:
    """A network with so many images at a time as it has now: bittrue's program of it and torch's two."""
    integer = of_codes(network, data)
    program, x = integer.lower(), integer.encode(data.test.images)
    float_network = Passes(network).to(memory_format=torch.channels_last)
    int8 = quantised(network, real)
    with torch.inference_mode():
        calls = {REAL: lambda: float_network(real), INT8: lambda: int8(real)}
        expected = program.reference(x[:4])
        for name in names:
            copy = with_backend(program, name, x[:4])
            if not np.array_equal(copy(x)[:4], expected):
                raise AssertionError(f"{what}: {name} gives other codes")
            calls[f"bittrue, {name}"] = lambda copy=copy: copy(x)
        seconds = best(calls, repeats=9, calls=2)
    return [
        {
            "bench": "superposition",
            "what": f"{what}: {name}{suffix}",
            "value": BATCH / value,
            "unit": "images/s",
            "speed-up": seconds[REAL] / value,
        }
        for name, value in seconds.items()
    ]


def measure() -> list[Row]:
    names = [name for name in ("vnni", "sgemm") if name in backends()]
    return measured(names, "") + (held.rows("bench.superposition") if "avx2" in backends() else [])


def measure_held() -> list[Row]:
    """What is measured in a process that is held to AVX2."""
    return measured(["avx2"], ", AVX2")
