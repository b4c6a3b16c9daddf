// Shared by all kernels: number types, sums over a warp, eight values at a time, activations, and rows in registers.
#pragma once

#include <ptx.cuh>

constexpr uint32_t WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffff;
// Values of 16 bytes: what one load or store moves.
constexpr uint32_t VECTOR = 8;

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(bf16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float widen(f16 value) { return __half2float(value); }

template <class T>
__device__ __forceinline__ T narrow(float value);
template <>
__device__ __forceinline__ float narrow<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ bf16 narrow<bf16>(float value) {
  return __float2bfloat16(value);
}
template <>
__device__ __forceinline__ f16 narrow<f16>(float value) {
  return __float2half(value);
}

// Two values that lie side by side, the first in the low half.
template <class T>
__device__ __forceinline__ void unpack(uint32_t word, T& low, T& high) {
  union {
    uint32_t word;
    T values[2];
  } both;
  both.word = word;
  low = both.values[0];
  high = both.values[1];
}

__device__ __forceinline__ bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// The sum over all lanes, the same bits in each.
__device__ __forceinline__ float warp_sum(float value) {
  for (uint32_t distance = WARP / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(ALL_LANES, value, distance);
  }
  return value;
}

// Up to eight values, the rest zeros; in one load where `vector` says that all eight lie at a multiple of 16 bytes.
template <class T>
__device__ __forceinline__ void load8(float (&values)[VECTOR], const T* from, uint32_t count, bool vector) {
  if (vector && count >= VECTOR) {
    union {
      uint4 words;
      T values[VECTOR];
    } loaded;
    loaded.words = ptx::load16(from);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; ++i) values[i] = widen(loaded.values[i]);
    return;
  }
#pragma unroll
  for (uint32_t i = 0; i < VECTOR; ++i) values[i] = i < count ? widen(from[i]) : 0.0f;
}

template <>
__device__ __forceinline__ void load8<float>(float (&values)[VECTOR], const float* from, uint32_t count, bool) {
#pragma unroll
  for (uint32_t i = 0; i < VECTOR; ++i) values[i] = i < count ? from[i] : 0.0f;
}

template <class T>
__device__ __forceinline__ void store8(T* to, const float (&values)[VECTOR], uint32_t count, bool vector) {
  if (vector && count >= VECTOR) {
    union {
      uint4 words;
      T values[VECTOR];
    } stored;
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; ++i) stored.values[i] = narrow<T>(values[i]);
    ptx::store16(to, stored.words);
    return;
  }
#pragma unroll
  for (uint32_t i = 0; i < VECTOR; ++i) {
    if (i < count) to[i] = narrow<T>(values[i]);
  }
}

// As `Activation` of the processor's side numbers them.
enum class Activation : uint32_t { None, Gelu, GeluTanh, Silu, Tanh, Relu };

// The erf GELU, by a polynomial. erf(x / sqrt(2)) is x times a polynomial of x * x up to 4.53, least squares with
// weights that even out its error, scaled so that it ends at one; beyond it is one. The error of the result is at most
// 6.1e-5 everywhere, and it takes half as many instructions as with `erff`.
__device__ __forceinline__ float gelu(float x) {
  float inside = fminf(fmaxf(x, -4.5254836f), 4.5254836f), square = inside * inside;
  float sum = -3.314701812e-12f;
  sum = fmaf(sum, square, 3.919887748e-10f);
  sum = fmaf(sum, square, -2.065957361e-08f);
  sum = fmaf(sum, square, 6.459811743e-07f);
  sum = fmaf(sum, square, -1.350789807e-05f);
  sum = fmaf(sum, square, 2.025942085e-04f);
  sum = fmaf(sum, square, -2.281725872e-03f);
  sum = fmaf(sum, square, 1.977531984e-02f);
  sum = fmaf(sum, square, -1.328348070e-01f);
  sum = fmaf(sum, square, 7.978601456e-01f);
  float erf = fminf(fmaxf(inside * sum, -1.0f), 1.0f), half = 0.5f * x;
  return fmaf(half, erf, half);
}

