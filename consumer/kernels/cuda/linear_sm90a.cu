// Linear layers on Hopper: what follows a matrix product happens before it is stored. `linear_sm90a` adds the bias, and
// `linear_gelu_sm90a` applies the erf GELU after it (a polynomial, error at most 6.1e-5); `linear_layer_norm_sm90a` has
// whole rows of 384 and leaves LayerNorm(x * transpose(weight) + bias + residual).
//
// A block has 128 rows, 64 a warpgroup, and all its sums in registers. Steps of the depth, 64 values of each row, come
// by asynchronous copies into a circular buffer of tiles in shared memory; the tensor cores read them there. A block
// has 192 columns and tiles for two steps: then two blocks share a multiprocessor, and one's copies and epilogue hide
// behind the other's matrix products. With whole rows it has 384, and tiles for three: the next step's matrix products
// begin before the last one's end. A row's sums do not depend on the rows beside it.
//
// `x`: `[rows, depth]`, `weight`: `[width, depth]`. `depth` and `width` are whole vectors, and all tensors begin at
// multiples of 16 bytes.
#include <wgmma.cuh>

#include "device.cuh"

constexpr uint32_t GROUPS = 2, THREADS = GROUPS * GROUP_WARPS * WARP, ROWS = GROUPS * GROUP_ROWS, WARP_ROWS = 16;

// Copies the next values of ROWS rows into a tile, zeros beyond `count` rows and `depth` values.
template <uint32_t ROWS, class T>
__device__ __forceinline__ void fetch_tile(T* tile, const T* from, size_t stride, uint32_t count, uint32_t depth) {
  constexpr uint32_t PIECES = TILE_DEPTH / VECTOR, AT_ONCE = THREADS / PIECES;
  uint32_t piece = threadIdx.x % PIECES, first = threadIdx.x / PIECES;
  bool within = piece * VECTOR < depth;
  // AT_ONCE is a multiple of eight: a thread's rows all have their pieces in the same order.
  T* to = tile + first * TILE_DEPTH + (piece ^ first % 8) * VECTOR;
  const T* source = from + first * stride + piece * VECTOR;
#pragma unroll
  for (uint32_t row = 0; row < ROWS; row += AT_ONCE) {
    bool inside = within && first + row < count;
    ptx::copy_async(to + row * TILE_DEPTH, inside ? source + row * stride : from, inside);
  }
}

// A block's sums: 64 rows of PARTS times 192 columns a warpgroup.
template <class T, uint32_t PARTS, uint32_t STEPS>
struct Block {
  static constexpr uint32_t COLUMNS = PARTS * GROUP_COLUMNS;
  static constexpr uint32_t LEFT = ROWS * TILE_DEPTH, RIGHT = COLUMNS * TILE_DEPTH;
  // Groups of matrix products that may be under way when the next step's are begun, and steps whose copies are.
  static constexpr uint32_t PENDING = STEPS > 2 ? 1 : 0, AHEAD = STEPS - 1 - PENDING;
  // Rows of a warp's own memory after the matrix products: sixteen bytes between rows put any eight into different
  // banks.
  static constexpr uint32_t STRIDE = COLUMNS + VECTOR;
  static_assert(THREADS / WARP * WARP_ROWS * STRIDE <= STEPS * (LEFT + RIGHT));

  float sums[PARTS][GROUP_SUMS];
  T* tiles;
  // This lane's first row of its warp's sixteen, the other is eight on; and its first column of each eight.
  uint32_t group, pair;

  __device__ __forceinline__ Block() {
    ptx::SharedMemory shared;
    tiles = shared.take<T>(STEPS * (LEFT + RIGHT), TILE_ALIGNMENT);
    group = threadIdx.x % WARP / 4;
    pair = threadIdx.x % 4 * 2;
#pragma unroll
    for (uint32_t part = 0; part < PARTS; ++part) {
#pragma unroll
      for (uint32_t i = 0; i < GROUP_SUMS; ++i) sums[part][i] = 0.0f;
    }
  }

