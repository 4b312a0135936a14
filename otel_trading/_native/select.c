#include "select.h"

#include <math.h>
#include <string.h>

#include "bucket.h"
#include "doubles.h"
#include "drain.h"
#include "ring.h"
#include "rules.h"

#define MARKS 48
#define MARK_PART 32 /* of a ring, or of its arena, between two marks */
#define WAIT_PART 2  /* of a ring, or of its arena, that may wait for verdicts */
#define SMOOTH_S 2.0 /* of a ring's rates */
#define AHEAD 4      /* records whose traces are fetched before their turn */
#define BIT(n) (1U << (n))

/* What the writer had written when the aggregates had all before a record. */
struct mark {
    uint64_t position;
    uint64_t arena;
    uint64_t recorded[OT_TIERS];
    uint64_t early[OT_TIERS];
};

/* Of a ring: what waits for verdicts, between its tail and what was seen of it. */
struct waiting {
    struct mark marks[MARKS]; /* a queue, oldest first */
    uint32_t first;
    uint32_t count;
    uint64_t early[OT_TIERS]; /* spans that were settled when they were aggregated … */
    uint64_t late[OT_TIERS];  /* … and those that were settled in their turn */
    uint64_t arena;           /* arena bytes written when the tail was where it is; at most a mark's distance less */
    double records_s;         /* a second, smoothed */
    double arena_s;
};

/* A look at a ring. */
struct look {
    bool consistent;
    uint64_t head;
    uint64_t arena;
    uint64_t recorded[OT_TIERS];
    uint64_t values;
};

static struct waiting rings[OT_MAX_RINGS];

/* ---- aggregates ---- */

static struct ot_aggregate *
aggregate_of(struct ot_aggregate **place)
{
    if (OT_UNLIKELY(*place == NULL))
        *place = ot_aggregate_new();
    return *place;
}

static void
remember(struct ot_aggregate *a, const struct ot_slot *s, double value, uint64_t unix_ns)
{
    if (s->span_id == 0)
        return;
    struct ot_exemplar e = {value, s->trace_hi, s->trace_lo, s->span_id, unix_ns};
    ot_aggregate_exemplar(a, &e);
}

/* Whether the trace of a record goes to the exporters, if there are any, where nothing is selected. */
static inline bool
sampled(const struct ot_slot *s)
{
    return !(s->flags & OT_FLAG_UNSAMPLED) && (OT_LOAD(&ot_rec.control->switches) & OT_SWITCH_EXPORT) &&
           (s->trace_lo & OT_RANDOM_MASK) >= OT_LOAD(&ot_rec.control->threshold);
}

static inline void
classify(unsigned kind, uint64_t by)
{
    OT_STORE(&ot_drain.classes[kind], ot_drain.classes[kind] + by);
}

/* Blocks of a record, by what the newest says; believed in nothing. */
static uint64_t
block_count(const struct ot_writer *w, const struct ot_slot *s)
{
    uint64_t offset = (s->arena - 1) & w->arena_mask;
    struct ot_block b;
    if (s->arena == 0 || offset + sizeof b > w->arena_mask + 1)
        return 0;
    memcpy(&b, w->arena + offset, sizeof b);
    return b.position == s->arena - 1 && b.depth <= OT_MAX_BLOCKS ? b.depth : 0;
}

/* What it cost the thread that made it. */
static void
count_cost(const struct ot_slot *s, const struct ot_writer *w)
{
    bool api = s->probe < OT_MAX_PROBES && ot_rec.probes[s->probe].scope != 0;
    classify(s->flags & OT_FLAG_LEAF ? OT_COST_FLAT : api ? OT_COST_API : OT_COST_SPAN, 1);
    if (s->parent_id == 0 || s->flags & OT_FLAG_REMOTE_PARENT)
        OT_STORE(&ot_drain.operations, ot_drain.operations + 1);
    if (s->extra) {
        classify(OT_COST_ATTRIBUTE, s->count);
        classify(OT_COST_BLOCK, block_count(w, s));
    }
}