__device__ __forceinline__ float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::Gelu:
      return gelu(x);
    case Activation::GeluTanh:
      return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case Activation::Silu:
      return x / (1.0f + expf(-x));
    case Activation::Tanh:
      return tanhf(x);
    case Activation::Relu:
      return x < 0.0f ? 0.0f : x;
    default:
      return x;
  }
}

// A warp's row of up to VECTORS * 256 values, in registers: lane l has vectors l, l + 32 and so on.
template <uint32_t VECTORS>
struct Row {
  float values[VECTORS][VECTOR];
  uint32_t width;
  uint32_t lane;

  __device__ __forceinline__ Row(uint32_t width) : width(width), lane(threadIdx.x % WARP) {
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; ++i) {
#pragma unroll
      for (uint32_t j = 0; j < VECTOR; ++j) values[i][j] = 0.0f;
    }
  }

  __device__ __forceinline__ uint32_t column(uint32_t i) const { return (i * WARP + lane) * VECTOR; }

  // How many of this vector's values the row has.
  __device__ __forceinline__ uint32_t count(uint32_t i) const {
    uint32_t first = column(i);
    return first >= width ? 0 : min(width - first, VECTOR);
  }

  template <class S>
  __device__ __forceinline__ void add(const S* row) {
    bool vector = aligned(row);
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; ++i) {
      if (count(i) == 0) continue;
      float addends[VECTOR];
      load8(addends, row + column(i), count(i), vector);
#pragma unroll
      for (uint32_t j = 0; j < VECTOR; ++j) values[i][j] += addends[j];
    }
  }

  template <class T>
  __device__ __forceinline__ void store(T* row) const {
    bool vector = aligned(row);
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; ++i) {
      if (count(i) > 0) store8(row + column(i), values[i], count(i), vector);
    }
  }

  // Makes them what a store in T would leave.
  template <class T>
  __device__ __forceinline__ void round() {
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; ++i) {
#pragma unroll
      for (uint32_t j = 0; j < VECTOR; ++j) values[i][j] = widen(narrow<T>(values[i][j]));
    }
  }

  // LayerNorm; the variance is the mean square distance to the mean, taken in a second pass (no cancellation).
  __device__ __forceinline__ void normalize(const float* scale, const float* shift, float eps) {
    float sum = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; ++i) {
#pragma unroll
      for (uint32_t j = 0; j < VECTOR; ++j) sum += values[i][j];  // zeros beyond the row
    }
    float mean = warp_sum(sum) / width;
    float squares = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; ++i) {
#pragma unroll
      for (uint32_t j = 0; j < VECTOR; ++j) {
        float distance = j < count(i) ? values[i][j] - mean : 0.0f;
        squares += distance * distance;
      }
    }
    float inverse = rsqrtf(warp_sum(squares) / width + eps);
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; ++i) {
      if (count(i) == 0) continue;
      float scales[VECTOR], shifts[VECTOR];
      load8(scales, scale + column(i), count(i), false);
      load8(shifts, shift + column(i), count(i), false);
#pragma unroll
      for (uint32_t j = 0; j < VECTOR; ++j) {
        values[i][j] = (values[i][j] - mean) * inverse * scales[j] + shifts[j];
      }
    }
  }
};

// Each number type with each size of a row: up to 256, 512, 1,024 and 1,536 values.
#define FOR_EACH_ROW_SIZE(DEFINE) \
  DEFINE(bf16, 1)                 \
  DEFINE(bf16, 2)                 \
  DEFINE(bf16, 4)                 \
  DEFINE(bf16, 6)                 \
  DEFINE(f16, 1)                  \
  DEFINE(f16, 2)                  \
  DEFINE(f16, 4)                  \
  DEFINE(f16, 6)
