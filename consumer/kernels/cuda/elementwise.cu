// What is done to each value of a state by itself: `bias_activation` closes a linear layer in place, `gate` is the
// middle of a gated feed-forward layer, `rotary` turns queries and keys. A thread takes eight values at a time, of one
// row.
#include "device.cuh"

constexpr uint32_t THREADS = 256;

// x = activation(x + bias): `[rows, width]`.
template <class T>
__device__ __forceinline__ void bias_activation(T* x, const float* bias, uint32_t rows, uint32_t width,
                                                Activation activation) {
  uint32_t vectors = (width + VECTOR - 1) / VECTOR;
  size_t index = size_t(blockIdx.x) * THREADS + threadIdx.x;
  if (index >= size_t(rows) * vectors) return;
  uint32_t column = index % vectors * VECTOR;
  T* values = x + index / vectors * width + column;
  uint32_t count = min(width - column, VECTOR);
  bool vector = aligned(values);
  float row[VECTOR], addends[VECTOR] = {};
  load8(row, values, count, vector);
  if (bias != nullptr) load8(addends, bias + column, count, false);
#pragma unroll
  for (uint32_t i = 0; i < VECTOR; ++i) row[i] = activate(activation, row[i] + addends[i]);
  store8(values, row, count, vector);
}

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

// Turns the queries and keys of `qkv`, `[tokens, 3 heads dim]`, by their tokens' positions: `table` has a position's
// dim / 2 cosines, then its sines. A thread takes one pair of one head.
template <class T>
__device__ __forceinline__ void rotary(T* qkv, const float* table, const uint32_t* token_positions, uint32_t tokens,
                                       uint32_t heads, uint32_t dim) {
  uint32_t half = dim / 2, pairs = 2 * heads * half;
  size_t index = size_t(blockIdx.x) * THREADS + threadIdx.x;
  if (index >= size_t(tokens) * pairs) return;
  size_t token = index / pairs;
  uint32_t pair = index % pairs;
  T* values = qkv + token * 3 * heads * dim + pair / half * dim + pair % half;
  const float* angles = table + size_t(token_positions[token]) * dim + pair % half;
  float cosine = angles[0], sine = angles[half];
  float a = widen(values[0]), b = widen(values[half]);
  values[0] = narrow<T>(a * cosine - b * sine);
  values[half] = narrow<T>(b * cosine + a * sine);
}

#define ELEMENTWISE(T)                                                                                         \
  KERNEL(THREADS, 4, bias_activation_##T, T* x, const float* bias, uint32_t rows, uint32_t width,              \
         uint32_t activation) {                                                                                \
    bias_activation(x, bias, rows, width, Activation(activation));                                             \
  }                                                                                                            \
  KERNEL(THREADS, 4, gate_##T, T* out, const T* x, uint32_t rows, uint32_t inner, uint32_t activation) {       \
    gate(out, x, rows, inner, Activation(activation));                                                         \
  }                                                                                                            \
  KERNEL(THREADS, 4, rotary_##T, T* qkv, const float* table, const uint32_t* token_positions, uint32_t tokens, \
         uint32_t heads, uint32_t dim) {                                                                       \
    rotary(qkv, table, token_positions, tokens, heads, dim);                                                   \
  }
ELEMENTWISE(bf16)
ELEMENTWISE(f16)
