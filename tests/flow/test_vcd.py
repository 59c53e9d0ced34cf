"""Toggles and clock edges out of VCD text: random changes against a reader in plain Python."""

import numpy as np
import pytest

from bittrue.flow.run import probe, toggles
from bittrue.sim.errors import BittrueError

NETS = {"!": ("aresetn", 1), '"': ("aclk", 1), "#": ("word", 5), "$": ("flag", 1), "!!": ("far", 9)}
HEADER = "$scope module TOP $end\n$scope module bittrue_top $end\n"
HEADER += "".join(f"$var wire {width} {code} {name} $end\n" for code, (name, width) in NETS.items())
HEADER += "$upscope $end\n$upscope $end\n$enddefinitions $end\n"


def changes(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Code and bits; some with leading zeros left out, some unknown."""
    found = []
    for _ in range(count):
        code = str(rng.choice(list(NETS)))
        bits = "".join(rng.choice(list("0011xz"), NETS[code][1]))
        if code == "!":
            bits = "01"[len(found) > count // 4]
        found.append((code, (bits.lstrip("0") or "0") if len(bits) > 1 and rng.random() < 0.5 else bits))
    return found


def text(told: list[tuple[str, str]], rng: np.random.Generator) -> str:
    lines = [f"{rng.choice(['b', 'B'])}{bits} {code}" if NETS[code][1] > 1 else bits + code for code, bits in told]
    marked = [line + ("\n#7" if rng.random() < 0.3 else "") + ("\n" if rng.random() < 0.1 else "") for line in lines]
    return HEADER + "#0\n" + "\n".join(marked) + "\n$dumpoff\n"


def counted(told: list[tuple[str, str]]) -> dict[str, int]:
    """By code: bits that change out of reset, from a value that was there."""
    now, found, running = {}, dict.fromkeys(NETS, 0), False
    for code, bits in told:
        bits, before = bits.rjust(NETS[code][1], "0"), now.get(code)
        now[code] = bits
        if code == "!" and bits == "1":
            running = True
        elif running and before is not None:
            found[code] += sum(a != b for a, b in zip(before, bits, strict=True))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_toggles_are_those_of_a_plain_reader(seed):
    rng = np.random.default_rng(seed)
    told = changes(rng, 400)
    whole = text(told, rng).encode()
    for size in (len(whole), 97):
        counter = toggles.Counter()
        for k in range(0, len(whole), size):
            counter.feed(whole[k : k + size])
        counter.finish()
        expected = counted(told)
        assert {code: counter.total({code}) for code in NETS} == expected
        assert counter.total({"#", "!!"}) == expected["#"] + expected["!!"]


def test_the_first_value_of_a_net_is_no_change():
    """Nor is a bit that was left out of it, which is 0."""
    counter = toggles.Counter()
    counter.feed(f"{HEADER}#0\n1!\n#1\nb101 #\n1$\nb1 !!\n#2\nb110 #\n0$\nb10000001 !!\n".encode())
    counter.finish()
    assert {code: counter.total({code}) for code in NETS} == {"!": 0, '"': 0, "#": 2, "$": 1, "!!": 1}


def test_a_waveform_without_reset_is_refused():
    with pytest.raises(BittrueError, match="no signal bittrue_top.aresetn, so its toggles cannot be counted"):
        toggles.Counter().feed(HEADER.replace("aresetn", "reset").encode())


def test_edges_out_of_reset_have_the_values_before_them(tmp_path):
    body = (
        '#0\n0!\n0"\nb1 #\n#1\n1"\n#2\n0"\n1!\n#3\n1"\nb101 #\n1$\n#4\n0"\n#5\n\n1"\nB11 #\nx$\n#6\nb0 #\n0"\n#7\n1"\n'
    )
    path = tmp_path / "waves.vcd"
    path.write_text(HEADER + body)
    names = ("aclk", "aresetn", "word", "flag")
    wanted = {(name,): (*probe.ROOT, name) for name in names}
    seen = [(value("word"), value("flag")) for value in probe.edges(path, wanted)]
    assert seen == [("1", "x"), ("101", "1"), ("0", "x")]
    with pytest.raises(BittrueError, match="it has no signal TOP.bittrue_top.none, so the RTL cannot be probed"):
        list(probe.edges(path, wanted | {("none",): (*probe.ROOT, "none")}))
