/* The keep rules: what a trace is kept for, and the counts of that. */
#include "keep.h"

#include <math.h>
#include <string.h>

#include "bucket.h"
#include "doubles.h"
#include "drain.h"
#include "room.h"
#include "rules.h"
#include "span.h"
#include "verdicts.h"

#define PINS 1024
#define LOOK_NS 100000000ULL /* between two looks at all that processes have said to each other */
#define BIT(trigger) (1U << (trigger))

/* The order in which triggers are asked: what says more of a trace comes first. */
static const uint8_t order[] = {OT_TRIGGER_REJECT, OT_TRIGGER_RISK,  OT_TRIGGER_INTERRUPTED, OT_TRIGGER_PINNED,
                                OT_TRIGGER_SLA,    OT_TRIGGER_ERROR, OT_TRIGGER_SLOW};
#define ASKED (sizeof order / sizeof *order)

/* Numbers of the readings: the drain adds, the governor loads, relaxed. */
static struct {
    uint64_t kept[OT_TRIGGERS];
    uint64_t missed[OT_TRIGGERS];
    uint64_t dropped;
    uint64_t horizon; /* double bits */
} counts;

static double limit_left[OT_TRIGGERS]; /* traces that a trigger may keep now */
static uint64_t limit_ns;              /* when they were filled up; 0: never */
static uint64_t looked_ns;

/* Traces that were pinned since the last pass: written under the GIL, read with the drain's lock. */
static struct {
    uint64_t ids[PINS][2];
    uint64_t written; /* release; the drain acquires */
    uint64_t read;    /* release; pin acquires */
} pins;

static void
count(uint64_t *counter)
{
    OT_STORE(counter, *counter + 1);
}

/* ---- limits ---- */

static double
limit_of(unsigned trigger)
{
    double limit = ot_double_of(OT_LOAD(&ot_rec.policy->limit[trigger]));
    return limit > 0 ? limit : 0;
}

static void
fill_limits(uint64_t now_ns)
{
    double seconds = now_ns > limit_ns ? (double)(now_ns - limit_ns) * 1e-9 : 0;
    for (unsigned i = 0; i < OT_TRIGGERS; i++) {
        double limit = limit_of(i), most = limit > 0 ? fmax(limit, 1) : 0;
        limit_left[i] = limit_ns == 0 ? most : fmin(limit_left[i] + limit * seconds, most);
        if (isinf(limit))
            limit_left[i] = INFINITY;
    }
    limit_ns = now_ns;
}

/* Let a trace through for one of its triggers: the number, or OT_TRIGGER_SHARE where none of them may. */
static unsigned
let_through(unsigned triggers)
{
    for (unsigned i = 0; i < ASKED; i++) {
        unsigned trigger = order[i];
        if (!(triggers & BIT(trigger)) || limit_left[trigger] < 1 || !ot_bucket_admits(trigger == OT_TRIGGER_SLOW))
            continue;
        limit_left[trigger] -= 1;
        return trigger;
    }
    return OT_TRIGGER_SHARE;
}

static unsigned
first_of(unsigned triggers)
{
    for (unsigned i = 0; i < ASKED; i++) {
        if (triggers & BIT(order[i]))
            return order[i];
    }
    return OT_TRIGGER_SHARE;
}

/* ---- verdicts ---- */

static bool
by_trigger(const struct ot_trace *t)
{
    return t->state == OT_TRACE_KEPT && t->reason != OT_TRIGGER_SHARE;
}

static void
keep(struct ot_trace *t, unsigned reason, uint16_t threshold)
{
    t->state = OT_TRACE_KEPT;
    t->reason = (uint8_t)reason;
    t->threshold = threshold;
    count(&counts.kept[reason]);
}

static void
miss(struct ot_trace *t)
{
    if (t->triggers != 0 && !(t->marks & OT_TRACE_TOLD)) {
        t->marks |= OT_TRACE_TOLD;
        count(&counts.missed[first_of(t->triggers)]);
    }
}

static void
drop(struct ot_trace *t)
{
    t->state = OT_TRACE_DROPPED;
    t->threshold = 0;
    if (t->triggers != 0)
        miss(t);
    else
        count(&counts.dropped);
}

/* As another process has said. */
static void
follow(struct ot_trace *t, const struct ot_said *said)
{
    t->triggers |= said->triggers;
    if (said->verdict == OT_VERDICT_DROPPED) {
        drop(t);
        return;
    }
    uint64_t threshold = (uint64_t)said->threshold << (OT_SAMPLE_BITS - OT_THRESHOLD_BITS);
    bool possible = (t->lo & OT_RANDOM_MASK) >= threshold;
    keep(t, first_of(said->threshold == 0 ? said->triggers : 0), possible ? said->threshold : 0);
}

