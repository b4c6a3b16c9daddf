// `embed_layer_norm`: word, position and type rows, summed and normalised, a warp a token.
//
// Ids were checked against their tables before the launch. A null table adds nothing; null types are type 0.
#include "device.cuh"

constexpr uint32_t THREADS = 256;

template <class T, uint32_t VECTORS>
__device__ __forceinline__ void embed_layer_norm(T* out, const T* words, const T* positions, const T* types,
                                                 const uint32_t* token_ids, const uint32_t* type_ids,
                                                 const uint32_t* token_positions, const float* scale,
                                                 const float* shift, uint32_t tokens, uint32_t hidden,
                                                 uint32_t first_position, float eps) {
  uint32_t token = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
  if (token >= tokens) return;
  Row<VECTORS> row(hidden);
  row.add(words + size_t(token_ids[token]) * hidden);
  if (positions != nullptr) row.add(positions + size_t(first_position + token_positions[token]) * hidden);
  if (types != nullptr) row.add(types + size_t(type_ids == nullptr ? 0 : type_ids[token]) * hidden);
  row.normalize(scale, shift, eps);
  row.store(out + size_t(token) * hidden);
}

#define EMBED_LAYER_NORM(T, VECTORS)                                                                                  \
  KERNEL(THREADS, VECTORS > 4 ? 2 : 4, embed_layer_norm_##T##_##VECTORS, T * out, const T* words, const T* positions, \
         const T* types, const uint32_t* token_ids, const uint32_t* type_ids, const uint32_t* token_positions,        \
         const float* scale, const float* shift, uint32_t tokens, uint32_t hidden, uint32_t first_position,           \
         float eps) {                                                                                                 \
    embed_layer_norm<T, VECTORS>(out, words, positions, types, token_ids, type_ids, token_positions, scale, shift,    \
                                 tokens, hidden, first_position, eps);                                                \
  }
FOR_EACH_ROW_SIZE(EMBED_LAYER_NORM)
