/* Loads and stores of fields that another thread or process may touch at the same time. */
#ifndef OTEL_TRADING_ATOMIC_H
#define OTEL_TRADING_ATOMIC_H

#include <stdint.h>

#define OT_LOAD(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define OT_LOAD_ACQUIRE(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define OT_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define OT_STORE_RELEASE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define OT_FENCE_RELEASE() __atomic_thread_fence(__ATOMIC_RELEASE)
#define OT_FENCE_ACQUIRE() __atomic_thread_fence(__ATOMIC_ACQUIRE)

#define OT_LIKELY(x) __builtin_expect(!!(x), 1)
#define OT_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* A word that overlays smaller fields (the last eight bytes of a slot's first line). */
typedef uint64_t __attribute__((may_alias)) ot_word;

#endif
