// Gated MLP: out = act(gate) ⊙ up. CPU twin: `activate` in src/backend/cpu/elementwise.rs.
#include "scope.cuh"

enum Activation { SILU = 0, GELU_TANH = 1, GELU = 2 };

DEVICE float activate(float x, int kind) {
    if (kind == SILU) return x / (1.0f + expf(-x));
    if (kind == GELU) return 0.5f * x * (1.0f + erff(0.70710678f * x));
    // 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))
    float inner = 0.7978845608f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanhf(inner));
}

// gate_up [rows, 2 · width]: gate, then up; bias [2 · width] is added to them first, null for none; out [rows, width].
// Grid: (⌈width / block⌉, rows ≤ 65535). Bound by memory.
KERNEL(gated)(const float *gate_up, const float *bias, int width, int kind, float *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= width) return;
    const float *row = gate_up + (u64)blockIdx.y * 2 * width;
    float gate = row[i], up = row[width + i];
    if (bias) {
        gate += bias[i];
        up += bias[width + i];
    }
    out[(u64)blockIdx.y * width + i] = activate(gate, kind) * up;
}
EXPORT(gated)
