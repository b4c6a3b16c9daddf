// `linear` and `add_layer_norm` in one: out = LayerNorm(x * transpose(weight) + bias + residual).
//
// A block has whole rows of the matrix product in registers, so what is normalised is never stored in between: a
// token's row is written once instead of twice and read once less. `x`: `[rows, depth]`, `weight`: `[WIDTH, depth]`,
// `depth` whole vectors; both begin at multiples of 16 bytes. Steps of the depth come through two buffers by
// asynchronous copies.
#include "whole_rows.cuh"

constexpr uint32_t DEPTH = 32;
// Sixteen bytes between rows: any eight of them lie in different banks.
constexpr uint32_t STRIDE = DEPTH + VECTOR;

template <class T, uint32_t WIDTH>
__device__ __forceinline__ void linear_layer_norm(T* out, const T* x, const T* weight, const T* residual,
                                                  const float* bias, const float* scale, const float* shift,
                                                  uint32_t rows, uint32_t depth, float eps) {
  using Rows = WholeRows<WIDTH>;
  ptx::SharedMemory shared;
  constexpr uint32_t LEFT = Rows::ROWS * STRIDE, RIGHT = WIDTH * STRIDE;
  T* lefts = shared.take<T>(2 * LEFT);
  T* rights = shared.take<T>(2 * RIGHT);
  float* scratch = shared.take<float>(2 * Rows::ROWS * Rows::COLUMN_WARPS);
  uint32_t first = blockIdx.x * Rows::ROWS, count = min(rows - first, Rows::ROWS);
  const T* block = x + size_t(first) * depth;

  auto request = [&](uint32_t at, uint32_t buffer) {
    fetch_rows(lefts + buffer * LEFT, STRIDE, Rows::ROWS, DEPTH, block + at, depth, count, depth - at);
    fetch_rows(rights + buffer * RIGHT, STRIDE, WIDTH, DEPTH, weight + at, depth, WIDTH, depth - at);
  };
  Rows result;
  request(0, 0);
  ptx::copies_commit();
  for (uint32_t at = 0, buffer = 0; at < depth; at += DEPTH, buffer ^= 1) {
    if (at + DEPTH < depth) request(at + DEPTH, buffer ^ 1);
    ptx::copies_commit();
    ptx::copies_wait<1>();
    __syncthreads();
    result.template multiply<DEPTH>(lefts + buffer * LEFT, STRIDE, rights + buffer * RIGHT, STRIDE);
    __syncthreads();  // before the next copies overwrite what was read
  }
  size_t start = size_t(first) * WIDTH;
  result.add_and_normalize(out + start, residual + start, WIDTH, bias, scale, shift, eps, count, scratch);
}

#define LINEAR_LAYER_NORM(T, WIDTH)                                                                             \
  KERNEL(THREADS, 1, linear_layer_norm_##T##_##WIDTH, T* out, const T* x, const T* weight, const T* residual,   \
         const float* bias, const float* scale, const float* shift, uint32_t rows, uint32_t depth, float eps) { \
    linear_layer_norm<T, WIDTH>(out, x, weight, residual, bias, scale, shift, rows, depth, eps);                \
  }
LINEAR_LAYER_NORM(bf16, 384)
LINEAR_LAYER_NORM(bf16, 768)
LINEAR_LAYER_NORM(f16, 384)
LINEAR_LAYER_NORM(f16, 768)
