// `gate`: the middle of a gated feed-forward layer. A thread takes eight values of one row.
#include "device.cuh"

constexpr uint32_t THREADS = 256;

// out = activation(x[:, ..inner]) * x[:, inner..]: x is `[rows, 2 inner]`, out `[rows, inner]`.
template <class T>
__device__ __forceinline__ void gate(T* out, const T* x, uint32_t rows, uint32_t inner, Activation activation) {
  uint32_t vectors = (inner + VECTOR - 1) / VECTOR;
  size_t index = size_t(blockIdx.x) * THREADS + threadIdx.x;
  if (index >= size_t(rows) * vectors) return;
  uint32_t column = index % vectors * VECTOR;
  size_t row = index / vectors;
  const T* gated = x + row * 2 * inner + column;
  T* values = out + row * inner + column;
  uint32_t count = min(inner - column, VECTOR);
  float left[VECTOR], right[VECTOR];
  load8(left, gated, count, aligned(gated));
  load8(right, gated + inner, count, aligned(gated + inner));
#pragma unroll
  for (uint32_t i = 0; i < VECTOR; ++i) left[i] = activate(activation, left[i]) * right[i];
  store8(values, left, count, aligned(values));
}

#define GATE(T)                                                                                          \
  KERNEL(THREADS, 4, gate_##T, T* out, const T* x, uint32_t rows, uint32_t inner, uint32_t activation) { \
    gate(out, x, rows, inner, Activation(activation));                                                   \
  }
GATE(bf16)
GATE(f16)
