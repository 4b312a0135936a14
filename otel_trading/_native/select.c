#include "select.h"

#include <math.h>
#include <string.h>

#include "adopt.h"
#include "bucket.h"
#include "doubles.h"
#include "drain.h"
#include "progress.h"
#include "ring.h"
#include "rules.h"

#define STONES 48
#define STONE_PART 32 /* of a ring, or of its arena, between two milestones */
#define WAIT_PART 2   /* of a ring, or of its arena, that may wait for verdicts */
#define SMOOTH_S 2.0  /* of a ring's rates */
#define AHEAD 4       /* records whose traces are fetched before their turn */
#define FAR 8 /* records that are fetched themselves: they come from the cache of the processor that wrote them */
#define BIT(n) (1U << (n))

/* What the writer had written when the aggregates had all before a record. */
struct stone {
    uint64_t position;
    uint64_t arena;
    uint64_t recorded[OT_TIERS];
    uint64_t early[OT_TIERS];
};

/* Of a ring: what waits for verdicts, between its tail and what was seen of it. */
struct waiting {
    struct stone stones[STONES]; /* a queue, oldest first */
    uint32_t first;
    uint32_t count;
    uint64_t early[OT_TIERS]; /* spans that were settled when they were aggregated … */
    uint64_t late[OT_TIERS];  /* … and those that were settled in their turn */
    uint64_t arena;   /* arena bytes written when the tail was where it is; at most a milestone's distance less */
    double records_s; /* a second, smoothed */
    double arena_s;
    uint64_t tail; /* ring.tail and ring.seen are told by these, and never believed */
    uint64_t seen;
    uint64_t noted;   /* what is before it has been put down with its traces */
    uint64_t until;   /* records before it may be marked by who drained before */
    bool recall;      /* what the marks tell of traces has not been looked at yet */
    uint64_t resized; /* ring.resized, as far as it is known here */
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

/* A span's figures, where nobody has seen it yet, and what it tells of its trace, where that is not told already. */
static void
add_span(const struct ot_slot *s, const struct ot_writer *w, const struct ot_selection *r, bool seen, bool told)
{
    struct ot_aggregate *a = OT_LIKELY(s->probe < OT_MAX_PROBES) ? aggregate_of(&ot_drain.probes[s->probe]) : NULL;
    double ns = 0;
    unsigned triggers = s->status == OT_STATUS_ERROR ? BIT(OT_TRIGGER_ERROR) : 0;
    if (!seen)
        count_cost(s, w);
    if (OT_LIKELY(a != NULL)) {
        ns = length_ns(s);
        uint64_t sla = ot_rec.probes[s->probe].sla_ns;
        if (!seen)
            ot_aggregate_add(a, ns * 1e-9);
        a->errors += !seen && s->status == OT_STATUS_ERROR;
        if (sla != 0 && ns > (double)sla) {
            a->sla_breaches += !seen;
            triggers |= BIT(OT_TRIGGER_SLA);
        }
        if (!r->selecting) {
            if (!seen && sampled(s))
                remember(a, s, ns * 1e-9, end_of(s));
            return;
        }
        if (OT_UNLIKELY(!a->named)) {
            a->named = true;
            a->triggers = (uint8_t)ot_rules_named(s->probe);
        }
        triggers |= a->triggers | (ns * 1e-9 > a->slow ? BIT(OT_TRIGGER_SLOW) : 0);
    }
    if (!r->selecting || told || s->flags & OT_FLAG_UNSAMPLED)
        return;
    triggers |= s->flags & OT_FLAG_INTERRUPTED ? BIT(OT_TRIGGER_INTERRUPTED) : 0;
    if (ot_rules_note(r, s, triggers, ot_record_bytes_in(w, s)) && a != NULL)
        remember(a, s, ns * 1e-9, end_of(s));
}

/* ---- rings ---- */

static uint32_t
number_of(const struct ot_writer *w)
{
    return (uint32_t)(w - ot_writers);
}

static void
settle(struct ot_writer *w, struct waiting *q, const struct ot_slot *s, uint64_t n, bool keep, uint16_t threshold)
{
    unsigned tier = s->tier % OT_TIERS, mark = OT_MARK_NONE;
    q->late[tier]++;
    if (!keep || ot_drain.kept_limit == 0) {
        ot_drain.settled.sampled_out[tier]++;
        mark = OT_MARK_DROPPED;
    }
    else if (!ot_kept_push(s, w, n, start_of(s), end_of(s), threshold)) {
        ot_drain.settled.refused[tier]++;
        mark = OT_MARK_REFUSED;
    }
    ot_progress_pass(&ot_settlings[number_of(w)], n, mark, tier);
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
    l->consistent = ot_progress_look(w, &l->head, l->recorded, &l->values);
    q->seen = q->seen < l->head ? q->seen : l->head; /* only a damaged ring goes back */
    q->noted = q->noted < l->head ? q->noted : l->head;
    q->tail = q->tail < q->noted ? q->tail : q->noted;
    uint64_t records = l->head - q->seen, bytes = l->arena - w->arena_seen;
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

/* The tail has come to `position`: settle what the milestones up to there know; the position of the next one. */
static uint64_t
pass_stones(struct ot_writer *w, struct waiting *q, uint64_t position)
{
    while (q->count > 0 && q->stones[q->first].position <= position) {
        const struct stone *m = &q->stones[q->first];
        lose(w, q, m->recorded, m->early);
        q->arena = m->arena;
        q->first = (q->first + 1) % STONES;
        q->count--;
    }
    return q->count > 0 ? q->stones[q->first].position : UINT64_MAX;
}

static void
put_stone(const struct ot_writer *w, struct waiting *q, const struct look *l)
{
    struct stone *last = q->count > 0 ? &q->stones[(q->first + q->count - 1) % STONES] : NULL;
    if (!l->consistent || (last != NULL && l->head - last->position < (w->mask + 1) / STONE_PART &&
                           l->arena - last->arena < (w->arena_mask + 1) / STONE_PART))
        return;
    if (q->count < STONES)
        last = &q->stones[(q->first + q->count++) % STONES];
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

/* Of a record that is still there and whose turn has not come: is it settled already? */
static bool
is_marked(const struct ot_settling *p, uint64_t n)
{
    return p->marks != NULL && (n < p->done || ot_progress_told(p, n) != OT_MARK_NONE);
}

/* From what was seen to the head: into the aggregates; where nothing is selected also out, from the tail on. */
static uint64_t
gather(struct ot_writer *w, struct waiting *q, const struct look *l, const struct ot_selection *r)
{
    struct ot_ring *ring = w->ring;
    struct ot_settling *p = &ot_settlings[number_of(w)];
    uint64_t seen = q->seen, from = r->selecting ? q->noted : q->tail, values = ring->values_drained;
    uint64_t next = r->selecting ? UINT64_MAX : pass_stones(w, q, from), oldest = oldest_there(w, l->head);
    for (uint64_t n = from > oldest ? from : oldest; n < l->head; n++) {
        struct ot_slot s;
        const struct ot_slot *slot = &w->slots[n & w->mask];
        __builtin_prefetch(slot + FAR);
        if (OT_UNLIKELY(n >= next))
            next = pass_stones(w, q, n);
        if (r->selecting) {
            const struct ot_slot *ahead = &w->slots[(n + AHEAD) & w->mask];
            ot_trace_prefetch(OT_LOAD(&ahead->trace_hi), OT_LOAD(&ahead->trace_lo));
        }
        bool marked = OT_UNLIKELY(n < q->until) && is_marked(p, n);
        bool there = ot_slot_copy(slot, n, &s), value = there && s.state == OT_SLOT_VALUE;
        if (value && n >= seen) {
            add_value(&s, r);
            values++;
        }
        else if (there && !value && (n >= seen || (r->selecting && !marked)))
            add_span(&s, w, r, n < seen, marked);
        if (marked) {
            if (!r->selecting)
                ot_progress_skip(p, n);
        }
        else if (value || (!there && !r->selecting))
            ot_progress_pass(p, n, OT_MARK_DROPPED, OT_NO_TIER);
        else if (there && r->selecting && s.flags & OT_FLAG_UNSAMPLED) {
            q->early[s.tier % OT_TIERS]++;
            ot_drain.settled.sampled_out[s.tier % OT_TIERS]++;
            ot_progress_pass(p, n, OT_MARK_DROPPED, s.tier % OT_TIERS);
        }
        else if (there && !r->selecting) {
            if (n >= q->noted || !(s.flags & OT_FLAG_UNSAMPLED))
                settle(w, q, &s, n, sampled(&s), 0);
            else
                ot_progress_skip(p, n);
        }
    }
    OT_STORE(&ring->values_drained, values);
    if (l->consistent)
        w->values_overwritten = l->values - values;
    q->seen = q->noted = l->head;
    OT_STORE_RELEASE(&ring->seen, l->head);
    if (!r->selecting)
        q->tail = l->head;
    return l->head - seen;
}

/* From the tail on: what has a verdict, or has waited long enough for one. */
static void
decide(struct ot_writer *w, struct waiting *q, const struct look *l, const struct ot_selection *r, bool everything)
{
    struct ot_settling *p = &ot_settlings[number_of(w)];
    uint64_t n = q->tail, oldest = oldest_there(w, l->head), room = (w->mask + 1) / WAIT_PART;
    n = n > oldest ? n : oldest;
    uint64_t next = pass_stones(w, q, n);
    for (; n < l->head; n++) {
        struct ot_slot s;
        uint16_t threshold;
        const struct ot_slot *slot = &w->slots[n & w->mask];
        __builtin_prefetch(slot + AHEAD);
        if (OT_UNLIKELY(n >= next))
            next = pass_stones(w, q, n);
        if (OT_UNLIKELY(n < q->until) && is_marked(p, n)) {
            ot_progress_skip(p, n);
            continue;
        }
        if (!ot_slot_copy(slot, n, &s)) {
            if (!is_marked(p, n))
                ot_progress_pass(p, n, OT_MARK_DROPPED, OT_NO_TIER);
            continue;
        }
        if (s.state == OT_SLOT_VALUE || s.flags & OT_FLAG_UNSAMPLED) { /* marked when it was gathered */
            ot_progress_skip(p, n);
            continue;
        }
        bool forced = everything || l->head - n > room || l->arena - q->arena > (w->arena_mask + 1) / WAIT_PART;
        enum ot_verdict_on_span verdict =
            ot_rules_verdict(r, &s, r->at_once ? 0 : ot_record_bytes_in(w, &s), forced, &threshold);
        if (verdict == OT_SPAN_WAITS)
            break;
        settle(w, q, &s, n, verdict == OT_SPAN_KEPT, threshold);
    }
    q->tail = n;
}

static void
finish(struct ot_writer *w, struct waiting *q, const struct look *l)
{
    struct ot_ring *ring = w->ring;
    OT_STORE_RELEASE(&ring->tail, q->tail);
    (void)pass_stones(w, q, q->tail);
    if (q->tail == l->head) {
        q->first = q->count = 0;
        q->arena = l->arena;
        if (l->consistent)
            lose(w, q, l->recorded, q->early); /* else the next pass finds out */
    }
    for (int t = 0; t < OT_TIERS; t++)
        OT_STORE(&ring->drained[t], q->early[t] + q->late[t]);
    ot_progress_end(number_of(w));
}

/* How far back a trace can be kept whole: as long as it may wait, or as the fastest ring has room for. */
static double
horizon(uint32_t count)
{
    double seconds = ot_rules_hold();
    for (uint32_t i = 0; i < count; i++) {
        const struct ot_writer *w = &ot_writers[i];
        if (w->ring == NULL)
            continue;
        if (rings[i].records_s > 0)
            seconds = fmin(seconds, (double)((w->mask + 1) / WAIT_PART) / rings[i].records_s);
        if (rings[i].arena_s > 0)
            seconds = fmin(seconds, (double)((w->arena_mask + 1) / WAIT_PART) / rings[i].arena_s);
    }
    return seconds;
}

/* ---- another one's progress ---- */

/* What the marks tell of traces: what is still to come of them goes the same way. */
static void
recall(const struct ot_selection *r, const struct ot_writer *w, struct waiting *q, uint64_t head)
{
    const struct ot_settling *p = &ot_settlings[number_of(w)];
    q->recall = false;
    for (uint64_t n = oldest_there(w, head); p->marks != NULL && n < q->until; n++) {
        struct ot_slot s;
        unsigned mark = ot_progress_mark(p, n);
        if (mark == OT_MARK_NONE || mark == OT_MARK_REFUSED || !ot_slot_copy(&w->slots[n & w->mask], n, &s) ||
            s.state != OT_SLOT_SPAN || s.flags & OT_FLAG_UNSAMPLED)
            continue;
        ot_rules_recall(r, &s, mark != OT_MARK_DROPPED);
    }
}

void
ot_select_take(uint32_t ring)
{
    struct waiting *q = &rings[ring];
    struct ot_writer *w = &ot_writers[ring];
    struct ot_found f;
    uint64_t head, recorded[OT_TIERS], values, seen = OT_LOAD(&w->ring->seen);
    (void)ot_progress_look(w, &head, recorded, &values);
    memset(q, 0, sizeof *q);
    q->resized = OT_LOAD(&w->ring->resized);
    ot_progress_take(ring, head, &f);
    q->tail = q->noted = f.begin;
    q->until = f.until;
    q->seen = seen < head ? seen : head;
    q->recall = true;
    w->arena_seen = q->arena = OT_LOAD(&w->ring->arena_head);
    for (int t = 0; t < OT_TIERS; t++) {
        q->late[t] = f.fates.exported[t] + f.fates.sampled_out[t] + f.fates.refused[t];
        w->overwritten[t] = recorded[t] - q->late[t] - f.unsettled[t];
        ot_drain.settled.exported[t] += f.fates.exported[t];
        ot_drain.settled.sampled_out[t] += f.fates.sampled_out[t];
        ot_drain.settled.refused[t] += f.fates.refused[t];
    }
    w->values_overwritten = 0;
    OT_STORE_RELEASE(&w->ring->tail, q->tail);
}

void
ot_select_resized(uint32_t ring)
{
    struct waiting *q = &rings[ring];
    uint64_t from = OT_LOAD(&ot_writers[ring].ring->resized);
    q->resized = from;
    q->tail = q->tail > from ? q->tail : from;
    q->noted = q->noted > from ? q->noted : from;
    q->seen = q->seen > from ? q->seen : from;
    q->until = q->until < from ? q->until : from;
    ot_progress_resized(ring, from);
}

/* ---- one pass ---- */

static bool
has_another_size(uint32_t ring)
{
    const struct ot_writer *w = &ot_writers[ring];
    return w->ring != NULL &&
           (OT_LOAD(&w->ring->resized) != rings[ring].resized || (uint64_t)OT_LOAD(&w->ring->capacity) != w->mask + 1);
}

uint64_t
ot_select_pass(bool everything, double since_s)
{
    struct look looks[OT_MAX_RINGS];
    struct ot_selection r;
    uint64_t handled = 0;
    uint32_t count = ot_drain_rings();
    ot_rules_begin(&r, ot_drain.now_ns, everything);
    for (uint32_t i = 0; i < count; i++) {
        if (ot_writers[i].ring == NULL)
            continue;
        look_at(&ot_writers[i], &rings[i], &looks[i], since_s);
        /* what was written after a change is seen after the change */
        for (int tries = 0; tries < 4 && OT_UNLIKELY(has_another_size(i)); tries++) {
            if (ot_adopt_resized(i)) {
                ot_select_resized(i);
                look_at(&ot_writers[i], &rings[i], &looks[i], 0);
            }
        }
    }
    for (uint32_t i = 0; r.selecting && i < count; i++) {
        if (OT_UNLIKELY(rings[i].recall) && ot_writers[i].ring != NULL)
            recall(&r, &ot_writers[i], &rings[i], looks[i].head);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (ot_writers[i].ring == NULL)
            continue;
        ot_progress_begin(i, looks[i].head);
        handled += gather(&ot_writers[i], &rings[i], &looks[i], &r);
    }
    if (r.selecting)
        ot_rules_plan(&r);
    for (uint32_t i = 0; i < count; i++) {
        if (ot_writers[i].ring == NULL)
            continue;
        if (r.selecting) {
            put_stone(&ot_writers[i], &rings[i], &looks[i]);
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
    ot_progress_forget();
}
