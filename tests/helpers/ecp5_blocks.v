// Behaviour of the two hard blocks of the ECP5 that yosys has no model for, as far as the netlists of the tests use
// them: rising clocks, block RAM ports that do not show what they write, multipliers without the C operand.

module MULT18X18D (
  input A0, A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12, A13, A14, A15, A16, A17,
  input B0, B1, B2, B3, B4, B5, B6, B7, B8, B9, B10, B11, B12, B13, B14, B15, B16, B17,
  input C0, C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13, C14, C15, C16, C17,
  input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
  input CLK0, CLK1, CLK2, CLK3, CE0, CE1, CE2, CE3, RST0, RST1, RST2, RST3,
  output P0, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11, P12, P13, P14, P15, P16, P17,
  output P18, P19, P20, P21, P22, P23, P24, P25, P26, P27, P28, P29, P30, P31, P32, P33, P34, P35
);
  parameter REG_INPUTA_CLK = "NONE", REG_INPUTA_CE = "CE0", REG_INPUTA_RST = "RST0";
  parameter REG_INPUTB_CLK = "NONE", REG_INPUTB_CE = "CE0", REG_INPUTB_RST = "RST0";
  parameter REG_PIPELINE_CLK = "NONE", REG_PIPELINE_CE = "CE0", REG_PIPELINE_RST = "RST0";
  parameter REG_OUTPUT_CLK = "NONE", REG_OUTPUT_CE = "CE0", REG_OUTPUT_RST = "RST0";
  parameter RESETMODE = "SYNC", GSR = "ENABLED";

  wire [17:0] a = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
  wire [17:0] b = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
  reg [17:0] a_held = 0, b_held = 0;
  reg [35:0] middle = 0, last = 0;

  wire [17:0] a_used = (REG_INPUTA_CLK == "NONE") ? a : a_held;
  wire [17:0] b_used = (REG_INPUTB_CLK == "NONE") ? b : b_held;
  wire [35:0] product = {{18{SIGNEDA & a_used[17]}}, a_used} * {{18{SIGNEDB & b_used[17]}}, b_used};
  wire [35:0] piped = (REG_PIPELINE_CLK == "NONE") ? product : middle;
  assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18,
          P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0}
       = (REG_OUTPUT_CLK == "NONE") ? piped : last;

  // An unconnected enable or reset is undefined and makes what it controls undefined, so that a test sees it.
  `define PIN(name, base) ((name == {base, "0"}) ? pins[0] : (name == {base, "1"}) ? pins[1] : \
                           (name == {base, "2"}) ? pins[2] : (name == {base, "3"}) ? pins[3] : 1'bx)
  function enable(input [8*3-1:0] name, input [3:0] pins);
    enable = `PIN(name, "CE");
  endfunction
  function reset(input [8*4-1:0] name, input [3:0] pins);
    reset = `PIN(name, "RST");
  endfunction
  wire [3:0] ce = {CE3, CE2, CE1, CE0}, rst = {RST3, RST2, RST1, RST0};

  `define REGISTER(held, value, clk, ce_name, rst_name) \
    if (clk != "NONE" && clk != "CLK0") initial begin $display("unmodelled clock %s", clk); $finish; end \
    always @(posedge CLK0) \
      if (reset(rst_name, rst) === 1'b1) held <= 0; \
      else if (reset(rst_name, rst) !== 1'b0 || enable(ce_name, ce) === 1'bx || enable(ce_name, ce) === 1'bz) \
        held <= 'bx; \
      else if (enable(ce_name, ce)) held <= value;
  generate
    `REGISTER(a_held, a, REG_INPUTA_CLK, REG_INPUTA_CE, REG_INPUTA_RST)
    `REGISTER(b_held, b, REG_INPUTB_CLK, REG_INPUTB_CE, REG_INPUTB_RST)
    `REGISTER(middle, product, REG_PIPELINE_CLK, REG_PIPELINE_CE, REG_PIPELINE_RST)
    `REGISTER(last, piped, REG_OUTPUT_CLK, REG_OUTPUT_CE, REG_OUTPUT_RST)
  endgenerate
endmodule

