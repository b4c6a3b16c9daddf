// Matrix products on the tensor cores whose block holds whole rows, so that bias, residual and LayerNorm happen before
// anything is stored.
//
// A block of eight warps has ROWS x WIDTH sums, 32 x 96 a warp: 64 rows of 384 or 32 of 768.
#pragma once

#include "device.cuh"

constexpr uint32_t WARP_ROWS = 32, WARP_COLUMNS = 96, WARPS = 8, THREADS = WARPS * WARP;

template <uint32_t WIDTH>
struct WholeRows {
  static constexpr uint32_t COLUMN_WARPS = WIDTH / WARP_COLUMNS;
  static constexpr uint32_t ROW_WARPS = WARPS / COLUMN_WARPS;
  static constexpr uint32_t ROWS = ROW_WARPS * WARP_ROWS;
  static constexpr uint32_t HALVES = WARP_ROWS / 16, COLUMNS = WARP_COLUMNS / 8;

  float sums[HALVES][COLUMNS][4];
  // Where this warp's sums begin in the block, and this lane's in a fragment.
  uint32_t row, column, group, pair;

  __device__ __forceinline__ WholeRows() {
    uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    row = warp / COLUMN_WARPS * WARP_ROWS;
    column = warp % COLUMN_WARPS * WARP_COLUMNS;
    group = lane / 4;
    pair = lane % 4 * 2;
#pragma unroll
    for (uint32_t half = 0; half < HALVES; ++half) {
#pragma unroll
      for (uint32_t at = 0; at < COLUMNS; ++at) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) sums[half][at][i] = 0.0f;
      }
    }
  }

  // sums += x * transpose(weight) over DEPTH columns of both, which lie in shared memory: `x` has the block's rows,
  // `weight` a row an output.
  template <uint32_t DEPTH, class T>
  __device__ __forceinline__ void multiply(const T* x, uint32_t x_stride, const T* weight, uint32_t weight_stride) {
    uint32_t lane = threadIdx.x % WARP;
#pragma unroll
    for (uint32_t depth = 0; depth < DEPTH; depth += 16) {
      uint32_t rows[HALVES][4];
#pragma unroll
      for (uint32_t half = 0; half < HALVES; ++half) {
        // Matrices: rows 0 to 7 and 8 to 15 of the first eight columns, then of the next.
        ptx::load_matrices(rows[half], x + (row + half * 16 + lane % 16) * x_stride + depth + lane / 16 * 8);
      }
#pragma unroll
      for (uint32_t at = 0; at < COLUMNS; at += 2) {
        uint32_t outputs[4];
        // Matrices: both halves of the depth of eight outputs, then of the next eight.
        uint32_t output = column + at * 8 + lane / 16 * 8 + lane % 8;
        ptx::load_matrices(outputs, weight + output * weight_stride + depth + lane / 8 % 2 * 8);
#pragma unroll
        for (uint32_t half = 0; half < HALVES; ++half) {
          ptx::mma<T>(sums[half][at], rows[half], outputs[0], outputs[1]);
          ptx::mma<T>(sums[half][at + 1], rows[half], outputs[2], outputs[3]);
        }
      }
    }
  }

  // The sum of each row over the block, where a lane has `parts` of its four rows. `scratch`: ROWS * COLUMN_WARPS
  // values of its own; two calls in a row use two of them.
  __device__ __forceinline__ void row_sums(float (&parts)[HALVES][2], float* scratch) {
#pragma unroll
    for (uint32_t half = 0; half < HALVES; ++half) {
#pragma unroll
      for (uint32_t i = 0; i < 2; ++i) {
        float part = parts[half][i];
        part += __shfl_xor_sync(ALL_LANES, part, 1);
        part += __shfl_xor_sync(ALL_LANES, part, 2);
        if (pair == 0) scratch[(row + half * 16 + i * 8 + group) * COLUMN_WARPS + column / WARP_COLUMNS] = part;
      }
    }
    __syncthreads();
#pragma unroll
    for (uint32_t half = 0; half < HALVES; ++half) {
#pragma unroll
      for (uint32_t i = 0; i < 2; ++i) {
        float sum = 0.0f;
#pragma unroll
        for (uint32_t warp = 0; warp < COLUMN_WARPS; ++warp) {
          sum += scratch[(row + half * 16 + i * 8 + group) * COLUMN_WARPS + warp];
        }
        parts[half][i] = sum;
      }
    }
  }

  // out = LayerNorm(sums + bias + residual) for the block's rows, of which `count` exist. `residual` and `out` begin at
  // the block's first row. `scratch`: 2 * ROWS * COLUMN_WARPS values.
  template <class T>
  __device__ __forceinline__ void add_and_normalize(T* out, const T* residual, uint32_t residual_stride,
                                                    const float* bias, const float* scale, const float* shift,
                                                    float eps, uint32_t count, float* scratch) {
    float parts[HALVES][2] = {};
#pragma unroll
    for (uint32_t half = 0; half < HALVES; ++half) {
#pragma unroll
      for (uint32_t at = 0; at < COLUMNS; ++at) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
          uint32_t output = column + at * 8 + pair + i % 2, line = row + half * 16 + i / 2 * 8 + group;
          float value = sums[half][at][i] + (bias == nullptr ? 0.0f : bias[output]);
          if (line < count) value += widen(residual[line * residual_stride + output]);
          sums[half][at][i] = value;
          parts[half][i / 2] += value;
        }
      }
    }
    row_sums(parts, scratch);
    float squares[HALVES][2] = {};
#pragma unroll
    for (uint32_t half = 0; half < HALVES; ++half) {
#pragma unroll
      for (uint32_t at = 0; at < COLUMNS; ++at) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
          sums[half][at][i] -= parts[half][i / 2] / WIDTH;
          squares[half][i / 2] += sums[half][at][i] * sums[half][at][i];
        }
      }
    }
    row_sums(squares, scratch + ROWS * COLUMN_WARPS);
#pragma unroll
    for (uint32_t half = 0; half < HALVES; ++half) {
#pragma unroll
      for (uint32_t i = 0; i < 2; ++i) {
        uint32_t line = row + half * 16 + i * 8 + group;
        if (line >= count) continue;
        float inverse = rsqrtf(squares[half][i] / WIDTH + eps);
#pragma unroll
        for (uint32_t at = 0; at < COLUMNS; ++at) {
          uint32_t output = column + at * 8 + pair;
          float low = sums[half][at][2 * i] * inverse * scale[output] + shift[output];
          float high = sums[half][at][2 * i + 1] * inverse * scale[output + 1] + shift[output + 1];
          T* to = out + size_t(line) * WIDTH + output;
          to[0] = narrow<T>(low);
          to[1] = narrow<T>(high);
        }
      }
    }
  }
};

// Copies `rows` rows of `columns` values (whole vectors) that lie `from_stride` apart to rows in shared memory, and
// zeros where `from` has fewer.
template <class T>
__device__ __forceinline__ void fetch_rows(T* to, uint32_t to_stride, uint32_t rows, uint32_t columns, const T* from,
                                           size_t from_stride, uint32_t from_rows, uint32_t from_columns) {
  for (uint32_t index = threadIdx.x; index < rows * (columns / VECTOR); index += THREADS) {
    uint32_t row = index / (columns / VECTOR), column = index % (columns / VECTOR) * VECTOR;
    bool inside = row < from_rows && column < from_columns;
    ptx::copy_async(to + row * to_stride + column, inside ? from + row * from_stride + column : from, inside);
  }
}
