// The photonic array with its noise and its converter: sim/operations/photonic_mac.py, sim/noise.py.
//
//     u[k, n] = sum_{i in tile k} weight[n, i] * x[i] + pedestal[k, n]                      >= 0
//             = sum_{i in tile k} plus[n, i] * x[i] + minus[n, i] * (Q - x[i])              where a rail is held
//     v       = max(u + round_shift(relative * u * g0 + shot * floor(sqrt(u)) * g1 + thermal * g2, noise_shift), 0)
//     y[k, n] = saturate(round_shift(v - offset[k, n], shift))
//
// Codes in and out one a cycle, tiles before outputs. P::parallel products are formed at once (rounded up to a divisor
// of the rows of a tile), so a token takes max(inputs, tiles * outputs * rows / parallel) cycles: the next token is
// loaded while this one is multiplied. The numbers g0, g1 and g2 are sums of bytes of Speck64/128 blocks (image, site).
//
// The images are counted from reset (a static variable, with the index P::first after reset), and so a frame's noise is
// that of its place in the run. On a host every batch is a run of its own and sets the index of its first frame, see
// `hls::host_run`. Cells and offsets are arguments where any of them is a held input.
#ifndef BITTRUE_PHOTONIC_MAC_HPP
#define BITTRUE_PHOTONIC_MAC_HPP

#include "contract.hpp"

