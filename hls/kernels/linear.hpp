// Matrix product over the channels, with requantisation: sim/operations/linear.py.
//
//     acc[t, n] = sum_k weight[n, k] * x[t, k],    y = requantize(acc)
//
// Codes in and out one a cycle, channels innermost. P::parallel products are formed at once (rounded up to a divisor of
// the inputs), so a token takes max(inputs, outputs * inputs / parallel) cycles: the next token is loaded while this
// one is multiplied. Latency: one token's load, then the first row. Weights and requantisation are arguments where any
// of them is a held input.
#ifndef BITTRUE_LINEAR_HPP
#define BITTRUE_LINEAR_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void linear_load(hls::stream<typename P::input0_t>& in, typename P::input0_t x[P::inputs]) {
codes:
    for (int k = 0; k < P::inputs; ++k) {
#pragma HLS PIPELINE II=1
        x[k] = in.read();
    }
}

template <class P>
void linear_multiply(const typename P::input0_t x[P::inputs],
                     hls::stream<typename P::output_t>& out,
                     const typename P::weight_rom weight[P::outputs][P::inputs], const typename P::shift_rom shift[P::outputs],
                     const typename P::bias_rom bias[P::outputs], const typename P::bias_acc_rom bias_acc[P::outputs],
                     const typename P::multiplier_rom multiplier[P::outputs]) {
    typedef typename P::accumulator_t accumulator_t;
    constexpr int simd = divisor_from(P::inputs, P::parallel);
#pragma HLS ARRAY_RESHAPE variable=x cyclic factor=simd dim=1
#pragma HLS ARRAY_RESHAPE variable=weight cyclic factor=simd dim=2
    accumulator_t sum = 0;
rows:
    for (int n = 0; n < P::outputs; ++n) {
    blocks:
        for (int k = 0; k < P::inputs; k += simd) {
#pragma HLS PIPELINE II=1
            typename adder<accumulator_t>::type partial = 0;
        products:
            for (int s = 0; s < simd; ++s) {
#pragma HLS UNROLL
                partial += operand<accumulator_t>(x[k + s]) * operand<accumulator_t>(weight[n][k + s]);
            }
            sum = k == 0 ? accumulator_t(partial) : accumulator_t(sum + partial);
            if (k + simd == P::inputs) {
                out.write(requantize<P>(sum, shift[n], bias[n], bias_acc[n], multiplier[n]));
            }
        }
    }
}

template <class P>
void linear(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out,
            const typename P::weight_rom weight[P::outputs][P::inputs], const typename P::shift_rom shift[P::outputs],
            const typename P::bias_rom bias[P::outputs], const typename P::bias_acc_rom bias_acc[P::outputs],
            const typename P::multiplier_rom multiplier[P::outputs]) {
tokens:
    for (int t = 0; t < P::tokens; ++t) {
#pragma HLS DATAFLOW
        typename P::input0_t x[P::inputs];
        linear_load<P>(in, x);
        linear_multiply<P>(x, out, weight, shift, bias, bias_acc, multiplier);
    }
}

template <class P> void linear(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    linear<P>(in, out, P::weight, P::shift, P::bias, P::bias_acc, P::multiplier);
}

}  // namespace bittrue

#endif
