// Matrix products, matrix loads and asynchronous copies, by their documentation in the PTX ISA.

#include "ptx.cuh"

#include <cstring>

#include "machine.h"

namespace executor {

namespace {

struct MatrixMultiply {
  float* sums;
  const uint32_t* a;
  uint32_t b[2];
  float (*widen)(uint16_t);
};

struct Matrices {
  uint32_t* out;
  const void* row;
  bool transposed;
};

uint16_t half_of(uint32_t pair, uint32_t index) { return uint16_t(pair >> 16 * index); }

void multiply(void* const* lanes) {
  static float a[16][16], b[16][8];
  for (uint32_t lane = 0; lane < LANES; ++lane) {
    auto own = static_cast<const MatrixMultiply*>(lanes[lane]);
    uint32_t group = lane / 4, pair = lane % 4 * 2;
    for (uint32_t i = 0; i < 2; ++i) {
      for (uint32_t part = 0; part < 4; ++part) {
        a[group + part % 2 * 8][pair + part / 2 * 8 + i] = own->widen(half_of(own->a[part], i));
      }
      for (uint32_t part = 0; part < 2; ++part) b[pair + part * 8 + i][group] = own->widen(half_of(own->b[part], i));
    }
  }
  for (uint32_t lane = 0; lane < LANES; ++lane) {
    auto own = static_cast<const MatrixMultiply*>(lanes[lane]);
    for (uint32_t i = 0; i < 4; ++i) {
      uint32_t row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      float sum = own->sums[i];
      for (uint32_t depth = 0; depth < 16; ++depth) sum += a[row][depth] * b[depth][column];
      own->sums[i] = sum;
    }
  }
}

void distribute(void* const* lanes) {
  for (uint32_t lane = 0; lane < LANES; ++lane) {
    auto own = static_cast<const Matrices*>(lanes[lane]);
    for (uint32_t matrix = 0; matrix < 4; ++matrix) {
      uint16_t pair[2];
      for (uint32_t i = 0; i < 2; ++i) {
        uint32_t row = lane / 4, column = lane % 4 * 2 + i;
        if (own->transposed) std::swap(row, column);
        auto from = static_cast<const Matrices*>(lanes[matrix * 8 + row]);
        std::memcpy(&pair[i], static_cast<const uint16_t*>(from->row) + column, sizeof(uint16_t));
      }
      own->out[matrix] = uint32_t(pair[1]) << 16 | pair[0];
    }
  }
}

}  // namespace

void mma(float* sums, const uint32_t* a, uint32_t b0, uint32_t b1, float (*widen)(uint16_t)) {
  MatrixMultiply own = {sums, a, {b0, b1}, widen};
  with_warp(__builtin_return_address(0), multiply, &own);
}

void load_matrices(uint32_t* out, const void* row, bool transposed) {
  const void* site = __builtin_return_address(0);
  touch(site, row, 16, false);
  if (!is_shared(row)) fault(site, "loads a matrix that is not in shared memory");
  Matrices own = {out, row, transposed};
  with_warp(site, distribute, &own);
}

}  // namespace executor

using namespace executor;

namespace ptx {

void copy_async(void* to, const void* from, bool inside) {
  const void* site = __builtin_return_address(0);
  if (inside) touch(site, from, 16, false);
  touch_pending(site, to, 16);
  if (!is_shared(to)) fault(site, "copies to what is not shared memory");
  running->groups.back().push_back({to, from, inside});
}

void copies_commit() { running->groups.emplace_back(); }

void copies_wait_at_most(uint32_t groups) {
  const void* site = __builtin_return_address(0);
  // The last group is the one that is not closed yet.
  while (running->groups.size() > groups + 1) {
    for (const Copy& copy : running->groups.front()) {
      finish_pending(site, copy.to, 16);
      if (copy.inside) {
        std::memcpy(copy.to, copy.from, 16);
      } else {
        std::memset(copy.to, 0, 16);
      }
    }
    running->groups.erase(running->groups.begin());
  }
}

uint4 load16(const void* from) {
  touch(__builtin_return_address(0), from, 16, false);
  uint4 value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

float2 load_pair(const float* from) {
  touch(__builtin_return_address(0), from, 8, false);
  return {from[0], from[1]};
}

void store16(void* to, uint4 value) {
  touch(__builtin_return_address(0), to, 16, true);
  std::memcpy(to, &value, sizeof(value));
}

}  // namespace ptx
