// From the codes of a generator to entries of what a network holds, and their checksum: sim/system.py, sim/places.py.
//
//     entry = base + (word / inner) outer + (word mod inner) within + step[t]
//
// A word a sample is kept, in the bits that it needs: with kernels `filter C + channel` that are permuted it is their
// number, and inner is C. One code a cycle.
#ifndef BITTRUE_SCATTER_HPP
#define BITTRUE_SCATTER_HPP

#include "contract.hpp"

namespace bittrue {

// The entry of an array by its flat index.
template <class V> V& entry(V* array, int k) {
#pragma HLS INLINE
    return array[k];
}
template <class V, int A> V& entry(V (*array)[A], int k) {
#pragma HLS INLINE
    return array[k / A][k % A];
}
template <class V, int A, int B> V& entry(V (*array)[A][B], int k) {
#pragma HLS INLINE
    return array[k / (A * B)][k / B % A][k % B];
}
template <class V, int A, int B, int C> V& entry(V (*array)[A][B][C], int k) {
#pragma HLS INLINE
    return array[k / (A * B * C)][k / (B * C) % A][k / C % B][k % C];
}

// The codes of the k-th sample of a section to an array: by arithmetic, or each to a place of its own (-1: nowhere).
template <class P, class Code, class Array> void place(int k, const Code* codes, Array array) {
    const int word = int(P::words[k]);
    const int origin = P::base + word / P::inner * P::outer + word % P::inner * P::within;
codes:
    for (int t = 0; t < P::codes; ++t) {
#pragma HLS PIPELINE II=1
        if (P::live[t]) {
            entry(array, origin + int(P::steps[t])) = static_cast<long long>(codes[t]);
        }
    }
}
template <class P, class Code, class Array> void place_listed(int k, const Code* codes, Array array) {
codes:
    for (int t = 0; t < P::codes; ++t) {
#pragma HLS PIPELINE II=1
        if (P::places[k][t] >= 0) {
            entry(array, int(P::places[k][t])) = static_cast<long long>(codes[t]);
        }
    }
}

// CRC-32 (ISO-HDLC) of a code in BYTES bytes, two's complement, the lowest first; it begins with all ones, and its
// result is the complement.
template <int BYTES, class Code> ap_uint<32> checked(ap_uint<32> sum, const Code& code) {
#pragma HLS INLINE
    const long long word = static_cast<long long>(code);
    unsigned crc = static_cast<unsigned>(sum);
bytes:
    for (int b = 0; b < BYTES; ++b) {
#pragma HLS UNROLL
        crc ^= static_cast<unsigned>(word >> (8 * b)) & 0xFFu;
    bits:
        for (int i = 0; i < 8; ++i) {
#pragma HLS UNROLL
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
        }
    }
    return ap_uint<32>(crc);
}

}  // namespace bittrue

#endif
