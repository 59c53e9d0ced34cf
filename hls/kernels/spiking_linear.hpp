// Fully connected layer on spike trains, with requantisation: sim/operations/spiking_linear.py.
//
//     S[t, n] = sum_i weight[n, i] * z[t, i],    acc[n] = sum_t decode[t] * S[t, n],    y = requantize(acc)
//
// Spikes in one a cycle, time before channels; codes out one a cycle. A weight is added where a spike arrives, so the
// matrix needs no multiplier. What a step is worth is multiplied in, one multiplier in all; when each step is worth half
// of the one before (P::halving), `acc = 2 * acc + S[t]` needs none. P::parallel is sized for products of whole values,
// and a train has P::steps spikes a value, so parallel * steps weights are added at once (rounded up to a divisor of the
// inputs). A step takes max(inputs, outputs * inputs / adders) cycles: while it is summed, the spikes of the next one
// are loaded and the sums of the one before are weighed. Weights and requantisation are arguments where any of them is a
// held input.
#ifndef BITTRUE_SPIKING_LINEAR_HPP
#define BITTRUE_SPIKING_LINEAR_HPP

#include "contract.hpp"

namespace bittrue {

template <class P>
void spiking_linear_load(hls::stream<typename P::input0_t>& in, typename P::input0_t spikes[P::inputs]) {
spikes:
    for (int i = 0; i < P::inputs; ++i) {
#pragma HLS PIPELINE II=1
        spikes[i] = in.read();
    }
}

template <class P>
void spiking_linear_add(const typename P::input0_t spikes[P::inputs],
                        const typename P::weight_rom weight[P::outputs][P::inputs],
                        hls::stream<typename P::step_sum_t>& sums) {
    typedef typename P::step_sum_t sum_t;
    constexpr int simd = divisor_from(P::inputs, P::parallel * P::steps);
#pragma HLS ARRAY_RESHAPE variable=spikes cyclic factor=simd dim=1
#pragma HLS ARRAY_RESHAPE variable=weight cyclic factor=simd dim=2
    sum_t sum = 0;
rows:
    for (int n = 0; n < P::outputs; ++n) {
    blocks:
        for (int i = 0; i < P::inputs; i += simd) {
#pragma HLS PIPELINE II=1
            typename adder<sum_t>::type partial = 0;
        adders:
            for (int s = 0; s < simd; ++s) {
#pragma HLS UNROLL
                const typename adder<sum_t>::type w = operand<sum_t>(weight[n][i + s]);
                partial += spikes[i + s] != 0 ? w : typename adder<sum_t>::type(0);
            }
            sum = i == 0 ? sum_t(partial) : sum_t(sum + partial);
            if (i + simd == P::inputs) {
                sums.write(sum);
            }
        }
    }
}

template <class P>
void spiking_linear_steps(hls::stream<typename P::input0_t>& in,
                          const typename P::weight_rom weight[P::outputs][P::inputs],
                          hls::stream<typename P::step_sum_t>& sums) {
steps:
    for (int t = 0; t < P::tokens * P::steps; ++t) {
#pragma HLS DATAFLOW
        typename P::input0_t spikes[P::inputs];
        spiking_linear_load<P>(in, spikes);
        spiking_linear_add<P>(spikes, weight, sums);
    }
}

// From the sums of the steps to codes. No running value leaves the range of acc: it is what acc would be if the train
// were silent from there on, or, when halving, that divided by a power of two.
template <class P>
void spiking_linear_weigh(hls::stream<typename P::step_sum_t>& sums, hls::stream<typename P::output_t>& out,
                          const typename P::shift_rom shift[P::outputs], const typename P::bias_rom bias[P::outputs],
                          const typename P::bias_acc_rom bias_acc[P::outputs],
                          const typename P::multiplier_rom multiplier[P::outputs]) {
    typedef typename P::accumulator_t accumulator_t;
    accumulator_t acc[P::outputs];
#pragma HLS ARRAY_PARTITION variable=acc complete
tokens:
    for (int k = 0; k < P::tokens; ++k) {
    steps:
        for (int t = 0; t < P::steps; ++t) {
        outputs:
            for (int n = 0; n < P::outputs; ++n) {
#pragma HLS PIPELINE II=1
                const typename P::step_sum_t sum = sums.read();
                const accumulator_t before = t == 0 ? accumulator_t(0) : acc[n];
                accumulator_t after;
                if (P::halving) {
                    const accumulator_t twice = before << 1;
                    after = P::decode[t] < 0 ? accumulator_t(twice - sum) : accumulator_t(twice + sum);
                } else {
                    after = before + sum * typename P::decode_t(P::decode[t]);
                }
                acc[n] = after;
                if (t == P::steps - 1) {
                    out.write(requantize<P>(after, shift[n], bias[n], bias_acc[n], multiplier[n]));
                }
            }
        }
    }
}

template <class P>
void spiking_linear(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out,
                    const typename P::weight_rom weight[P::outputs][P::inputs],
                    const typename P::shift_rom shift[P::outputs], const typename P::bias_rom bias[P::outputs],
                    const typename P::bias_acc_rom bias_acc[P::outputs],
                    const typename P::multiplier_rom multiplier[P::outputs]) {
#pragma HLS DATAFLOW
    hls::stream<typename P::step_sum_t> sums("sums");
    spiking_linear_steps<P>(in, weight, sums);
    spiking_linear_weigh<P>(sums, out, shift, bias, bias_acc, multiplier);
}

template <class P> void spiking_linear(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    spiking_linear<P>(in, out, P::weight, P::shift, P::bias, P::bias_acc, P::multiplier);
}

}  // namespace bittrue

#endif
