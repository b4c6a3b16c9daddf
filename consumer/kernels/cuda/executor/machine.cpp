// Runs a launch: block after block, its threads in turns from one wait to the next, and what they wait for.

#include "machine.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "ptx.cuh"

uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace executor {

Kernel* Kernel::first = nullptr;
Block block;
Thread* running = nullptr;

namespace {

constexpr size_t ARGUMENTS_MAX = 32;

ucontext_t scheduler;
std::vector<std::unique_ptr<Thread>> threads;
std::string failure;
const Kernel* kernel;
const uint64_t* arguments;

// "file.cu:12", of the line that calls what returns to `site`; the address itself where no tool knows the line.
std::string line_of(const void* site) {
  char command[128];
  auto address = reinterpret_cast<uintptr_t>(site) - 1;
  std::snprintf(command, sizeof(command), "addr2line -e /proc/%d/exe %#lx 2>/dev/null", int(getpid()),
                (unsigned long)address);
  std::string line;
  if (FILE* pipe = popen(command, "r")) {
    char part[512];
    while (fgets(part, sizeof(part), pipe) != nullptr) line += part;
    pclose(pipe);
  }
  while (!line.empty() && line.back() == '\n') line.pop_back();
  size_t suffix = line.find(" (discriminator");
  if (suffix != std::string::npos) line.resize(suffix);
  size_t folder = line.rfind('/');
  return line.empty() || line[0] == '?' ? "an unknown line" : line.substr(folder == std::string::npos ? 0 : folder + 1);
}

// Ends the launch from within a thread, which is never gone on with. Nothing is thrown: a compiler that reports
// accesses takes those calls for ones that return.
[[noreturn]] void give_up(const std::string& what) {
  failure = what;
  setcontext(&scheduler);
  std::abort();
}

void body() {
  // On the thread's own stack, which it may read.
  uint64_t own[ARGUMENTS_MAX];
  std::copy_n(arguments, kernel->arguments, own);
  kernel->call(kernel->function, own);
  for (auto& group : running->groups) {
    if (!group.empty()) give_up(kernel->name + std::string(": a thread ends while a copy of its own is under way"));
  }
  running->state = State::Ended;
  setcontext(&scheduler);
}

void resume(Thread& thread) {
  running = &thread;
  threadIdx = {thread.index, 0, 0};
  swapcontext(&scheduler, &thread.context);
  running = nullptr;
}

void yield() {
  Thread* self = running;
  swapcontext(&self->context, &scheduler);
}

void start(Thread& thread) {
  thread.state = State::Runs;
  thread.groups.assign(1, {});
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = thread.stack;
  thread.context.uc_stack.ss_size = STACK_BYTES;
  thread.context.uc_link = nullptr;
  makecontext(&thread.context, body, 0);
}

std::string waits(const Thread& thread) {
  std::string name = "thread " + std::to_string(thread.index);
  if (thread.state == State::Ended) return name + " has ended";
  const char* what = thread.state == State::AtBarrier  ? "the block's barrier"
                     : thread.state == State::WithGroup ? "its warpgroup"
                                                        : "its warp";
  return name + " waits for " + what + " at " + line_of(thread.site);
}

// No thread can go on, and not all have ended.
std::string stuck() {
  const Thread* waiting = nullptr;
  for (auto& thread : threads) {
    if (thread->index < block.threads && thread->state != State::Ended) waiting = waiting ? waiting : thread.get();
  }
  for (auto& thread : threads) {
    bool differs = thread->state != waiting->state || thread->site != waiting->site;
    if (thread->index < block.threads && differs) {
      return kernel->name + std::string(", block ") + std::to_string(block.index) + ": divergent: " + waits(*waiting) +
             " while " + waits(*thread);
    }
  }
  return kernel->name + std::string(": divergent: ") + waits(*waiting);
}

void run_block() {
  block.epoch = 0;
  block.warps.assign(block.threads / LANES, {});
  block.groups.assign((block.threads / LANES + 3) / 4, {});
  for (Group& group : block.groups) group.pending.assign(1, {});
  memory_begin_block();
  for (uint32_t index = 0; index < block.threads; ++index) start(*threads[index]);
  uint32_t ended = 0;
  while (ended < block.threads) {
    ended = 0;
    bool moved = false;
    for (uint32_t index = 0; index < block.threads; ++index) {
      Thread& thread = *threads[index];
      if (thread.state == State::Runs) {
        moved = true;
        resume(thread);
        if (!failure.empty()) throw Fault(failure);
      }
      ended += thread.state == State::Ended;
    }
    if (!moved && ended < block.threads) throw Fault(stuck());
  }
}

void prepare_threads(uint32_t count) {
  while (threads.size() < count) {
    auto thread = std::make_unique<Thread>();
    thread->index = uint32_t(threads.size());
    void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) throw Fault("no memory for the threads' stacks");
    thread->stack = static_cast<unsigned char*>(stack);
    threads.push_back(std::move(thread));
  }
}

// Waits for all `count` threads of a party, a warp or a warpgroup; the last one that comes does `together`.
template <class Party>
void gather(Party& party, uint32_t count, State waits, const void* site, Together together, void* argument) {
  Thread* self = running;
  if (party.arrived > 0 && party.together != together) {
    fault(site, "does something else than the threads beside it that wait: divergent");
  }
  party.together = together;
  party.arguments[self->index % count] = argument;
  if (++party.arrived < count) {
    self->state = waits;
    self->site = site;
    yield();
    return;
  }
  together(party.arguments);
  party.arrived = 0;
  uint32_t first = self->index / count * count;
  for (uint32_t index = first; index < first + count; ++index) threads[index]->state = State::Runs;
}

}  // namespace

