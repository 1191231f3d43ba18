// The numbers of weights as GGUF stores them, eight at a time. A row is a whole number of blocks; `Format` names them.
// Blocks lie at even addresses, those of Q4_K at multiples of 8.
#pragma once
#include "scope.cuh"

// Numbers and bytes of one block.
DEVICE int block_numbers(int format) { return format < Q4_0 ? 1 : format < Q4_K ? 32 : 256; }

DEVICE int block_bytes(int format) {
    switch (format) {
        case F32: return 4;
        case F16:
        case BF16: return 2;
        case Q4_0: return 18;
        case Q4_1: return 20;
        case Q8_0: return 34;
        case Q4_K: return 144;
        default: return 210;
    }
}

DEVICE u64 row_bytes(int format, int width) { return (u64)(width / block_numbers(format)) * block_bytes(format); }

// 16 bytes that are loaded and stored at once.
struct alignas(16) Words {
    u32 x, y, z, w;
};

// Eight bytes from an even address, the first one lowest.
DEVICE u64 eight_bytes(const u8 *at) {
    const u16 *pairs = (const u16 *)at;
    u32 low = __ldg(pairs) | (u32)__ldg(pairs + 1) << 16, high = __ldg(pairs + 2) | (u32)__ldg(pairs + 3) << 16;
    return low | (u64)high << 32;
}

DEVICE int byte_of(u64 bytes, int i) { return (int)(bytes >> 8 * i & 0xff); }

DEVICE float half_at(const u8 *at) { return f16_to_f32(__ldg((const u16 *)at)); }

// Scale and minimum of the 32 numbers `part` of a Q4_K block: six bits each, in twelve bytes.
DEVICE void k_scales(const u8 *packed, int part, int &scale, int &minimum) {
    if (part < 4) {
        scale = __ldg(packed + part) & 63;
        minimum = __ldg(packed + part + 4) & 63;
    } else {
        int low = __ldg(packed + part + 4);
        scale = (low & 15) | __ldg(packed + part - 4) >> 6 << 4;
        minimum = low >> 4 | __ldg(packed + part) >> 6 << 4;
    }
}

// Numbers `first` … `first` + 7 of a row of `width`; those behind its end are 0. `first` is a multiple of 8.
DEVICE void read_eight(const u8 *row, int format, int width, int first, float *x) {
    if (format < Q4_0) {
        for (int j = 0; j < 8; j++) {
            int i = first + j;
            if (i >= width)
                x[j] = 0.0f;
            else if (format == F32)
                x[j] = __ldg((const float *)row + i);
            else {
                u16 bits = __ldg((const u16 *)row + i);
                x[j] = format == F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
            }
        }
        return;
    }
    if (first >= width) {
        for (int j = 0; j < 8; j++) x[j] = 0.0f;
        return;
    }
    int numbers = block_numbers(format), i = first % numbers;
    const u8 *block = row + (u64)(first / numbers) * block_bytes(format);
    if (format == Q4_0 || format == Q4_1) {
        // low nibbles are numbers 0 … 15, high ones 16 … 31
        float scale = half_at(block), minimum = format == Q4_1 ? half_at(block + 2) : 0.0f;
        u64 bytes = eight_bytes(block + (format == Q4_1 ? 4 : 2) + i % 16);
        int shift = i / 16 * 4, zero = format == Q4_1 ? 0 : 8;
        for (int j = 0; j < 8; j++) x[j] = (float)((byte_of(bytes, j) >> shift & 15) - zero) * scale + minimum;
    } else if (format == Q8_0) {
        float scale = half_at(block);
        u64 bytes = eight_bytes(block + 2 + i);
        for (int j = 0; j < 8; j++) x[j] = (float)(i8)byte_of(bytes, j) * scale;
    } else if (format == Q4_K) {
        // 32 bytes for 64 numbers: low nibbles, then high ones
        int scale, minimum, part = i / 32;
        k_scales(block + 4, part, scale, minimum);
        float by = half_at(block) * (float)scale, less = half_at(block + 2) * (float)minimum;
        u64 bytes = __ldg((const u64 *)(block + 16 + part / 2 * 32 + i % 32));
        for (int j = 0; j < 8; j++) x[j] = by * (float)(byte_of(bytes, j) >> part % 2 * 4 & 15) - less;
    } else {
        // 128 numbers at a time, quarters of 32: four low bits from nibbles of 64 bytes, two high ones from 32 bytes
        int half = i / 128, quarter = i / 32 % 4, at = i % 32;
        u64 low = eight_bytes(block + half * 64 + quarter % 2 * 32 + at) >> quarter / 2 * 4;
        u64 high = eight_bytes(block + 128 + half * 32 + at) >> quarter * 2;
        int scale = (i8)__ldg(block + 192 + half * 8 + quarter * 2 + at / 16);
        float by = half_at(block + 208) * (float)scale;
        for (int j = 0; j < 8; j++) x[j] = by * (float)(((byte_of(low, j) & 15) | (byte_of(high, j) & 3) << 4) - 32);
    }
}
