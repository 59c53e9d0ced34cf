"""Small AXI4-Stream designs of known latency and interval, right and wrong, for the tests of the simulators.

`pipeline` adds 1 to every code (wrapping) in a shift pipeline of `DEPTH` stages with a common enable, and pauses
`GAP` cycles after each frame: latency DEPTH, interval beats + GAP. `FAULTY` is the same with all errors of `BUGS`, of
which a simulator has the one that was `planted` where it starts: one build does for all of them.
`SUM2` adds two inputs, saturated, one register stage: latency 1 after both beats are there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bittrue.rtl.bus.ports import StreamPort
from bittrue.sim.contract import INT8, Format, saturate, wrap
from bittrue.sim.operation import TensorType

DEPTH, GAP = 5, 3
TENSOR = TensorType((3, 4), INT8)
LANES = 2
INPUT, OUTPUT = StreamPort("s_axis", TENSOR, LANES), StreamPort("m_axis", TENSOR, LANES)
LATENCY, INTERVAL = DEPTH, INPUT.beats + GAP

#: Name of each planted error -> what it does, in the Verilog below.
BUGS = (
    "drops_last",  # the TLAST of the third frame is missing
    "early_last",  # TLAST also on the first beat
    "duplicates",  # a beat is sent twice when it was stalled
    "changes",  # the word changes while it is stalled
    "withdraws",  # valid falls after a cycle of stall
    "waits",  # valid waits for ready
    "off_by_one",  # one value is wrong: 100 gives 102
    "deadlock",  # stops for good at the second frame
    "extra",  # one more beat follows the second frame
    "resets_high",  # valid is high in reset
    "miscounts",  # every third frame counts as a framing error
)


#: File that says which error `FAULTY` has.
PLANTED = "planted.hex"


def pipeline(lanes: int = LANES, faulty: bool = False) -> str:
    """The Verilog of the pipeline for 8-bit codes, without errors, or with those of `BUGS` to choose from."""
    tests = {name: f"(BUG == {k + 1})" for k, name in enumerate(BUGS)}
    read = f'reg [7:0] planted [0:0]; initial $readmemh("{PLANTED}", planted); wire [7:0] BUG = planted[0];'
    return f"""
