// A whole feed-forward half of a layer whose hidden size is 384: out = LayerNorm(x + bias + down * gelu(up * x +
// up_bias)).
//
// A block keeps 64 rows of `x` in shared memory and of the result in registers, and goes through the intermediate
// activations 32 columns at a time: the up projection, the erf GELU (a polynomial, error at most 6.1e-5), rounding to
// T, the down projection. So intermediate activations are never stored, and `x` is read once for the matrix product and
// the residual both. The weights come through two buffers by asynchronous copies, from L2 cache, where all blocks find
// them. `up`: `[inner, 384]`, `down`: `[384, inner]`, `inner` whole steps of 32. All begin at multiples of 16 bytes.
#include "whole_rows.cuh"

constexpr uint32_t WIDTH = 384, STEP = 32;
// Sixteen bytes between rows: any eight of them lie in different banks.
constexpr uint32_t STRIDE = WIDTH + VECTOR, STEP_STRIDE = STEP + VECTOR;

using Rows = WholeRows<WIDTH>;

// The step's columns of the intermediate activations for the block's rows, a warp 16 rows of 16 columns: gelu(x *
// transpose(up) + bias).
template <class T>
__device__ __forceinline__ void up_projection(T* activations, const T* x, const T* up, const float* bias) {
  uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  uint32_t row = warp / 2 * 16, column = warp % 2 * 16;
  float sums[2][4] = {};
  for (uint32_t depth = 0; depth < WIDTH; depth += 16) {
    uint32_t rows[4], outputs[4];
    ptx::load_matrices(rows, x + (row + lane % 16) * STRIDE + depth + lane / 16 * 8);
    ptx::load_matrices(outputs, up + (column + lane / 16 * 8 + lane % 8) * STRIDE + depth + lane / 8 % 2 * 8);
    ptx::mma<T>(sums[0], rows, outputs[0], outputs[1]);
    ptx::mma<T>(sums[1], rows, outputs[2], outputs[3]);
  }
#pragma unroll
  for (uint32_t at = 0; at < 2; ++at) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      uint32_t output = column + at * 8 + lane % 4 * 2 + i % 2, line = row + i / 2 * 8 + lane / 4;
      activations[line * STEP_STRIDE + output] = narrow<T>(gelu(sums[at][i] + bias[output]));
    }
  }
}

template <class T>
__device__ __forceinline__ void feed_forward(T* out, const T* x, const T* up, const T* down, const float* up_bias,
                                             const float* bias, const float* scale, const float* shift, uint32_t rows,
                                             uint32_t inner, float eps) {
  ptx::SharedMemory shared;
  T* block = shared.take<T>(Rows::ROWS * STRIDE);
  constexpr uint32_t UP = STEP * STRIDE, DOWN = WIDTH * STEP_STRIDE;
  T* ups = shared.take<T>(2 * UP);
  T* downs = shared.take<T>(2 * DOWN);
  T* activations = shared.take<T>(Rows::ROWS * STEP_STRIDE);
  uint32_t first = blockIdx.x * Rows::ROWS, count = min(rows - first, Rows::ROWS);
  size_t start = size_t(first) * WIDTH;

  auto request = [&](uint32_t at, uint32_t buffer) {
    fetch_rows(ups + buffer * UP, STRIDE, STEP, WIDTH, up + size_t(at) * WIDTH, WIDTH, STEP, WIDTH);
    fetch_rows(downs + buffer * DOWN, STEP_STRIDE, WIDTH, STEP, down + at, inner, WIDTH, STEP);
  };
  Rows result;
  fetch_rows(block, STRIDE, Rows::ROWS, WIDTH, x + start, WIDTH, count, WIDTH);
  request(0, 0);
  ptx::copies_commit();
  for (uint32_t at = 0, buffer = 0; at < inner; at += STEP, buffer ^= 1) {
    if (at + STEP < inner) request(at + STEP, buffer ^ 1);
    ptx::copies_commit();
    ptx::copies_wait<1>();
    __syncthreads();
    up_projection(activations, block, ups + buffer * UP, up_bias + at);
    __syncthreads();
    result.template multiply<STEP>(activations, STEP_STRIDE, downs + buffer * DOWN, STEP_STRIDE);
    __syncthreads();  // before the next copies and the next activations overwrite what was read
  }
  // The activations' memory is free now, and as large as what the sums take.
  float* scratch = reinterpret_cast<float*>(activations);
  static_assert(2 * Rows::ROWS * Rows::COLUMN_WARPS * sizeof(float) <= Rows::ROWS * STEP_STRIDE * sizeof(T));
  result.add_and_normalize(out + start, block, STRIDE, bias, scale, shift, eps, count, scratch);
}

#define FEED_FORWARD(T)                                                                                            \
  KERNEL(THREADS, 1, feed_forward_##T##_384, T* out, const T* x, const T* up, const T* down, const float* up_bias, \
         const float* bias, const float* scale, const float* shift, uint32_t rows, uint32_t inner, float eps) {    \
    feed_forward(out, x, up, down, up_bias, bias, scale, shift, rows, inner, eps);                                 \
  }
FEED_FORWARD(bf16)
FEED_FORWARD(f16)
