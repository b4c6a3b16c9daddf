// `varlen_attention`: flash attention within packed sequences, one pass over tiles of keys, nothing padded in memory.
//
// A block takes 16 WARPS queries of one head of one sequence, each warp 16 of them: `tiles` has where the sequence begins,
// how many tokens it has, and the block's first query. Blocks of one tile's heads follow each other, since they read the
// same rows. Keys and values come in tiles through two buffers, one filled by asynchronous copies while the other is used.
// Scores, exponentials and sums stay in registers: the fragment in which `mma` leaves 16 x 8 scores is half of the one
// in which it takes 16 x 16 probabilities.
//
// The bias of the product that `qkv` is costs nothing: a key's adds the same to all scores of a query, which softmax
// takes out again; a value's comes out as it went in, since probabilities sum to one; a query's is added as queries are
// read.
//
// A query sees the keys from `before` before it to `after` after it. `distance_bias`, `[heads, distance_width]`, is
// added to scores by how far the key is from the query, its middle being no distance. Scores are scaled and
// exponentials taken in f32; probabilities are rounded to T for the product with the values, and summed before that.
#include "device.cuh"

constexpr float LOG2_E = 1.44269504f;
constexpr uint32_t ROWS = 16;

// What all blocks of a launch share.
template <class T>
struct Attention {
  T* out;
  const T* qkv;
  const float* bias;
  const float* distance_bias;
  uint32_t heads, dim, before, after, distance_width;
  float scale;
};

// Rows of DIM values, the last ones zeros where a head has fewer; 16 bytes between rows put any eight of them into
// different banks.
template <uint32_t DIM>
constexpr uint32_t STRIDE = DIM + VECTOR;

// Copies `KEYS` rows of `dim` values that lie `stride` apart into shared memory, zeros beyond `count` rows. In copies
// of 16 bytes where all rows begin at a multiple of that and `dim` is whole ones. Ends with the sixteen rows that `mma` takes
// at once.
template <class T, uint32_t DIM, uint32_t KEYS, uint32_t THREADS>
__device__ __forceinline__ void fetch(T* to, const T* from, size_t stride, uint32_t count, uint32_t dim, bool vectors) {
  for (uint32_t index = threadIdx.x; index < KEYS * DIM / VECTOR; index += THREADS) {
    uint32_t row = index / (DIM / VECTOR), column = index % (DIM / VECTOR) * VECTOR;
    if (row >= (count + 15) / 16 * 16) break;
    T* place = to + row * STRIDE<DIM> + column;
    const T* source = from + row * stride + column;
    if (vectors) {
      bool inside = row < count && column < dim;
      ptx::copy_async(place, inside ? source : from, inside);
      continue;
    }
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; ++i) {
      place[i] = row < count && column + i < dim ? source[i] : narrow<T>(0.0f);
    }
  }
}

// A query's two neighbouring values with their bias, as `mma` takes them; zeros beyond the sequence or the head.
template <class T>
__device__ __forceinline__ uint32_t query_pair(const T* row, const float* bias, uint32_t column, uint32_t dim,
                                               bool inside, bool vectors) {
  T values[2] = {narrow<T>(0.0f), narrow<T>(0.0f)};
  float pair[2];
  if (vectors && inside && column < dim) {
    unpack(*reinterpret_cast<const uint32_t*>(row + column), values[0], values[1]);
  }
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i) {
    bool present = inside && column + i < dim;
    if (present && !vectors) values[i] = row[column + i];
    pair[i] = widen(values[i]);
    if (present && bias != nullptr) pair[i] += bias[column + i];
  }
  return ptx::round_pair<T>(pair[0], pair[1]);
}

