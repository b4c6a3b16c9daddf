// Shared by the parts of the executor: the block that runs, its threads, and the memory they may touch.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "executor.h"

namespace executor {

constexpr uint32_t LANES = 32;
constexpr size_t STACK_BYTES = 256 * 1024;  // of a thread

// A mistake of a kernel or of its launch, as `launch` throws it.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Ends the launch with a fault of the running thread, at the kernel's line that calls the function which has `site` as
// its return address.
[[noreturn]] void fault(const void* site, const std::string& what);

// A copy that was begun and not waited for.
struct Copy {
  void* to;
  const void* from;
  bool inside;
};

enum class State { Runs, AtBarrier, WithWarp, WithGroup, Ended };

// A thread of the block: a fiber, since it has to stop in the middle of a kernel.
struct Thread {
  uint32_t index;
  State state;
  const void* site;  // where it waits
  ucontext_t context;
  unsigned char* stack;
  std::vector<std::vector<Copy>> groups;
};

// A step that all lanes of a warp take together, each with an argument of its own.
using Together = void (*)(void* const* arguments);

struct Warp {
  uint32_t arrived;
  Together together;
  void* arguments[LANES];
  uint32_t epoch;  // counts `__syncwarp`
};

// A matrix product of a warpgroup that was begun and not waited for.
struct GroupMultiply {
  const void* site;
  const void *left, *right;
  float (*widen)(uint16_t);
  float* sums[4 * LANES];
};

// A warpgroup: the steps that its four warps take together.
struct Group {
  uint32_t arrived;
  Together together;
  void* arguments[4 * LANES];
  std::vector<std::vector<GroupMultiply>> pending;
};

struct Block {
  uint32_t index;
  uint32_t threads;
  uint32_t epoch;  // counts barriers
  std::vector<Warp> warps;
  std::vector<Group> groups;
};

extern Block block;
extern Thread* running;

// Waits for all lanes of the warp; the last one that comes does `together`.
void with_warp(const void* site, Together together, void* argument);
// Waits for all threads of the warpgroup; the last one that comes does `together`.
void with_group(const void* site, Together together, void* argument);

// Memory.
struct Buffer {
  unsigned char* begin;
  size_t bytes;
};

void memory_begin_launch(const std::vector<Buffer>& buffers, uint32_t shared_bytes);
void memory_begin_block();
// The running thread reads or writes: a fault if it may not.
void touch(const void* site, const void* address, size_t bytes, bool write);
// As a write that is not done yet.
void touch_pending(const void* site, const void* address, size_t bytes);
void finish_pending(const void* site, void* address, size_t bytes);
bool is_shared(const void* address);

struct Launch {
  std::string kernel;
  uint3 grid;
  uint32_t threads;
  uint32_t shared_bytes;
  std::vector<uint64_t> arguments;
  std::vector<Buffer> buffers;
};

// Runs every block to its end, or throws.
void launch(const Launch& launch);

}  // namespace executor
