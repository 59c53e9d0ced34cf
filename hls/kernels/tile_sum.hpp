// Sum over the tiles of a photonic array, requantised: sim/operations/tile_sum.py.
//
//     acc[t, n] = sum_k code[t, k, n] << step,    y = requantize(acc)
//
// One code a cycle, tiles before outputs; the sums are registers, so that an output can be added to in every cycle.
#ifndef BITTRUE_TILE_SUM_HPP
#define BITTRUE_TILE_SUM_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void tile_sum(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    typedef typename P::accumulator_t accumulator_t;
    accumulator_t sums[P::channels];
#pragma HLS ARRAY_PARTITION variable=sums complete
tokens:
    for (int t = 0; t < P::tokens; ++t) {
    tiles:
        for (int k = 0; k < P::tiles; ++k) {
        outputs:
            for (int n = 0; n < P::channels; ++n) {
#pragma HLS PIPELINE II=1
                const accumulator_t code = in.read();
                const accumulator_t before = k == 0 ? accumulator_t(0) : sums[n];
                const accumulator_t sum = before + accumulator_t(code << P::step);
                sums[n] = sum;
                if (k == P::tiles - 1) {
                    out.write(requantize<P>(sum, n));
                }
            }
        }
    }
}

}  // namespace bittrue

#endif
