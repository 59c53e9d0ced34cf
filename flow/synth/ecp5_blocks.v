// The two hard blocks of the ECP5 that yosys has no model for, so that a netlist can be simulated: the block RAM DP16KD
// and the multiplier MULT18X18D. Behaviour after Lattice's usage guides for memory (FPGA-TN-02204) and sysDSP
// (FPGA-TN-02205), bit places as yosys and nextpnr use them; two-valued, so that Verilator and Icarus agree.
// What the models leave out is refused before a netlist gets here (netlist.py, beside this file).

// P = A * B with registers for each operand, for the product and for the output; each has its choice of four clocks,
// enables and synchronous resets, all start at 0. A reset acts whatever the enable says.
module MULT18X18D (
  input A0, A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12, A13, A14, A15, A16, A17,
  input B0, B1, B2, B3, B4, B5, B6, B7, B8, B9, B10, B11, B12, B13, B14, B15, B16, B17,
  input C0, C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13, C14, C15, C16, C17,
  input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
  input CLK0, CLK1, CLK2, CLK3, CE0, CE1, CE2, CE3, RST0, RST1, RST2, RST3,
  output P0, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11, P12, P13, P14, P15, P16, P17, P18, P19, P20, P21, P22, P23,
    P24, P25, P26, P27, P28, P29, P30, P31, P32, P33, P34, P35
);
  parameter REG_INPUTA_CLK = "NONE", REG_INPUTA_CE = "CE0", REG_INPUTA_RST = "RST0";
  parameter REG_INPUTB_CLK = "NONE", REG_INPUTB_CE = "CE0", REG_INPUTB_RST = "RST0";
  parameter REG_PIPELINE_CLK = "NONE", REG_PIPELINE_CE = "CE0", REG_PIPELINE_RST = "RST0";
  parameter REG_OUTPUT_CLK = "NONE", REG_OUTPUT_CE = "CE0", REG_OUTPUT_RST = "RST0";
  parameter RESETMODE = "SYNC", GSR = "ENABLED", SOURCEB_MODE = "B_SHIFT", MULT_BYPASS = "DISABLED";

  wire [17:0] a = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
  wire [17:0] b = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
  wire [3:0] clks = {CLK3, CLK2, CLK1, CLK0}, ces = {CE3, CE2, CE1, CE0}, rsts = {RST3, RST2, RST1, RST0};

  wire [17:0] a_used, b_used;
  wire [35:0] product = {{18{SIGNEDA & a_used[17]}}, a_used} * {{18{SIGNEDB & b_used[17]}}, b_used};
  wire [35:0] piped, p;
  assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15,
    P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = p;

  // A name ends in the number of its pin: the low bits of the last letter.
  MULT18X18D_REG #(18, REG_INPUTA_CLK != "NONE") input_a
    (clks[REG_INPUTA_CLK[1:0]], ces[REG_INPUTA_CE[1:0]], rsts[REG_INPUTA_RST[1:0]], a, a_used);
  MULT18X18D_REG #(18, REG_INPUTB_CLK != "NONE") input_b
    (clks[REG_INPUTB_CLK[1:0]], ces[REG_INPUTB_CE[1:0]], rsts[REG_INPUTB_RST[1:0]], b, b_used);
  MULT18X18D_REG #(36, REG_PIPELINE_CLK != "NONE") pipeline
    (clks[REG_PIPELINE_CLK[1:0]], ces[REG_PIPELINE_CE[1:0]], rsts[REG_PIPELINE_RST[1:0]], product, piped);
  MULT18X18D_REG #(36, REG_OUTPUT_CLK != "NONE") last
    (clks[REG_OUTPUT_CLK[1:0]], ces[REG_OUTPUT_CE[1:0]], rsts[REG_OUTPUT_RST[1:0]], piped, p);
endmodule

