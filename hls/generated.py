"""The generated C++ of an HLS project: parameters, top, test bench.

Parameter structs are made from `operation.constants`, `inputs`, `output` and `accumulator` without knowing the
operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from bittrue.hls.network import KernelGraph, Process, beat_bits, code_type
from bittrue.sim.contract import Format
from bittrue.sim.held import Held, bounds
from bittrue.sim.operation import Operation
from bittrue.sim.program import Program


def parameters(program: Program, network: KernelGraph, interval: int) -> str:
    """`parameters.h`: one struct an operation."""
    structs = [
        struct(name, node.operation, interval) for name, node in zip(network.structs, program.nodes, strict=True)
    ]
    return guarded("BITTRUE_PARAMETERS_H", '#include "contract.hpp"\n\n' + "\n".join(structs))


def struct(name: str, operation: Operation, interval: int) -> str:
    """The parameter struct of one operation, and the definition of its arrays."""
    types = {f"input{k}": kind for k, kind in enumerate(operation.inputs)} | {"output": operation.output}
    members, arrays = [], []
    for key, kind in types.items():
        members += [format_member(key, kind.format), integer(f"{key}_low", kind.format.low)]
        members.append(integer(f"{key}_size", kind.size))
    members.append(f"typedef ap_int<{operation.accumulator.bits}> accumulator_t;")
    members.append(integer("parallel", max(1, -(-operation.macs // interval))))
    for key, value in operation.constants.items():
        if isinstance(value, Format):
            members.append(format_member(key, value))
        elif isinstance(value, tuple):
            fmt, codes = value
            fmt = codes.format if isinstance(codes, Held) else fmt
            extent = "".join(f"[{n}]" for n in codes.shape)
            low, high = bounds(codes)
            members += [format_member(key, fmt), f"typedef {rom(fmt)} {key}_rom;"]
            members += [integer(f"{key}_low", int(low.min())), integer(f"{key}_high", int(high.max()))]
            if isinstance(codes, Held):  # an argument of the kernel
                continue
            members.append(f"static const {key}_rom {key}{extent};")
            arrays.append(f"const {name}::{key}_rom {name}::{key}{extent} = {initializer(codes)};\n")
        else:
            members.append(integer(key, value))
    signature = ", ".join(str(kind) for kind in operation.inputs)
    head = f"// {type(operation).__name__}: {signature} -> {operation.output}; accumulator {operation.accumulator}\n"
    return head + f"struct {name} {{\n" + "".join(f"    {m}\n" for m in members) + "};\n" + "".join(arrays)


def rom(fmt: Format) -> str:
    """The C++ type in which an array of these numbers is stored."""
    return f"bittrue::rom<{fmt.bits}, {str(fmt.signed).lower()}>::type"


def array(name: str, held: Held) -> str:
    """The declaration of an array that holds a held input, or of a number that does."""
    return f"{rom(held.format)} {name}{''.join(f'[{n}]' for n in held.shape)}"


def format_member(key: str, fmt: Format) -> str:
    return f"typedef {code_type(fmt)} {key}_t;"


def integer(key: str, value: int) -> str:
    small = -(1 << 31) < value < 1 << 31
    return f"static const {'int' if small else 'long long'} {key} = {value}{'' if small else 'LL'};"


def initializer(codes: np.ndarray) -> str:
    """A brace-enclosed list, 24 numbers a line; a number alone as it is."""
    if codes.ndim > 1:
        return "{" + ",\n".join(initializer(part) for part in codes) + "}"
    numbers = [f"{v}LL" if abs(v) >= 1 << 31 else str(v) for v in codes.reshape(-1).tolist()]
    if not codes.ndim:
        return numbers[0]
    return "{" + ",\n ".join(", ".join(numbers[k : k + 24]) for k in range(0, len(numbers), 24)) + "}"


def guarded(macro: str, text: str) -> str:
    return f"#ifndef {macro}\n#define {macro}\n\n{text}\n#endif\n"


def signature(network: KernelGraph) -> str:
    ports = [f"hls::stream<{port}_beat>& {port}" for port, _ in network.ports]
    ports += [f"const {array(name, held)}" for name, held in network.held.items()]
    ports += [f"bittrue::framing_errors_t& {name}" for name in network.reports]
    return "void bittrue_top(" + ",\n                 ".join(ports) + ")"


def top_header(network: KernelGraph) -> str:
    """`top.hpp`: the types of the ports and the signature of the top function."""
    lines = ['#include "ap_int.h"\n#include "axis.hpp"\n#include "contract.hpp"\n#include "hls_stream.h"\n']
    if network.held:
        lines.append("// What is named held_ are held inputs: they are written between two calls, never within one.\n")
    if network.sizes:
        lines.append(f"// {network.sizes[0]} has a number a group, how many frames go in it; a call takes one group.\n")
    for port, kind in network.ports:
        lines.append(f"// {port}: {kind}, one code a beat, `last` on the last of a frame")
        lines.append(f"typedef {code_type(kind.format)} {port}_code;")
        lines.append(f"typedef bittrue::axis<{beat_bits(kind.format)}>::type {port}_beat;")
        lines.append(f"const int {port}_size = {kind.size};\n")
    return guarded("BITTRUE_TOP_HPP", "\n".join(lines) + signature(network) + ";\n")


def top(program: Program, network: KernelGraph, kernels: list[str], control: str = "ap_ctrl_none") -> str:
    """`top.cpp`: the DATAFLOW region; `control` is how it is started."""
    what = "one group of as many frames as it is told" if network.sizes else f"one group, {network.images} frames"
    what = what if network.grouped else "one frame"
    lines = [
        f"// Program {program.sha256}, generated; a call processes {what}.",
        '#include "top.hpp"',
        *includes(kernels),
    ]
    for k, process in enumerate(network.processes):
        if process.repeats:
            lines += [repeated(network, k, process), ""]
    lines.append(signature(network) + " {")
    lines += [f"#pragma HLS INTERFACE axis port={port}" for port, _ in network.ports]
    lines += interfaces(network.held)
    lines += [f"#pragma HLS INTERFACE ap_none port={name}" for name in network.reports]
    lines += [f"#pragma HLS INTERFACE {control} port=return", "#pragma HLS DATAFLOW", *region(network)]
    return "\n".join([*lines, "}", ""])


def includes(kernels: Iterable[str]) -> list[str]:
    """The lines above a top: the headers of its kernels, and what the host build sees of it."""
    lines = [f'#include "{kernel}.hpp"' for kernel in sorted(set(kernels))]
    lines += ['#include "parameters.h"', "", "#ifdef BITTRUE_HOST", '#include "probe.hpp"', "#else"]
    return [*lines, "#define BITTRUE_PROBE(tensor, stream)", "#define BITTRUE_PROCESS_END", "#endif", ""]


def interfaces(held: Mapping[str, Held]) -> list[str]:
    """The lines of a top that say how held inputs come in."""
    lines = []
    for name, one in held.items():
        mode = "ap_memory" if one.shape else "ap_none"
        lines += [f"#pragma HLS INTERFACE {mode} port={name}", f"#pragma HLS STABLE variable={name}"]
    return lines


def region(network: KernelGraph, indent: str = "    ") -> list[str]:
    """The streams and the processes of a DATAFLOW region."""
    lines = []
    for stream in network.streams:
        lines.append(f'{indent}hls::stream<{code_type(stream.tensor.format)} > {stream.name}("{stream.name}");')
        lines.append(f"#pragma HLS STREAM variable={stream.name} depth={stream.depth}")
    for k, process in enumerate(network.processes):
        given, call = (*process.reads, *process.writes, *process.parameters), process.call
        if process.repeats:
            call, given = repeats(k, process), (*given, process.told or str(network.images))
        elif process.told:
            given = (*given, process.told)
        lines.append(f"{indent}{call}({', '.join(given)});")
        lines.append(f"{indent}BITTRUE_PROCESS_END")
        if process.probe is not None:
            lines.append(f"{indent}BITTRUE_PROBE({process.probe}, {process.writes[0]})")
    return lines


def repeats(k: int, process: Process) -> str:
    """The name of the function that runs the k-th process once for every frame of a group."""
    return f"each_{k}_{process.call.removeprefix('bittrue::').partition('<')[0]}"


def repeated(network: KernelGraph, k: int, process: Process) -> str:
    """That function: it takes what the process takes, and how many frames there are, or a stream that tells it."""
    types = {stream.name: code_type(stream.tensor.format) for stream in network.streams}
    types |= {port: f"{port}_beat" for port, _ in network.ports}
    taken = [f"hls::stream<{types[name]} >& {name}" for name in (*process.reads, *process.writes)]
    taken += [f"bittrue::framing_errors_t& {name}" for name in process.parameters]
    call = f"{process.call}({', '.join((*process.reads, *process.writes, *process.parameters))});"
    size, told = "int frames", ""
    if process.told:
        size, told = f"hls::stream<{types[process.told]} >& told", "    const int frames = int(told.read());\n"
    return (
        f"static void {repeats(k, process)}({', '.join(taken)}, {size}) {{\n{told}"
        f"frames_of_a_group:\n    for (int f = 0; f < frames; ++f) {{\n        {call}\n    }}\n}}"
    )


def first(name: str, held: Held) -> str:
    """The address of the first value of an array."""
    return f"&{name}{'[0]' * held.ndim}"


def test_bench(network: KernelGraph) -> str:
    """`tb.cpp`: sends the frames of `vectors/`, compares every code of the result; for csim and cosim alike.

    Where frames go in groups, all of them are sent before the first call, and of changing sizes a number a group: a
    call has those behind it that it is not to take.
    """
    (port, _), *_ = network.slaves
    sizes = network.sizes[0] if network.sizes else ""
    missing = ' is missing or has a wrong length\\n", folder.c_str());'
    lines = ["// Reads vectors/<port>.txt (one frame a line) from the folder given as the argument."]
    lines += ["#include <cstdio>"]
    lines += ["#include <fstream>", "#include <string>", "#include <vector>", ""]
    lines += ['#include "frames.hpp"', '#include "top.hpp"', "", TEST_BENCH_TOOLS]
    lines += ["int main(int argc, char** argv) {", '    const std::string folder = argc > 1 ? argv[1] : "vectors";']
    for name, _ in network.ports:
        lines.append(f'    const std::vector<long long> {name}_codes = numbers(folder + "/{name}.txt");')
    for name, held in network.held.items():
        lines.append(f"    static {array(name, held)};")
        lines.append(f'    const std::vector<long long> {name}_values = numbers(folder + "/{name}.txt");')
        lines.append(f"    if ({name}_values.size() != {held.size}) {{")
        lines.append(f'        std::printf("%s/{name}.txt{missing}')
        lines += ["        return 2;", "    }"]
        lines.append(f"    bittrue::fill({first(name, held)}, {name}_values.data(), {held.size});")
    if sizes:
        lines += [f"    const std::size_t groups = {sizes}_codes.size();", "    std::size_t frames = 0;"]
        lines += ["    for (std::size_t g = 0; g < groups; ++g) {", f"        frames += {sizes}_codes[g];"]
        lines.append("    }")
    else:
        lines.append(f"    const std::size_t frames = {port}_codes.size() / {port}_size;")
    if network.grouped and not sizes:
        lines.append(f"    const std::size_t groups = frames / {network.images};")
        lines += [f"    if (frames % {network.images} != 0) {{", f'        std::printf("%s/{port}.txt{missing}']
        lines += ["        return 2;", "    }"]
    for name, _ in network.ports:
        count = "groups" if name in {*network.groups, sizes} else "frames"
        lines.append(f"    if (frames == 0 || {name}_codes.size() != {count} * {name}_size) {{")
        lines.append(f'        std::printf("%s/{name}.txt{missing}')
        lines += ["        return 2;", "    }"]
    lines += [f"    bittrue::framing_errors_t {name} = 0;" for name in network.reports]
    lines.append("    long mismatches = 0;")
    streams = [f"hls::stream<{name}_beat> {name};" for name, _ in network.ports]
    sent = [
        f"bittrue::send_frame<{name}_code>({name}, &{name}_codes[f * {name}_size], {name}_size);"
        for name, _ in network.slaves
    ]

    def compared(name: str, f: str) -> str:
        codes = f"&{name}_codes[{f} * {name}_size], {name}_size"
        return f'mismatches += compare<{name}_code>("{name}", {name}, {codes}, {f}, mismatches);'

    call = f"bittrue_top({network.arguments});"
    if network.grouped:
        lines += [f"    {text}" for text in streams]
        lines += loop("f", "0", "frames", sent)
        if sizes:
            code = f"bittrue::send_beat<{sizes}_code>({sizes}, {sizes}_codes[g], true);"
            lines += loop("g", "0", "groups", [code])
        of_frames = [compared(name, "f") for name, _ in network.masters if name not in network.groups]
        body = [f"const std::size_t images = {f'{sizes}_codes[g]' if sizes else network.images};", call]
        body += [line.removeprefix("    ") for line in loop("f", "at", "at + images", of_frames)]
        body += [compared(name, "g") for name, _ in network.masters if name in network.groups]
        lines += ["    std::size_t at = 0;", *loop("g", "0", "groups", [*body, "at += images;"])]
    else:
        lines += loop(
            "f", "0", "frames", [*streams, *sent, call, *(compared(name, "f") for name, _ in network.masters)]
        )
    for name in network.reports:
        lines.append(f"    if ({name} != 0) {{")
        lines.append(f'        std::printf("{name} counts %d, 0 were made\\n", int({name}));')
        lines += ["        ++mismatches;", "    }"]
    lines.append('    std::printf("%zu frames, %ld mismatches\\n", frames, mismatches);')
    return "\n".join([*lines, "    return mismatches == 0 ? 0 : 1;", "}", ""])


def loop(index: str, start: str, end: str, body: list[str]) -> list[str]:
    """Statements for every index from `start` on and below `end`; none where there are no statements."""
    head = f"    for (std::size_t {index} = {start}; {index} < {end}; ++{index}) {{"
    return [head, *(f"        {text}" for text in body), "    }"] if body else []


#: For test benches: the numbers of a file.
NUMBERS = """\
static std::vector<long long> numbers(const std::string& path) {
    std::ifstream file(path.c_str());
    std::vector<long long> values;
    long long value;
    while (file >> value) {
        values.push_back(value);
    }
    return values;
}
"""
TEST_BENCH_TOOLS = (
    NUMBERS
    + """
// Receives a frame; prints and counts what differs from the expected codes, the first ten of all.
template <class Code, class Beat>
static long compare(const char* port, hls::stream<Beat>& stream, const long long* expected, int size, std::size_t frame,
                    long before) {
    std::vector<long long> got(size);
    long mismatches = 0;
    if (!bittrue::receive_frame<Code>(stream, got.data(), size)) {
        std::printf("%s, frame %zu: TLAST is not on the last beat\\n", port, frame);
        ++mismatches;
    }
    for (int i = 0; i < size; ++i) {
        if (got[i] != expected[i] && before + ++mismatches <= 10) {
            std::printf("%s, frame %zu, code %d: expected %lld, got %lld\\n", port, frame, i, expected[i], got[i]);
        }
    }
    return mismatches;
}
"""
)