  // sums = x * transpose(weight), of the rows and columns from the given ones on. The tiles are free afterwards.
  __device__ __forceinline__ void multiply(const T* x, uint32_t rows, const T* weight, uint32_t columns,
                                           uint32_t depth) {
    T *lefts = tiles, *rights = tiles + STEPS * LEFT;
    uint32_t steps = (depth + TILE_DEPTH - 1) / TILE_DEPTH;
    auto request = [&](uint32_t step) {
      uint32_t at = step * TILE_DEPTH, buffer = step % STEPS;
      fetch_tile<ROWS>(lefts + buffer * LEFT, x + at, depth, rows, depth - at);
      fetch_tile<COLUMNS>(rights + buffer * RIGHT, weight + at, depth, columns, depth - at);
    };
#pragma unroll
    for (uint32_t step = 0; step < AHEAD; ++step) {
      if (step < steps) request(step);
      ptx::copies_commit();
    }
    for (uint32_t step = 0; step < steps; ++step) {
      ptx::copies_wait<AHEAD - 1>();
      ptx::publish_tiles();
      __syncthreads();  // all copies of this step are there, and no thread reads the tiles that the next ones overwrite
      if (step + AHEAD < steps) request(step + AHEAD);
      ptx::copies_commit();
      const T* left = lefts + step % STEPS * LEFT + threadIdx.x / (GROUP_WARPS * WARP) * GROUP_ROWS * TILE_DEPTH;
      const T* right = rights + step % STEPS * RIGHT;
      ptx::wgmma_fence();
#pragma unroll
      for (uint32_t at = 0; at < TILE_DEPTH; at += GROUP_DEPTH) {
#pragma unroll
        for (uint32_t part = 0; part < PARTS; ++part) {
          ptx::group_multiply<T>(sums[part], left + at, right + part * GROUP_COLUMNS * TILE_DEPTH + at);
        }
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<PENDING>();
    }
    ptx::wgmma_wait<0>();
    __syncthreads();
  }

  // This warp's part of the tiles' memory, and its first row in the block.
  __device__ __forceinline__ T* own_rows() const { return tiles + threadIdx.x / WARP * WARP_ROWS * STRIDE; }
  __device__ __forceinline__ uint32_t own_row() const { return threadIdx.x / WARP * WARP_ROWS; }

  // A pair of values of this lane's in `own_rows`.
  __device__ __forceinline__ uint32_t* own_pair(uint32_t half, uint32_t column) const {
    return reinterpret_cast<uint32_t*>(own_rows() + (group + half * 8) * STRIDE + column + pair);
  }

  // Stores this warp's rows from `own_rows`: `count` of the block's rows and `columns` of its columns are there.
  __device__ __forceinline__ void store(T* out, size_t stride, uint32_t count, uint32_t columns) const {
    __syncwarp();
    for (uint32_t index = threadIdx.x % WARP; index < WARP_ROWS * (COLUMNS / VECTOR); index += WARP) {
      uint32_t row = index / (COLUMNS / VECTOR), column = index % (COLUMNS / VECTOR) * VECTOR;
      if (own_row() + row >= count || column >= columns) continue;
      ptx::store16(out + (own_row() + row) * stride + column, ptx::load16(own_rows() + row * STRIDE + column));
    }
  }
};

template <class T, bool GELU>
__device__ __forceinline__ void linear(T* out, const T* x, const T* weight, const float* bias, uint32_t rows,
                                       uint32_t depth, uint32_t width) {
  using Sums = Block<T, 1, 2>;
  Sums block;
  uint32_t column = blockIdx.x * Sums::COLUMNS, row = blockIdx.y * ROWS;
  uint32_t columns = min(width - column, Sums::COLUMNS), count = min(rows - row, ROWS);
  block.multiply(x + size_t(row) * depth, count, weight + size_t(column) * depth, columns, depth);
#pragma unroll
  for (uint32_t at = 0; at < Sums::COLUMNS; at += 8) {
    float2 addends = {0.0f, 0.0f};
    if (bias != nullptr && at < columns) addends = ptx::load_pair(bias + column + at + block.pair);
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      float low = block.sums[0][at / 2 + half * 2] + addends.x, high = block.sums[0][at / 2 + half * 2 + 1] + addends.y;
      *block.own_pair(half, at) = GELU ? ptx::round_pair<T>(gelu(low), gelu(high)) : ptx::round_pair<T>(low, high);
    }
  }
  block.store(out + size_t(row) * width + column, width, count, columns);
}

