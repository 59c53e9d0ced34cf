// A learnable 1-D function of each channel, a table of knots with linear interpolation: sim/operations/lerp.py.
//
//     m = (x - low) >> f,   l = (x - low) mod 2^f,   y = L[m] + round_shift((L[m+1] - L[m]) * l, f)
//
// One code a cycle: two reads of a dual-port table and one multiplier. The result lies between two knots, so it needs
// no saturation.
#ifndef BITTRUE_LERP_HPP
#define BITTRUE_LERP_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void lerp(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    typedef typename P::input0_t input_t;
    typedef typename P::knots_t knot_t;
    // One bit more than the input, so that a shift by the input's whole width (one segment) stays in range.
    typedef ap_uint<input_t::width + 1> offset_t;
tokens:
    for (int t = 0; t < P::tokens; ++t) {
    channels:
        for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
            const offset_t offset = in.read() - ap_int<input_t::width + 1>(P::input0_low);
            const int m = int(offset >> P::fraction_bits);
            const offset_t rest = offset & offset_t((1 << P::fraction_bits) - 1);
            const int row = P::shared ? 0 : c;
            const knot_t left = P::knots[row][m];
            const knot_t right = P::knots[row][m + 1];
            const typename P::accumulator_t step = (right - left) * rest;
            out.write(typename P::output_t(left + round_shift<P::fraction_bits>(step, P::fraction_bits)));
        }
    }
}

}  // namespace bittrue

#endif
