// Whole frames in and out of the top's AXI4-Streams: for the test bench and for the batch function, not for hardware.
#ifndef BITTRUE_FRAMES_HPP
#define BITTRUE_FRAMES_HPP

#include "ap_int.h"
#include "hls_stream.h"

namespace bittrue {

// Send one code of type T.
template <class T, class Beat> void send_beat(hls::stream<Beat>& out, long long code, bool last) {
    Beat beat;
    beat.data = T(code);
    beat.keep = -1;
    beat.strb = -1;
    beat.last = last;
    out.write(beat);
}

// Send one frame of codes of type T, with `last` on its last beat.
template <class T, class Beat> void send_frame(hls::stream<Beat>& out, const long long* codes, int size) {
    for (int i = 0; i < size; ++i) {
        send_beat<T>(out, codes[i], i == size - 1);
    }
}

// Fill an array with the values of a held input.
template <class T> void fill(T* array, const long long* values, int size) {
    for (int i = 0; i < size; ++i) {
        array[i] = T(values[i]);
    }
}

// Receive one frame; false when `last` is missing on its last beat or set on an earlier one.
template <class T, class Beat> bool receive_frame(hls::stream<Beat>& in, long long* codes, int size) {
    bool whole = true;
    for (int i = 0; i < size; ++i) {
        const Beat beat = in.read();
        codes[i] = static_cast<long long>(T(beat.data));
        whole = whole && bool(beat.last) == (i == size - 1);
    }
    return whole;
}

}  // namespace bittrue

#endif