static void
add_value(const struct ot_slot *s, const struct ot_selection *r)
{
    classify(OT_COST_VALUE, 1);
    if (s->probe >= ot_rec.header->instrument_count || s->probe >= OT_MAX_INSTRUMENTS)
        return;
    struct ot_aggregate *a = aggregate_of(&ot_drain.instruments[s->probe]);
    double value = ot_double_of(s->value[0]);
    if (a == NULL || !isfinite(value))
        return;
    ot_aggregate_add(a, value);
    bool likely = r->selecting ? !(s->flags & OT_FLAG_UNSAMPLED) &&
                                     (s->trace_lo & OT_RANDOM_MASK) >= r->threshold[s->tier % OT_TIERS]
                               : sampled(s);
    if (likely)
        remember(a, s, value, ot_unix_ns(&ot_drain.calibration, s->end));
}

static uint64_t
start_of(const struct ot_slot *s)
{
    return s->flags & OT_FLAG_START_UNIX ? s->start : ot_unix_ns(&ot_drain.calibration, s->start);
}

static uint64_t
end_of(const struct ot_slot *s)
{
    return s->flags & OT_FLAG_END_UNIX ? s->end : ot_unix_ns(&ot_drain.calibration, s->end);
}

static double
length_ns(const struct ot_slot *s)
{
    if (OT_UNLIKELY(s->flags & (OT_FLAG_START_UNIX | OT_FLAG_END_UNIX))) {
        int64_t length = (int64_t)(end_of(s) - start_of(s));
        return length <= 0 ? 0 : (double)length;
    }
    int64_t length = (int64_t)(s->end - s->start);
    return length <= 0 ? 0 : (double)length * ot_drain.calibration.ns_per_tick;
}

/* A span's figures, and what it tells of its trace. */
static void
add_span(const struct ot_slot *s, const struct ot_writer *w, const struct ot_selection *r)
{
    struct ot_aggregate *a = OT_LIKELY(s->probe < OT_MAX_PROBES) ? aggregate_of(&ot_drain.probes[s->probe]) : NULL;
    double ns = 0;
    unsigned triggers = s->status == OT_STATUS_ERROR ? BIT(OT_TRIGGER_ERROR) : 0;
    count_cost(s, w);
    if (OT_LIKELY(a != NULL)) {
        ns = length_ns(s);
        uint64_t sla = ot_rec.probes[s->probe].sla_ns;
        ot_aggregate_add(a, ns * 1e-9);
        a->errors += s->status == OT_STATUS_ERROR;
        if (sla != 0 && ns > (double)sla) {
            a->sla_breaches++;
            triggers |= BIT(OT_TRIGGER_SLA);
        }
        if (!r->selecting) {
            if (sampled(s))
                remember(a, s, ns * 1e-9, end_of(s));
            return;
        }
        if (OT_UNLIKELY(!a->named)) {
            a->named = true;
            a->triggers = (uint8_t)ot_rules_named(s->probe);
        }
        triggers |= a->triggers | (ns * 1e-9 > a->slow ? BIT(OT_TRIGGER_SLOW) : 0);
    }
    if (!r->selecting || s->flags & OT_FLAG_UNSAMPLED)
        return;
    triggers |= s->flags & OT_FLAG_INTERRUPTED ? BIT(OT_TRIGGER_INTERRUPTED) : 0;
    if (ot_rules_note(r, s, triggers, ot_record_bytes_in(w, s)) && a != NULL)
        remember(a, s, ns * 1e-9, end_of(s));
}

/* ---- rings ---- */

static void
settle(struct ot_writer *w, struct waiting *q, const struct ot_slot *s, bool keep, uint16_t threshold)
{
    unsigned tier = s->tier % OT_TIERS;
    q->late[tier]++;
    if (!keep || ot_drain.kept_limit == 0)
        ot_drain.settled.sampled_out[tier]++;
    else if (!ot_kept_push(s, w, start_of(s), end_of(s), threshold))
        ot_drain.settled.refused[tier]++;
}

/* Part of a ring's slots or of its arena that was used since the pass before; past 1 something was lost. */
static double
used_part(struct ot_writer *w, uint64_t records, uint64_t bytes)
{
    double slots = (double)records / (double)(w->mask + 1), arena = (double)bytes / (double)(w->arena_mask + 1);
    return slots > arena ? slots : arena;
}

