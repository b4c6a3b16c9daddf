// Matrix products of a warpgroup, whose operands Hopper's tensor cores read straight from shared memory (the PTX ISA,
// "wgmma.mma_async"). `executor/wgmma.cuh` has these functions for a processor.
//
// A tile has rows of 64 values, 128 bytes, and begins at a multiple of 1,024 bytes. Its 16-byte piece p of row r lies
// where piece p ^ (r % 8) would ("128-byte swizzle"), so that eight rows' pieces are in different banks.
#pragma once

#include <ptx.cuh>

// Warps that multiply together.
constexpr uint32_t GROUP_WARPS = 4;
// One matrix product: rows of the left tile, columns of the sums, depth.
constexpr uint32_t GROUP_ROWS = 64, GROUP_COLUMNS = 192, GROUP_DEPTH = 16;
// Values of a tile's row.
constexpr uint32_t TILE_DEPTH = 64;
constexpr uint32_t TILE_ALIGNMENT = 1024;
// A lane's sums of a matrix product: of each eight columns, as `mma` has them, of its warp's 16 rows.
constexpr uint32_t GROUP_SUMS = GROUP_COLUMNS / 2;

namespace ptx {

// A tile from `first` on as the tensor cores take it: its address, and 1,024 bytes from eight rows to the next.
__device__ __forceinline__ uint64_t tile_descriptor(const void* first) {
  constexpr uint64_t SWIZZLE_128 = uint64_t(1) << 62, UNUSED = 1 << 16;
  constexpr uint64_t EIGHT_ROWS = uint64_t(TILE_ALIGNMENT / 16) << 32;
  return SWIZZLE_128 | EIGHT_ROWS | UNUSED | (shared_address(first) / 16 & 0x3fff);
}

// clang-format off
#define GROUP_REGISTERS \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, " \
  "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, " \
  "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, " \
  "%60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, " \
  "%72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, " \
  "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95 "
// clang-format on
#define SUMS_8(SUMS, AT)                                                                                          \
  "+f"(SUMS[AT]), "+f"(SUMS[AT + 1]), "+f"(SUMS[AT + 2]), "+f"(SUMS[AT + 3]), "+f"(SUMS[AT + 4]), "+f"(SUMS[AT + 5]), \
      "+f"(SUMS[AT + 6]), "+f"(SUMS[AT + 7])
#define SUMS_32(SUMS, AT) SUMS_8(SUMS, AT), SUMS_8(SUMS, AT + 8), SUMS_8(SUMS, AT + 16), SUMS_8(SUMS, AT + 24)
#define GROUP_MULTIPLY(TYPE, SUMS, LEFT, RIGHT)                                                        \
  asm volatile("{.reg .pred adds; setp.ne.b32 adds, 1, 0;\n"                                           \
               "wgmma.mma_async.sync.aligned.m64n192k16.f32." TYPE "." TYPE " {" GROUP_REGISTERS "},"   \
               " %96, %97, adds, 1, 1, 0, 0;}\n"                                                       \
               : SUMS_32(SUMS, 0), SUMS_32(SUMS, 32), SUMS_32(SUMS, 64)                                 \
               : "l"(tile_descriptor(LEFT)), "l"(tile_descriptor(RIGHT)))

// Begins sums += left * transpose(right) over 16 columns of both tiles from the given ones on: 64 rows of `left` by 192
// of `right`. The sums are not to be touched before `wgmma_wait`.
template <class T>
__device__ __forceinline__ void group_multiply(float (&sums)[GROUP_SUMS], const T* left, const T* right);

template <>
__device__ __forceinline__ void group_multiply<bf16>(float (&sums)[GROUP_SUMS], const bf16* left, const bf16* right) {
  GROUP_MULTIPLY("bf16", sums, left, right);
}

template <>
__device__ __forceinline__ void group_multiply<f16>(float (&sums)[GROUP_SUMS], const f16* left, const f16* right) {
  GROUP_MULTIPLY("f16", sums, left, right);
}

// Makes what this thread left in shared memory visible to the tensor cores, once a barrier says so to others.
__device__ __forceinline__ void publish_tiles() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

// To be called before the first matrix product that reads registers or tiles which threads wrote.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }

// Closes the group of matrix products since the last one.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }

// Waits until at most so many groups of matrix products are under way.
template <int GROUPS>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(GROUPS) : "memory");
}

}  // namespace ptx
