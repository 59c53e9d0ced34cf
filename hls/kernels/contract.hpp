// The numeric contract in C++: the rounding, saturation and requantisation of sim/contract.py and sim/requantize.py.
//
// Every kernel takes one parameter struct P, generated from the operation: P::accumulator_t holds every intermediate
// exactly, P::output_t is the output format, arrays carry their code type `NAME_t` and their extremes `NAME_low` and
// `NAME_high`. A width is therefore never written in a kernel.
#ifndef BITTRUE_CONTRACT_HPP
#define BITTRUE_CONTRACT_HPP

#include "ap_int.h"
#include "hls_stream.h"

namespace bittrue {

// How a parameter array is stored: the exact width in hardware, the next native integer on a host, where an array of
// ap_int would be filled by code at start-up and take minutes to compile.
#ifdef __SYNTHESIS__
template <int BITS, bool SIGNED> struct rom { typedef ap_int<BITS> type; };
template <int BITS> struct rom<BITS, false> { typedef ap_uint<BITS> type; };
#else
template <int BYTES, bool SIGNED> struct native { typedef long long type; };
template <> struct native<1, true> { typedef signed char type; };
template <> struct native<1, false> { typedef unsigned char type; };
template <> struct native<2, true> { typedef short type; };
template <> struct native<2, false> { typedef unsigned short type; };
template <> struct native<4, true> { typedef int type; };
template <> struct native<4, false> { typedef unsigned int type; };
template <int BITS, bool SIGNED> struct rom {
    typedef typename native<(BITS <= 8 ? 1 : BITS <= 16 ? 2 : BITS <= 32 ? 4 : 8), SIGNED>::type type;
};
#endif

// The type in which a matrix kernel adds up its products, and a code as an operand there. In hardware the accumulator and
// the code themselves; on a host the native integer that holds the accumulator, because ap_int masks the unused bits
// in memory after every step (ten times slower). The sum is cast to the accumulator afterwards, and since both wrap
// modulo a power of two (-fwrapv), the cast gives what masking every step gives, whatever the accumulator's width.
#ifdef __SYNTHESIS__
template <class A> struct adder { typedef A type; };
template <class A, class T> T operand(const T& code) {
#pragma HLS INLINE
    return code;
}
#else
template <class A> struct adder { typedef typename native<(A::width <= 32 ? 4 : 8), true>::type type; };
template <class A, class T> typename adder<A>::type operand(const T& code) {
    return static_cast<typename adder<A>::type>(code);
}
#endif

// The smallest divisor of n that is at least k: how far a loop of n steps is unrolled to do k or more at once.
constexpr int divisor_from(int n, int k) { return k >= n ? n : n % k == 0 ? k : divisor_from(n, k + 1); }

constexpr int widest(int a, int b) { return a > b ? a : b; }

// The lowest and the highest code of a type.
template <class T> struct limits;
template <int BITS> struct limits<ap_int<BITS> > {
    static const long long low = -(1LL << (BITS - 1));
    static const long long high = (1LL << (BITS - 1)) - 1;
};
template <int BITS> struct limits<ap_uint<BITS> > {
    static const long long low = 0;
    static const long long high = (1LL << BITS) - 1;
};

// min(max(value, low), highest code of T); low is a code of T.
template <class T, class V> T clip(const V& value, long long low) {
#pragma HLS INLINE
    const ap_int<T::width + 1> bottom = low;
    const ap_int<T::width + 1> top = limits<T>::high;
    return value < bottom ? T(bottom) : value > top ? T(top) : T(value);
}

// min(max(value, lowest code of T), highest code of T)
template <class T, class V> T saturate(const V& value) {
#pragma HLS INLINE
    return clip<T>(value, limits<T>::low);
}

// (value + 2^(shift-1)) >> shift for shift >= 1, value for 0: half toward +infinity. LARGEST bounds the shift; the
// sum fits V, which the caller derived for it, and the wider type keeps 2^(shift-1) and the shift itself in range.
template <int LARGEST, class V> V round_shift(const V& value, int shift) {
#pragma HLS INLINE
    typedef ap_int<widest(V::width, LARGEST + 2)> wide_t;
    const wide_t half = (wide_t(1) << shift) >> 1;
    const wide_t sum = value + half;
    return V(sum >> shift);
}

// clip(round_shift((sum + bias_acc) * multiplier, shift) + bias, floor): from accumulator to output code, with the
// numbers of its channel. What a program does not use costs nothing: the extremes of the arrays (the bounds, where they
// are held inputs) are compile-time constants.
template <class P>
typename P::output_t requantize(typename P::accumulator_t sum, typename P::shift_rom shifts, typename P::bias_rom bias,
                                typename P::bias_acc_rom bias_acc, typename P::multiplier_rom multiplier) {
#pragma HLS INLINE
    typedef typename P::accumulator_t accumulator_t;
    if (P::bias_acc_low != 0 || P::bias_acc_high != 0) {
        sum = accumulator_t(sum + typename P::bias_acc_t(bias_acc));
    }
    if (P::multiplier_high != 1) {
        sum = accumulator_t(sum * typename P::multiplier_t(multiplier));
    }
    const int shift = P::shift_low == P::shift_high ? int(P::shift_low) : int(shifts);
    const accumulator_t rounded = round_shift<int(P::shift_high)>(sum, shift);
    return clip<typename P::output_t>(rounded + typename P::bias_t(bias), P::floor);
}

// One tensor to every stream that reads it; with no reader, the tensor is drained.
template <int SIZE, class T, class... Streams> void fork(hls::stream<T>& in, Streams&... out) {
copy:
    for (int i = 0; i < SIZE; ++i) {
#pragma HLS PIPELINE II=1
        const T code = in.read();
        const int written[] = {0, (out.write(code), 0)...};
        (void)written;
    }
}

// How many frames a group has, a number a group, to everything that works on several. What does not divide the SLOTS is
// taken for INITIAL, so that nothing waits for ever.
template <class T, int SLOTS, int INITIAL, class Beat, class... Streams>
void tell(hls::stream<Beat>& in, Streams&... out) {
    const T told = T(in.read().data);
    const T images = told != 0 && SLOTS % int(told) == 0 ? told : T(INITIAL);
    const int written[] = {(out.write(images), 0)...};
    (void)written;
}

// How many frames had their `last` elsewhere than on the last beat; stays at its most.
typedef ap_uint<16> framing_errors_t;

// Beats of the AXI4-Stream to the codes of a frame: each code takes whole bytes, its low bits count. A frame is SIZE
// codes. Without `last` on the last one it is complete all the same, and an error. An earlier `last` is an error, too:
// zeros fill the frame, and the next beat begins another. PORT tells the inputs apart, each with a count of its own.
template <int PORT, int SIZE, class Beat, class T>
void unpack(hls::stream<Beat>& in, hls::stream<T>& out, framing_errors_t& errors) {
    static framing_errors_t count = 0;
#pragma HLS RESET variable=count
#ifdef BITTRUE_HOST
    static long run = 0;
    if (run != hls::host_run::number()) {
        run = hls::host_run::number();
        count = 0;
    }
#endif
    bool ended = false;
    bool right = true;
beats:
    for (int i = 0; i < SIZE; ++i) {
#pragma HLS PIPELINE II=1
        T code = 0;
        if (!ended) {
            const Beat beat = in.read();
            code = T(beat.data);
            ended = bool(beat.last);
            right = right && ended == (i == SIZE - 1);
        }
        out.write(code);
    }
    if (!right && count != framing_errors_t(-1)) {
        ++count;
    }
    errors = count;
}

// Codes to beats: extended to whole bytes with their sign, `last` on the last code of a frame.
template <int SIZE, class T, class Beat> void pack(hls::stream<T>& in, hls::stream<Beat>& out) {
beats:
    for (int i = 0; i < SIZE; ++i) {
#pragma HLS PIPELINE II=1
        Beat beat;
        beat.data = in.read();
        beat.keep = -1;
        beat.strb = -1;
        beat.last = i == SIZE - 1;
        out.write(beat);
    }
}

}  // namespace bittrue

#endif
