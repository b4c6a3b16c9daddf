// `bias_activation`: the epilogue of a `linear` after a cuBLAS GEMM, in place. A thread takes eight values of one row.
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

#define BIAS_ACTIVATION(T)                                                                        \
  KERNEL(THREADS, 4, bias_activation_##T, T* x, const float* bias, uint32_t rows, uint32_t width, \
         uint32_t activation) {                                                                   \
    bias_activation(x, bias, rows, width, Activation(activation));                                \
  }
BIAS_ACTIVATION(bf16)
BIAS_ACTIVATION(f16)
