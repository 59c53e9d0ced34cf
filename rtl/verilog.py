"""Verilog text of a plan: plain Verilog that yosys, Icarus, Verilator and vendor tools read; same plan, same bytes.

What large memories hold lies beside the text, in files that it reads with `$readmemh`.
"""

from __future__ import annotations

import gc
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from amaranth.hdl import Elaboratable, Signal

from bittrue.rtl import waivers
from bittrue.rtl.dataflow.plan import Plan
from bittrue.rtl.dataflow.top import Accelerator
from bittrue.rtl.design import TOP
from bittrue.rtl.parts.rom import Contents
from bittrue.rtl.widths import explicit
from bittrue.sim import caches
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import alone, beside, write_whole

#: The register that yosys reads in every `always @*` to have it run at time 0, when none of its inputs changes.
_STARTER = re.compile(r"^  reg (\\\$auto\$verilog_backend\S+ ) = 0;$", re.MULTILINE)


_READ = re.compile(r'\$readmemh\("([^"]+)"')


class Verilog(str):
    """The text of a design, with the memory files that it reads.

    files   what they hold, by the names that the text has for them: those of their contents, no folder

    `write` and `read` keep text and files together; `placed` is text that a tool reads in any folder.
    """

    files: Mapping[str, str]

    def __new__(cls, text: str, files: Mapping[str, str] | None = None) -> Verilog:
        verilog = super().__new__(cls, text)
        verilog.files = dict(files if files is not None else getattr(text, "files", {}))
        return verilog

    def __add__(self, other: str) -> Verilog:
        return Verilog(str(self) + str(other), {**self.files, **getattr(other, "files", {})})

    def __radd__(self, other: str) -> Verilog:
        return Verilog(str(other) + str(self), {**getattr(other, "files", {}), **self.files})

    def write(self, path: str | Path) -> None:
        """The text into this file; beside it the memory files, and waivers for Verilator's linter (`<stem>.vlt`)."""
        if not alone(path):
            write_whole(Path(path).with_suffix(".vlt"), waivers.text(Path(path).name).encode())
        for name, content in self.files.items():
            write_whole(beside(path, name, "the memory file " + name), content.encode())
        write_whole(path, self.encode())

    @staticmethod
    def read(path: str | Path) -> Verilog:
        """What `write` wrote, or any Verilog file; memory files that are not beside it are left to the tools."""
        path = Path(path)
        try:
            text = path.read_text()
            beside = {name: path.parent / name for name in _READ.findall(text) if not Path(name).is_absolute()}
            return Verilog(text, {name: file.read_text() for name, file in beside.items() if file.exists()})
        except (OSError, UnicodeDecodeError) as error:
            raise BittrueError(f"{path}: cannot be read ({error})") from error

    def placed(self, folder: Path) -> str:
        """The text with the memory files named by absolute paths in this folder, into which they are written.

        There, a file's name is the hash of what it holds, so that other contents are another text.
        """
        places = {}
        for name, content in self.files.items():
            places[name] = folder.absolute() / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.hex"
            if not places[name].exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(places[name], content.encode())
        return _READ.sub(lambda m: f'$readmemh("{places[m[1]]}"' if m[1] in places else m[0], self)


def emit(plan: Plan) -> Verilog:
    """The Verilog of the accelerator; its top module is `bittrue_top`."""
    top = Accelerator(plan)
    header = (
        f"// bittrue: program {plan.program.sha256}\n"
        f"// interval {plan.estimated_interval} cycles, latency {plan.estimated_latency} cycles\n"
    )
    return header + convert(top, top.ports)


def convert(top: Elaboratable, ports: Sequence[Signal], name: str = TOP) -> Verilog:
    """The Verilog of any top, whose module gets this name; same design, same bytes."""
    os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")
    caches.prepare()  # its yosys keeps what it compiles
    from amaranth.back import rtlil, verilog

    contents = Contents()
    with _uncollected():
        text = rtlil.convert(top, platform=contents, name=name, ports=list(ports), emit_src=False)
    try:  # the second half of `verilog.convert`, which has no place between the two
        text = verilog._convert_rtlil_text(explicit(text), strip_internal_attrs=True)
    except verilog.YosysError as error:
        lines = str(error).strip().splitlines() or ["it says nothing"]
        raise BittrueError(
            f"the Verilog cannot be written: Amaranth's yosys ended with {lines[-1].strip()!r}"
        ) from error
    # Its initial value alone is no event where declarations are initialised before any process starts (IEEE 1800, as
    # in Icarus with -g2012): the process would wait and give X. A nonblocking assignment comes after all have started.
    text = _STARTER.sub(r"  reg \1 = 0;\n  initial \1 <= 1;", text)
    note = "/* verilator lint_off INITIALDLY */ // meant: processes that wait at time 0 are to see a change\n"
    return Verilog(note + text + "".join(contents.modules.values()), contents.files)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for cycles meanwhile: a netlist is millions of small objects that all live until its text is written,
    and to go through them again and again takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
