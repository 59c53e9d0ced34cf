// Swap tokens and channels: sim/operations/transpose.py.
//
//     y[c, t] = x[t, c]
//
// One code a cycle; the buffer is doubled by DATAFLOW, so the next frame is stored while this one is sent. Latency: one
// frame.
#ifndef BITTRUE_TRANSPOSE_HPP
#define BITTRUE_TRANSPOSE_HPP

#include "contract.hpp"

namespace bittrue {

template <class P>
void transpose_store(hls::stream<typename P::input0_t>& in, typename P::output_t frame[P::tokens][P::channels]) {
tokens:
    for (int t = 0; t < P::tokens; ++t) {
    channels:
        for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
            frame[t][c] = in.read();
        }
    }
}

template <class P>
void transpose_send(const typename P::output_t frame[P::tokens][P::channels], hls::stream<typename P::output_t>& out) {
channels:
    for (int c = 0; c < P::channels; ++c) {
    tokens:
        for (int t = 0; t < P::tokens; ++t) {
#pragma HLS PIPELINE II=1
            out.write(frame[t][c]);
        }
    }
}

template <class P> void transpose(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
#pragma HLS DATAFLOW
    typename P::output_t frame[P::tokens][P::channels];
    transpose_store<P>(in, frame);
    transpose_send<P>(frame, out);
}

}  // namespace bittrue

#endif
