// Sum over the tokens, requantised, average pooling: sim/operations/mean.py.
//
//     y[v, c] = requantize(sum_t x[v, t, c])
//
// One code a cycle; the sums are registers, so that a channel can be added to in every cycle.
// Requantisation is an argument where any of it is a held input.
#ifndef BITTRUE_MEAN_HPP
#define BITTRUE_MEAN_HPP

#include "contract.hpp"

namespace bittrue {

template <class P>
void mean(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out,
          const typename P::shift_rom shift[P::channels], const typename P::bias_rom bias[P::channels],
          const typename P::bias_acc_rom bias_acc[P::channels],
          const typename P::multiplier_rom multiplier[P::channels]) {
    typename P::accumulator_t sums[P::channels];
#pragma HLS ARRAY_PARTITION variable=sums complete
vectors:
    for (int v = 0; v < P::vectors; ++v) {
    tokens:
        for (int t = 0; t < P::tokens; ++t) {
        channels:
            for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
                const typename P::input0_t x = in.read();
                const typename P::accumulator_t before = t == 0 ? typename P::accumulator_t(0) : sums[c];
                const typename P::accumulator_t sum = before + x;
                sums[c] = sum;
                if (t == P::tokens - 1) {
                    out.write(requantize<P>(sum, shift[c], bias[c], bias_acc[c], multiplier[c]));
                }
            }
        }
    }
}

template <class P> void mean(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    mean<P>(in, out, P::shift, P::bias, P::bias_acc, P::multiplier);
}

}  // namespace bittrue

#endif
