// Scale and offset of each channel, with requantisation: sim/operations/affine.py.
//
//     y[t, c] = requantize(weight[c] * x[t, c])
//
// One code a cycle.
#ifndef BITTRUE_AFFINE_HPP
#define BITTRUE_AFFINE_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void affine(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
tokens:
    for (int t = 0; t < P::tokens; ++t) {
    channels:
        for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
            const typename P::accumulator_t product = in.read() * typename P::weight_t(P::weight[c]);
            out.write(requantize<P>(product, c));
        }
    }
}

}  // namespace bittrue

#endif
