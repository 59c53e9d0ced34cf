// The largest code of each channel, max pooling behind a window: sim/operations/maximum.py.
//
//     y[v, c] = max_t x[v, t, c]
//
// One code a cycle; what is the largest so far is in registers.
#ifndef BITTRUE_MAXIMUM_HPP
#define BITTRUE_MAXIMUM_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void maximum(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    typename P::output_t largest[P::channels];
#pragma HLS ARRAY_PARTITION variable=largest complete
vectors:
    for (int v = 0; v < P::vectors; ++v) {
    terms:
        for (int t = 0; t < P::terms; ++t) {
        channels:
            for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
                const typename P::output_t code = in.read();
                const bool larger = t == 0 || code > largest[c];
                const typename P::output_t now = larger ? code : largest[c];
                largest[c] = now;
                if (t == P::terms - 1) {
                    out.write(now);
                }
            }
        }
    }
}

}  // namespace bittrue

#endif
