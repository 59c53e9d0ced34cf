// Sum over the tiles of a photonic array, requantised: sim/operations/tile_sum.py.
//
//     acc[t, n] = sum_k code[t, k, n] << step,    y = requantize(acc)
//
// One code a cycle, tiles before outputs; the sums are registers, so that an output can be added to in every cycle.
// Requantisation is an argument where any of it is a held input.
#ifndef BITTRUE_TILE_SUM_HPP
#define BITTRUE_TILE_SUM_HPP

#include "contract.hpp"

namespace bittrue {

template <class P>
void tile_sum(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out,
              const typename P::shift_rom shift[P::channels], const typename P::bias_rom bias[P::channels],
              const typename P::bias_acc_rom bias_acc[P::channels],
              const typename P::multiplier_rom multiplier[P::channels]) {
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
                    out.write(requantize<P>(sum, shift[n], bias[n], bias_acc[n], multiplier[n]));
                }
            }
        }
    }
}

template <class P> void tile_sum(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    tile_sum<P>(in, out, P::shift, P::bias, P::bias_acc, P::multiplier);
}

}  // namespace bittrue

#endif
