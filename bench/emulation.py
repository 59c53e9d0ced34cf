"""A ResNet-8 in the golden simulator, and one of the same shape in hls4ml's emulation of its C++.

    python -m bench emulation        # pip install 'bittrue[hls]' brings hls4ml; it needs g++, and a minute

Both run integers of 8 bits of the same shapes, one thread; their weights are random and not the same, so results are
not compared: bittrue's are those of its reference, hls4ml has default types of 8 bits, which truncate and wrap. Rates
are of CPU time, the best of several calls; what comes first is wall-clock time.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import time
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from bench.convolution import residual
from bench.peer_rows import INSTALL
from bench.timing import Row, best

BATCH, THEIRS = 64, 4


class Block(nn.Module):
    """A residual block as hls4ml reads one."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.relu = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU()
        self.second, self.last = nn.Conv2d(outputs, outputs, 3, 1, 1), nn.ReLU()
        self.beside = nn.Conv2d(inputs, outputs, 1, stride, 0) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.relu(self.first(x)))
        return self.last(torch.add(y, x if self.beside is None else self.beside(x)))


def network() -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU()]
    parts += [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    return nn.Sequential(*parts, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10)).eval()


def row(who: str, value: float, gain: float, note: str) -> Row:
    what = f"ResNet-8: {who}"
    return {"bench": "emulation", "what": what, "value": value, "unit": "images/s", "speed-up": gain, "note": note}


def hls4ml_peer(folder: str) -> tuple[float, float]:
    """Images a second, and the seconds from the model to the first image."""
    import hls4ml

    if shutil.which("g++") is None:
        raise FileNotFoundError("hls4ml compiles its models with g++, which is not installed: apt install g++")
    start, model = time.perf_counter(), network()
    options = {"granularity": "name", "backend": "Vitis", "default_precision": "ap_fixed<8,4>"}
    config = hls4ml.utils.config_from_pytorch_model(
        model, (3, 32, 32), **options, channels_last_conversion="full", transpose_outputs=False
    )
    for layer in config["LayerName"].values():
        layer["Strategy"] = "Resource"
    compiled = hls4ml.converters.convert_from_pytorch_model(
        model, hls_config=config, output_dir=folder, backend="Vitis", io_type="io_stream"
    )
    compiled.compile()
    x = np.random.default_rng(0).random((THEIRS, 32, 32, 3)).astype(np.float32)
    compiled.predict(x[:1])
    first = time.perf_counter() - start
    return THEIRS / best({"hls4ml": lambda: compiled.predict(x)}, 3)["hls4ml"], first


def measure() -> list[Row]:
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.manual_seed(0)
    program, rng = residual(1), np.random.default_rng(0)
    x = rng.integers(-128, 128, (BATCH, 32, 32, 3)).astype(np.int8)
    start = time.perf_counter()
    if not np.array_equal(program(x[:2]), program.reference(x[:2])):
        raise AssertionError("ResNet-8: other codes than the reference's")
    first = time.perf_counter() - start
    ours = BATCH / best({"bittrue": lambda: program(x)})["bittrue"]
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            theirs, seconds = hls4ml_peer(folder)
    except (ImportError, FileNotFoundError) as reason:
        note = f"not measured: {reason}; {INSTALL['hls4ml']}"
        return [row("bittrue", ours, 1.0, ""), {"bench": "emulation", "what": "ResNet-8: hls4ml", "note": note}]
    return [
        row("bittrue", ours, ours / theirs, f"{first:.1f} s, with two images of the reference"),
        row("hls4ml", theirs, 1.0, f"{seconds:.0f} s, conversion and g++"),
    ]