namespace bittrue {

// An integer of BITS bits where it costs hardware, a native one that holds every intermediate of the noise on a host.
#ifdef __SYNTHESIS__
template <int BITS> struct exact { typedef ap_int<BITS> type; };
#else
template <int BITS> struct exact { typedef long long type; };
#endif

typedef exact<48>::type noise_t;  // the operation refuses factors for which the sum would not fit
typedef exact<11>::type gaussian_t;
typedef unsigned int word_t;  // 32 bits

struct speck_block {
    word_t high, low;
};

inline word_t rotate_right(word_t x, int n) { return x >> n | x << (32 - n); }

// The block (high, low), encrypted: 27 rounds of Speck64/128.
template <class P> speck_block speck(word_t high, word_t low) {
#pragma HLS INLINE
rounds:
    for (int r = 0; r < P::rounds; ++r) {
#pragma HLS UNROLL
        high = (rotate_right(high, 8) + low) ^ word_t(P::keys[r]);
        low = rotate_right(low, 29) ^ high;
    }
    const speck_block block = {high, low};
    return block;
}

// The sum of the bytes of a word less its mean.
template <class P> gaussian_t gaussian(word_t word) {
#pragma HLS INLINE
    return gaussian_t(int((word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24)) - P::mean);
}

// floor(sqrt(value)) of a value below 2^BITS, a bit a step from the highest.
template <int BITS> typename exact<BITS / 2 + 2>::type square_root(typename exact<BITS + 1>::type value) {
#pragma HLS INLINE
    typedef typename exact<BITS + 3>::type wide_t;
    wide_t root = 0;
bits:
    for (int k = (BITS + 1) / 2 - 1; k >= 0; --k) {
#pragma HLS UNROLL
        const wide_t bit = wide_t(1) << k;
        const wide_t trial = ((root << 1) + bit) << k;  // (root + bit)^2 - root^2
        if (value >= trial) {
            value -= trial;
            root += bit;
        }
    }
    return root;
}

// The light u of an output with its noise; `common` is g0.
template <class P>
noise_t add_noise(typename exact<P::light_t::width + 1>::type u, word_t image, word_t site, gaussian_t common) {
#pragma HLS INLINE
    const speck_block block = speck<P>(image, site);
    noise_t sum = P::relative * (u * common);
    if (P::shot != 0) {
        sum += P::shot * (square_root<P::light_t::width>(u) * gaussian<P>(block.high));
    }
    sum += P::thermal * gaussian<P>(block.low);
    const noise_t half = (noise_t(1) << P::noise_shift) >> 1;
    const noise_t noisy = u + ((sum + half) >> P::noise_shift);
    return noisy < 0 ? noise_t(0) : noisy;
}

template <class P> void photonic_mac_load(hls::stream<typename P::input0_t>& in, typename P::input0_t x[P::inputs]) {
codes:
    for (int i = 0; i < P::inputs; ++i) {
#pragma HLS PIPELINE II=1
        x[i] = in.read();
    }
}

// The light of dark inputs, a constant of each output; where a rail is held (RAILS), it is counted with the rest.
template <class P, bool RAILS> struct photonic_dark {
    static noise_t of(int k, int n) { return noise_t(P::pedestal[k][n]); }
};
template <class P> struct photonic_dark<P, true> {
    static noise_t of(int, int) { return noise_t(0); }
};

// The cells are one array: the difference of the two rails, `weight`; or two: `weight` is the first rail, `minus` the
// one whose inputs are dark where x is full.
template <class P, bool RAILS, class W, class M, class O>
void photonic_mac_multiply(const typename P::input0_t x[P::inputs], const W weight[P::outputs][P::inputs],
                           const M minus[P::outputs][P::inputs], const O offset[P::tiles][P::outputs], word_t image,
                           int token, hls::stream<typename P::output_t>& out) {
    typedef typename P::accumulator_t accumulator_t;
    typedef typename adder<accumulator_t>::type sum_t;
    constexpr int rows = P::rows < P::inputs ? P::rows : P::inputs;
    constexpr int simd = divisor_from(rows, P::parallel);
#pragma HLS ARRAY_RESHAPE variable=x cyclic factor=simd dim=1
#pragma HLS ARRAY_RESHAPE variable=weight cyclic factor=simd dim=2
#pragma HLS ARRAY_RESHAPE variable=minus cyclic factor=simd dim=2
    const sum_t full = limits<typename P::input0_t>::high;
    accumulator_t sum = 0;
    gaussian_t common = 0;
tiles:
    for (int k = 0; k < P::tiles; ++k) {
    outputs:
        for (int n = 0; n < P::outputs; ++n) {
        blocks:
            for (int b = 0; b < rows; b += simd) {
#pragma HLS PIPELINE II=1
                sum_t partial = 0;
            products:
                for (int s = 0; s < simd; ++s) {
#pragma HLS UNROLL
                    const int i = k * rows + b + s;
                    if (i < P::inputs) {  // the last tile may have fewer
                        const sum_t code = operand<accumulator_t>(x[i]);
                        partial += code * operand<accumulator_t>(weight[n][i]);
                        if (RAILS) {
                            partial += (full - code) * operand<accumulator_t>(minus[n][i]);
                        }
                    }
                }
                sum = b == 0 ? accumulator_t(partial) : accumulator_t(sum + partial);
                if (b + simd == rows) {
                    noise_t light = noise_t(sum) + photonic_dark<P, RAILS>::of(k, n);  // the tile's count u
                    if (P::noisy) {
                        const word_t place = word_t(token * P::tiles + k) * word_t(P::outputs + 1);
                        if (n == 0 && P::relative != 0) {
                            common = gaussian<P>(speck<P>(image, place + P::outputs).high);
                        }
                        light = add_noise<P>(light, image, place + n, common);
                    }
                    const accumulator_t shown = accumulator_t(light - noise_t(offset[k][n]));
                    out.write(saturate<typename P::output_t>(round_shift<P::shift>(shown, P::shift)));
                }
            }
        }
    }
}

template <class P, bool RAILS, class W, class M, class O>
void photonic_mac_token(hls::stream<typename P::input0_t>& in, const W weight[P::outputs][P::inputs],
                        const M minus[P::outputs][P::inputs], const O offset[P::tiles][P::outputs], word_t image,
                        int token, hls::stream<typename P::output_t>& out) {
#pragma HLS DATAFLOW
    typename P::input0_t x[P::inputs];
    photonic_mac_load<P>(in, x);
    photonic_mac_multiply<P, RAILS>(x, weight, minus, offset, image, token, out);
}

template <class P, bool RAILS, class W, class M, class O>
void photonic_mac_frame(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out,
                        const W weight[P::outputs][P::inputs], const M minus[P::outputs][P::inputs],
                        const O offset[P::tiles][P::outputs]) {
    static word_t image = word_t(P::first);
#pragma HLS RESET variable=image
#ifdef BITTRUE_HOST
    static long run = 0;
    if (run != hls::host_run::number()) {
        run = hls::host_run::number();
        image = word_t(P::first) + word_t(hls::host_run::first());
    }
#endif
tokens:
    for (int t = 0; t < P::tokens; ++t) {
        photonic_mac_token<P, RAILS>(in, weight, minus, offset, image, t, out);
    }
    ++image;
}

template <class P>
void photonic_mac(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out,
                  const typename P::plus_rom plus[P::outputs][P::inputs],
                  const typename P::minus_rom minus[P::outputs][P::inputs],
                  const typename P::offset_rom offset[P::tiles][P::outputs]) {
    photonic_mac_frame<P, true>(in, out, plus, minus, offset);
}

template <class P>
void photonic_mac(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out,
                  const typename P::weight_rom weight[P::outputs][P::inputs],
                  const typename P::offset_rom offset[P::tiles][P::outputs]) {
    photonic_mac_frame<P, false>(in, out, weight, weight, offset);
}

template <class P> void photonic_mac(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    photonic_mac<P>(in, out, P::weight, P::offset);
}

}  // namespace bittrue

#endif
