#include "room.h"

#include <math.h>

#include "bucket.h"
#include "drain.h"

#define PLAN_NS 100000000ULL /* between two plans */
#define SMOOTH_S 1.0         /* of the rates that a plan goes by */
#define SETTLE_S 1.0         /* in which a plan brings the queue back to its half */
#define FULL 0.75            /* past it the queue is for traces with a trigger */

/* Spans so far: the drain adds, the plan loads, relaxed. */
static uint64_t came[OT_TIERS + 1];
static uint64_t taken;

/* The plan's: what it found the last time, and what came of it; the thresholds are loaded by others, relaxed. */
static struct {
    uint64_t when_ns; /* 0: never, or not of this queue; the drain stores 0 */
    uint64_t came[OT_TIERS + 1];
    uint64_t taken;
    double rate[OT_TIERS + 1]; /* spans a second, smoothed */
    double taken_s;
    uint64_t threshold[OT_TIERS];
} plan;

void
ot_room_came(unsigned tier)
{
    OT_STORE(&came[tier], came[tier] + 1);
}

void
ot_room_taken(uint32_t spans)
{
    OT_STORE(&taken, taken + spans);
}

/* How full the queue is, by number or by what its spans have in the arena. */
static double
fill(void)
{
    double most = OT_LOAD(&ot_drain.kept_limit), bytes = (double)OT_LOAD(&ot_drain.kept_bytes_limit);
    double spans = OT_LOAD(&ot_drain.kept_count), used = (double)OT_LOAD(&ot_drain.kept_bytes);
    return most == 0 ? 0 : fmax(spans / most, bytes > 0 ? used / bytes : 0);
}

static void
smooth(double *rate, double count, double dt)
{
    *rate = dt > 0 ? *rate + (1 - exp(-dt / SMOOTH_S)) * (count / dt - *rate) : 0;
}

void
ot_room_plan(uint64_t now_ns)
{
    uint64_t before = OT_LOAD(&plan.when_ns), gone = OT_LOAD(&taken);
    if (before != 0 && before <= now_ns && now_ns - before < PLAN_NS)
        return;
    double dt = before == 0 || before > now_ns ? 0 : (double)(now_ns - before) * 1e-9;
    OT_STORE(&plan.when_ns, now_ns);
    for (unsigned i = 0; i <= OT_TIERS; i++) {
        uint64_t count = OT_LOAD(&came[i]);
        smooth(&plan.rate[i], (double)(count - plan.came[i]), dt);
        plan.came[i] = count;
    }
    smooth(&plan.taken_s, (double)(gone - plan.taken), dt);
    plan.taken = gone;
    double most = OT_LOAD(&ot_drain.kept_limit);
    double free = plan.taken_s - plan.rate[OT_TIERS] + (0.5 - fill()) * most / SETTLE_S;
    ot_bucket_pour(plan.threshold, plan.rate, dt == 0 ? INFINITY : free);
}

bool
ot_room_is_full(void)
{
    return fill() > FULL;
}

uint64_t
ot_room_threshold(unsigned tier)
{
    return ot_room_is_full() ? OT_THRESHOLD_ALL : OT_LOAD(&plan.threshold[tier]);
}

void
ot_room_forget(void)
{
    OT_STORE(&plan.when_ns, 0);
    for (unsigned t = 0; t < OT_TIERS; t++)
        OT_STORE(&plan.threshold[t], 0);
}
