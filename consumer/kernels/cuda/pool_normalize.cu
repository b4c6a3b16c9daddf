// `pool_normalize`: the last hidden state to one vector a sequence, all sequences in one launch, a block a sequence.
//
// A thread sums its columns token after token, so that a row does not depend on how many tokens others have. `finishes`
// has for each sequence the dimensions that are kept, and in the highest bit whether the vector is divided by its L2
// norm. `pooling`: 0 the mean, 1 the first token, 2 the last one, 3 each column's largest value.
#include "device.cuh"

constexpr uint32_t THREADS = 128;
constexpr uint32_t NORMALIZE = 0x80000000;
// The norm below which a vector is not scaled up: what PyTorch's `normalize` takes.
constexpr float NORM_MIN = 1e-12f;

enum class Pooling : uint32_t { Mean, Cls, Last, Max };

template <class T>
__device__ __forceinline__ float pooled(const T* x, uint32_t tokens, uint32_t hidden, Pooling pooling) {
  if (tokens == 0) return 0.0f;
  if (pooling == Pooling::Cls) return widen(x[0]);
  if (pooling == Pooling::Last) return widen(x[size_t(tokens - 1) * hidden]);
  float result = widen(x[0]);
  for (uint32_t token = 1; token < tokens; ++token) {
    float value = widen(x[size_t(token) * hidden]);
    if (pooling == Pooling::Mean) {
      result += value;
    } else {
      result = result < value || value != value ? value : result;  // a NaN wins, and stays
    }
  }
  return pooling == Pooling::Mean ? result / tokens : result;
}

template <class T>
__device__ __forceinline__ void pool_normalize(float* out, const T* x, const uint32_t* starts, const uint32_t* finishes,
                                               uint32_t hidden, Pooling pooling) {
  ptx::SharedMemory shared;
  float* row = shared.take<float>(hidden);
  float* squares = shared.take<float>(THREADS / WARP);
  uint32_t sequence = blockIdx.x;
  uint32_t first = starts[sequence], tokens = starts[sequence + 1] - first;
  uint32_t dimensions = finishes[sequence] & ~NORMALIZE;
  float sum = 0.0f;
  for (uint32_t column = threadIdx.x; column < dimensions; column += THREADS) {
    float value = pooled(x + size_t(first) * hidden + column, tokens, hidden, pooling);
    row[column] = value;  // read by this thread alone
    sum += value * value;
  }
  float factor = 1.0f;
  if (finishes[sequence] & NORMALIZE) {
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) squares[threadIdx.x / WARP] = sum;
    __syncthreads();
    float total = 0.0f;
    for (uint32_t warp = 0; warp < THREADS / WARP; ++warp) total += squares[warp];
    float norm = sqrtf(total);
    factor = 1.0f / (norm < NORM_MIN ? NORM_MIN : norm);
  }
  for (uint32_t column = threadIdx.x; column < hidden; column += THREADS) {
    out[size_t(sequence) * hidden + column] = column < dimensions ? row[column] * factor : 0.0f;
  }
}

#define POOL_NORMALIZE(T)                                                                                          \
  KERNEL(THREADS, 8, pool_normalize_##T, float* out, const T* x, const uint32_t* starts, const uint32_t* finishes, \
         uint32_t hidden, uint32_t pooling) {                                                                      \
    pool_normalize(out, x, starts, finishes, hidden, Pooling(pooling));                                            \
  }
POOL_NORMALIZE(bf16)
POOL_NORMALIZE(f16)