void fault(const void* site, const std::string& what) {
  give_up(std::string(kernel->name) + ", " + line_of(site) + ": thread " + std::to_string(running->index) +
          " of block " + std::to_string(block.index) + " " + what);
}

void with_warp(const void* site, Together together, void* argument) {
  gather(block.warps[running->index / LANES], LANES, State::WithWarp, site, together, argument);
}

void with_group(const void* site, Together together, void* argument) {
  gather(block.groups[running->index / (4 * LANES)], 4 * LANES, State::WithGroup, site, together, argument);
}

void launch(const Launch& launch) {
  kernel = Kernel::first;
  while (kernel != nullptr && launch.kernel != kernel->name) kernel = kernel->next;
  if (kernel == nullptr) throw Fault("no kernel is called " + launch.kernel);
  if (launch.arguments.size() != kernel->arguments) {
    throw Fault(launch.kernel + " takes " + std::to_string(kernel->arguments) + " arguments, its launch has " +
                std::to_string(launch.arguments.size()));
  }
  if (kernel->arguments > ARGUMENTS_MAX)
    throw Fault(launch.kernel + " takes more arguments than the executor has room for");
  if (launch.threads == 0 || launch.threads % LANES != 0 || launch.threads > kernel->threads_max) {
    throw Fault(launch.kernel + " is launched with " + std::to_string(launch.threads) +
                " threads a block: whole warps, at most " + std::to_string(kernel->threads_max));
  }
  arguments = launch.arguments.data();
  failure.clear();
  prepare_threads(launch.threads);
  memory_begin_launch(launch.buffers, launch.shared_bytes);
  blockDim = {launch.threads, 1, 1};
  gridDim = launch.grid;
  block.index = 0;
  block.threads = launch.threads;
  for (uint32_t z = 0; z < gridDim.z; ++z) {
    for (uint32_t y = 0; y < gridDim.y; ++y) {
      for (uint32_t x = 0; x < gridDim.x; ++x, ++block.index) {
        blockIdx = {x, y, z};
        run_block();
      }
    }
  }
}

}  // namespace executor

using namespace executor;

void __syncthreads() {
  uint32_t waiting = 0;
  running->state = State::AtBarrier;
  running->site = __builtin_return_address(0);
  for (uint32_t index = 0; index < block.threads; ++index) waiting += threads[index]->state == State::AtBarrier;
  if (waiting < block.threads) return yield();
  ++block.epoch;
  for (uint32_t index = 0; index < block.threads; ++index) threads[index]->state = State::Runs;
}

void __syncwarp(uint32_t lanes) {
  const void* site = __builtin_return_address(0);
  if (lanes != 0xffffffff) fault(site, "names some lanes of its warp: the executor takes all or none");
  with_warp(site, [](void* const*) { ++block.warps[running->index / LANES].epoch; }, nullptr);
}

namespace {
struct Shuffle {
  float value, result;
  int distance;
};
}  // namespace

float __shfl_xor_sync(uint32_t lanes, float value, int distance) {
  const void* site = __builtin_return_address(0);
  if (lanes != 0xffffffff) fault(site, "names some lanes of its warp: the executor takes all or none");
  Shuffle own = {value, 0.0f, distance};
  with_warp(
      site,
      [](void* const* all) {
        for (uint32_t lane = 0; lane < LANES; ++lane) {
          auto to = static_cast<Shuffle*>(all[lane]);
          to->result = static_cast<const Shuffle*>(all[(lane ^ uint32_t(to->distance)) % LANES])->value;
        }
      },
      &own);
  return own.result;
}