module bittrue_top (
    input aclk, input aresetn,
    input [{8 * lanes - 1}:0] s_axis_tdata, input s_axis_tvalid, input s_axis_tlast, output s_axis_tready,
    output [15:0] s_axis_framing_errors,
    output [{8 * lanes - 1}:0] m_axis_tdata, output m_axis_tvalid, output m_axis_tlast, input m_axis_tready
);
    localparam DEPTH = {DEPTH}, GAP = {GAP}, WIDTH = {8 * lanes};
    {read if faulty else "localparam BUG = 0;"}
    reg [WIDTH-1:0] data [0:DEPTH-1];
    reg [DEPTH-1:0] valid, last;
    reg [2:0] gap;
    reg [15:0] frame_in, frame_out;
    reg stalled, repeated, surplus;
    wire hung = {tests["deadlock"]} && frame_in == 1;
    wire again = {tests["duplicates"]} && stalled && !repeated;
    wire extra = {tests["extra"]} && surplus;
    wire enable = (!valid[DEPTH-1] || m_axis_tready) && !extra && !(again && valid[DEPTH-1]);
    assign s_axis_tready = enable && gap == 0 && !hung;
    wire take = s_axis_tvalid && s_axis_tready;
    assign s_axis_framing_errors = {tests["miscounts"]} ? frame_in / 3 : 0;
    assign m_axis_tvalid = {tests["resets_high"]} && !aresetn ? 1'b1 :
                           {tests["waits"]} ? valid[DEPTH-1] && m_axis_tready :
                           {tests["withdraws"]} ? valid[DEPTH-1] && (!stalled || m_axis_tready) :
                           valid[DEPTH-1] || extra;
    assign m_axis_tdata = data[DEPTH-1] + ({tests["changes"]} && stalled ? 1'b1 : 1'b0);
    assign m_axis_tlast = {tests["drops_last"]} && frame_out == 2 ? 1'b0 :
                          {tests["early_last"]} ? 1'b1 : last[DEPTH-1];
    wire give = m_axis_tvalid && m_axis_tready;
    integer k;
    always @(posedge aclk) begin
        if (enable) begin
            for (k = 1; k < DEPTH; k = k + 1) data[k] <= data[k-1];
            for (k = 0; k < WIDTH / 8; k = k + 1)
                data[0][8*k +: 8] <= s_axis_tdata[8*k +: 8] + 8'd1
                    + ({tests["off_by_one"]} && s_axis_tdata[8*k +: 8] == 8'd100 ? 8'd1 : 8'd0);
            valid <= {{valid[DEPTH-2:0], take}};
            last <= {{last[DEPTH-2:0], s_axis_tlast}};
        end
        if (gap != 0) gap <= gap - 1;
        if (take && s_axis_tlast) begin
            gap <= GAP;
            frame_in <= frame_in + 1;
        end
        if (give && last[DEPTH-1]) frame_out <= frame_out + 1;
        stalled <= m_axis_tvalid && !m_axis_tready;
        repeated <= give && again;
        surplus <= give && last[DEPTH-1] && frame_out == 1;
        if (!aresetn) begin
            valid <= 0;
            gap <= 0;
            frame_in <= 0;
            frame_out <= 0;
            stalled <= 0;
            repeated <= 0;
            surplus <= 0;
        end
    end
endmodule
"""


FAULTY = pipeline(faulty=True)


def plant(folder: Path, bug: str | None) -> None:
    """Choose the error that a simulator of `FAULTY` has when it starts in this folder; None: none."""
    (folder / PLANTED).write_text(f"{BUGS.index(bug) + 1 if bug else 0:x}\n")


def pipeline_golden(x: np.ndarray) -> np.ndarray:
    """What `pipeline` computes."""
    return wrap(x.astype(np.int64) + 1, INT8)


#: Two inputs, one with a name that Verilator mangles, each code of 12 bits in two bytes.
WIDE = TensorType((2, 6), Format(12))
SUM_INPUTS = (StreamPort("s_axis_a", WIDE, 6), StreamPort("s_axis_b__1", WIDE, 6))
SUM_OUTPUT = StreamPort("m_axis", WIDE, 6)

SUM2 = """
module bittrue_top (
    input aclk, input aresetn,
    input [95:0] s_axis_a_tdata, input s_axis_a_tvalid, input s_axis_a_tlast, output s_axis_a_tready,
    input [95:0] s_axis_b__1_tdata, input s_axis_b__1_tvalid, input s_axis_b__1_tlast, output s_axis_b__1_tready,
    output [15:0] s_axis_a_framing_errors, output [15:0] s_axis_b__1_framing_errors,
    output reg [95:0] m_axis_tdata, output reg m_axis_tvalid, output reg m_axis_tlast, input m_axis_tready
);
    wire take = s_axis_a_tvalid && s_axis_b__1_tvalid && (!m_axis_tvalid || m_axis_tready);
    assign s_axis_a_tready = take;
    assign s_axis_a_framing_errors = 0;
    assign s_axis_b__1_framing_errors = 0;
    assign s_axis_b__1_tready = take;
    reg signed [12:0] sum;
    integer k;
    always @(posedge aclk) begin
        if (m_axis_tready) m_axis_tvalid <= 0;
        if (take) begin
            for (k = 0; k < 6; k = k + 1) begin
                sum = $signed(s_axis_a_tdata[16*k +: 12]) + $signed(s_axis_b__1_tdata[16*k +: 12]);
                if (sum > 2047) sum = 2047;
                if (sum < -2048) sum = -2048;
                m_axis_tdata[16*k +: 16] <= {{3{sum[12]}}, sum};
            end
            m_axis_tlast <= s_axis_a_tlast;
            m_axis_tvalid <= 1;
        end
        if (!aresetn) m_axis_tvalid <= 0;
    end
endmodule
"""


def sum_golden(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What `SUM2` computes."""
    return saturate(a.astype(np.int64) + b, WIDE.format)


def codes(tensor: TensorType, frames: int, seed: int) -> np.ndarray:
    """Random full-range codes `[frames, *shape]`."""
    fmt = tensor.format
    values = np.random.default_rng(seed).integers(fmt.low, fmt.high + 1, (frames, *tensor.shape))
    return values.astype(fmt.dtype)


# -- planted errors --------------------------------------------------------------------------------------
CAUGHT = {
    "drops_last": r"the last beat of frame 2 came without TLAST in cycle",
    "early_last": r"TLAST on beat 0 of frame 0, which has 6",
    "duplicates": r"codes differ",
    "changes": r"TDATA or TLAST changed while TVALID was high and TREADY low",
    "withdraws": r"TVALID was withdrawn before TREADY",
    "waits": r"depends on TREADY in the same cycle",
    "off_by_one": r"^RTL \(\w+\): 1 of 480 codes differ, the first at frame 7, output\[1, 2\]: "
    r"expected 101, got 102 in cycle \d+$",
    "deadlock": r"deadlock, no handshake for 2000 cycles: s_axis accepted 6 of 240 beats, "
    r"m_axis produced 6 of 240; 468 of 480 codes differ, the first at frame 1, output\[0, 0\]: "
    r"expected -?\d+, never produced",
    "extra": r"m_axis: a beat more than the 6 of each of the 2 frames",
    "resets_high": r"TVALID is not low in reset",
    "miscounts": r"s_axis_framing_errors counts 13 framing errors, 0 were made",
}


#: Errors that nothing but back-pressure brings out.
STALL_ONLY = ("duplicates", "changes", "withdraws", "waits")


def stimulus(bug: str) -> np.ndarray:
    """Frames in which exactly one code is 100; two of them for the surplus beat, which follows the second."""
    x = codes(TENSOR, 40, seed=5)
    x[x == 100] = 99
    x[7, 1, 2] = 100
    return x[:2] if bug == "extra" else x