// 1024 words of 18 bits behind two ports. A port of width 36 takes the data pins of both: A writes, B reads.
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
  parameter DATA_WIDTH_A = 18, REGMODE_A = "NOREG", WRITEMODE_A = "NORMAL", CSDECODE_A = "0b000";
  parameter CLKAMUX = "CLKA";
  parameter DATA_WIDTH_B = 18, REGMODE_B = "NOREG", WRITEMODE_B = "NORMAL", CSDECODE_B = "0b000";
  parameter CLKBMUX = "CLKB";
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
  wire [64*320-1:0] initial_values = {INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A,
    INITVAL_39, INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31,
    INITVAL_30, INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
    INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F,
    INITVAL_1E, INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16,
    INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F, INITVAL_0E, INITVAL_0D,
    INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08, INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04,
    INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00};
  reg [17:0] words [0:1023];
  integer i;
  initial for (i = 0; i < 1024; i = i + 1) words[i] = initial_values[320 * (i / 16) + 20 * (i % 16) +: 18];

  wire [17:0] data_a = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4,
    DIA3, DIA2, DIA1, DIA0};
  wire [13:0] at_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
  wire [17:0] data_b = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
    DIB3, DIB2, DIB1, DIB0};
  wire [13:0] at_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};

  // A read: `width` bits at bit address `at`; of a word of 18 bits, widths under 9 use 16.
  function [35:0] read(input integer width, input [13:0] at);
    case (width)
      36: read = {words[{at[13:5], 1'b1}], words[{at[13:5], 1'b0}]};
      18: read = words[at[13:4]];
      9: read = words[at[13:4]][9 * at[3] +: 9];
      4: read = words[at[13:4]][9 * at[3] + 4 * at[2] +: 4];
      2: read = words[at[13:4]][9 * at[3] + 2 * at[2:1] +: 2];
      1: read = words[at[13:4]][9 * at[3] + at[2:0] +: 1];
    endcase
  endfunction

  task write(input integer width, input [13:0] at, input [35:0] data);
    case (width)
      36: begin
        if (at[0]) words[{at[13:5], 1'b0}][8:0] = data[8:0];
        if (at[1]) words[{at[13:5], 1'b0}][17:9] = data[17:9];
        if (at[2]) words[{at[13:5], 1'b1}][8:0] = data[26:18];
        if (at[3]) words[{at[13:5], 1'b1}][17:9] = data[35:27];
      end
      18: begin
        if (at[0]) words[at[13:4]][8:0] = data[8:0];
        if (at[1]) words[at[13:4]][17:9] = data[17:9];
      end
      9: words[at[13:4]][9 * at[3] +: 9] = data[8:0];
      4: words[at[13:4]][9 * at[3] + 4 * at[2] +: 4] = data[3:0];
      2: words[at[13:4]][9 * at[3] + 2 * at[2:1] +: 2] = data[1:0];
      1: words[at[13:4]][9 * at[3] + at[2:0] +: 1] = data[0];
    endcase
  endtask

  reg [35:0] latch_a = 0, latch_b = 0, held_a = 0, held_b = 0;
  wire wide = DATA_WIDTH_A == 36 || DATA_WIDTH_B == 36;
  // Reads see the memory before the writes of the same edge, as block RAM ports without write-through do.
  always @(posedge CLKA) begin
    if (REGMODE_A == "OUTREG" && OCEA) held_a <= latch_a;
    if (CEA && !WEA && !wide) latch_a <= read(DATA_WIDTH_A, at_a);
    if (CEA && WEA) #0 write(DATA_WIDTH_A, at_a, {data_b, data_a});
  end
  always @(posedge CLKB) begin
    if (OCEB) held_b <= latch_b;
    if (CEB && !WEB) latch_b <= read(DATA_WIDTH_B, at_b);
    if (CEB && WEB && !wide) #0 write(DATA_WIDTH_B, at_b, data_b);
  end
  wire [35:0] seen_a = (REGMODE_A == "OUTREG") ? held_a : latch_a, seen_b = (REGMODE_B == "OUTREG") ? held_b : latch_b;

  assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2,
    DOA1, DOA0} = wide ? (REGMODE_A == "OUTREG" ? held_b[17:0] : latch_b[17:0]) : seen_a[17:0];
  assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2,
    DOB1, DOB0} = DATA_WIDTH_B == 36 ? seen_b[35:18] : seen_b[17:0];
endmodule
