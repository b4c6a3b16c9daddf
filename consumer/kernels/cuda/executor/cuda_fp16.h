// IEEE half precision on a processor, by the compiler's own type.
#pragma once

#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half value) {
  _Float16 half;
  std::memcpy(&half, &value.bits, sizeof(half));
  return float(half);
}

inline __half __float2half(float value) {
  _Float16 half = _Float16(value);
  __half result;
  std::memcpy(&result.bits, &half, sizeof(half));
  return result;
}
