#include "traces.h"

#include <stdlib.h>
#include <string.h>

#include "atomic.h"
#include "segment.h"

#define SETS (OT_TRACES / OT_TRACE_WAYS)

_Static_assert(sizeof(struct ot_trace) == 32, "two traces a cache line");

static struct ot_trace *table;     /* owned */
static uint64_t waiting[OT_TIERS]; /* bytes of those in it that wait */
static struct ot_trace *last;      /* borrowed from it: the spans of a trace follow each other */

bool
ot_traces_make(void)
{
    if (table == NULL)
        last = table = calloc(OT_TRACES, sizeof *table);
    return table != NULL;
}

void
ot_traces_free(void)
{
    free(table);
    last = table = NULL;
    memset(waiting, 0, sizeof waiting);
}

bool
ot_traces_there(void)
{
    return table != NULL;
}

uint64_t
ot_traces_bytes(void)
{
    return table == NULL ? 0 : OT_TRACES * sizeof *table;
}

/* The set of a trace; its ids may be anybody's, so they are mixed. */
static struct ot_trace *
set_of(uint64_t hi, uint64_t lo)
{
    uint64_t mixed = (lo ^ hi * 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL;
    return &table[(mixed >> 32) % SETS * OT_TRACE_WAYS];
}

void
ot_trace_prefetch(uint64_t hi, uint64_t lo)
{
    const struct ot_trace *set = set_of(hi, lo);
    for (unsigned i = 0; i < OT_TRACE_WAYS; i += 2)
        __builtin_prefetch(&set[i]);
}

static bool
is(const struct ot_trace *t, uint64_t hi, uint64_t lo)
{
    return t->lo == lo && t->hi == hi && t->state != OT_TRACE_FREE;
}

struct ot_trace *
ot_trace_find(uint64_t hi, uint64_t lo)
{
    if (table == NULL)
        return NULL;
    if (is(last, hi, lo))
        return last;
    struct ot_trace *set = set_of(hi, lo);
    for (unsigned i = 0; i < OT_TRACE_WAYS && set[i].state != OT_TRACE_FREE; i++) {
        if (is(&set[i], hi, lo))
            return last = &set[i];
    }
    return NULL;
}

/* How little a trace matters: decided ones first, then those without a trigger, each by how long nothing came of it. */
static uint64_t
ripeness(const struct ot_trace *t, uint32_t moment)
{
    uint64_t rank = t->state != OT_TRACE_WAITS ? 2 : t->triggers == 0 ? 1 : 0;
    return rank << 32 | (uint32_t)(moment - t->moment);
}

struct ot_trace *
ot_trace_enter(uint64_t hi, uint64_t lo, uint32_t moment)
{
    if (is(last, hi, lo))
        return last;
    struct ot_trace *set = set_of(hi, lo), *place = NULL;
    uint64_t most = 0;
    for (unsigned i = 0; i < OT_TRACE_WAYS; i++) {
        struct ot_trace *t = &set[i];
        if (t->state == OT_TRACE_FREE) {
            place = t;
            break;
        }
        if (is(t, hi, lo))
            return last = t;
        uint64_t ripe = ripeness(t, moment);
        if (place == NULL || ripe > most) {
            place = t;
            most = ripe;
        }
    }
    if (place->state == OT_TRACE_WAITS)
        ot_trace_decided(place);
    *place = (struct ot_trace){.lo = lo,
                               .hi = hi,
                               .moment = moment,
                               .state = OT_TRACE_WAITS,
                               .tier = OT_TIERS - 1,
                               .reason = OT_TRIGGER_SHARE};
    return last = place;
}

uint64_t
ot_trace_met(const struct ot_trace *t)
{
    unsigned unit = OT_SAMPLE_BITS - OT_THRESHOLD_BITS;
    return t->marks & OT_TRACE_CUT ? 1ULL << OT_SAMPLE_BITS : (uint64_t)t->threshold << unit;
}

/* What is to be expected of it. */
static uint64_t
expected(const struct ot_trace *t)
{
    return t->marks & OT_TRACE_CUT ? 0 : (uint64_t)t->bytes * (0x10000 - t->threshold) >> OT_THRESHOLD_BITS;
}

void
ot_trace_grow(struct ot_trace *t, unsigned tier, uint32_t bytes, const uint64_t *thresholds)
{
    waiting[t->tier] -= expected(t);
    if (tier < t->tier || t->bytes == 0) {
        t->tier = tier < t->tier ? (uint8_t)tier : t->tier;
        uint64_t threshold = thresholds[t->tier];
        bool cut = threshold >> OT_SAMPLE_BITS != 0;
        t->marks = (uint8_t)((t->marks & ~OT_TRACE_CUT) | (cut ? OT_TRACE_CUT : 0));
        t->threshold = cut ? 0 : (uint16_t)(threshold >> (OT_SAMPLE_BITS - OT_THRESHOLD_BITS));
    }
    t->bytes = t->bytes + bytes < bytes ? UINT32_MAX : t->bytes + bytes;
    waiting[t->tier] += expected(t);
}

void
ot_trace_decided(const struct ot_trace *t)
{
    waiting[t->tier] -= expected(t);
}

uint64_t
ot_traces_waiting(unsigned tier)
{
    return waiting[tier];
}
