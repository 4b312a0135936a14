/* Ticks: the cheapest monotonic clock that the kernel vouches for. */
#ifndef OTEL_TRADING_CLOCK_H
#define OTEL_TRADING_CLOCK_H

#include <stdint.h>
#include <time.h>

#include "atomic.h"
#include "segment.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

/* One moment on three clocks. */
struct ot_moment {
    uint64_t ticks;
    uint64_t mono_ns;
    uint64_t unix_ns;
};

/* A line from ticks to nanoseconds. */
struct ot_calibration {
    struct ot_moment anchor;
    double ns_per_tick;
};

/* OT_CLOCK_*; set once by ot_clock_start. */
extern int ot_clock_kind;

static inline uint64_t
ot_nanoseconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static inline uint64_t
ot_ticks(void)
{
#if defined(__x86_64__)
    if (OT_LIKELY(ot_clock_kind == OT_CLOCK_TSC))
        return __rdtsc();
#elif defined(__aarch64__)
    if (OT_LIKELY(ot_clock_kind == OT_CLOCK_CNTVCT)) {
        uint64_t value;
        __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
        return value;
    }
#endif
    return ot_nanoseconds(CLOCK_MONOTONIC);
}

/* Choose the clock and take the first moment.  Call once, before any tick is read. */
void ot_clock_start(void);

/* A fresh anchor and the rate since ot_clock_start; waits until 2 ms have passed since then. */
void ot_clock_calibrate(struct ot_calibration *calibration);

static inline uint64_t
ot_unix_ns(const struct ot_calibration *c, uint64_t ticks)
{
    double delta = (double)(int64_t)(ticks - c->anchor.ticks) * c->ns_per_tick;
    double limit = 9.0e18;
    if (!(delta > -limit && delta < limit))
        return 0;
    int64_t result = (int64_t)c->anchor.unix_ns + (int64_t)delta;
    return result < 0 ? 0 : (uint64_t)result;
}

#endif