// One register of a multiplier, or a wire where it is bypassed.
module MULT18X18D_REG #(parameter WIDTH = 18, parameter USED = 0)
  (input clk, input ce, input rst, input [WIDTH-1:0] d, output [WIDTH-1:0] q);
  generate
    if (USED) begin : used
      reg [WIDTH-1:0] held;
      initial held = 0;
      always @(posedge clk) if (rst) held <= 0; else if (ce) held <= d;
      assign q = held;
    end else begin : bypassed
      assign q = d;
    end
  endgenerate
endmodule

// 512 rows of 36 bits (1024 words of 18) behind two ports, each 1, 2, 4, 9 or 18 bits wide; widths below 9 leave the
// ninth bit of a byte alone. 36 bits take the data pins of both ports: A writes, B reads. Address pins hold the address
// of a bit; of 18 bits the lowest two pins, of 36 the lowest four, are the enables of the bytes instead.
// A port acts in a cycle if CE is high and CS equals CSDECODE. It reads, or it writes; what its output shows of a write
// is WRITEMODE: NORMAL nothing, WRITETHROUGH the new word, READBEFOREWRITE the old one. A reset (RST) clears the
// output, whatever CE says, and no write happens. With REGMODE = OUTREG a second register, enabled by OCE, follows; of
// a read of 36 bits, the lower half is that of port A.
// Both ports have one clock. What one port writes while the other reads or writes it is undefined in the device: bits
// that are then read, or held, are wrong here wherever old and new word agree, and by chance where they do not.
module DP16KD (
  input DIA0, DIA1, DIA2, DIA3, DIA4, DIA5, DIA6, DIA7, DIA8, DIA9, DIA10, DIA11, DIA12, DIA13, DIA14, DIA15, DIA16,
    DIA17,
  input ADA0, ADA1, ADA2, ADA3, ADA4, ADA5, ADA6, ADA7, ADA8, ADA9, ADA10, ADA11, ADA12, ADA13,
  input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
  output DOA0, DOA1, DOA2, DOA3, DOA4, DOA5, DOA6, DOA7, DOA8, DOA9, DOA10, DOA11, DOA12, DOA13, DOA14, DOA15, DOA16,
    DOA17,
  input DIB0, DIB1, DIB2, DIB3, DIB4, DIB5, DIB6, DIB7, DIB8, DIB9, DIB10, DIB11, DIB12, DIB13, DIB14, DIB15, DIB16,
    DIB17,
  input ADB0, ADB1, ADB2, ADB3, ADB4, ADB5, ADB6, ADB7, ADB8, ADB9, ADB10, ADB11, ADB12, ADB13,
  input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
  output DOB0, DOB1, DOB2, DOB3, DOB4, DOB5, DOB6, DOB7, DOB8, DOB9, DOB10, DOB11, DOB12, DOB13, DOB14, DOB15, DOB16,
    DOB17
);
  parameter DATA_WIDTH_A = 18, REGMODE_A = "NOREG", WRITEMODE_A = "NORMAL", CSDECODE_A = "0b000", CLKAMUX = "CLKA";
  parameter DATA_WIDTH_B = 18, REGMODE_B = "NOREG", WRITEMODE_B = "NORMAL", CSDECODE_B = "0b000", CLKBMUX = "CLKB";
  parameter RESETMODE = "SYNC", ASYNC_RESET_RELEASE = "SYNC", GSR = "ENABLED", WID = 0, INIT_DATA = "STATIC";
  parameter [319:0] INITVAL_00 = 320'd0, INITVAL_01 = 320'd0, INITVAL_02 = 320'd0, INITVAL_03 = 320'd0, INITVAL_04 =
    320'd0, INITVAL_05 = 320'd0, INITVAL_06 = 320'd0, INITVAL_07 = 320'd0, INITVAL_08 = 320'd0, INITVAL_09 = 320'd0,
    INITVAL_0A = 320'd0, INITVAL_0B = 320'd0, INITVAL_0C = 320'd0, INITVAL_0D = 320'd0, INITVAL_0E = 320'd0,
    INITVAL_0F = 320'd0, INITVAL_10 = 320'd0, INITVAL_11 = 320'd0, INITVAL_12 = 320'd0, INITVAL_13 = 320'd0,
    INITVAL_14 = 320'd0, INITVAL_15 = 320'd0, INITVAL_16 = 320'd0, INITVAL_17 = 320'd0, INITVAL_18 = 320'd0,
    INITVAL_19 = 320'd0, INITVAL_1A = 320'd0, INITVAL_1B = 320'd0, INITVAL_1C = 320'd0, INITVAL_1D = 320'd0,
    INITVAL_1E = 320'd0, INITVAL_1F = 320'd0, INITVAL_20 = 320'd0, INITVAL_21 = 320'd0, INITVAL_22 = 320'd0,
    INITVAL_23 = 320'd0, INITVAL_24 = 320'd0, INITVAL_25 = 320'd0, INITVAL_26 = 320'd0, INITVAL_27 = 320'd0,
    INITVAL_28 = 320'd0, INITVAL_29 = 320'd0, INITVAL_2A = 320'd0, INITVAL_2B = 320'd0, INITVAL_2C = 320'd0,
    INITVAL_2D = 320'd0, INITVAL_2E = 320'd0, INITVAL_2F = 320'd0, INITVAL_30 = 320'd0, INITVAL_31 = 320'd0,
    INITVAL_32 = 320'd0, INITVAL_33 = 320'd0, INITVAL_34 = 320'd0, INITVAL_35 = 320'd0, INITVAL_36 = 320'd0,
    INITVAL_37 = 320'd0, INITVAL_38 = 320'd0, INITVAL_39 = 320'd0, INITVAL_3A = 320'd0, INITVAL_3B = 320'd0,
    INITVAL_3C = 320'd0, INITVAL_3D = 320'd0, INITVAL_3E = 320'd0, INITVAL_3F = 320'd0;
  // Sixteen words of 18 bits in each, 20 bits apart.
  localparam [64*320-1:0] INITVAL = {INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A,
    INITVAL_39, INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31,
    INITVAL_30, INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
    INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F,
    INITVAL_1E, INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16,
    INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F, INITVAL_0E, INITVAL_0D,
    INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08, INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04,
    INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00};
  reg [35:0] rows [0:511];
  integer i;
  initial for (i = 0; i < 512; i = i + 1) rows[i] = {INITVAL[40 * i + 20 +: 18], INITVAL[40 * i +: 18]};

  wire [17:0] di_a = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4,
    DIA3, DIA2, DIA1, DIA0};
  wire [13:0] at_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
  wire [17:0] di_b = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
    DIB3, DIB2, DIB1, DIB0};
  wire [13:0] at_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};

  // Where in its row a port's lowest bit is, and which bits of the row a write changes.
  function [5:0] place(input integer width, input [13:0] at);
    case (width)
      36: place = 0;
      18: place = at[4] ? 18 : 0;
      9: place = 9 * at[4:3];
      4: place = 9 * at[4:3] + 4 * at[2];
      2: place = 9 * at[4:3] + 2 * at[2:1];
      default: place = 9 * at[4:3] + at[2:0];
    endcase
  endfunction
  function [35:0] changed(input integer width, input [13:0] at);
    case (width)
      36: changed = {{9{at[3]}}, {9{at[2]}}, {9{at[1]}}, {9{at[0]}}};
      18: changed = {18'd0, {9{at[1]}}, {9{at[0]}}} << place(width, at);
      default: changed = ((36'd1 << width) - 36'd1) << place(width, at);
    endcase
  endfunction

  wire acts_a = CEA && {CSA2, CSA1, CSA0} == {CSDECODE_A[16], CSDECODE_A[8], CSDECODE_A[0]};
  wire writes_a = acts_a && WEA && !RSTA;
  wire [8:0] row_a = at_a[13:5];
  wire [35:0] mask_a = writes_a ? changed(DATA_WIDTH_A, at_a) : 36'd0;
  wire [35:0] data_a = (DATA_WIDTH_A == 36) ? {di_b, di_a} : {18'd0, di_a} << place(DATA_WIDTH_A, at_a);
  wire acts_b = CEB && {CSB2, CSB1, CSB0} == {CSDECODE_B[16], CSDECODE_B[8], CSDECODE_B[0]};
  wire writes_b = acts_b && WEB && !RSTB;
  wire [8:0] row_b = at_b[13:5];
  wire [35:0] mask_b = writes_b ? changed(DATA_WIDTH_B, at_b) : 36'd0;
  wire [35:0] data_b = {18'd0, di_b} << place(DATA_WIDTH_B, at_b);
  wire same = acts_a && acts_b && row_a == row_b;
  wire [35:0] both = same ? mask_a & mask_b : 36'd0;
  reg [35:0] noise;
  initial noise = 36'h9_2D7A_31C5;
  // What a port sees of a row that the other port writes, and what a row is after the edge.
  wire [35:0] met_a = same ? mask_b & ~mask_a : 36'd0, met_b = same ? mask_a & ~mask_b : 36'd0;
  wire [35:0] seen_a = rows[row_a] ^ (met_a & (~(rows[row_a] ^ data_b) | noise));
  wire [35:0] seen_b = rows[row_b] ^ (met_b & (~(rows[row_b] ^ data_a) | noise));
  wire [35:0] new_a = ((seen_a & ~mask_a) | (data_a & mask_a)) ^ (both & noise);
  wire [35:0] new_b = ((seen_b & ~mask_b) | (data_b & mask_b)) ^ (both & noise);
  wire [35:0] merged = (new_a & ~met_a) | (new_b & met_a);

  wire clk_a = (CLKAMUX == "INV") ? ~CLKA : CLKA, clk_b = (CLKBMUX == "INV") ? ~CLKB : CLKB;
  reg [35:0] latch_a, latch_b, held_a, held_b;
  initial begin latch_a = 0; latch_b = 0; held_a = 0; held_b = 0; end
  always @(posedge clk_a) begin
    if (OCEA) held_a <= latch_a;
    if (RSTA) latch_a <= 0;
    else if (acts_a && !WEA) latch_a <= seen_a >> place(DATA_WIDTH_A, at_a);
    else if (acts_a && WRITEMODE_A == "WRITETHROUGH") latch_a <= new_a >> place(DATA_WIDTH_A, at_a);
    else if (acts_a && WRITEMODE_A == "READBEFOREWRITE") latch_a <= seen_a >> place(DATA_WIDTH_A, at_a);
    if (writes_a) rows[row_a] <= same ? merged : new_a;
  end
  always @(posedge clk_b) begin
    if (DATA_WIDTH_B == 36 ? OCEA : OCEB) held_b[17:0] <= latch_b[17:0];
    if (OCEB) held_b[35:18] <= latch_b[35:18];
    if (RSTB) latch_b <= 0;
    else if (acts_b && !WEB) latch_b <= seen_b >> place(DATA_WIDTH_B, at_b);
    else if (acts_b && WRITEMODE_B == "WRITETHROUGH") latch_b <= new_b >> place(DATA_WIDTH_B, at_b);
    else if (acts_b && WRITEMODE_B == "READBEFOREWRITE") latch_b <= seen_b >> place(DATA_WIDTH_B, at_b);
    if (writes_b) rows[row_b] <= same ? merged : new_b;
    if (same && (WEA || WEB)) noise <= {noise[34:0], noise[35] ^ noise[24]};
  end
  wire [35:0] out_a = (REGMODE_A == "OUTREG") ? held_a : latch_a, out_b = (REGMODE_B == "OUTREG") ? held_b : latch_b;
  wire [17:0] low_b = (REGMODE_A == "OUTREG") ? held_b[17:0] : latch_b[17:0];

  assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2,
    DOA1, DOA0} = (DATA_WIDTH_B == 36) ? low_b : out_a[17:0];
  assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2,
    DOB1, DOB0} = (DATA_WIDTH_B == 36) ? out_b[35:18] : out_b[17:0];
endmodule
