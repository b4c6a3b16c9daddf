// `rotary`: positions as rotations of queries and keys, in place. A thread takes one pair of values of one head.
#include "device.cuh"

constexpr uint32_t THREADS = 256;

// Rotates the queries and keys of `qkv`, `[tokens, 3 heads dim]`, by their tokens' positions: `table` has a position's
// dim / 2 cosines, then its sines.
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

#define ROTARY(T)                                                                                              \
  KERNEL(THREADS, 4, rotary_##T, T* qkv, const float* table, const uint32_t* token_positions, uint32_t tokens, \
         uint32_t heads, uint32_t dim) {                                                                       \
    rotary(qkv, table, token_positions, tokens, heads, dim);                                                   \
  }
ROTARY(bf16)
ROTARY(f16)
