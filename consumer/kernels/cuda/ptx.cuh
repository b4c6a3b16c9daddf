// The device beyond CUDA C++, as the kernels need it: tensor core instructions (`mma.sync`), matrix loads and
// asynchronous copies.
// `executor/ptx.cuh` has the same functions for a processor. Layouts are those of the PTX ISA, "Matrix fragments for
// mma.m16n8k16" and "ldmatrix".
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

using bf16 = __nv_bfloat16;
using f16 = __half;

// Defines a kernel that its launch finds by name; what follows is its body. Registers are kept so few that BLOCKS of
// them, of at most THREADS threads, fit on a multiprocessor.
#define KERNEL(THREADS, BLOCKS, NAME, ...) \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(__VA_ARGS__)

namespace ptx {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// On the tensor cores, sums += a * b: a is 16 x 16 by rows, b is 16 x 8 by columns, sums are 16 x 8. All lanes
// together.
template <class T>
__device__ __forceinline__ void mma(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ __forceinline__ void mma<bf16>(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void mma<f16>(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices from shared memory: lane l names row l % 8 of matrix l / 8, and gets of each matrix the
// two values at row l / 4, columns 2 (l % 4) and the next. All lanes together.
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// As above, of the matrices' transposes.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// Copies 16 bytes to shared memory without waiting, or writes zeros there and reads nothing. Both addresses are
// multiples of 16.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from),
               "r"(inside ? 16 : 0)
               : "memory");
}

// Closes the group of this thread's copies since the last one.
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

// Waits until at most so many groups of this thread's are under way.
template <int GROUPS>
__device__ __forceinline__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(GROUPS) : "memory");
}

// 16 bytes from global memory at a multiple of 16.
__device__ __forceinline__ uint4 load16(const void* from) { return *static_cast<const uint4*>(from); }

__device__ __forceinline__ void store16(void* to, uint4 value) { *static_cast<uint4*>(to) = value; }

// Two values rounded to T side by side, the first in the low half.
template <class T>
__device__ __forceinline__ uint32_t round_pair(float low, float high);

template <>
__device__ __forceinline__ uint32_t round_pair<bf16>(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

template <>
__device__ __forceinline__ uint32_t round_pair<f16>(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// Two to this power, with a relative error of 2^-22; too small results are zero.
__device__ __forceinline__ float exp2(float power) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(power));
  return result;
}

// Two values at a multiple of 8 bytes.
__device__ __forceinline__ float2 load_pair(const float* from) { return *reinterpret_cast<const float2*>(from); }

// The block's shared memory, of the size that its launch asked for.
__device__ __forceinline__ unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

// Deals out the block's shared memory: every thread takes the same arrays in the same order.
class SharedMemory {
 public:
  __device__ __forceinline__ SharedMemory() : next_(shared_memory()) {}

  // `count` values at a multiple of 16 bytes, or of more, which the launch then asks for besides.
  template <class T>
  __device__ __forceinline__ T* take(uint32_t count, uint32_t alignment = 16) {
    if (alignment > 16) next_ += (alignment - shared_address(next_) % alignment) % alignment;
    T* taken = reinterpret_cast<T*>(next_);
    next_ += (count * sizeof(T) + 15) / 16 * 16;
    return taken;
  }

 private:
  unsigned char* next_;
};

}  // namespace ptx
