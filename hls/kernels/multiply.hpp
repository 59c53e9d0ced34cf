// Product of two tensors, requantised: sim/operations/multiply.py.
//
//     y[t, c] = requantize(left[t, c] * right[t, c])
//
// One code a cycle from each operand. Requantisation is an argument where any of it is a held input.
#ifndef BITTRUE_MULTIPLY_HPP
#define BITTRUE_MULTIPLY_HPP

#include "contract.hpp"

namespace bittrue {

template <class P>
void multiply(hls::stream<typename P::input0_t>& left, hls::stream<typename P::input1_t>& right,
              hls::stream<typename P::output_t>& out, const typename P::shift_rom shift[P::channels],
              const typename P::bias_rom bias[P::channels], const typename P::bias_acc_rom bias_acc[P::channels],
              const typename P::multiplier_rom multiplier[P::channels]) {
tokens:
    for (int t = 0; t < P::tokens; ++t) {
    channels:
        for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
            const typename P::accumulator_t product = left.read() * right.read();
            out.write(requantize<P>(product, shift[c], bias[c], bias_acc[c], multiplier[c]));
        }
    }
}

template <class P>
void multiply(hls::stream<typename P::input0_t>& left, hls::stream<typename P::input1_t>& right,
              hls::stream<typename P::output_t>& out) {
    multiply<P>(left, right, out, P::shift, P::bias, P::bias_acc, P::multiplier);
}

}  // namespace bittrue

#endif