static void
look_at(struct ot_writer *w, struct waiting *q, struct look *l, double since_s)
{
    struct ot_ring *r = w->ring;
    l->arena = OT_LOAD(&r->arena_head);
    l->consistent = ot_ring_look(r, &l->head, l->recorded, &l->values);
    if (r->seen > l->head) /* nobody but this writes it */
        OT_STORE(&r->seen, l->head);
    if (r->tail > r->seen)
        OT_STORE(&r->tail, r->seen);
    uint64_t records = l->head - r->seen, bytes = l->arena - w->arena_seen;
    w->arena_seen = l->arena;
    double part = used_part(w, records, bytes);
    ot_drain.used = part > ot_drain.used ? part : ot_drain.used;
    if (records > r->backlog_max)
        OT_STORE(&r->backlog_max, records);
    if (since_s > 0) {
        double share = 1 - exp(-since_s / SMOOTH_S);
        q->records_s += share * ((double)records / since_s - q->records_s);
        q->arena_s += share * ((double)bytes / since_s - q->arena_s);
    }
}

/* What was written before `position` and not settled is gone: nothing of it comes any more. */
static void
lose(struct ot_writer *w, const struct waiting *q, const uint64_t recorded[OT_TIERS], const uint64_t early[OT_TIERS])
{
    for (int t = 0; t < OT_TIERS; t++)
        w->overwritten[t] = recorded[t] - early[t] - q->late[t];
}

/* The tail has come to `position`: settle what the marks up to there know; the position of the next one. */
static uint64_t
pass_marks(struct ot_writer *w, struct waiting *q, uint64_t position)
{
    while (q->count > 0 && q->marks[q->first].position <= position) {
        const struct mark *m = &q->marks[q->first];
        lose(w, q, m->recorded, m->early);
        q->arena = m->arena;
        q->first = (q->first + 1) % MARKS;
        q->count--;
    }
    return q->count > 0 ? q->marks[q->first].position : UINT64_MAX;
}

static void
put_mark(const struct ot_writer *w, struct waiting *q, const struct look *l)
{
    struct mark *last = q->count > 0 ? &q->marks[(q->first + q->count - 1) % MARKS] : NULL;
    if (!l->consistent || (last != NULL && l->head - last->position < (w->mask + 1) / MARK_PART &&
                           l->arena - last->arena < (w->arena_mask + 1) / MARK_PART))
        return;
    if (q->count < MARKS)
        last = &q->marks[(q->first + q->count++) % MARKS];
    last->position = l->head;
    last->arena = l->arena;
    memcpy(last->recorded, l->recorded, sizeof last->recorded);
    memcpy(last->early, q->early, sizeof last->early);
}

static uint64_t
oldest_there(const struct ot_writer *w, uint64_t head)
{
    return head > w->mask + 1 ? head - w->mask - 1 : 0;
}

/* From what was seen to the head: into the aggregates; where nothing is selected also out, from the tail on. */
static uint64_t
gather(struct ot_writer *w, struct waiting *q, const struct look *l, const struct ot_selection *r)
{
    struct ot_ring *ring = w->ring;
    uint64_t seen = ring->seen, from = r->selecting ? seen : ring->tail, values = ring->values_drained;
    uint64_t next = r->selecting ? UINT64_MAX : pass_marks(w, q, from), oldest = oldest_there(w, l->head);
    for (uint64_t n = from > oldest ? from : oldest; n < l->head; n++) {
        struct ot_slot s;
        const struct ot_slot *slot = &w->slots[n & w->mask];
        __builtin_prefetch(slot + 4);
        if (OT_UNLIKELY(n >= next))
            next = pass_marks(w, q, n);
        if (r->selecting) {
            const struct ot_slot *ahead = &w->slots[(n + AHEAD) & w->mask];
            ot_trace_prefetch(OT_LOAD(&ahead->trace_hi), OT_LOAD(&ahead->trace_lo));
        }
        if (!ot_slot_copy(slot, n, &s))
            continue;
        if (s.state == OT_SLOT_VALUE) {
            if (n >= seen) {
                add_value(&s, r);
                values++;
            }
            continue;
        }
        bool unsampled = s.flags & OT_FLAG_UNSAMPLED;
        if (n >= seen)
            add_span(&s, w, r);
        if (r->selecting && unsampled) {
            q->early[s.tier % OT_TIERS]++;
            ot_drain.settled.sampled_out[s.tier % OT_TIERS]++;
        }
        else if (!r->selecting && (n >= seen || !unsampled)) {
            settle(w, q, &s, sampled(&s), 0);
        }
    }
    OT_STORE(&ring->values_drained, values);
    if (l->consistent)
        w->values_overwritten = l->values - values;
    OT_STORE_RELEASE(&ring->seen, l->head);
    if (!r->selecting)
        OT_STORE_RELEASE(&ring->tail, l->head);
    return l->head - seen;
}

