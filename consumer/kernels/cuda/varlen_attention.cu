// `varlen_attention`: flash attention within packed sequences, one pass over tiles of keys, nothing padded in memory.
//
// A block takes 16 WARPS queries of one head of one sequence, each warp 16 of them: `tiles` has where the sequence
// begins, how many tokens it has, and the block's first query. Blocks of one tile's heads follow each other, since
// they read the same rows. Keys and values come in tiles, of one size however many warps there are, so that a query's
// result does not depend on the sequences beside its own; through two buffers, one filled by asynchronous copies while
// the other is used. Scores, exponentials and sums stay in registers: the fragment in which `mma` leaves 16 x 8 scores
// is half of the one in which it takes 16 x 16 probabilities.
//
// The bias of the linear layer whose result is `qkv` costs nothing: a key's adds one number to all scores of a query,
// which softmax takes out again; a value's comes out as it went in, since probabilities sum to one; a query's is added
// as queries are read.
//
// A query sees the keys from `before` before it to `after` after it. `distance_bias`, `[heads, distance_width]`, is
// added to scores by how far the key is from the query, its middle being no distance. Scores are scaled and
// exponentials taken in f32; probabilities are rounded to T for the matrix product with the values, and summed before
// that.
#include "device.cuh"

constexpr float LOG2_E = 1.44269504f;
constexpr uint32_t ROWS = 16;