template <class T, uint32_t DIM, uint32_t KEYS, uint32_t WARPS>
__device__ __forceinline__ void varlen_attention(const Attention<T>& a, const uint4* tiles) {
  constexpr uint32_t THREADS = WARPS * WARP, STEPS = DIM / 16, COLUMNS = KEYS / 8;
  ptx::SharedMemory shared;
  constexpr uint32_t TILE = KEYS * STRIDE<DIM>;
  T* keys = shared.take<T>(2 * TILE);
  T* values = shared.take<T>(2 * TILE);
  uint4 block = ptx::load16(tiles + blockIdx.x / a.heads);
  uint32_t start = block.x, tokens = block.y, first_query = block.z, head = blockIdx.x % a.heads;
  uint32_t dim = a.dim, hidden = a.heads * dim;
  size_t stride = size_t(3) * hidden;
  const T* rows = a.qkv + start * stride + head * dim;
  bool vectors = aligned(rows) && aligned(rows + hidden) && dim % VECTOR == 0 && hidden % VECTOR == 0;

  uint32_t last_query = min(first_query + WARPS * ROWS, tokens) - 1;
  // What scores are scaled by, for powers of two.
  float scale = a.scale * LOG2_E;
  uint32_t first_row = first_query + threadIdx.x / WARP * ROWS;
  uint32_t first_key = (first_query > a.before ? first_query - a.before : 0) / KEYS * KEYS;
  uint32_t end_key = a.after < tokens - 1 - last_query ? last_query + a.after + 1 : tokens;

  auto request = [&](uint32_t key, uint32_t buffer) {
    const T* from = rows + hidden + key * stride;
    fetch<T, DIM, KEYS, THREADS>(keys + buffer * TILE, from, stride, tokens - key, dim, vectors);
    fetch<T, DIM, KEYS, THREADS>(values + buffer * TILE, from + hidden, stride, tokens - key, dim, vectors);
  };
  request(first_key, 0);
  ptx::copies_commit();

  // Each lane has the values of two queries, eight rows apart.
  uint32_t lane = threadIdx.x % WARP, group = lane / 4, pair = lane % 4 * 2;
  uint32_t queries[2] = {first_query + threadIdx.x / WARP * ROWS + group, 0};
  queries[1] = queries[0] + 8;
  uint32_t fragments[STEPS][4];
#pragma unroll
  for (uint32_t step = 0; step < STEPS; ++step) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      uint32_t query = queries[i % 2], column = step * 16 + i / 2 * 8 + pair;
      const float* bias = a.bias == nullptr ? nullptr : a.bias + head * dim;
      fragments[step][i] = query_pair(rows + query * stride, bias, column, dim, query < tokens, vectors);
    }
  }

  float sums[DIM / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
  for (uint32_t tile = first_key, buffer = 0; tile < end_key; tile += KEYS, buffer ^= 1) {
    if (tile + KEYS < end_key) request(tile + KEYS, buffer ^ 1);
    ptx::copies_commit();
    ptx::copies_wait<1>();
    __syncthreads();

    // Keys that some query of the block sees; beyond them nothing is multiplied.
    uint32_t width = min(end_key - tile, KEYS);
    // Lane l names row l % 8 of matrix l / 8; four of them are the keys' next 32 values, or 16 values of the head.
    float scores[COLUMNS][4] = {};
#pragma unroll
    for (uint32_t column = 0; column < COLUMNS; ++column) {
      if (column * 8 >= width) break;
      const T* row = keys + buffer * TILE + (column * 8 + lane % 8) * STRIDE<DIM> + lane / 8 * 8;
#pragma unroll
      for (uint32_t step = 0; step < STEPS; step += 2) {
        uint32_t matrices[4];
        ptx::load_matrices(matrices, row + step * 16);
        ptx::mma<T>(scores[column], fragments[step], matrices[0], matrices[1]);
        ptx::mma<T>(scores[column], fragments[step + 1], matrices[2], matrices[3]);
      }
    }

    float tile_largest[2] = {-INFINITY, -INFINITY};
    // Every query of this warp sees every key of this tile, and nothing is added.
    bool plain = width == KEYS && tile + KEYS <= tokens && tile + a.before >= first_row + ROWS - 1 &&
                 tile + KEYS - 1 <= first_row + a.after && a.distance_bias == nullptr;
#pragma unroll
    for (uint32_t column = 0; column < COLUMNS; ++column) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        float score = scores[column][i] * scale;
        if (!plain) {
          uint32_t query = queries[i / 2], key = tile + column * 8 + pair + i % 2;
          bool seen = key < tokens && key + a.before >= query && key <= query + a.after;
          if (a.distance_bias != nullptr && seen && query < tokens) {
            score += a.distance_bias[head * a.distance_width + a.distance_width / 2 + key - query] * LOG2_E;
          }
          if (!seen) score = -INFINITY;
        }
        scores[column][i] = score;
        tile_largest[i / 2] = fmaxf(tile_largest[i / 2], score);
      }
    }
    float base[2];
#pragma unroll
    for (uint32_t row = 0; row < 2; ++row) {
      float next = fmaxf(largest[row], tile_largest[row]);
      next = fmaxf(next, __shfl_xor_sync(ALL_LANES, next, 1));
      next = fmaxf(next, __shfl_xor_sync(ALL_LANES, next, 2));
      base[row] = next == -INFINITY ? 0.0f : next;  // nothing seen yet: no exponential of a NaN
      float keep = ptx::exp2(largest[row] - base[row]);
      largest[row] = next;
      total[row] *= keep;
#pragma unroll
      for (uint32_t column = 0; column < DIM / 8; ++column) {
        sums[column][2 * row] *= keep;
        sums[column][2 * row + 1] *= keep;
      }
    }