static void
decide(struct ot_trace *t, uint64_t threshold)
{
    unsigned reason;
    if (ot_room_is_full()) /* since the pass began */
        threshold = OT_THRESHOLD_ALL;
    if (threshold == 0)
        keep(t, first_of(t->triggers), 0);
    else if (t->triggers != 0 && (reason = let_through(t->triggers)) != OT_TRIGGER_SHARE)
        keep(t, reason, 0);
    else if ((t->lo & OT_RANDOM_MASK) >= threshold)
        keep(t, OT_TRIGGER_SHARE, (uint16_t)(threshold >> (OT_SAMPLE_BITS - OT_THRESHOLD_BITS)));
    else
        drop(t);
}

static bool
is_part(const struct ot_trace *t)
{
    return (t->marks & (OT_TRACE_REMOTE | OT_TRACE_ROOT)) == OT_TRACE_REMOTE;
}

/* Decide a trace that waits; false where it should go on waiting. */
static bool
conclude(const struct ot_selection *r, struct ot_trace *t, bool forced)
{
    uint32_t waited = r->moment - t->moment;
    if (!forced && !r->at_once && waited < r->hold)
        return false;
    bool part = is_part(t);
    uint64_t met = ot_trace_met(t), threshold;
    struct ot_said said = r->at_once ? (struct ot_said){0} : ot_verdict_look(t);
    if (said.there && said.verdict != OT_VERDICT_ASKED) {
        ot_trace_decided(t);
        follow(t, &said);
    }
    else {
        t->triggers |= said.triggers;
        if (part && t->triggers == 0 && !forced && !r->at_once && ot_shared_by_others() && waited / 2 < r->hold)
            return false;
        ot_trace_decided(t);
        threshold = r->threshold[t->tier];
        decide(t, met > threshold ? met : threshold);
        if (ot_shared_by_others() && (part || !r->at_once || t->triggers != 0)) {
            said = ot_verdict_post(t, part, r->now_ns);
            if (said.there && said.verdict == OT_VERDICT_KEPT && t->state == OT_TRACE_DROPPED)
                keep(t, first_of(said.triggers), said.threshold);
        }
    }
    double bytes = t->bytes * ot_bucket_factor();
    if (t->state == OT_TRACE_KEPT)
        ot_bucket_spend(bytes);
    if (by_trigger(t)) { /* which was not known when it came */
        ot_bucket_count(t->tier, -bytes);
        ot_bucket_count(OT_TIERS, bytes);
    }
    t->moment = r->moment;
    return true;
}

/* A trace that was dropped has a trigger after all: what still waits of it, and what follows, may be kept. */
static void
reconsider(const struct ot_selection *r, struct ot_trace *t)
{
    unsigned reason = let_through(t->triggers);
    if (reason == OT_TRIGGER_SHARE) {
        miss(t);
        return;
    }
    keep(t, reason, 0);
    (void)ot_verdict_post(t, is_part(t), r->now_ns);
}

static void
trigger(const struct ot_selection *r, struct ot_trace *t, unsigned triggers)
{
    if ((triggers & ~(unsigned)t->triggers) == 0)
        return;
    t->triggers |= (uint8_t)triggers;
    ot_verdict_note(t, r->now_ns);
    if (t->state == OT_TRACE_DROPPED)
        reconsider(r, t);
}

bool
ot_rules_note(const struct ot_selection *r, const struct ot_slot *s, unsigned triggers, uint32_t bytes)
{
    struct ot_trace *t = ot_trace_enter(s->trace_hi, s->trace_lo, r->moment);
    if (s->parent_id == 0)
        t->marks |= OT_TRACE_ROOT;
    else if (s->flags & OT_FLAG_REMOTE_PARENT && !(t->marks & OT_TRACE_REMOTE)) {
        t->marks |= OT_TRACE_REMOTE;
        if (!r->at_once && is_part(t) && t->state == OT_TRACE_WAITS)
            ot_verdict_ask(t, r->now_ns);
    }
    trigger(r, t, triggers);
    double charged = bytes * ot_bucket_factor();
    if (t->state == OT_TRACE_WAITS) {
        ot_trace_grow(t, s->tier % OT_TIERS, bytes, r->threshold);
        ot_bucket_count(t->tier, charged);
        ot_room_came(t->triggers != 0 ? OT_TIERS : t->tier);
        return t->triggers != 0 || (t->lo & OT_RANDOM_MASK) >= r->threshold[t->tier];
    }
    t->moment = r->moment;
    if (t->state == OT_TRACE_KEPT)
        ot_bucket_spend(charged);
    ot_bucket_count(by_trigger(t) ? OT_TIERS : t->tier, charged);
    ot_room_came(by_trigger(t) ? OT_TIERS : t->tier);
    return t->state == OT_TRACE_KEPT;
}

