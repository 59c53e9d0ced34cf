"""What Verilator's linter says about emitted Verilog."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from bittrue.flow.run.verilate import TOP, toolchain
from bittrue.rtl.verilog import Verilog


def verilator_says(verilog: str, folder: Path, name: str = "design.v", waived: bool = True) -> str:
    """The output of `verilator --lint-only -Wall` with the waivers written beside the text; nothing where all is well.

    What is said ends with the exit status where that is not 0.
    """
    Verilog(verilog).write(folder / name)
    root = toolchain().root
    command = [root / "bin" / "verilator_bin", "--lint-only", "--quiet-stats", "-Wall", "--top-module", TOP]
    command += [f"{Path(name).stem}.vlt"] if waived else []
    environment = os.environ | {"VERILATOR_ROOT": str(root)}
    done = subprocess.run([*command, name], cwd=folder, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr + (f"exit status {done.returncode}" if done.returncode else "")


def rules(said: str) -> set[str]:
    """The rules of the warnings."""
    return set(re.findall(r"^%Warning-(\w+):", said, flags=re.MULTILINE))
