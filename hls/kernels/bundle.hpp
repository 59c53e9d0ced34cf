// Several images as one, each through the sum of the matrices of its slots: sim/operations/bundle.py.
//
//     acc[t, j] = sum_i sum_k matrix_i[j, k] * x_i[t, k],    matrix_i = sum_m weight[i + m * images],    y = requantize(acc)
//
// A call takes `images` frames, one after the other, and gives one, of which each code comes with the last of them. No
// image is kept: they are added in one map of accumulators, which of a single image is neither written nor read.
// P::parallel products are formed at once (rounded up to a divisor of the inputs), their weights added just before from
// a memory a slot, so that an image takes max(inputs, outputs * inputs / parallel) cycles a token. Latency: all images
// but the last, then one token's load and the first row. Where `images` changes it comes on a stream, a number a group.
#ifndef BITTRUE_BUNDLE_HPP
#define BITTRUE_BUNDLE_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void bundle_load(hls::stream<typename P::input0_t>& in, typename P::input0_t x[P::inputs]) {
codes:
    for (int k = 0; k < P::inputs; ++k) {
#pragma HLS PIPELINE II=1
        x[k] = in.read();
    }
}

template <class P>
void bundle_multiply(const typename P::input0_t x[P::inputs],
                     const typename P::weight_rom weight[P::slots][P::outputs][P::inputs], int image, int images,
                     hls::stream<typename P::accumulator_t>& sums) {
    typedef typename P::accumulator_t accumulator_t;
    typedef typename adder<typename P::summed_t>::type summed_t;
    constexpr int simd = divisor_from(P::inputs, P::parallel);
#pragma HLS ARRAY_RESHAPE variable=x cyclic factor=simd dim=1
#pragma HLS ARRAY_PARTITION variable=weight complete dim=1
#pragma HLS ARRAY_RESHAPE variable=weight cyclic factor=simd dim=3
    bool filled[P::slots];
#pragma HLS ARRAY_PARTITION variable=filled complete
    int turn = 0;
slots:
    for (int s = 0; s < P::slots; ++s) {
#pragma HLS UNROLL
        filled[s] = turn == image;
        turn = turn + 1 == images ? 0 : turn + 1;
    }
    accumulator_t sum = 0;
rows:
    for (int j = 0; j < P::outputs; ++j) {
    blocks:
        for (int k = 0; k < P::inputs; k += simd) {
#pragma HLS PIPELINE II=1
            typename adder<accumulator_t>::type partial = 0;
        products:
            for (int i = 0; i < simd; ++i) {
#pragma HLS UNROLL
                summed_t of_image = 0;
            matrices:
                for (int s = 0; s < P::slots; ++s) {
#pragma HLS UNROLL
                    of_image += filled[s] ? summed_t(weight[s][j][k + i]) : summed_t(0);
                }
                partial += operand<accumulator_t>(x[k + i]) * operand<accumulator_t>(of_image);
            }
            sum = k == 0 ? accumulator_t(partial) : accumulator_t(sum + partial);
            if (k + simd == P::inputs) {
                sums.write(sum);
            }
        }
    }
}

template <class P>
void bundle_image(hls::stream<typename P::input0_t>& in,
                  const typename P::weight_rom weight[P::slots][P::outputs][P::inputs], int image, int images,
                  hls::stream<typename P::accumulator_t>& sums) {
tokens:
    for (int t = 0; t < P::tokens; ++t) {
#pragma HLS DATAFLOW
        typename P::input0_t x[P::inputs];
        bundle_load<P>(in, x);
        bundle_multiply<P>(x, weight, image, images, sums);
    }
}

template <class P>
void bundle_products(hls::stream<typename P::input0_t>& in,
                     const typename P::weight_rom weight[P::slots][P::outputs][P::inputs], int images,
                     hls::stream<typename P::accumulator_t>& sums) {
group:
    for (int image = 0; image < images; ++image) {
        bundle_image<P>(in, weight, image, images, sums);
    }
}

template <class P>
void bundle_add(hls::stream<typename P::accumulator_t>& sums, hls::stream<typename P::output_t>& out,
                const typename P::shift_rom shift[P::outputs], const typename P::bias_rom bias[P::outputs],
                const typename P::bias_acc_rom bias_acc[P::outputs],
                const typename P::multiplier_rom multiplier[P::outputs], int images) {
    typedef typename P::accumulator_t accumulator_t;
    accumulator_t together[P::tokens][P::outputs];
group:
    for (int image = 0; image < images; ++image) {
    tokens:
        for (int t = 0; t < P::tokens; ++t) {
        outputs:
            for (int j = 0; j < P::outputs; ++j) {
#pragma HLS PIPELINE II=1
                const accumulator_t before = image == 0 ? accumulator_t(0) : together[t][j];
                const accumulator_t sum = before + sums.read();
                if (image == images - 1) {
                    out.write(requantize<P>(sum, shift[j], bias[j], bias_acc[j], multiplier[j]));
                } else {
                    together[t][j] = sum;
                }
            }
        }
    }
}

template <class P>
void bundle_tell(hls::stream<typename P::images_t>& images, hls::stream<typename P::images_t>& multiplied,
                 hls::stream<typename P::images_t>& added) {
    const typename P::images_t told = images.read();
    multiplied.write(told);
    added.write(told);
}

template <class P>
void bundle_products_told(hls::stream<typename P::input0_t>& in, hls::stream<typename P::images_t>& images,
                          hls::stream<typename P::accumulator_t>& sums) {
    const int told = int(images.read());
    bundle_products<P>(in, P::weight, told, sums);
}

template <class P>
void bundle_add_told(hls::stream<typename P::accumulator_t>& sums, hls::stream<typename P::output_t>& out,
                     hls::stream<typename P::images_t>& images) {
    const int told = int(images.read());
    bundle_add<P>(sums, out, P::shift, P::bias, P::bias_acc, P::multiplier, told);
}

template <class P>
void bundle(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out,
            hls::stream<typename P::images_t>& images) {
#pragma HLS DATAFLOW
    hls::stream<typename P::accumulator_t> sums("sums");
    hls::stream<typename P::images_t> multiplied("multiplied");
    hls::stream<typename P::images_t> added("added");
    bundle_tell<P>(images, multiplied, added);
    bundle_products_told<P>(in, multiplied, sums);
    bundle_add_told<P>(sums, out, added);
}

template <class P> void bundle(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
#pragma HLS DATAFLOW
    hls::stream<typename P::accumulator_t> sums("sums");
    bundle_products<P>(in, P::weight, P::images_low, sums);
    bundle_add<P>(sums, out, P::shift, P::bias, P::bias_acc, P::multiplier, P::images_low);
}

}  // namespace bittrue

#endif
