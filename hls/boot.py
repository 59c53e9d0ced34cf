"""Write a system that boots as two Vitis HLS projects: a kernel that makes weights, and the network that holds them.

    boot/      `bittrue_boot`: the samples of a boot, the generator, and the link, which writes every code to its entry
               and forms the checksum; `ready` is set when that is the one that was `expected`
    network/   `bittrue_top`, as any program with held inputs; it is started (`ap_ctrl_hs`), with `ready` at `ap_start`,
               so that no frame begins before a boot was right

What is held lies in memories between the two: arguments of either. The boot is a DATAFLOW loop over the samples, so
that the generator works on several at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bittrue.hls import project
from bittrue.hls.boot_host import entry_point
from bittrue.hls.generated import (
    NUMBERS,
    array,
    code_type,
    first,
    format_member,
    guarded,
    includes,
    initializer,
    integer,
    interfaces,
    parameters,
    region,
    rom,
)
from bittrue.hls.network import KernelGraph
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.locks import locked
from bittrue.sim.naming import identifier
from bittrue.sim.places import Part, Section, sections
from bittrue.sim.program import Program
from bittrue.sim.reading import sealed
from bittrue.sim.sequence import columns, counted
from bittrue.sim.system import Link, System
from bittrue.sim.written import at_first, held_only

#: The folders of the two projects.
BOOT, NETWORK = "boot", "network"
#: Kernels of the boot besides those of the generator.
OWN = ("sequence", "scatter")


def write(system: System, folder: str | Path, x: Sequence[np.ndarray] | None = None, interval: int = 0) -> Path:
    """Write both projects and return their folder.

    `x` are frames of the network for its test bench, which holds what a boot makes; `interval` is that of
    `hls.project.write`. Raises BittrueError for a system that is no generator of one network, and where an operation
    has no kernel.
    """
    link = system.boot_link
    codes = system.boot(link.source)
    target = held_only(system.programs[link.target], link.names)
    folder = Path(folder)
    project.write(at_first(target, system.scattered(link, codes)), folder / NETWORK, x, interval, control="ap_ctrl_hs")
    files = _Boot(system, link, target, codes).files()
    with locked(folder / BOOT) as place:
        for name, text in files.items():
            write_whole(place / name, text.encode())
    return folder


class _Boot:
    """The project of one boot."""

    def __init__(self, system: System, link: Link, target: Program, codes: np.ndarray) -> None:
        self.system, self.link, self.target = system, link, target
        self.generator, self.made = system.programs[link.source], system.scattered(link, codes)
        self.checksum = system.checksum(link, codes)
        if self.generator.counts_frames or self.generator.grouping is not None:
            raise BittrueError(
                f"boot: {link.source!r} counts its samples or takes them in groups, and the HLS boot begins anew each "
                "time; make a generator that does neither"
            )
        self.kernels = [project.kernel_of(node) for node in self.generator.nodes]
        network = KernelGraph.of(self.generator, self.kernels)
        taken = {stream.name for stream in network.streams} | set(network.held)
        self.arrays = {identifier(f"made_{name}", taken): target.written[name] for name in link.names}
        self.samples, self.firsts = columns(system.boots[link.source])
        self.runs = counted(self.samples)
        self.sections: list[Section] = sections(system, link)
        self.output = self.generator.output
        self.network = replace(network, processes=self._processes(network))

    def _processes(self, network: KernelGraph):
        """Those of the generator; samples and the link stand in place of its ports."""
        ports = dict(zip((port for port, _ in network.slaves), self.firsts, strict=True))
        kind, found = "listed" if self.runs is None else "counted", []
        for process in network.processes:
            if (name := process.reads[0]) in ports:
                size = dict(network.slaves)[name].size
                call = f"bittrue::{kind}<boot_samples, {ports[name]}, {size}>"
                process = replace(process, call=call, reads=("sample",), parameters=())
            elif process.writes and process.writes[0] in dict(network.masters):
                given = (*self.arrays, "expected", "found", "ready")
                process = replace(process, call="scatter", reads=("sample", *process.reads), writes=given)
            found.append(process)
        return tuple(found)

    # -- text ------------------------------------------------------------------------------------------
    def files(self) -> dict[str, str]:
        """Content by name."""
        names = {**project.COMMON, **{f"kernels/{name}.hpp": f"{name}.hpp" for name in OWN}}
        files = {target: (project.HERE / source).read_text() for source, target in names.items()}
        files |= {f"{name}.hpp": (project.HERE / "kernels" / f"{name}.hpp").read_text() for name in self.kernels}
        interval = max(kind.size for kind in self.generator.types.values())
        files["parameters.h"] = parameters(self.generator, self.network, interval)
        files["places.h"] = self.places()
        files["top.hpp"], files["top.cpp"] = self.header(), self.top()
        files["tb.cpp"], files["host/batch.cpp"] = self.test_bench(), entry_point(self.network.held, self.arrays)
        script = (project.HERE / "run_hls.tcl").read_text()
        files["run_hls.tcl"] = script.replace("set_top bittrue_top", "set_top bittrue_boot")
        for argument, held in self.network.held.items():
            files[f"vectors/{argument}.txt"] = project.vectors(held.initial[None])
        for (argument, _), name in zip(self.arrays.items(), self.link.names, strict=True):
            files[f"vectors/{argument}.txt"] = project.vectors(self.made[name][None])
        files["project.json"] = self.describe(files)
        return files

    def places(self) -> str:
        """`places.h`: the samples, and of every section its words and steps."""
        structs = [self._samples()]
        for k, section in enumerate(self.sections):
            live = section.live
            if not (live == live[0]).all():
                raise AssertionError("the codes of a section go to the same held inputs")
            structs.append(_struct(f"section_{k}", {"codes": live.shape[1]}, {"live": live[0].astype(np.int64)}))
            structs += [_part(f"part_{k}_{part.held}", part, live.shape[1]) for part in section.parts]
        return guarded("BITTRUE_PLACES_H", '#include "contract.hpp"\n\n' + "\n".join(structs))

    def _samples(self) -> str:
        wide = self.samples.shape[1]
        if self.runs is None:
            return _struct("boot_samples", {"columns": wide}, {"values": self.samples})
        ends = {"first": np.stack([run.first for run in self.runs]), "last": np.stack([run.last for run in self.runs])}
        return _struct("boot_samples", {"columns": wide, "runs": len(self.runs)}, ends)

    def _signature(self) -> str:
        given = [f"const {array(name, held)}" for name, held in self.network.held.items()]
        given += [*self._made(), "ap_uint<32> expected", "ap_uint<32>& found", "bool& ready"]
        return "void bittrue_boot(" + ",\n                  ".join(given) + ")"

    def _made(self) -> list[str]:
        """The declarations of what is written."""
        return [
            array(name, held) if held.shape else f"{rom(held.format)}& {name}" for name, held in self.arrays.items()
        ]

    def header(self) -> str:
        """`top.hpp`."""
        lines = ['#include "ap_int.h"\n#include "contract.hpp"\n#include "hls_stream.h"\n']
        lines.append(f"const int boot_count = {len(self.samples)};")
        lines.append(
            "// The checksum of what the generator makes with what it holds at first.\n"
            f"const unsigned boot_checksum = {self.checksum}u;\n"
        )
        lines.append(
            "// A call is a boot. `found` is the checksum; `ready`: it is the one that was expected, so that what was\n"
            "// made may be used."
        )
        return guarded("BITTRUE_TOP_HPP", "\n".join([*lines, self._signature() + ";", ""]))

    def top(self) -> str:
        """`top.cpp`: the link, and the DATAFLOW loop."""
        lines = [f"// Program {self.generator.sha256}, generated; a call makes what {self.target.sha256} holds."]
        lines += ['#include "top.hpp"', *includes([*self.kernels, *OWN])]
        at = lines.index('#include "parameters.h"')
        lines.insert(at + 1, '#include "places.h"')
        lines += [self._link(), "", self._signature() + " {"]
        lines += interfaces(self.network.held)
        for name, held in self.arrays.items():
            lines.append(f"#pragma HLS INTERFACE {'ap_memory' if held.shape else 'ap_none'} port={name}")
        lines += [f"#pragma HLS INTERFACE ap_none port={name}" for name in ("expected", "found", "ready")]
        lines += ["#pragma HLS INTERFACE ap_ctrl_hs port=return", "samples:"]
        lines += ["    for (int sample = 0; sample < boot_count; ++sample) {", "#pragma HLS DATAFLOW"]
        return "\n".join([*lines, *region(self.network, 8 * " "), "    }", "}", ""])

    def _link(self) -> str:
        """The process behind the generator: codes to entries."""
        code, size = code_type(self.output.format), self.output.size
        given = [f"hls::stream<{code} >& in", *self._made(), "const ap_uint<32>& expected", "ap_uint<32>& found"]
        lines = [
            f"static void scatter(int sample, {', '.join(given)}, bool& ready) {{",
            "    static ap_uint<32> sum = 0;",
            f"    {code} codes[{size}];",
            "read:",
            f"    for (int t = 0; t < {size}; ++t) {{",
            "#pragma HLS PIPELINE II=1",
            "        codes[t] = in.read();",
            "    }",
            "    sum = sample == 0 ? ap_uint<32>(-1) : sum;",
        ]
        names, count = list(self.arrays), -(-self.output.format.bits // 8)
        for k, section in enumerate(self.sections):
            last = section.first + section.count
            lines.append(f"    {'} else ' if k else ''}if (sample < {last}) {{")
            lines += [f"    check_{k}:", f"        for (int t = 0; t < {size}; ++t) {{", "#pragma HLS PIPELINE II=1"]
            lines.append(f"            sum = section_{k}::live[t] ? bittrue::checked<{count}>(sum, codes[t]) : sum;")
            lines.append("        }")
            for part in section.parts:
                how = "place" if part.listed is None else "place_listed"
                name = names[part.held]
                to = name if self.arrays[name].shape else f"&{name}"
                lines.append(f"        bittrue::{how}<part_{k}_{part.held}>(sample - {section.first}, codes, {to});")
        lines += ["    }", "    found = ~sum;", "    ready = sample == boot_count - 1 && found == expected;", "}"]
        return "\n".join(lines)

    def test_bench(self) -> str:
        """`tb.cpp`: a boot that is right, entry by entry, and one for which another checksum is expected."""
        lines = ["// Reads vectors/<argument>.txt from the folder given as the argument."]
        lines += ["#include <cstdio>", "#include <fstream>", "#include <string>", "#include <vector>", ""]
        lines += ['#include "frames.hpp"', '#include "top.hpp"', "", NUMBERS]
        lines += ["int main(int argc, char** argv) {", '    const std::string folder = argc > 1 ? argv[1] : "vectors";']
        for name, held in (*self.network.held.items(), *self.arrays.items()):
            lines.append(f"    static {array(name, held)};")
            lines.append(f'    const std::vector<long long> {name}_values = numbers(folder + "/{name}.txt");')
            lines.append(f"    if ({name}_values.size() != {held.size}) {{")
            lines.append(f'        std::printf("%s/{name}.txt is missing or has a wrong length\\n", folder.c_str());')
            lines += ["        return 2;", "    }"]
        for name, held in self.network.held.items():
            lines.append(f"    bittrue::fill({first(name, held)}, {name}_values.data(), {held.size});")
        for (name, held), written in zip(self.arrays.items(), self.link.names, strict=True):
            before = self.target.written[written].initial
            lines.append(f"    static const long long {name}_before[] = {initializer(before.reshape(-1))};")
            lines.append(f"    bittrue::fill({first(name, held)}, {name}_before, {held.size});")
        given = ", ".join((*self.network.held, *self.arrays))
        lines += ["    ap_uint<32> found = 0;", "    bool ready = true;", "    long mismatches = 0;"]
        lines += [f"    bittrue_boot({given}, boot_checksum ^ 1u, found, ready);"]
        lines += ["    mismatches += ready;  // another checksum was expected"]
        lines += [f"    bittrue_boot({given}, boot_checksum, found, ready);", "    mismatches += !ready;"]
        for name, held in self.arrays.items():
            lines.append(f"    for (int k = 0; k < {held.size}; ++k) {{")
            lines.append(f"        mismatches += ({first(name, held)})[k] != {name}_values[k];")
            lines.append("    }")
        lines.append('    std::printf("checksum %08x, %ld mismatches\\n", unsigned(found), mismatches);')
        return "\n".join([*lines, "    return mismatches == 0 ? 0 : 1;", "}", ""])

    def describe(self, files: Mapping[str, str]) -> str:
        """`project.json`."""
        record = {
            "sha256": self.generator.sha256,
            "network": at_first(self.target, self.made).sha256,
            "checksum": self.checksum,
            "samples": len(self.samples),
            "held": project.held_record(self.generator.written),
            "made": project.held_record({name: self.target.written[name] for name in self.link.names}),
            "words_bits": sum(part.bits for section in self.sections for part in section.parts),
            "sources": sorted(name for name in files if name.endswith((".h", ".hpp", ".cpp"))),
        }
        return sealed(record).decode()


def _part(name: str, part: Part, codes: int) -> str:
    if part.listed is not None:
        return _struct(name, {"codes": codes}, {"places": part.listed})
    numbers = {"codes": codes, "base": part.base, "inner": part.inner, "outer": part.outer, "within": part.within}
    arrays = {"words": part.words, "steps": part.steps, "live": part.live.astype(np.int64)}
    return _struct(name, numbers, arrays)


def _struct(name: str, numbers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> str:
    """A parameter struct of numbers and constant arrays."""
    members, made = [integer(key, value) for key, value in numbers.items()], []
    for key, values in arrays.items():
        fmt = Format.covering(int(values.min()), int(values.max()))
        extent = "".join(f"[{n}]" for n in values.shape)
        members += [format_member(key, fmt), f"typedef {rom(fmt)} {key}_rom;"]
        members.append(f"static const {key}_rom {key}{extent};")
        made.append(f"const {name}::{key}_rom {name}::{key}{extent} = {initializer(values)};\n")
    return f"struct {name} {{\n" + "".join(f"    {m}\n" for m in members) + "};\n" + "".join(made)
