"""The comparison with peers: what is compared is the same network, and what is absent is said."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bench import peer_rows, peers


@pytest.fixture(scope="module")
def mlp():
    return peer_rows.network((70, 12, 5))


def test_network_uses_its_codes(mlp):
    """Weights, biases and shifts leave something to compare: every output takes many codes, few are clipped."""
    trace = mlp.program.trace(mlp.codes)
    for name, y in trace.tensors.items():
        assert min(len(np.unique(column)) for column in y.T) > 50, name
    assert sum(trace.saturation.values()) < 0.02 * sum(y.size for y in trace.tensors.values())


@pytest.mark.parametrize("noise", [0.0, peers.NOISE])
def test_photonic_is_the_same_network(mlp, noise):
    """On the array the sums are those of the network, up to the steps of the converters and the noise."""
    program, x = peers.photonic(mlp, noise), mlp.codes[:200]
    trace = program.trace(x)
    assert np.array_equal(trace.tensors["layer1"], program.reference(x))
    layer, step = mlp.layers[0], peers.windows(mlp)[0]
    tiles = np.add.reduceat(x[:, None, :].astype(int) * layer.weight, [0, 64], axis=2).transpose(0, 2, 1)
    error = ((trace.tensors["light0"].astype(int) - 128) << step) - tiles
    inside = (trace.tensors["light0"] > 0) & (trace.tensors["light0"] < 255)
    assert inside.mean() > 0.99
    if noise:
        assert 0.4 < error[inside].std() / 2**step < 0.7
    else:
        assert np.abs(error[inside]).max() <= 2**step // 2
        shift = int(layer.requantize.shift[0])
        off = np.abs(trace.tensors["layer0"].astype(int) - layer.run(x)[0])[inside.all(axis=1)]
        assert 0 < off.max() <= (2**step >> shift) + 1  # half a step of each of the two tiles


@pytest.mark.parametrize("name", ["hls4ml", "da4ml", "aihwkit"])
def test_absent_peer_is_a_row(mlp, monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    start = {
        "hls4ml": lambda: peers.hls4ml_peer(mlp, str(tmp_path)),
        "da4ml": lambda: peers.da4ml_peer(mlp, str(tmp_path)),
        "aihwkit": lambda: peers.aihwkit_peer(mlp, "TorchInferenceRPUConfig"),
    }
    with pytest.raises(ModuleNotFoundError) as caught:
        start[name]()
    assert peer_rows.absent("net", name, caught.value)["note"] == f"not installed: {peer_rows.INSTALL[name]}"


def test_broken_peer_is_not_said_to_be_absent():
    note = peer_rows.absent("net", "da4ml", ImportError("undefined symbol"))["note"]
    assert note == "not measured: undefined symbol"


@pytest.mark.needs("da4ml")
def test_da4ml_gives_the_same_codes(mlp, tmp_path):
    _, run, x = peers.da4ml_peer(mlp, str(tmp_path))
    assert np.array_equal(run(x), mlp.program(mlp.codes))
