// Matrix products of a warpgroup, by their documentation in the PTX ISA: operands in swizzled tiles, sums in fragments.

#include "wgmma.cuh"

#include <cstring>

#include "machine.h"

using namespace executor;

namespace {

constexpr uint32_t ROW_BYTES = TILE_DEPTH * sizeof(uint16_t);

// Where hardware finds what would lie at an address: bits 4 to 6 are turned by bits 7 to 9.
const unsigned char* swizzled(const unsigned char* address) {
  auto bits = reinterpret_cast<uintptr_t>(address);
  return reinterpret_cast<const unsigned char*>(bits ^ ((bits >> 7 & 7) << 4));
}

// ROWS rows of 16 values, read as the thread that runs.
template <uint32_t ROWS>
void read_tile(const void* site, float (&to)[ROWS][GROUP_DEPTH], const void* first, float (*widen)(uint16_t)) {
  auto begin = static_cast<const unsigned char*>(first);
  for (uint32_t row = 0; row < ROWS; ++row) {
    for (uint32_t half = 0; half < 2; ++half) {
      const unsigned char* piece = swizzled(begin + row * ROW_BYTES + half * 16);
      touch(site, piece, 16, false);
      if (!is_shared(piece)) fault(site, "multiplies what is not in shared memory");
      uint16_t bits[8];
      std::memcpy(bits, piece, sizeof(bits));
      for (uint32_t i = 0; i < 8; ++i) to[row][half * 8 + i] = widen(bits[i]);
    }
  }
}

void multiply(const GroupMultiply& pending) {
  static float left[GROUP_ROWS][GROUP_DEPTH], right[GROUP_COLUMNS][GROUP_DEPTH];
  read_tile(pending.site, left, pending.left, pending.widen);
  read_tile(pending.site, right, pending.right, pending.widen);
  for (uint32_t thread = 0; thread < GROUP_WARPS * LANES; ++thread) {
    uint32_t lane = thread % LANES, warp = thread / LANES;
    for (uint32_t i = 0; i < GROUP_SUMS; ++i) {
      const float* row = left[warp * 16 + i / 2 % 2 * 8 + lane / 4];
      const float* column = right[i / 4 * 8 + lane % 4 * 2 + i % 2];
      float sum = pending.sums[thread][i];
      for (uint32_t depth = 0; depth < GROUP_DEPTH; ++depth) sum += row[depth] * column[depth];
      pending.sums[thread][i] = sum;
    }
  }
}

struct Operands {
  float* sums;
  const void *left, *right;
  float (*widen)(uint16_t);
  const void* site;
};

Group& own_group() { return block.groups[running->index / (GROUP_WARPS * LANES)]; }

void begin(void* const* threads) {
  auto first = static_cast<const Operands*>(threads[0]);
  GroupMultiply begun = {first->site, first->left, first->right, first->widen, {}};
  for (uint32_t thread = 0; thread < GROUP_WARPS * LANES; ++thread) {
    auto own = static_cast<const Operands*>(threads[thread]);
    if (own->left != first->left || own->right != first->right) {
      fault(first->site, "multiplies other tiles than its warpgroup");
    }
    begun.sums[thread] = own->sums;
  }
  own_group().pending.back().push_back(begun);
}

}  // namespace

namespace ptx {

void group_multiply_bits(float* sums, const void* left, const void* right, float (*widen)(uint16_t)) {
  const void* site = __builtin_return_address(0);
  auto misaligned = [](const void* tile) { return reinterpret_cast<uintptr_t>(tile) % TILE_ALIGNMENT >= ROW_BYTES; };
  if (misaligned(left) || misaligned(right)) {
    fault(site, "multiplies a tile that does not begin at a multiple of 1024 bytes");
  }
  Operands own = {sums, left, right, widen, site};
  with_group(site, begin, &own);
}

void wgmma_commit() {
  with_group(__builtin_return_address(0), [](void* const*) { own_group().pending.emplace_back(); }, nullptr);
}

void wgmma_wait_at_most(uint32_t groups) {
  const void* site = __builtin_return_address(0);
  uint32_t most = groups;
  with_group(
      site,
      [](void* const* threads) {
        auto& pending = own_group().pending;
        // The last group is the one that is not closed yet.
        while (pending.size() > *static_cast<const uint32_t*>(threads[0]) + 1) {
          for (const GroupMultiply& next : pending.front()) multiply(next);
          pending.erase(pending.begin());
        }
      },
      &most);
}

}  // namespace ptx
