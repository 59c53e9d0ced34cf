// Integrate-and-fire neurons: sim/operations/lif.py.
//
//     v = round_shift(keep[c] * m[c], shift) + x[t, c] * 2^guard        m[c] = 0 before the first step
//     z = v > threshold[c],  m[c] = z ? (subtract ? v - reset[c] : reset[c]) : v
//     y[t, c] = fires ? z : v
//
// With P::delayed the reset of a spike is subtracted one step later, from what has decayed: m[c] = v.
//
// One code a cycle; the membranes are registers, so that a channel can be updated in every cycle.
#ifndef BITTRUE_LIF_HPP
#define BITTRUE_LIF_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void lif(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    typedef typename P::accumulator_t accumulator_t;
    accumulator_t membranes[P::channels];
#pragma HLS ARRAY_PARTITION variable=membranes complete
steps:
    for (int t = 0; t < P::tokens; ++t) {
    channels:
        for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
            const accumulator_t before = t == 0 ? accumulator_t(0) : membranes[c];
            const accumulator_t product = before * typename P::keep_t(P::keep[c]);
            const accumulator_t x = in.read();
            const accumulator_t threshold = typename P::threshold_t(P::threshold[c]);
            const accumulator_t reset = typename P::reset_t(P::reset[c]);
            const bool due = P::delayed && t > 0 && before > threshold;
            const accumulator_t kept = round_shift<int(P::shift)>(product, P::shift) - (due ? reset : accumulator_t(0));
            const accumulator_t v = kept + (x << int(P::guard));
            if (P::fires) {
                const bool z = v > threshold;
                const accumulator_t after = P::subtract ? accumulator_t(v - reset) : reset;
                membranes[c] = z && !P::delayed ? after : v;
                out.write(typename P::output_t(z));
            } else {
                membranes[c] = v;
                out.write(typename P::output_t(v));
            }
        }
    }
}

}  // namespace bittrue

#endif
