// A value as a spike word, the bits of its code, most significant first: sim/operations/encode.py.
//
//     z[t, c] = bit K - 1 - t of x[c]
//
// One spike a cycle, time before channels. The codes of a token come in during its first step, and what is left of each
// shifts up by a bit a step, so a token takes steps * channels cycles.
#ifndef BITTRUE_ENCODE_HPP
#define BITTRUE_ENCODE_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void encode(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    typedef ap_uint<P::steps> word_t;
    word_t rest[P::channels];
#pragma HLS ARRAY_PARTITION variable=rest complete
tokens:
    for (int n = 0; n < P::tokens; ++n) {
    steps:
        for (int t = 0; t < P::steps; ++t) {
        channels:
            for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
                const word_t word = t == 0 ? word_t(in.read()) : rest[c];
                out.write(typename P::output_t(word >> (P::steps - 1)));
                rest[c] = word << 1;
            }
        }
    }
}

}  // namespace bittrue

#endif