#pragma unroll
    for (uint32_t column = 0; column < COLUMNS; ++column) {
      if (column * 8 >= (width + 15) / 16 * 16) break;  // a step of the next product has two
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        scores[column][i] = ptx::exp2(scores[column][i] - base[i / 2]);
        total[i / 2] += scores[column][i];
      }
    }

    // Sixteen keys a step: matrices are keys 0 to 7 and 8 to 15 of a step, for two times eight values of the head.
#pragma unroll
    for (uint32_t step = 0; step < KEYS / 16; ++step) {
      if (step * 16 >= width) break;
      const float (&low)[4] = scores[2 * step], (&high)[4] = scores[2 * step + 1];
      uint32_t probabilities[4] = {ptx::round_pair<T>(low[0], low[1]), ptx::round_pair<T>(low[2], low[3]),
                                   ptx::round_pair<T>(high[0], high[1]), ptx::round_pair<T>(high[2], high[3])};
      const T* row = values + buffer * TILE + (step * 16 + lane % 16) * STRIDE<DIM> + lane / 16 * 8;
#pragma unroll
      for (uint32_t column = 0; column < DIM / 8; column += 2) {
        uint32_t matrices[4];
        ptx::load_matrices_transposed(matrices, row + column * 8);
        ptx::mma<T>(sums[column], probabilities, matrices[0], matrices[1]);
        ptx::mma<T>(sums[column + 1], probabilities, matrices[2], matrices[3]);
      }
    }
    __syncthreads();  // before the next copies overwrite what was read
  }

#pragma unroll
  for (uint32_t row = 0; row < 2; ++row) {
    total[row] += __shfl_xor_sync(ALL_LANES, total[row], 1);
    total[row] += __shfl_xor_sync(ALL_LANES, total[row], 2);
    if (queries[row] >= tokens) continue;
    float inverse = 1.0f / total[row];
    const float* bias = a.bias == nullptr ? nullptr : a.bias + 2 * hidden + head * dim;
    T* out = a.out + size_t(start + queries[row]) * hidden + head * dim;
#pragma unroll
    for (uint32_t column = 0; column < DIM / 8; ++column) {
      uint32_t at = column * 8 + pair;
      float low = sums[column][2 * row] * inverse, high = sums[column][2 * row + 1] * inverse;
      if (bias != nullptr && at < dim) low += bias[at];
      if (bias != nullptr && at + 1 < dim) high += bias[at + 1];
      if (vectors && aligned(a.out)) {
        if (at < dim) *reinterpret_cast<uint32_t*>(out + at) = ptx::round_pair<T>(low, high);
        continue;
      }
      if (at < dim) out[at] = narrow<T>(low);
      if (at + 1 < dim) out[at + 1] = narrow<T>(high);
    }
  }
}

// Warps of a multiprocessor that registers suffice for.
constexpr uint32_t resident_warps(uint32_t dim) { return dim == 32 ? 16 : 8; }

#define VARLEN_ATTENTION(T, DIM, KEYS, WARPS)                                                                          \
  KERNEL(WARPS* WARP, resident_warps(DIM) / WARPS, varlen_attention_##T##_##DIM##_##WARPS, T * out, const T* qkv,      \
         const float* bias, const float* distance_bias, const uint4* tiles, uint32_t heads, \
         uint32_t dim, uint32_t before, uint32_t after, uint32_t distance_width, float scale) {                        \
    Attention<T> attention = {out, qkv, bias, distance_bias, heads, dim, before, after, distance_width, scale};        \
    varlen_attention<T, DIM, KEYS, WARPS>(attention, tiles);                                                   \
  }
// Few warps take fewer keys at a time: it is shared memory that limits how many of their blocks are resident.
#define FOR_EACH_HEAD(T, KEYS, WARPS)  \
  VARLEN_ATTENTION(T, 32, KEYS, WARPS) \
  VARLEN_ATTENTION(T, 64, KEYS, WARPS) \
  VARLEN_ATTENTION(T, 128, 32, WARPS)
FOR_EACH_HEAD(bf16, 32, 1)
FOR_EACH_HEAD(bf16, 32, 2)
FOR_EACH_HEAD(bf16, 64, 4)
FOR_EACH_HEAD(f16, 32, 1)
FOR_EACH_HEAD(f16, 32, 2)
FOR_EACH_HEAD(f16, 64, 4)
