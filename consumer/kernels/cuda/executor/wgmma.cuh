// The functions of `../wgmma.cuh` for a processor. Matrix products are computed when they are waited for, so that a
// kernel which touches their operands or sums before that gets wrong results. A missing `publish_tiles` cannot be
// detected.
#pragma once

#include <ptx.cuh>

constexpr uint32_t GROUP_WARPS = 4;
constexpr uint32_t GROUP_ROWS = 64, GROUP_COLUMNS = 192, GROUP_DEPTH = 16;
constexpr uint32_t TILE_DEPTH = 64;
constexpr uint32_t TILE_ALIGNMENT = 1024;
constexpr uint32_t GROUP_SUMS = GROUP_COLUMNS / 2;

namespace ptx {

void group_multiply_bits(float* sums, const void* left, const void* right, float (*widen)(uint16_t));
void wgmma_commit();
void wgmma_wait_at_most(uint32_t groups);

template <class T>
void group_multiply(float (&sums)[GROUP_SUMS], const T* left, const T* right) {
  group_multiply_bits(sums, left, right, widen_bits<T>);
}

inline void publish_tiles() {}
inline void wgmma_fence() {}

template <int GROUPS>
void wgmma_wait() {
  wgmma_wait_at_most(GROUPS);
}

}  // namespace ptx