enum ot_verdict_on_span
ot_rules_verdict(const struct ot_selection *r, const struct ot_slot *s, uint32_t bytes, bool forced,
                 uint16_t *threshold)
{
    struct ot_trace *t = ot_trace_find(s->trace_hi, s->trace_lo);
    if (OT_UNLIKELY(t == NULL)) { /* another took its place: it has waited, as all that comes to the cursor */
        t = ot_trace_enter(s->trace_hi, s->trace_lo, r->moment);
        ot_trace_grow(t, s->tier % OT_TIERS, bytes, r->threshold);
        forced = true;
    }
    if (t->state == OT_TRACE_WAITS && !conclude(r, t, forced))
        return OT_SPAN_WAITS;
    *threshold = t->threshold;
    return t->state == OT_TRACE_KEPT ? OT_SPAN_KEPT : OT_SPAN_DROPPED;
}

void
ot_rules_recall(const struct ot_selection *r, const struct ot_slot *s, bool kept)
{
    struct ot_trace *t = ot_trace_enter(s->trace_hi, s->trace_lo, r->moment);
    if (t->state == OT_TRACE_WAITS)
        ot_trace_decided(t);
    else if (t->state == OT_TRACE_KEPT)
        return;
    t->state = kept ? OT_TRACE_KEPT : OT_TRACE_DROPPED;
    t->threshold = 0;
    t->tier = s->tier % OT_TIERS;
}

unsigned
ot_rules_named(uint32_t probe)
{
    const struct ot_probe *p = &ot_rec.probes[probe];
    uint32_t name = OT_LOAD(&p->name);
    if (p->scope != 0 || name >= ot_rec.settings.max_names)
        return 0;
    struct ot_name n = ot_rec.names[name];
    if (n.offset > ot_rec.text_bytes || n.bytes > ot_rec.text_bytes - n.offset)
        return 0;
    const char *text = (const char *)ot_rec.text + n.offset;
    if (n.bytes == 12 && memcmp(text, "order.reject", 12) == 0)
        return BIT(OT_TRIGGER_REJECT);
    return n.bytes == 11 && memcmp(text, "risk.breach", 11) == 0 ? BIT(OT_TRIGGER_RISK) : 0;
}

/* ---- one pass ---- */

static void
read_pins(const struct ot_selection *r)
{
    uint64_t written = OT_LOAD_ACQUIRE(&pins.written);
    for (uint64_t n = pins.read; r->selecting && n < written; n++)
        trigger(r, ot_trace_enter(pins.ids[n % PINS][0], pins.ids[n % PINS][1], r->moment), BIT(OT_TRIGGER_PINNED));
    OT_STORE_RELEASE(&pins.read, written);
}

/* Answer what other processes ask of traces that were decided here, and follow what they say of those that were dropped. */
static void
hear(void *context, uint64_t hi, uint64_t lo, const struct ot_said *said)
{
    const struct ot_selection *r = context;
    struct ot_trace *t = ot_trace_find(hi, lo);
    if (t == NULL || t->state == OT_TRACE_WAITS)
        return;
    if (t->state == OT_TRACE_DROPPED && said->verdict == OT_VERDICT_KEPT) {
        struct ot_said kept = *said;
        follow(t, &kept);
    }
    else if (said->verdict == OT_VERDICT_ASKED) {
        if (t->state == OT_TRACE_DROPPED && (said->triggers & ~(unsigned)t->triggers) != 0) {
            t->triggers |= said->triggers;
            reconsider(r, t);
        }
        (void)ot_verdict_post(t, false, r->now_ns);
    }
}

double
ot_rules_hold(void)
{
    double hold = ot_double_of(OT_LOAD(&ot_rec.policy->hold));
    return hold >= 0 ? fmin(hold, 3600) : 5;
}

/* The strictest of what is planned for all processes, what this one's queue has room for, and the sampling rate. */
static uint64_t
in_force(unsigned tier)
{
    uint64_t unit = 1ULL << (OT_SAMPLE_BITS - OT_THRESHOLD_BITS), threshold = ot_bucket_threshold(tier);
    uint64_t asked = tier == 0 ? 0 : OT_LOAD(&ot_rec.control->threshold), room = ot_room_threshold(tier);
    asked = asked < OT_THRESHOLD_ALL ? (asked + unit - 1) / unit * unit : OT_THRESHOLD_ALL;
    threshold = asked > threshold ? asked : threshold;
    return room > threshold ? room : threshold;
}

