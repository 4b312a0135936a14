/* A heavier mode is entered at the tick that sees its reason; a milder one, one at a time, when all readings have been
 * below the reasons' thresholds by the margin for the dwell, and the mode has lasted so long. */
#include "engine.h"

#include <math.h>
#include <string.h>

#include "decisions.h"

/* Sources that may fail: CPU, memory, market, and the usage of each budget. */
#define SOURCES (3 + OT_BUDGETS)

static struct {
    unsigned mode;     /* the engine's own, which goes on while another is forced */
    unsigned reason;   /* of it */
    unsigned in_force; /* as of the last tick */
    bool forced;       /* as of the last tick */
    double entered;    /* when the own mode was */
    double held;       /* when the readings last asked for it, or could not be told */
    double limit;      /* that led to it */
    bool failed[SOURCES];
    bool begun;
} engine;

/* A reason, with its figures. */
struct cause {
    unsigned mode;
    unsigned reason;
    double figure;
    double limit;
};

void
ot_engine_open(void)
{
    memset(&engine, 0, sizeof engine);
}

void
ot_engine_resume(void)
{
    const struct ot_control *page = ot_rec.control;
    uint64_t mode = OT_LOAD(&page->mode), forced = OT_LOAD(&page->forced);
    ot_engine_open();
    engine.in_force = mode < OT_MODES ? (unsigned)mode : OT_MODE_NORMAL;
    engine.forced = forced >= 1 && forced <= OT_MODES;
    if (!engine.forced && engine.in_force != OT_MODE_NORMAL) {
        engine.mode = engine.in_force;
        engine.reason = (unsigned)OT_LOAD(&page->mode_reason);
    }
}

/* What the readings ask for, with thresholds lower by the margin; NaN asks for nothing. */
static struct cause
asked(const struct ot_allowed *r, const struct ot_sight *s, double margin)
{
    if (s->cpu_load > r->emergency_cpu - margin)
        return (struct cause){OT_MODE_EMERGENCY, OT_REASON_CPU, s->cpu_load, r->emergency_cpu};
    if (s->memory_load > r->emergency_memory - margin)
        return (struct cause){OT_MODE_EMERGENCY, OT_REASON_MEMORY, s->memory_load, r->emergency_memory};
    if (s->cpu_load > r->stressed_cpu - margin)
        return (struct cause){OT_MODE_STRESSED, OT_REASON_CPU, s->cpu_load, r->stressed_cpu};
    if (s->memory_load > r->stressed_memory - margin)
        return (struct cause){OT_MODE_STRESSED, OT_REASON_MEMORY, s->memory_load, r->stressed_memory};
    if (s->volatility > r->volatility * (1 - margin) && s->volume > r->volume * (1 - margin))
        return (struct cause){OT_MODE_HIGH_VOLATILITY, OT_REASON_MARKET, s->volatility, r->volatility};
    return (struct cause){OT_MODE_NORMAL, OT_REASON_NONE, 0, 0};
}

static double
reading_of(const struct ot_sight *s, unsigned reason)
{
    switch (reason) {
    case OT_REASON_CPU:
        return s->cpu_load;
    case OT_REASON_MEMORY:
        return s->memory_load;
    case OT_REASON_MARKET:
        return s->volatility;
    case OT_REASON_LATENCY:
        return s->usage[OT_BUDGET_LATENCY];
    default:
        return 0;
    }
}

/* Say once what can not be told, and once that it can be told again; does any of the engine's own fail? */
static bool
look_for_failures(const struct ot_sight *s)
{
    const double market = isnan(s->volatility) ? s->volatility : s->volume;
    bool any = false;
    for (unsigned i = 0; i < SOURCES; i++) {
        double value = i == 0 ? s->cpu_load : i == 1 ? s->memory_load : i == 2 ? market : s->usage[i - 3];
        bool failed = isnan(value);
        if (failed != engine.failed[i]) {
            struct ot_decided d = {.kind = failed ? OT_DECISION_FAILED : OT_DECISION_WORKS,
                                   .reason = (uint8_t)(i < 3 ? OT_REASON_CPU + i : OT_REASON_BUDGET_CPU + i - 3),
                                   .mode = (uint8_t)engine.in_force,
                                   .figure = value,
                                   .limit = 0,
                                   .before = failed ? 0 : 1,
                                   .after = failed ? 1 : 0};
            ot_decide(&d);
            engine.failed[i] = failed;
        }
        any = any || (failed && i < 3);
    }
    return any;
}

