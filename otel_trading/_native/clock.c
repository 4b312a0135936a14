#include "clock.h"

#include <stdio.h>
#include <string.h>

int ot_clock_kind = OT_CLOCK_MONOTONIC_NS;

static struct ot_moment origin;

/* The tightest of a few brackets, so that a preemption in between does not count. */
static void
take_moment(struct ot_moment *moment)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 8; i++) {
        uint64_t before = ot_ticks();
        uint64_t mono = ot_nanoseconds(CLOCK_MONOTONIC);
        uint64_t unix_ns = ot_nanoseconds(CLOCK_REALTIME);
        uint64_t after = ot_ticks();
        if (after - before < best) {
            best = after - before;
            moment->ticks = before + (after - before) / 2;
            moment->mono_ns = mono;
            moment->unix_ns = unix_ns;
        }
    }
}

#if defined(__x86_64__) && defined(__linux__)
/* The kernel marks the counter unstable by choosing another clock source. */
static int
kernel_trusts_tsc(void)
{
    char name[32] = "";
    FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    if (f == NULL)
        return 0;
    size_t n = fread(name, 1, sizeof name - 1, f);
    fclose(f);
    return n >= 4 && memcmp(name, "tsc\n", 4) == 0;
}
#endif

void
ot_clock_start(void)
{
#if defined(__x86_64__) && defined(__linux__)
    if (kernel_trusts_tsc())
        ot_clock_kind = OT_CLOCK_TSC;
#elif defined(__aarch64__) && defined(__linux__)
    ot_clock_kind = OT_CLOCK_CNTVCT;
#endif
    take_moment(&origin);
}

void
ot_clock_calibrate(struct ot_calibration *calibration)
{
    struct ot_moment now;
    take_moment(&now);
    if (ot_clock_kind == OT_CLOCK_MONOTONIC_NS) {
        calibration->anchor = now;
        calibration->ns_per_tick = 1.0;
        return;
    }
    while (now.mono_ns - origin.mono_ns < 2000000)
        take_moment(&now);
    calibration->anchor = now;
    calibration->ns_per_tick = (double)(now.mono_ns - origin.mono_ns) / (double)(now.ticks - origin.ticks);
}