void
ot_rules_begin(struct ot_selection *r, uint64_t now_ns, bool everything)
{
    const struct ot_control *c = ot_rec.control;
    bool wanted =
        OT_LOAD(&ot_rec.policy->active) && ot_drain.kept_limit > 0 && (OT_LOAD(&c->switches) & OT_SWITCH_EXPORT);
    *r = (struct ot_selection){.selecting = wanted && ot_traces_make(),
                               .at_once = true,
                               .now_ns = now_ns,
                               .moment = (uint32_t)(now_ns / 1000000)};
    if (!r->selecting) {
        ot_traces_free();
        read_pins(r);
        return;
    }
    r->hold = (uint32_t)(ot_rules_hold() * 1e3);
    ot_bucket_begin(now_ns);
    fill_limits(now_ns);
    for (unsigned t = 0; t < OT_TIERS; t++) {
        r->threshold[t] = in_force(t);
        r->at_once = r->at_once && r->threshold[t] == 0;
    }
    read_pins(r);
    if (ot_shared_by_others() && (everything || now_ns - looked_ns >= LOOK_NS)) {
        looked_ns = now_ns;
        ot_verdicts_all(now_ns, hear, r);
    }
}

void
ot_rules_plan(struct ot_selection *r)
{
    double bytes[OT_TIERS], free = ot_bucket_free();
    uint64_t threshold[OT_TIERS] = {0};
    if (!r->at_once)
        return; /* what waits is decided bit by bit, and the thresholds have an eye on that */
    for (unsigned t = 0; t < OT_TIERS; t++)
        bytes[t] = (double)ot_traces_waiting(t) * ot_bucket_factor();
    if (bytes[0] + bytes[1] + bytes[2] + bytes[3] <= fmax(free, 0))
        return;
    ot_bucket_pour(threshold, bytes, free);
    for (unsigned t = 0; t < OT_TIERS; t++) {
        r->threshold[t] = threshold[t];
        r->at_once = r->at_once && threshold[t] == 0;
    }
}

void
ot_rules_end(const struct ot_selection *r)
{
    if (r->selecting)
        ot_bucket_end();
}

void
ot_rules_horizon(double seconds)
{
    OT_STORE(&counts.horizon, ot_bits_of(seconds));
}

void
ot_rules_forget(void)
{
    memset(&counts, 0, sizeof counts);
    limit_ns = looked_ns = 0;
    pins.read = pins.written = 0;
    ot_traces_free();
    ot_bucket_forget();
    ot_room_forget();
}

void
ot_keep_readings(struct ot_readings *readings)
{
    pthread_rwlock_rdlock(&ot_sharing);
    for (unsigned t = 0; t < OT_TIERS; t++)
        OT_STORE(&readings->threshold[t], in_force(t));
    OT_STORE(&readings->tokens, ot_bits_of(ot_bucket_tokens()));
    pthread_rwlock_unlock(&ot_sharing);
    OT_STORE(&readings->horizon, OT_LOAD(&counts.horizon));
    for (unsigned i = 0; i < OT_TRIGGERS; i++) {
        OT_STORE(&readings->kept[i], OT_LOAD(&counts.kept[i]));
        OT_STORE(&readings->missed[i], OT_LOAD(&counts.missed[i]));
    }
    OT_STORE(&readings->dropped, OT_LOAD(&counts.dropped));
}

/* ---- pins ---- */

PyObject *
ot_pin(PyObject *Py_UNUSED(module), PyObject *trace_id)
{
    uint64_t id[2];
    if (ot_long_words(trace_id, id) < 0)
        return NULL;
    if (ot_rec.mapped == OT_CLOSED || (id[0] | id[1]) == 0)
        Py_RETURN_FALSE;
    uint64_t n = pins.written;
    if (n - OT_LOAD_ACQUIRE(&pins.read) >= PINS) { /* more of them than a pass takes: make one */
        ot_drain_lock();
        (void)ot_drain_pass();
        ot_drain_unlock();
        n = pins.written;
        if (ot_rec.mapped == OT_CLOSED || n - OT_LOAD_ACQUIRE(&pins.read) >= PINS)
            Py_RETURN_FALSE;
    }
    pins.ids[n % PINS][0] = id[0];
    pins.ids[n % PINS][1] = id[1];
    OT_STORE_RELEASE(&pins.written, n + 1);
    Py_RETURN_TRUE;
}
