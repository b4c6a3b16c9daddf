// The names of CUDA C++ that the kernels use, for a processor. Included before each `.cu` source, which is compiled
// with `-fsanitize=thread`, but not linked with that library: the calls that the compiler then puts before every access
// to memory come to `memory.cpp`, which knows what each thread may touch.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))

struct uint3 {
  uint32_t x, y, z;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

struct alignas(8) float2 {
  float x, y;
};

// Of the thread that runs.
extern uint3 threadIdx, blockIdx, blockDim, gridDim;

template <class T>
inline T min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
inline T max(T a, T b) {
  return a < b ? b : a;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

void __syncthreads();
void __syncwarp(uint32_t lanes = 0xffffffff);
float __shfl_xor_sync(uint32_t lanes, float value, int distance);

namespace executor {

// A kernel that a launch may name.
class Kernel {
 public:
  using Call = void (*)(const void* function, const uint64_t* arguments);

  template <class... A>
  Kernel(const char* name, const char* source, uint32_t threads_max, void (*function)(A...))
      : name(name),
        source(source),
        threads_max(threads_max),
        arguments(sizeof...(A)),
        function(reinterpret_cast<const void*>(function)) {
    call = [](const void* function, const uint64_t* arguments) {
      unpack(reinterpret_cast<void (*)(A...)>(function), arguments, std::index_sequence_for<A...>());
    };
    next = first;
    first = this;
  }

  static Kernel* first;

  const char* name;
  const char* source;  // the path of the file that defines it
  uint32_t threads_max;
  size_t arguments;
  const void* function;
  Call call;
  Kernel* next;

 private:
  template <class A>
  static A value(const uint64_t& argument) {
    static_assert(sizeof(A) <= sizeof(argument));
    A value;
    std::memcpy(&value, &argument, sizeof(A));
    return value;
  }

  template <class... A, size_t... I>
  static void unpack(void (*function)(A...), const uint64_t* arguments, std::index_sequence<I...>) {
    function(value<A>(arguments[I])...);
  }
};

}  // namespace executor

// Defines a kernel that its launch finds by name; what follows is its body.
#define KERNEL(THREADS, BLOCKS, NAME, ...)                                \
  extern "C" void NAME(__VA_ARGS__);                                      \
  static executor::Kernel kernel_##NAME(#NAME, __FILE__, THREADS, &NAME); \
  extern "C" void NAME(__VA_ARGS__)
