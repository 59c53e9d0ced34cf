// Weighted sum over the taps of a window, each channel by itself: sim/operations/depthwise.py.
//
//     y[v, c] = requantize(sum_t weight[t, c] * x[v, t, c])
//
// One code a cycle; the sums are registers, so that a channel can be added to in every cycle.
// Weights and requantisation are arguments where any of them is a held input.
#ifndef BITTRUE_DEPTHWISE_HPP
#define BITTRUE_DEPTHWISE_HPP

#include "contract.hpp"

namespace bittrue {

template <class P>
void depthwise(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out,
               const typename P::weight_rom weight[P::terms][P::channels],
               const typename P::shift_rom shift[P::channels], const typename P::bias_rom bias[P::channels],
               const typename P::bias_acc_rom bias_acc[P::channels],
               const typename P::multiplier_rom multiplier[P::channels]) {
    typedef typename P::accumulator_t accumulator_t;
    accumulator_t sums[P::channels];
#pragma HLS ARRAY_PARTITION variable=sums complete
vectors:
    for (int v = 0; v < P::vectors; ++v) {
    terms:
        for (int t = 0; t < P::terms; ++t) {
        channels:
            for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
                const accumulator_t product = in.read() * typename P::weight_t(weight[t][c]);
                const accumulator_t before = t == 0 ? accumulator_t(0) : sums[c];
                const accumulator_t sum = before + product;
                sums[c] = sum;
                if (t == P::terms - 1) {
                    out.write(requantize<P>(sum, shift[c], bias[c], bias_acc[c], multiplier[c]));
                }
            }
        }
    }
}

template <class P> void depthwise(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    depthwise<P>(in, out, P::weight, P::shift, P::bias, P::bias_acc, P::multiplier);
}

}  // namespace bittrue

#endif
