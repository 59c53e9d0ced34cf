// A group's images apart again, each the mean of the slots that it filled: sim/operations/unbundle.py.
//
//     y_i[t, c] = floor((2 * sum_m x[t, i + m * images, c] + r) / (2 * r)),    r = slots / images
//
// A call takes one frame and gives `images`, one after the other. One code a cycle in and out; the buffer is doubled by
// DATAFLOW, so that the next frame is stored while this one is sent. Latency: one frame. Every r that there can be is a
// constant where it divides. Where `images` changes it comes on a stream, a number a group.
#ifndef BITTRUE_UNBUNDLE_HPP
#define BITTRUE_UNBUNDLE_HPP

#include "contract.hpp"

namespace bittrue {

// floor((2 * sum + r) / (2 * r)), of r = R or less, which divides the slots. For a negative a, floor(a / b) is
// ~(~a / b), of numbers that are not negative.
template <class P, int R> struct unbundle_mean_of {
    template <class V> static typename P::output_t of(const V& sum, int r) {
#pragma HLS INLINE
        if (P::slots % R != 0 || r != R) {
            return unbundle_mean_of<P, R - 1>::of(sum, r);
        }
        const V twice = V(2 * sum + R);
        return typename P::output_t(twice < 0 ? V(~V(V(~twice) / (2 * R))) : V(twice / (2 * R)));
    }
};
template <class P> struct unbundle_mean_of<P, 1> {
    template <class V> static typename P::output_t of(const V& sum, int) {
#pragma HLS INLINE
        return typename P::output_t(sum);
    }
};

template <class P>
void unbundle_store(hls::stream<typename P::input0_t>& in,
                    typename P::input0_t frame[P::slots][P::tokens][P::channels]) {
tokens:
    for (int t = 0; t < P::tokens; ++t) {
    slots:
        for (int s = 0; s < P::slots; ++s) {
        channels:
            for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
                frame[s][t][c] = in.read();
            }
        }
    }
}

template <class P>
void unbundle_send(const typename P::input0_t frame[P::slots][P::tokens][P::channels],
                   hls::stream<typename P::output_t>& out, int images) {
    typedef typename adder<typename P::accumulator_t>::type sum_t;
group:
    for (int image = 0; image < images; ++image) {
    tokens:
        for (int t = 0; t < P::tokens; ++t) {
        channels:
            for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
                sum_t sum = 0;
                int turn = 0;
                int filled = 0;
            slots:
                for (int s = 0; s < P::slots; ++s) {
#pragma HLS UNROLL
                    if (turn == image) {
                        sum += operand<typename P::accumulator_t>(frame[s][t][c]);
                        ++filled;
                    }
                    turn = turn + 1 == images ? 0 : turn + 1;
                }
                out.write(unbundle_mean_of<P, P::slots>::of(sum, filled));
            }
        }
    }
}

template <class P>
void unbundle_send_told(const typename P::input0_t frame[P::slots][P::tokens][P::channels],
                        hls::stream<typename P::output_t>& out, hls::stream<typename P::images_t>& images) {
    const int told = int(images.read());
    unbundle_send<P>(frame, out, told);
}

template <class P>
void unbundle(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out,
              hls::stream<typename P::images_t>& images) {
#pragma HLS DATAFLOW
    typename P::input0_t frame[P::slots][P::tokens][P::channels];
#pragma HLS ARRAY_PARTITION variable=frame complete dim=1
    unbundle_store<P>(in, frame);
    unbundle_send_told<P>(frame, out, images);
}

template <class P> void unbundle(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
#pragma HLS DATAFLOW
    typename P::input0_t frame[P::slots][P::tokens][P::channels];
#pragma HLS ARRAY_PARTITION variable=frame complete dim=1
    unbundle_store<P>(in, frame);
    unbundle_send<P>(frame, out, P::images_low);
}

}  // namespace bittrue

#endif