template <class T>
__device__ __forceinline__ void linear_layer_norm(T* out, const T* x, const T* weight, const T* residual,
                                                  const float* bias, const float* scale, const float* shift,
                                                  uint32_t rows, uint32_t depth, float eps) {
  using Sums = Block<T, 2, 3>;
  constexpr uint32_t WIDTH = Sums::COLUMNS;
  Sums block;
  uint32_t row = blockIdx.x * ROWS, count = min(rows - row, ROWS);
  block.multiply(x + size_t(row) * depth, count, weight, WIDTH, depth);
  const T* own_residual = residual + size_t(row + block.own_row()) * WIDTH;
  for (uint32_t index = threadIdx.x % WARP; index < WARP_ROWS * (WIDTH / VECTOR); index += WARP) {
    uint32_t line = index / (WIDTH / VECTOR), column = index % (WIDTH / VECTOR) * VECTOR;
    bool inside = block.own_row() + line < count;
    ptx::copy_async(block.own_rows() + line * Sums::STRIDE + column,
                    inside ? own_residual + line * WIDTH + column : residual, inside);
  }
  ptx::copies_commit();
  ptx::copies_wait<0>();
  __syncwarp();

  // A row's values lie in the four lanes of a group.
  float total[2] = {}, squares[2] = {}, mean[2], inverse[2];
#pragma unroll
  for (uint32_t at = 0; at < WIDTH; at += 8) {
    float(&own)[GROUP_SUMS] = block.sums[at / GROUP_COLUMNS];
    float2 addends = {0.0f, 0.0f};
    if (bias != nullptr) addends = ptx::load_pair(bias + at + block.pair);
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      uint32_t sum = at % GROUP_COLUMNS / 2 + half * 2;
      T low, high;
      unpack(*block.own_pair(half, at), low, high);
      own[sum] += addends.x + widen(low);
      own[sum + 1] += addends.y + widen(high);
      total[half] += own[sum] + own[sum + 1];
    }
  }
#pragma unroll
  for (uint32_t half = 0; half < 2; ++half) {
    total[half] += __shfl_xor_sync(ALL_LANES, total[half], 1);
    total[half] += __shfl_xor_sync(ALL_LANES, total[half], 2);
    mean[half] = total[half] / WIDTH;
#pragma unroll
    for (uint32_t at = 0; at < WIDTH; at += 8) {
#pragma unroll
      for (uint32_t i = 0; i < 2; ++i) {
        float distance = block.sums[at / GROUP_COLUMNS][at % GROUP_COLUMNS / 2 + half * 2 + i] - mean[half];
        squares[half] += distance * distance;
      }
    }
    squares[half] += __shfl_xor_sync(ALL_LANES, squares[half], 1);
    squares[half] += __shfl_xor_sync(ALL_LANES, squares[half], 2);
    inverse[half] = rsqrtf(squares[half] / WIDTH + eps);
  }
#pragma unroll
  for (uint32_t at = 0; at < WIDTH; at += 8) {
    const float(&own)[GROUP_SUMS] = block.sums[at / GROUP_COLUMNS];
    float2 scales = ptx::load_pair(scale + at + block.pair), shifts = ptx::load_pair(shift + at + block.pair);
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      uint32_t sum = at % GROUP_COLUMNS / 2 + half * 2;
      *block.own_pair(half, at) = ptx::round_pair<T>((own[sum] - mean[half]) * inverse[half] * scales.x + shifts.x,
                                          (own[sum + 1] - mean[half]) * inverse[half] * scales.y + shifts.y);
    }
  }
  block.store(out + size_t(row) * WIDTH, WIDTH, count, WIDTH);
}

#define LINEAR(T, NAME, GELU)                                                                                        \
  KERNEL(THREADS, 2, NAME##_sm90a_##T, T* out, const T* x, const T* weight, const float* bias, uint32_t rows,         \
         uint32_t depth, uint32_t width) {                                                                            \
    linear<T, GELU>(out, x, weight, bias, rows, depth, width);                                                        \
  }
#define LINEAR_LAYER_NORM(T)                                                                                         \
  KERNEL(THREADS, 1, linear_layer_norm_sm90a_##T, T* out, const T* x, const T* weight, const T* residual,             \
         const float* bias, const float* scale, const float* shift, uint32_t rows, uint32_t depth, float eps) {       \
    linear_layer_norm(out, x, weight, residual, bias, scale, shift, rows, depth, eps);                                \
  }
#define FOR_EACH_KERNEL(T)      \
  LINEAR(T, linear, false)      \
  LINEAR(T, linear_gelu, true)  \
  LINEAR_LAYER_NORM(T)
FOR_EACH_KERNEL(bf16)
FOR_EACH_KERNEL(f16)
