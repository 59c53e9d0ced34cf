"""Stream ports: geometry, the place of every code in TDATA, and what is refused."""

import numpy as np
import pytest

from bittrue.rtl.bus.ports import StreamPort
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from tests.helpers.streams import codes


def test_geometry():
    port = StreamPort("s_axis", TensorType((3, 4), Format(12)), 2)
    assert (port.code_bytes, port.beat_bytes, port.width, port.beats) == (2, 4, 32, 6)
    wires = {"s_axis_tdata": 32, "s_axis_tvalid": 1, "s_axis_tready": 1, "s_axis_tlast": 1}
    assert port.signals == wires | {"s_axis_framing_errors": 16}
    master = StreamPort("m_axis", TensorType((4,), Format(8)), 1)
    assert master.signals == {"m_axis_tdata": 8, "m_axis_tvalid": 1, "m_axis_tready": 1, "m_axis_tlast": 1}


def test_place_of_every_byte():
    """Lane 0 in the low byte, channels innermost, sign extended, low byte first."""
    port = StreamPort("s_axis", TensorType((2, 2), Format(12)), 2)
    words = port.pack(np.array([[[1, -2], [0x123, -0x123]]]))
    assert words.tolist() == [[[0x01, 0x00, 0xFE, 0xFF], [0x23, 0x01, 0xDD, 0xFE]]]
    unsigned = StreamPort("s_axis", TensorType((2,), Format(8, signed=False)), 1)
    assert unsigned.pack(np.array([[255, 128]])).tolist() == [[[255], [128]]]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [1, 3, 4, 7, 8, 9, 12, 16, 17, 23, 24, 25, 31, 32, 33, 40, 47, 48])
def test_round_trip(bits, signed):
    tensor = TensorType((3, 6), Format(bits, signed))
    x = codes(tensor, 7, seed=bits)
    x[0, 0, 0], x[0, 0, 1] = tensor.format.low, tensor.format.high
    for lanes in (1, 2, 3, 6):
        port = StreamPort("m_axis", tensor, lanes)
        words = port.pack(x)
        assert words.dtype == np.uint8
        assert words.shape == (7, 18 // lanes, port.beat_bytes)
        back = port.unpack(words)
        assert back.dtype == tensor.format.dtype
        assert np.array_equal(back, x)
        # the same, one code at a time with Python's integers
        value = int.from_bytes(words[6, -1, -port.code_bytes :].tobytes(), "little", signed=signed)
        assert value == x[6, -1, -1]


def test_empty_batch():
    port = StreamPort("m_axis", TensorType((2, 2), Format(8)), 1)
    assert port.unpack(port.pack(np.zeros((0, 2, 2), np.int8))).shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("fmt", "byte"), [(Format(5), 0x1F), (Format(5), 0x20), (Format(4, signed=False), 0x10)], ids=str
)
def test_wrong_padding(fmt, byte):
    port = StreamPort("m_axis", TensorType((2, 4), fmt), 2)
    words = port.pack(np.zeros((3, 2, 4), np.int64))
    words[1, 2, 1] = byte
    with pytest.raises(BittrueError, match=f"m_axis_tdata: frame 1, beat 2, lane 1 holds 0x{byte:02x}"):
        port.unpack(words)


@pytest.mark.parametrize(
    ("prefix", "lanes", "message"),
    [
        ("s_axis", 3, "port s_axis: 3 lanes do not divide the 4 channels.*use one of 1, 2, 4"),
        ("s_axis", 0, "lanes is a whole number"),
        ("s_axis", 2.0, "lanes is a whole number"),
        ("s axis", 1, "cannot name a stream port"),
    ],
)
def test_refused(prefix, lanes, message):
    with pytest.raises(BittrueError, match=message):
        StreamPort(prefix, TensorType((3, 4), Format(8)), lanes)


def test_refuses_wrong_arrays():
    port = StreamPort("s_axis", TensorType((3, 4), Format(4)), 2)
    with pytest.raises(BittrueError, match="port s_axis: values 0..8 do not fit s4"):
        port.pack(np.array([[[8, 0, 0, 0]] * 3]))
    with pytest.raises(BittrueError, match="port s_axis: expected bytes uint8"):
        port.unpack(np.zeros((1, 6, 3), np.uint8))
