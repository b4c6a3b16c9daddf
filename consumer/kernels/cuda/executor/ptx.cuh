// The functions of `../ptx.cuh` for a processor. What all lanes do together is done when the last one arrives.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "executor.h"

using bf16 = __nv_bfloat16;
using f16 = __half;

namespace executor {

// By the documented layout of mma.m16n8k16's fragments: lane l = 4 g + t has, of a, the pairs at rows g and g + 8,
// columns 2 t, then the same eight columns on; of b those at rows 2 t and 2 t + 8 of column g; of the sums the pairs at
// rows g and g + 8, columns 2 t.
void mma(float* sums, const uint32_t* a, uint32_t b0, uint32_t b1, float (*widen)(uint16_t));
void load_matrices(uint32_t* out, const void* row, bool transposed);
void* take_shared(uint32_t& cursor, uint32_t bytes, uint32_t alignment);

}  // namespace executor

namespace ptx {

template <class T>
float widen_bits(uint16_t bits);
template <>
inline float widen_bits<bf16>(uint16_t bits) {
  return __bfloat162float({bits});
}
template <>
inline float widen_bits<f16>(uint16_t bits) {
  return __half2float({bits});
}

template <class T>
void mma(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  executor::mma(sums, a, b0, b1, widen_bits<T>);
}

template <class T>
uint32_t round_pair(float low, float high);
template <>
inline uint32_t round_pair<bf16>(float low, float high) {
  return uint32_t(__float2bfloat16(high).bits) << 16 | __float2bfloat16(low).bits;
}
template <>
inline uint32_t round_pair<f16>(float low, float high) {
  return uint32_t(__float2half(high).bits) << 16 | __float2half(low).bits;
}

inline float exp2(float power) { return std::exp2(power); }

inline void load_matrices(uint32_t (&out)[4], const void* row) { executor::load_matrices(out, row, false); }
inline void load_matrices_transposed(uint32_t (&out)[4], const void* row) { executor::load_matrices(out, row, true); }

void copy_async(void* to, const void* from, bool inside);
void copies_commit();
void copies_wait_at_most(uint32_t groups);

template <int GROUPS>
void copies_wait() {
  copies_wait_at_most(GROUPS);
}

uint4 load16(const void* from);
void store16(void* to, uint4 value);
float2 load_pair(const float* from);

// Between two arrays lies memory that belongs to neither, so that a step out of one does not end in the next.
class SharedMemory {
 public:
  template <class T>
  T* take(uint32_t count, uint32_t alignment = 16) {
    return static_cast<T*>(executor::take_shared(cursor_, count * sizeof(T), alignment));
  }

 private:
  uint32_t cursor_ = 0;
};

}  // namespace ptx
