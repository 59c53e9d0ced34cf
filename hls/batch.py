"""The entry of the host build: C functions that run a batch of frames through the generated top."""

from __future__ import annotations

from bittrue.hls.generated import array, first
from bittrue.hls.network import KernelGraph


def batch(network: KernelGraph) -> str:
    """`host/batch.cpp`: the C functions that hls/host.py calls, in one translation unit with the top."""
    streams = "".join(f'hls::stream<{port}_beat> {port}("{port}");\n' for port, _ in network.ports)
    before = "sent" if network.grouped else "at"
    sends = "".join(
        f"bittrue::send_frame<{port}_code>({port}, inputs[{k}] + ({before} + f) * {port}_size, {port}_size);\n"
        for k, (port, _) in enumerate(network.slaves)
    )
    tells = "" if network.sizes is None else TELL.format(port=network.sizes[0])
    beats = "\n".join(
        f"        for (long i = 0; i < beats[{k}]; ++i) {{\n"
        f"            bittrue::send_beat<{port}_code>({port}, inputs[{k}][i], last[{k}][i]);\n"
        "        }"
        for k, (port, _) in enumerate(network.slaves)
    )
    errors = "\n".join(f"    bittrue::framing_errors_t {name} = 0;" for name in network.reports)
    counts = "\n".join(f"        errors[{k}] = static_cast<long>({name});" for k, name in enumerate(network.reports))
    refuse = "\n".join(
        f"        if ({name} != 0) {{\n"
        f'            throw std::runtime_error("{name} is not 0 for right frames");\n'
        "        }"
        for name in network.reports
    )
    held = "".join(f"    static {array(name, h)};\n" for name, h in network.held.items())
    fills = "".join(
        f"                bittrue::fill({first(name, h)}, held[{k}] + sets[c] * {h.size}, {h.size});\n"
        for k, (name, h) in enumerate(network.held.items())
    )
    receives = "".join(
        (RECEIVE_GROUP if port in network.groups else RECEIVE).format(port=port, k=k)
        for k, (port, _) in enumerate(network.masters)
    )
    parts = {
        "streams": "" if network.grouped else indented(streams, 12),
        "whole": indented(streams, 8) + "        long sent = 0;\n        long ahead = 0;\n" if network.grouped else "",
        "sends": SEND_GROUPS.format(sends=indented(sends, 20), tells=indented(tells, 16))
        if network.grouped
        else SEND.format(sends=indented(sends, 16)),
        "tells": TELL_ALL.format(tells=indented(tells, 12)) if tells else "",
        "receives": receives.removesuffix("\n"),
        "ends": "".join(END.format(port=port) for port, _ in network.masters),
        "errors": errors,
        "held": held,
        "fills": FILLS.format(fills=fills) if fills else "",
        "outer": indented(streams, 8),
        "counts": counts,
        "refuse": refuse,
        "beats": beats,
        "told": TOLD.rstrip("\n"),
        "call": f"            bittrue_top({network.arguments});",
    }
    return BATCH.format(**parts)


def indented(text: str, spaces: int) -> str:
    """Lines of C++, further in."""
    return "".join(f"{' ' * spaces}{line}\n" for line in text.splitlines())


#: How the frames of a call are sent where each goes by itself.
SEND = """\
            for (long f = 0; f < frames[c]; ++f) {{
{sends}            }}
"""
#: The same of groups: those of the next call are there before this one, which is not to take them.
SEND_GROUPS = """\
            for (; ahead < calls && ahead <= c + 1; ++ahead) {{
                for (long f = 0; f < frames[ahead]; ++f) {{
{sends}                }}
{tells}                sent += frames[ahead];
            }}
"""
TELL = "bittrue::send_beat<{port}_code>({port}, frames[ahead], true);\n"
TELL_ALL = """\
        for (long ahead = 0; ahead < calls; ++ahead) {{
{tells}        }}
"""
FILLS = """\
            if (sets[c] != set) {{
                set = sets[c];
{fills}            }}
"""
RECEIVE = """\
            for (long f = 0; f < frames[c]; ++f) {{
                if (!bittrue::receive_frame<{port}_code>({port}, results[{k}] + (at + f) * {port}_size, {port}_size)) {{
                    throw std::runtime_error("{port}: TLAST is not on a frame's last beat, or on an earlier one too");
                }}
            }}
"""
RECEIVE_GROUP = """\
            if (!bittrue::receive_frame<{port}_code>({port}, results[{k}] + c * {port}_size, {port}_size)) {{
                throw std::runtime_error("{port}: TLAST is not on a frame's last beat, or on an earlier one too");
            }}
"""
END = """
            if (!{port}.empty()) {{
                throw std::runtime_error("{port}: more codes come out than a frame has");
            }}"""
#: How both functions end: a sentence for what was thrown, or for what is left in a stream.
TOLD = """\
    } catch (const std::exception& error) {
        std::snprintf(message, room, "%s", error.what());
        return 1;
    }
    if (hls::stream_record::leftover() != 0) {
        std::snprintf(message, room, "%zu codes were written to streams and never read",
                      hls::stream_record::leftover());
        return 1;
    }
    return 0;
}
"""


BATCH = """\
// The kernels as a shared library for a host: frames in, codes out. Compiled with BITTRUE_HOST.
#include <cstdio>

#include "../top.cpp"
#include "../frames.hpp"

// Runs so many calls of the top from reset; the c-th takes frames[c] frames, which are one or a group. Groups come one
// after the other on streams that go on from call to call. The held inputs of a call are those of the set sets[c]. The
// index of the first frame is `first`. `held` has the values of every held input that is written, of one set after the
// other. `tensors` is null, or one pointer a tensor to room for all its codes. Returns 0, or 1 with a sentence in
// `message` (room for `room` characters).
extern "C" int bittrue_batch(long calls, long first, const long* frames, const long* sets,
                             const long long* const* inputs, const long long* const* held, long long* const* results,
                             long long** tensors, char* message, long room) {{
    (void)held;
    (void)sets;
{held}{errors}
    bittrue::traced() = tensors;
    ++hls::host_run::number();
    hls::host_run::first() = first;
    hls::stream_record::leftover() = 0;
    try {{
{whole}        long at = 0;
        long set = -1;
        (void)set;
        for (long c = 0; c < calls; ++c) {{
{fills}{streams}{sends}{call}
{receives}{ends}
            at += frames[c];
        }}
{refuse}
{told}

// The same for any beats: `beats[k]` codes of input k with their `last`, of which those frames come. What each input
// counts goes to `errors`.
extern "C" int bittrue_beats(long calls, const long* frames, const long* sets, const long* beats,
                             const long long* const* inputs, const long long* const* held,
                             const unsigned char* const* last, long long* const* results, long* errors,
                             char* message, long room) {{
    (void)held;
    (void)sets;
{held}{errors}
    bittrue::traced() = nullptr;
    ++hls::host_run::number();
    hls::host_run::first() = 0;
    hls::stream_record::leftover() = 0;
    try {{
{outer}{beats}
        long at = 0;
        long set = -1;
        (void)set;
{tells}        for (long c = 0; c < calls; ++c) {{
{fills}{call}
{receives}
            at += frames[c];
        }}
{counts}
{told}

// The accesses to streams of all calls since the library was loaded (BITTRUE_LOG), as hls_stream.h describes.
extern "C" long bittrue_log(const int** entries) {{
    *entries = hls::stream_record::log().data();
    return static_cast<long>(hls::stream_record::log().size());
}}
"""