// Shared by all blocks of a launch.
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
// of 16 bytes where all rows begin at a multiple of that and `dim` is whole ones. Of a few rows, the first half alone.
template <class T, uint32_t DIM, uint32_t KEYS, uint32_t THREADS>
__device__ __forceinline__ void fetch(T* to, const T* from, size_t stride, uint32_t count, uint32_t dim, bool vectors) {
  for (uint32_t index = threadIdx.x; index < KEYS * DIM / VECTOR; index += THREADS) {
    uint32_t row = index / (DIM / VECTOR), column = index % (DIM / VECTOR) * VECTOR;
    if (row >= (count <= KEYS / 2 ? KEYS / 2 : KEYS)) break;
    T* into = to + row * STRIDE<DIM> + column;
    const T* source = from + row * stride + column;
    if (vectors) {
      bool inside = row < count && column < dim;
      ptx::copy_async(into, inside ? source : from, inside);
      continue;
    }
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; ++i) {
      into[i] = row < count && column + i < dim ? source[i] : narrow<T>(0.0f);
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

// Where a block is: its sequence, its head, and how its rows lie.
struct Where {
  uint32_t start, tokens, first_query, head;
  // Whether all that is read lies at multiples of 16 bytes, in whole vectors.
  bool vectors;
};

// A warp's sixteen queries, and what it has of their results. Each lane has values of two queries, eight rows apart.
template <class T, uint32_t DIM>
struct Queries {
  static constexpr uint32_t STEPS = DIM / 16;

  const Attention<T>& a;
  const Where& where;
  uint32_t lane = threadIdx.x % WARP, pair = lane % 4 * 2;
  uint32_t first = where.first_query + threadIdx.x / WARP * ROWS, queries[2] = {first + lane / 4, first + lane / 4 + 8};
  // Softmax scale times log2(e), for exp2.
  float scale = a.scale * LOG2_E;
  uint32_t fragments[STEPS][4];
  float sums[DIM / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {};

  __device__ __forceinline__ Queries(const Attention<T>& a, const Where& where, const T* rows, size_t stride)
      : a(a), where(where) {
    const float* bias = a.bias == nullptr ? nullptr : a.bias + where.head * a.dim;
#pragma unroll
    for (uint32_t step = 0; step < STEPS; ++step) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        uint32_t query = queries[i % 2], column = step * 16 + i / 2 * 8 + pair;
        bool inside = query < where.tokens;
        fragments[step][i] = query_pair(rows + query * stride, bias, column, a.dim, inside, where.vectors);
      }
    }
  }

  // Whether each of the queries sees all `keys` keys from `key` on, and nothing is added to their scores.
  __device__ __forceinline__ bool sees_all(uint32_t key, uint32_t keys) const {
    return key + keys <= where.tokens && key + a.before >= first + ROWS - 1 && key + keys - 1 <= first + a.after &&
           a.distance_bias == nullptr;
  }

  // A score of query `i` by a key, scaled for powers of two.
  __device__ __forceinline__ float seen_score(float score, uint32_t i, uint32_t key) const {
    uint32_t query = queries[i];
    bool seen = key < where.tokens && key + a.before >= query && key <= query + a.after;
    if (a.distance_bias != nullptr && seen && query < where.tokens) {
      score += a.distance_bias[where.head * a.distance_width + a.distance_width / 2 + key - query] * LOG2_E;
    }
    return seen ? score : -INFINITY;
  }

  // Takes the KEYS keys from `first_key` on and their values, which lie in shared memory. PLAIN is as `sees_all` says.
  template <uint32_t KEYS, bool PLAIN>
  __device__ __forceinline__ void attend(const T* keys, const T* values, uint32_t first_key) {
    constexpr uint32_t COLUMNS = KEYS / 8;
    // Lane l names row l % 8 of matrix l / 8; four of them are the keys' next 32 values, or 16 values of the head.
    float scores[COLUMNS][4] = {}, tile_largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (uint32_t column = 0; column < COLUMNS; ++column) {
      const T* row = keys + (column * 8 + lane % 8) * STRIDE<DIM> + lane / 8 * 8;
#pragma unroll
      for (uint32_t step = 0; step < STEPS; step += 2) {
        uint32_t matrices[4];
        ptx::load_matrices(matrices, row + step * 16);
        ptx::mma<T>(scores[column], fragments[step], matrices[0], matrices[1]);
        ptx::mma<T>(scores[column], fragments[step + 1], matrices[2], matrices[3]);
      }
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        float score = scores[column][i] * scale;
        if (!PLAIN) score = seen_score(score, i / 2, first_key + column * 8 + pair + i % 2);
        scores[column][i] = score;
        tile_largest[i / 2] = fmaxf(tile_largest[i / 2], score);
      }
    }
    float base[2];
    rescale(tile_largest, base);
    // Sixteen keys a step: matrices are keys 0 to 7 and 8 to 15 of a step, for two times eight values of the head.
#pragma unroll
    for (uint32_t step = 0; step < KEYS / 16; ++step) {
      uint32_t probabilities[4];
#pragma unroll
      for (uint32_t part = 0; part < 4; ++part) {
        const float(&of)[4] = scores[2 * step + part / 2];
        float low = ptx::exp2(of[part % 2 * 2] - base[part % 2]);
        float high = ptx::exp2(of[part % 2 * 2 + 1] - base[part % 2]);
        total[part % 2] += low + high;
        probabilities[part] = ptx::round_pair<T>(low, high);
      }
      const T* row = values + (step * 16 + lane % 16) * STRIDE<DIM> + lane / 16 * 8;
#pragma unroll
      for (uint32_t column = 0; column < DIM / 8; column += 2) {
        uint32_t matrices[4];
        ptx::load_matrices_transposed(matrices, row + column * 8);
        ptx::mma<T>(sums[column], probabilities, matrices[0], matrices[1]);
        ptx::mma<T>(sums[column + 1], probabilities, matrices[2], matrices[3]);
      }
    }
  }

  // Takes in the largest scores of a tile; `base` is what its scores are counted from.
  __device__ __forceinline__ void rescale(const float (&tile_largest)[2], float (&base)[2]) {
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
  }

  __device__ __forceinline__ void store() {
    uint32_t dim = a.dim, hidden = a.heads * dim;
    const float* bias = a.bias == nullptr ? nullptr : a.bias + 2 * hidden + where.head * dim;
    bool pairs = where.vectors && aligned(a.out);
#pragma unroll
    for (uint32_t row = 0; row < 2; ++row) {
      total[row] += __shfl_xor_sync(ALL_LANES, total[row], 1);
      total[row] += __shfl_xor_sync(ALL_LANES, total[row], 2);
      if (queries[row] >= where.tokens) continue;
      float inverse = 1.0f / total[row];
      T* out = a.out + size_t(where.start + queries[row]) * hidden + where.head * dim;
#pragma unroll
      for (uint32_t column = 0; column < DIM / 8; ++column) {
        uint32_t at = column * 8 + pair;
        float low = sums[column][2 * row] * inverse, high = sums[column][2 * row + 1] * inverse;
        if (bias != nullptr && at < dim) low += bias[at];
        if (bias != nullptr && at + 1 < dim) high += bias[at + 1];
        if (pairs) {
          if (at < dim) *reinterpret_cast<uint32_t*>(out + at) = ptx::round_pair<T>(low, high);
          continue;
        }
        if (at < dim) out[at] = narrow<T>(low);
        if (at + 1 < dim) out[at + 1] = narrow<T>(high);
      }
    }
  }
};

