// Limit every code to a range: sim/operations/clamp.py.
//
//     y = min(max(x, lowest), highest)
//
// One code a cycle.
#ifndef BITTRUE_CLAMP_HPP
#define BITTRUE_CLAMP_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void clamp(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
codes:
    for (int i = 0; i < P::output_size; ++i) {
#pragma HLS PIPELINE II=1
        const typename P::input0_t x = in.read();
        const typename P::accumulator_t lowest = P::lowest, highest = P::highest;
        out.write(typename P::output_t(x > highest ? highest : x < lowest ? lowest : typename P::accumulator_t(x)));
    }
}

}  // namespace bittrue

#endif
