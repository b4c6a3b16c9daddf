// `add_layer_norm`, and `layer_norm`, which has no addend: rows summed and normalised, a warp a row, in registers.
//
// out = LayerNorm(x + bias + residual), without what is null. Where `sum` is given, it becomes x + bias + residual, and
// what is normalised is the sum as it was stored. Each operand moves once.
#include "device.cuh"

constexpr uint32_t THREADS = 256;

template <class T, uint32_t VECTORS>
__device__ __forceinline__ void add_layer_norm(T* out, T* sum, const T* x, const T* residual, const float* bias,
                                               const float* scale, const float* shift, uint32_t rows, uint32_t hidden,
                                               float eps) {
  uint32_t index = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
  if (index >= rows) return;
  size_t start = size_t(index) * hidden;
  Row<VECTORS> row(hidden);
  row.add(x + start);
  if (bias != nullptr) row.add(bias);
  if (residual != nullptr) row.add(residual + start);
  if (sum != nullptr) {
    row.template round<T>();
    row.store(sum + start);
  }
  row.normalize(scale, shift, eps);
  row.store(out + start);
}

#define ADD_LAYER_NORM(T, VECTORS)                                                                                     \
  KERNEL(THREADS, VECTORS > 4 ? 2 : 4, add_layer_norm_##T##_##VECTORS, T * out, T * sum, const T* x,                   \
         const T* residual, const float* bias, const float* scale, const float* shift, uint32_t rows, uint32_t hidden, \
         float eps) {                                                                                                  \
    add_layer_norm<T, VECTORS>(out, sum, x, residual, bias, scale, shift, rows, hidden, eps);                          \
  }
FOR_EACH_ROW_SIZE(ADD_LAYER_NORM)
