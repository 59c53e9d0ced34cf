"""What Verilator's linter finds in emitted Verilog and cannot be helped: waivers, each for one rule and one form.

Widths, signs and drivers of the design itself are not waived: with this file, `verilator --lint-only -Wall` has nothing
to say, and anything that it says is a fault.
"""

from __future__ import annotations

from pathlib import Path

#: Rule, form of the message, and why the text is right all the same.
WAIVERS = (
    (
        "DECLFILENAME",
        "Filename '*' does not match MODULE name: '*'",
        "The file has the name that the user chose, and holds every module of the design.",
    ),
    (
        "UNUSEDSIGNAL",
        "Signal is not used: '*'",
        "Amaranth writes a net for every name in the source, also for parts of words: they are what waveforms show.",
    ),
    (
        "UNUSEDSIGNAL",
        "Bits of signal are not used: '*",
        "Codes are padded to whole bytes at ports, a counter's carry is dropped, bits that a shift loses are computed.",
    ),
    (
        "PROCASSINIT",
        "Procedural assignment to declaration with initial value: '*'",
        "A register's declaration has its value at power-up, as FPGAs set it, its clocked process all others.",
    ),
    (
        "WIDTHTRUNC",
        "Logical operator LOGNOT expects 1 bit on the LHS, but LHS's * generates * bits.",
        "yosys writes `! word` for `word == 0`, which is the same for a word of any width.",
    ),
    (
        "CASEINCOMPLETE",
        "Case values incompletely covered (example pattern *)",
        "What a `casez` leaves open was assigned just before it: every process begins with the value of its target.",
    ),
    (
        "CASEOVERLAP",
        "Case conditions overlap (example pattern *)",
        "A chain of `if` and `else if` becomes a `casez` whose first item that matches holds, as meant.",
    ),
    (
        "VARHIDDEN",
        "Declaration of signal hides declaration in upper scope: '*'",
        "A memory may have the name of an instance above it: those of stages are the names of a program's operations.",
    ),
)


def text(name: str) -> str:
    """The configuration file of Verilator for the Verilog file of this name.

    Example: `verilator --lint-only -Wall --top-module bittrue_top top.vlt top.v`
    """
    pattern = "".join("?" if letter in '*?"\\' or not letter.isprintable() else letter for letter in name)
    shown, stem = (ascii(part)[1:-1] for part in (name, Path(name).stem))
    lines = [
        "`verilator_config",
        f"// Waivers for {shown}: verilator --lint-only -Wall --top-module bittrue_top {stem}.vlt {shown}",
        "// Each is for one rule and one form of its message. Widths and signs are explicit in the design, not waived.",
        "// Where a Verilator does not know one of the rules (older ones have no PROCASSINIT), take its line out.",
    ]
    for rule, form, reason in WAIVERS:
        lines += ["", f"// {reason}", f'lint_off -rule {rule} -file "*{pattern}" -match "{form}"']
    return "\n".join(lines) + "\n"
