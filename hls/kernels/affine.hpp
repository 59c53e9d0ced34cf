// Scale and offset of each channel, with requantisation: sim/operations/affine.py.
//
//     y[t, c] = requantize(weight[c] * x[t, c])
//
// One code a cycle. Weights and requantisation are arguments where any of them is a held input.
#ifndef BITTRUE_AFFINE_HPP
#define BITTRUE_AFFINE_HPP

#include "contract.hpp"

namespace bittrue {

template <class P>
void affine(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out,
            const typename P::weight_rom weight[P::channels], const typename P::shift_rom shift[P::channels],
            const typename P::bias_rom bias[P::channels], const typename P::bias_acc_rom bias_acc[P::channels],
            const typename P::multiplier_rom multiplier[P::channels]) {
tokens:
    for (int t = 0; t < P::tokens; ++t) {
    channels:
        for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
            const typename P::accumulator_t product = in.read() * typename P::weight_t(weight[c]);
            out.write(requantize<P>(product, shift[c], bias[c], bias_acc[c], multiplier[c]));
        }
    }
}

template <class P> void affine(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    affine<P>(in, out, P::weight, P::shift, P::bias, P::bias_acc, P::multiplier);
}

}  // namespace bittrue

#endif