/* From the tail on: what has a verdict, or has waited long enough for one. */
static void
decide(struct ot_writer *w, struct waiting *q, const struct look *l, const struct ot_selection *r, bool everything)
{
    struct ot_ring *ring = w->ring;
    uint64_t n = ring->tail, oldest = oldest_there(w, l->head), room = (w->mask + 1) / WAIT_PART;
    n = n > oldest ? n : oldest;
    uint64_t next = pass_marks(w, q, n);
    for (; n < l->head; n++) {
        struct ot_slot s;
        uint16_t threshold;
        const struct ot_slot *slot = &w->slots[n & w->mask];
        __builtin_prefetch(slot + 4);
        if (OT_UNLIKELY(n >= next))
            next = pass_marks(w, q, n);
        if (!ot_slot_copy(slot, n, &s) || s.state == OT_SLOT_VALUE || s.flags & OT_FLAG_UNSAMPLED)
            continue;
        bool forced = everything || l->head - n > room || l->arena - q->arena > (w->arena_mask + 1) / WAIT_PART;
        enum ot_verdict_on_span verdict =
            ot_rules_verdict(r, &s, r->at_once ? 0 : ot_record_bytes_in(w, &s), forced, &threshold);
        if (verdict == OT_SPAN_WAITS)
            break;
        settle(w, q, &s, verdict == OT_SPAN_KEPT, threshold);
    }
    OT_STORE_RELEASE(&ring->tail, n);
}

static void
finish(struct ot_writer *w, struct waiting *q, const struct look *l)
{
    struct ot_ring *ring = w->ring;
    (void)pass_marks(w, q, ring->tail);
    if (ring->tail == l->head) {
        q->first = q->count = 0;
        q->arena = l->arena;
        if (l->consistent)
            lose(w, q, l->recorded, q->early); /* else the next pass finds out */
    }
    for (int t = 0; t < OT_TIERS; t++)
        OT_STORE(&ring->drained[t], q->early[t] + q->late[t]);
}

/* How far back a trace can be kept whole: as long as it may wait, or as the fastest ring has room for. */
static double
horizon(uint32_t count)
{
    double seconds = ot_rules_hold();
    for (uint32_t i = 0; i < count; i++) {
        const struct ot_writer *w = &ot_writers[i];
        if (rings[i].records_s > 0)
            seconds = fmin(seconds, (double)((w->mask + 1) / WAIT_PART) / rings[i].records_s);
        if (rings[i].arena_s > 0)
            seconds = fmin(seconds, (double)((w->arena_mask + 1) / WAIT_PART) / rings[i].arena_s);
    }
    return seconds;
}

uint64_t
ot_select_pass(bool everything, double since_s)
{
    struct look looks[OT_MAX_RINGS];
    struct ot_selection r;
    uint64_t handled = 0;
    uint32_t count = OT_LOAD_ACQUIRE(&ot_rec.header->ring_count);
    count = count < OT_MAX_RINGS ? count : OT_MAX_RINGS;
    ot_rules_begin(&r, ot_drain.calibration.anchor.mono_ns, everything);
    for (uint32_t i = 0; i < count; i++) {
        look_at(&ot_writers[i], &rings[i], &looks[i], since_s);
        handled += gather(&ot_writers[i], &rings[i], &looks[i], &r);
    }
    if (r.selecting)
        ot_rules_plan(&r);
    for (uint32_t i = 0; i < count; i++) {
        if (r.selecting) {
            put_mark(&ot_writers[i], &rings[i], &looks[i]);
            decide(&ot_writers[i], &rings[i], &looks[i], &r, everything);
        }
        finish(&ot_writers[i], &rings[i], &looks[i]);
    }
    ot_rules_horizon(horizon(count));
    ot_rules_end(&r);
    return handled;
}

void
ot_select_forget(void)
{
    memset(rings, 0, sizeof rings);
}
