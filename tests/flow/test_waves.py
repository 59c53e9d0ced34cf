"""Waveforms as text: what a sieve keeps of a VCD file, byte by byte, and a run that fails on the way."""

import pytest

from bittrue.flow.run import waves
from bittrue.sim.errors import BittrueError

HEADER = """$timescale 1ps $end
$scope module top $end
$var wire 1 ! clk $end
$var wire 4 " word $end
$scope module inner $end
$var wire 1 # clk $end
$var wire 3 !! far $end
$upscope $end
$var wire 2 $ pair $end
$upscope $end
$enddefinitions $end"""
CHANGES = '\n#0\n0!\nb1010 "\n1#\nb111 !!\nB01 $\n\n#5\n1!\nb0 !!\nx#\n#10\nBx1z "\n'
KEPT = '\n#0\nb1010 "\nb111 !!\n\n#5\nb0 !!\n#10\nBx1z "\n'


def sift(path, *parts: bytes) -> bytes:
    sieve = waves.Sieve(path, lambda _, name: name in ("word", "far"))
    for part in parts:
        sieve.feed(part)
    sieve.finish()
    return path.read_bytes()


def test_a_header_says_where_every_net_is():
    names = waves.Names.of_header(HEADER)
    top, inner = ("top",), ("top", "inner")
    within = {(inner, "clk"): "#", (inner, "far"): "!!"}
    assert names.codes == within | {(top, "clk"): "!", (top, "word"): '"', (top, "pair"): "$"}
    assert names.widths == {"!": 1, '"': 4, "#": 1, "!!": 3, "$": 2}
    assert names.below(inner) == within
    assert [waves.number(code) for code in ("!", '"', "~", "!!", '"!')] == [1, 2, 94, 95, 96]
    table = names.lookup(['"', "!!"])
    assert (len(table), table[2], table[95], sorted(set(table.tolist()))) == (96, 0, 1, [-1, 0, 1])


def test_a_sieve_keeps_times_and_what_is_wanted(tmp_path):
    whole = (HEADER + CHANGES).encode()
    assert sift(tmp_path / "whole", whole).decode() == HEADER + KEPT
    for size in (1, 2, 7, 50):
        parts = [whole[k : k + size] for k in range(0, len(whole), size)]
        assert sift(tmp_path / "parts", *parts) == (HEADER + KEPT).encode()


@pytest.mark.parametrize("text", [HEADER[:-4], HEADER + CHANGES[:-1]])
def test_a_file_that_is_not_whole_is_refused(text, tmp_path):
    with pytest.raises(BittrueError, match="the waveform ends early"):
        sift(tmp_path / "x", text.encode())


def test_what_goes_through_a_pipe_is_read_and_what_fails_there_is_raised(tmp_path):
    def run(place):
        place.write_bytes((HEADER + CHANGES).encode())
        return "what the run gave"

    def fail(place):
        run(place)
        raise BittrueError("the run says why")

    sieve = waves.Sieve(tmp_path / "kept", lambda _, name: name in ("word", "far"))
    assert waves.piped(run, sieve) == "what the run gave"
    assert (tmp_path / "kept").read_text() == HEADER + KEPT
    with pytest.raises(BittrueError, match="the run says why"):
        waves.piped(fail, waves.Sieve(tmp_path / "other", lambda *_: True))
