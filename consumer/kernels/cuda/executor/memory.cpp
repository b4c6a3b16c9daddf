// Which memory a thread may touch, and when: bounds, alignment, values never written, and accesses of two threads that
// nothing orders.
//
// Two accesses are ordered when one thread does both, when a barrier of the block lies between them, or a `__syncwarp`
// where both threads are of one warp. Blocks of a launch are never ordered. What is found does not depend on the order
// in which the threads happen to run.

#include <algorithm>
#include <cstring>

#include "machine.h"
#include "ptx.cuh"

extern "C" {
extern char __executable_start, end;  // of the program: what constants lie in
}

namespace executor {

namespace {

// Bytes that are looked after together: no number type of the kernels is smaller.
constexpr size_t GRAIN = 2;
// Between two arrays in shared memory.
constexpr size_t FENCE_BYTES = 64;
struct Stamp {
  uint32_t block;  // one more than its index; 0 is never
  uint32_t epoch;
  uint32_t warp_epoch;
  uint32_t thread;
};

// Who else than the reader in the stamp has read since the last write.
enum class Others : uint8_t { None, SameWarp, SameBlock, OtherBlocks };

struct Cell {
  Stamp write, read;
  Others others;
  bool written;
  bool pending;
};

struct Region {
  unsigned char* begin;
  size_t bytes;
  std::vector<Cell> cells;
  bool shared;
};

std::vector<Region> globals;
std::vector<Region> arrays;  // of shared memory, in the order in which threads take them
std::vector<unsigned char> arena;
size_t arena_used, shared_asked, shared_taken;

std::string who(uint32_t thread, uint32_t of_block) {
  return "thread " + std::to_string(thread) + " of block " + std::to_string(of_block);
}

Stamp now() {
  const Warp& warp = block.warps[running->index / LANES];
  return {block.index + 1, block.epoch, warp.epoch, running->index};
}

bool ordered(const Stamp& before, const Stamp& after) {
  if (before.block == 0) return true;
  if (before.block != after.block) return false;
  if (before.thread == after.thread || before.epoch < after.epoch) return true;
  return before.thread / LANES == after.thread / LANES && before.warp_epoch < after.warp_epoch;
}

bool readers_ordered(const Cell& cell, const Stamp& after) {
  switch (cell.others) {
    case Others::OtherBlocks:
      return false;
    case Others::SameBlock:
      return cell.read.block == after.block && cell.read.epoch < after.epoch;
    case Others::SameWarp:
      return cell.read.block == after.block &&
             (cell.read.epoch < after.epoch ||
              (cell.read.thread / LANES == after.thread / LANES && cell.read.warp_epoch < after.warp_epoch));
    case Others::None:
      break;
  }
  return ordered(cell.read, after);
}

void record_read(Cell& cell, const Stamp& stamp) {
  if (cell.read.block == 0 ||
      (cell.others == Others::None && cell.read.thread == stamp.thread && cell.read.block == stamp.block)) {
    cell.read = stamp;
    return;
  }
  Others others = cell.read.block != stamp.block                     ? Others::OtherBlocks
                  : cell.read.thread / LANES != stamp.thread / LANES ? Others::SameBlock
                                                                     : Others::SameWarp;
  // After a barrier those before it no longer count, unless they are of other blocks.
  bool past = cell.read.block == stamp.block && cell.read.epoch < stamp.epoch && cell.others != Others::OtherBlocks;
  cell.others = past ? Others::None : std::max(cell.others, others);
  cell.read = stamp;
}

bool within(const Region& region, const unsigned char* address) {
  return address >= region.begin && address < region.begin + region.bytes;
}

Region* region_of(const unsigned char* address) {
  for (auto* regions : {&arrays, &globals}) {
    for (Region& region : *regions) {
      if (within(region, address)) return &region;
    }
  }
  return nullptr;
}

std::string describe(const Region& region) {
  const auto& regions = region.shared ? arrays : globals;
  return (region.shared ? "shared array " : "buffer ") + std::to_string(&region - regions.data()) + " of " +
         std::to_string(region.bytes) + " bytes";
}

// Where an address that belongs to nothing lies.
std::string nearest(const unsigned char* address) {
  if (address == nullptr) return "a null pointer";
  for (auto* regions : {&arrays, &globals}) {
    for (Region& region : *regions) {
      ptrdiff_t past = address - (region.begin + region.bytes), before = region.begin - address;
      if (past >= 0 && past < ptrdiff_t(FENCE_BYTES))
        return std::to_string(past) + " bytes past the end of " + describe(region);
      if (before > 0 && before < ptrdiff_t(FENCE_BYTES))
        return std::to_string(before) + " bytes before " + describe(region);
    }
  }
  return "an address that is in no buffer and no shared array";
}

void touch_cell(const void* site, Region& region, Cell& cell, bool write) {
  Stamp stamp = now();
  if (cell.pending) fault(site, "touches " + describe(region) + " where a copy is under way: wait for it first");
  if (!ordered(cell.write, stamp)) {
    fault(site, std::string(write ? "writes" : "reads") + " what " + who(cell.write.thread, cell.write.block - 1) +
                    " writes in " + describe(region) + ": a race, nothing orders the two");
  }
  if (!write) {
    if (!cell.written) fault(site, "reads what was never written in " + describe(region));
    record_read(cell, stamp);
    return;
  }
  if (cell.read.block != 0 && !readers_ordered(cell, stamp)) {
    fault(site, "writes what " + who(cell.read.thread, cell.read.block - 1) + " reads in " + describe(region) +
                    ": a race, nothing orders the two");
  }
  cell.write = stamp;
  cell.read = {};
  cell.others = Others::None;
  cell.written = true;
}

bool harmless(const unsigned char* address, bool write) {
  if (address >= running->stack && address < running->stack + STACK_BYTES) return true;
  auto byte = reinterpret_cast<const char*>(address);
  return !write && byte >= &__executable_start && byte < &end;
}

template <class Visit>
void each_cell(const void* site, const void* address, size_t bytes, bool write, Visit visit) {
  auto begin = static_cast<const unsigned char*>(address);
  Region* region = region_of(begin);
  if (region == nullptr || begin + bytes > region->begin + region->bytes) {
    auto outside = region == nullptr ? begin : region->begin + region->bytes;
    fault(site, std::string(write ? "writes " : "reads ") + std::to_string(bytes) + " bytes out of bounds, " +
                    nearest(outside));
  }
  size_t first = size_t(begin - region->begin) / GRAIN, last = (size_t(begin - region->begin) + bytes - 1) / GRAIN;
  for (size_t cell = first; cell <= last; ++cell) visit(*region, region->cells[cell]);
}

}  // namespace

void touch(const void* site, const void* address, size_t bytes, bool write) {
  auto begin = static_cast<const unsigned char*>(address);
  if (running == nullptr || harmless(begin, write)) return;
  size_t alignment = std::min<size_t>(bytes, 16);
  if (reinterpret_cast<uintptr_t>(begin) % alignment != 0) {
    fault(site, std::string(write ? "writes " : "reads ") + std::to_string(bytes) +
                    " bytes at an address that is no multiple of " + std::to_string(alignment));
  }
  each_cell(site, address, bytes, write, [&](Region& region, Cell& cell) { touch_cell(site, region, cell, write); });
}

void touch_pending(const void* site, const void* address, size_t bytes) {
  touch(site, address, bytes, true);
  each_cell(site, address, bytes, true, [](Region&, Cell& cell) { cell.pending = true; });
}

void finish_pending(const void* site, void* address, size_t bytes) {
  each_cell(site, address, bytes, true, [](Region&, Cell& cell) {
    cell.pending = false;
    cell.write = now();
  });
}

bool is_shared(const void* address) {
  Region* region = region_of(static_cast<const unsigned char*>(address));
  return region != nullptr && region->shared;
}

void memory_begin_launch(const std::vector<Buffer>& buffers, uint32_t shared_bytes) {
  globals.clear();
  for (const Buffer& buffer : buffers) {
    Region region = {buffer.begin, buffer.bytes, std::vector<Cell>((buffer.bytes + GRAIN - 1) / GRAIN), false};
    for (Cell& cell : region.cells) cell.written = true;
    globals.push_back(std::move(region));
  }
  shared_asked = shared_bytes;
  // Space for a fence beside every array, however small the arrays are.
  arena.resize(size_t(shared_bytes) + 64 * FENCE_BYTES);
}

void memory_begin_block() {
  arrays.clear();
  arena_used = FENCE_BYTES;
  shared_taken = 0;
  // A value that a kernel reads without having written it is never a number.
  std::fill(arena.begin(), arena.end(), 0xff);
}

void* take_shared(uint32_t& cursor, uint32_t bytes, uint32_t alignment) {
  const void* site = __builtin_return_address(0);
  if (cursor == arrays.size()) {
    size_t whole = (size_t(bytes) + 15) / 16 * 16;
    // Wherever its memory begins, so much suffices for what has to begin at more than 16 bytes' multiple.
    shared_taken += whole + (alignment > 16 ? alignment : 0);
    if (shared_taken > shared_asked) {
      fault(site, "takes " + std::to_string(shared_taken) + " bytes of shared memory, its launch asked for " +
                      std::to_string(shared_asked));
    }
    uintptr_t start = (reinterpret_cast<uintptr_t>(arena.data()) + arena_used + alignment - 1) / alignment * alignment;
    auto begin = reinterpret_cast<unsigned char*>(start);
    arena_used = size_t(begin - arena.data()) + whole + FENCE_BYTES;
    if (arena_used > arena.size()) fault(site, "takes more shared arrays than the executor has fences for");
    arrays.push_back({begin, bytes, std::vector<Cell>((bytes + GRAIN - 1) / GRAIN), true});
  }
  Region& region = arrays[cursor++];
  if (region.bytes != bytes) fault(site, "takes a shared array of another size than other threads do");
  return region.begin;
}

}  // namespace executor

// The compiler calls these before every access of a kernel.
#define ACCESS(BYTES)                                                                                             \
  void __tsan_read##BYTES(void* address) { executor::touch(__builtin_return_address(0), address, BYTES, false); } \
  void __tsan_write##BYTES(void* address) { executor::touch(__builtin_return_address(0), address, BYTES, true); }
#define UNALIGNED(BYTES)                                                 \
  void __tsan_unaligned_read##BYTES(void* address) {                     \
    executor::touch(__builtin_return_address(0), address, BYTES, false); \
  }                                                                      \
  void __tsan_unaligned_write##BYTES(void* address) {                    \
    executor::touch(__builtin_return_address(0), address, BYTES, true);  \
  }
extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
UNALIGNED(2)
UNALIGNED(4)
UNALIGNED(8)
UNALIGNED(16)
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_read_range(void* address, size_t bytes) {
  executor::touch(__builtin_return_address(0), address, bytes, false);
}
void __tsan_write_range(void* address, size_t bytes) {
  executor::touch(__builtin_return_address(0), address, bytes, true);
}
}
