// Launches the kernels that standard input asks for, one after the other, and answers on standard output.
// All numbers are little-endian.
//
// A launch: name (u32 length, bytes), grid (3 u32), threads a block (u32), bytes of shared memory (u32), buffers (u32
// count; each u64 length, u32 bytes by which it begins past a multiple of 256, bytes), arguments (u32 count; each u32
// kind, u64 value; kind 0 is a value by itself, kind 1 the number of a buffer and, in the high half, an offset in
// bytes). The answer: u32 0 and all buffers' bytes, or u32 1 and what went wrong (u32 length, bytes).
//
// An empty name asks for all kernels: u32 count, of each the path of its source and its name (each u32 length, bytes).

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "machine.h"

using namespace executor;

namespace {

void read_all(void* to, size_t bytes) {
  if (bytes > 0 && fread(to, 1, bytes, stdin) != bytes) std::exit(0);
}

template <class T>
T read_value() {
  T value;
  read_all(&value, sizeof(value));
  return value;
}

void write_all(const void* from, size_t bytes) {
  if (bytes > 0) fwrite(from, 1, bytes, stdout);
}

void write_u32(uint32_t value) { write_all(&value, sizeof(value)); }

void write_text(const std::string& text) {
  write_u32(uint32_t(text.size()));
  write_all(text.data(), text.size());
}

void write_kernels() {
  uint32_t count = 0;
  for (const Kernel* kernel = Kernel::first; kernel != nullptr; kernel = kernel->next) ++count;
  write_u32(count);
  for (const Kernel* kernel = Kernel::first; kernel != nullptr; kernel = kernel->next) {
    write_text(kernel->source);
    write_text(kernel->name);
  }
}

// A buffer with so much room around it that nothing else lies just outside.
struct Placed {
  std::vector<unsigned char> memory;
  Buffer buffer;
};

Placed read_buffer() {
  auto bytes = read_value<uint64_t>();
  auto past = read_value<uint32_t>();
  Placed placed;
  placed.memory.resize(bytes + past + 3 * 256);
  uintptr_t start = (reinterpret_cast<uintptr_t>(placed.memory.data()) + 256 + 255) / 256 * 256 + past;
  placed.buffer = {reinterpret_cast<unsigned char*>(start), bytes};
  read_all(placed.buffer.begin, bytes);
  return placed;
}

}  // namespace

int main() {
  for (;;) {
    Launch request;
    request.kernel.resize(read_value<uint32_t>());
    read_all(request.kernel.data(), request.kernel.size());
    if (request.kernel.empty()) {
      write_kernels();
      fflush(stdout);
      continue;
    }
    request.grid.x = read_value<uint32_t>();
    request.grid.y = read_value<uint32_t>();
    request.grid.z = read_value<uint32_t>();
    request.threads = read_value<uint32_t>();
    request.shared_bytes = read_value<uint32_t>();
    std::vector<Placed> placed(read_value<uint32_t>());
    for (Placed& each : placed) {
      each = read_buffer();
      request.buffers.push_back(each.buffer);
    }
    uint32_t count = read_value<uint32_t>();
    for (uint32_t i = 0; i < count; ++i) {
      auto kind = read_value<uint32_t>();
      auto value = read_value<uint64_t>();
      if (kind == 1) value = reinterpret_cast<uint64_t>(request.buffers.at(uint32_t(value)).begin) + (value >> 32);
      request.arguments.push_back(value);
    }
    try {
      launch(request);
      write_u32(0);
      for (const Buffer& buffer : request.buffers) write_all(buffer.begin, buffer.bytes);
    } catch (const std::exception& problem) {
      write_u32(1);
      write_text(problem.what());
    }
    fflush(stdout);
  }
}