bool
ot_engine_failed(void)
{
    bool any = false;
    for (unsigned i = 0; i < SOURCES; i++)
        any = any || engine.failed[i];
    return any;
}

static void
enter(const struct cause *c, double now)
{
    engine.mode = c->mode;
    engine.reason = c->reason;
    engine.limit = c->limit;
    engine.entered = engine.held = now;
}

/* Into the control page, and a decision where it is another one than before. */
static unsigned
put_in_force(const struct cause *c)
{
    struct ot_control *page = ot_rec.control;
    uint64_t forced = OT_LOAD(&page->forced);
    bool now_forced = forced >= 1 && forced <= OT_MODES;
    unsigned mode = now_forced ? (unsigned)forced - 1 : engine.mode;
    unsigned reason = now_forced ? OT_REASON_FORCED : c->reason;
    double figure = now_forced ? 0 : c->figure, limit = now_forced ? 0 : c->limit;
    if (mode != engine.in_force) {
        struct ot_decided d = {.kind = OT_DECISION_MODE,
                               .reason = (uint8_t)reason,
                               .mode = (uint8_t)mode,
                               .figure = figure,
                               .limit = limit,
                               .before = engine.in_force,
                               .after = mode};
        OT_STORE(&page->mode, mode);
        OT_STORE(&page->mode_since_ns, ot_nanoseconds(CLOCK_REALTIME));
        OT_STORE(&page->mode_reason, reason);
        ot_decide(&d);
    }
    else if (OT_LOAD(&page->mode) != mode ||
             now_forced != engine.forced) { /* somebody else's stores, or a released force */
        OT_STORE(&page->mode, mode);
        OT_STORE(&page->mode_reason, now_forced ? OT_REASON_FORCED : engine.reason);
    }
    engine.in_force = mode;
    engine.forced = now_forced;
    return mode;
}

unsigned
ot_engine_tick(const struct ot_allowed *r, const struct ot_sight *s)
{
    if (!engine.begun || s->now < engine.held) { /* the first, or another clock */
        engine.begun = true;
        engine.entered = engine.held = s->now;
    }
    bool unknown = look_for_failures(s);
    struct cause want = asked(r, s, 0), hold = asked(r, s, r->margin), told;
    if (want.mode > engine.mode) {
        told = want;
        enter(&want, s->now);
    }
    else if (unknown || hold.mode >= engine.mode) {
        engine.held = s->now;
        told = (struct cause){engine.mode, engine.reason, reading_of(s, engine.reason), engine.limit};
    }
    else if (engine.mode != OT_MODE_NORMAL && s->now - engine.held >= r->dwell && s->now - engine.entered >= r->dwell) {
        unsigned milder = engine.mode == OT_MODE_EMERGENCY ? OT_MODE_STRESSED
                          : engine.mode == OT_MODE_STRESSED && hold.mode == OT_MODE_HIGH_VOLATILITY
                              ? OT_MODE_HIGH_VOLATILITY
                              : OT_MODE_NORMAL;
        told = (struct cause){milder, OT_REASON_RECOVERED, reading_of(s, engine.reason), engine.limit};
        unsigned led = engine.reason;
        enter(&told, s->now);
        engine.reason = led == OT_REASON_NONE ? OT_REASON_RECOVERED : led; /* the figures of the next step down */
    }
    else {
        told = (struct cause){engine.mode, engine.reason, reading_of(s, engine.reason), engine.limit};
    }
    /* a released force leads back to a mode that was the engine's own all the time */
    if (engine.forced && OT_LOAD(&ot_rec.control->forced) == 0 && engine.mode < engine.in_force)
        told.reason = OT_REASON_RECOVERED;
    return put_in_force(&told);
}

unsigned
ot_engine_latency(const struct ot_allowed *r, const struct ot_sight *s)
{
    struct cause c = {OT_MODE_EMERGENCY, OT_REASON_LATENCY, s->usage[OT_BUDGET_LATENCY],
                      r->budget[OT_BUDGET_LATENCY][engine.in_force]};
    enter(&c, s->now);
    return put_in_force(&c);
}

bool
ot_engine_may_reach_emergency(void)
{
    return engine.in_force != OT_MODE_EMERGENCY && !engine.forced;
}

void
ot_engine_rest(void)
{
    ot_engine_open();
    uint64_t forced = OT_LOAD(&ot_rec.control->forced);
    unsigned mode = forced >= 1 && forced <= OT_MODES ? (unsigned)forced - 1 : OT_MODE_NORMAL;
    engine.in_force = mode;
    OT_STORE(&ot_rec.control->mode, mode);
}
