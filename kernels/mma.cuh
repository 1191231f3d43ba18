// Products of small matrices on tensor cores, in TF32: 8 bits of exponent as f32 has, 11 significant bits.
//
// Fragments of mma.m16n8k8, as the PTX ISA has them; lane 4g + t of a warp holds
//   a[0 … 3]: A[g][t], A[g + 8][t], A[g][t + 4], A[g + 8][t + 4]       A [16, 8]
//   b[0], b[1]: B[t][g], B[t + 4][g]                                    B [8, 8]
//   c[0 … 3]: C[g][2t], C[g][2t + 1], C[g + 8][2t], C[g + 8][2t + 1]    C [16, 8]
#pragma once
#include "scope.cuh"

// x = high + low + at most 2^-23 |x|, both exact in TF32: rounded to the nearest, the rest cut off. |x| < 2^127.
struct Halves {
    u32 high, low;
};

DEVICE Halves split(float x) {
    u32 high = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
    return {high, __float_as_uint(x - __uint_as_float(high)) & 0xffffe000u};
}

// C += A · B. The 32 threads of a warp call it together; a and b are TF32 in f32's bits, the low 13 of them 0. How a card
// rounds the sum is not specified; here, as cards were seen to do, what lies beyond f32 is cut off.
DEVICE void mma_16x8x8(float *c, const u32 *a, const u32 *b) {
#ifndef SCOPE_EMULATED
    asm(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    int g = emu::lane() / 4, t = emu::lane() % 4;
    float A[2][8], B[2][8];
    for (int i = 0; i < 3; i++) {
        emu::exchange(ALL, i < 2 ? a[2 * i] | (u64)a[2 * i + 1] << 32 : b[0] | (u64)b[1] << 32);
        for (int k = 0; k < 4; k++)
            for (int half = 0; half < 2; half++) {
                int shift = 32 * half;
                if (i < 2) {
                    A[half][k + 4 * i] = __uint_as_float((u32)(emu::now->got[4 * g + k] >> shift));
                } else
                    for (int column = 0; column < 2; column++)
                        B[column][k + 4 * half] = __uint_as_float((u32)(emu::now->got[4 * (2 * t + column) + k] >> shift));
            }
    }
    for (int i = 0; i < 4; i++) {
        double sum = c[i];
        for (int k = 0; k < 8; k++) sum += (double)A[i / 2][k] * B[i % 2][k];
        c[i] = (float)sum;
        if (std::fabs((double)c[i]) > std::fabs(sum)) c[i] = std::nextafter(c[i], 0.0f);
    }
#endif
}