// BUFFERS is two, or one where few warps would wait for room in shared memory rather than for copies.
template <class T, uint32_t DIM, uint32_t KEYS, uint32_t WARPS, uint32_t BUFFERS>
__device__ __forceinline__ void varlen_attention(const Attention<T>& a, const uint4* tiles) {
  constexpr uint32_t THREADS = WARPS * WARP, TILE = KEYS * STRIDE<DIM>;
  ptx::SharedMemory shared;
  T* keys = shared.take<T>(BUFFERS * TILE);
  T* values = shared.take<T>(BUFFERS * TILE);
  uint4 block = ptx::load16(tiles + blockIdx.x / a.heads);
  Where where = {block.x, block.y, block.z, blockIdx.x % a.heads, false};
  uint32_t dim = a.dim, hidden = a.heads * dim, tokens = where.tokens;
  size_t stride = size_t(3) * hidden;
  const T* rows = a.qkv + where.start * stride + where.head * dim;
  where.vectors = aligned(rows) && aligned(rows + hidden) && dim % VECTOR == 0 && hidden % VECTOR == 0;

  uint32_t last_query = min(where.first_query + WARPS * ROWS, tokens) - 1;
  uint32_t first_key = (where.first_query > a.before ? where.first_query - a.before : 0) / KEYS * KEYS;
  uint32_t end_key = a.after < tokens - 1 - last_query ? last_query + a.after + 1 : tokens;
  auto request = [&](uint32_t key, uint32_t buffer) {
    const T* from = rows + hidden + key * stride;
    fetch<T, DIM, KEYS, THREADS>(keys + buffer * TILE, from, stride, tokens - key, dim, where.vectors);
    fetch<T, DIM, KEYS, THREADS>(values + buffer * TILE, from + hidden, stride, tokens - key, dim, where.vectors);
    ptx::copies_commit();
  };
  request(first_key, 0);
  Queries<T, DIM> queries(a, where, rows, stride);
  for (uint32_t tile = first_key, buffer = 0; tile < end_key; tile += KEYS, buffer = (buffer + 1) % BUFFERS) {
    bool more = tile + KEYS < end_key;
    if (BUFFERS == 2 && more) {
      request(tile + KEYS, buffer ^ 1);
      ptx::copies_wait<1>();
    } else {
      ptx::copies_wait<0>();
    }
    __syncthreads();
    const T *tile_keys = keys + buffer * TILE, *tile_values = values + buffer * TILE;
    // Specialized for full, masked and half tiles: loops have constant lengths and full ones no mask. The last tile of
    // a sequence often is at most half full.
    if (queries.sees_all(tile, KEYS)) {
      queries.template attend<KEYS, true>(tile_keys, tile_values, tile);
    } else if (end_key - tile > KEYS / 2) {
      queries.template attend<KEYS, false>(tile_keys, tile_values, tile);
    } else {
      queries.template attend<KEYS / 2, false>(tile_keys, tile_values, tile);
    }
    __syncthreads();  // before the next copies overwrite what was read
    if (BUFFERS == 1 && more) request(tile + KEYS, buffer);
  }
  queries.store();
}

// Warps of a multiprocessor that registers suffice for, without any of them in memory.
constexpr uint32_t resident_warps(uint32_t dim, uint32_t warps) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (dim == 32 && warps == 4) return 20;
#endif
  return dim == 32 ? 16 : 8;
}

#define VARLEN_ATTENTION(T, DIM, KEYS, WARPS, BUFFERS)                                                          \
  KERNEL(WARPS* WARP, resident_warps(DIM, WARPS) / WARPS, varlen_attention_##T##_##DIM##_##WARPS, T * out,      \
         const T* qkv,                                                                                          \
         const float* bias, const float* distance_bias, const uint4* tiles, uint32_t heads, uint32_t dim,       \
         uint32_t before, uint32_t after, uint32_t distance_width, float scale) {                               \
    Attention<T> attention = {out, qkv, bias, distance_bias, heads, dim, before, after, distance_width, scale}; \
    varlen_attention<T, DIM, KEYS, WARPS, BUFFERS>(attention, tiles);                                           \
  }
#define FOR_EACH_HEAD(T, WARPS, BUFFERS)      \
  VARLEN_ATTENTION(T, 32, 64, WARPS, BUFFERS) \
  VARLEN_ATTENTION(T, 64, 64, WARPS, BUFFERS) \
  VARLEN_ATTENTION(T, 128, 32, WARPS, BUFFERS)
FOR_EACH_HEAD(bf16, 1, 1)
FOR_EACH_HEAD(bf16, 2, 1)
FOR_EACH_HEAD(bf16, 4, 2)
FOR_EACH_HEAD(f16, 1, 1)
FOR_EACH_HEAD(f16, 2, 1)
FOR_EACH_HEAD(f16, 4, 2)
