#include "enforcer.h"

#include <math.h>
#include <string.h>

#include "buffers.h"
#include "decisions.h"
#include "doubles.h"
#include "engine.h"
#include "instruments.h"

#define LEAST_RATE (1.0 / 64)
/* More than there can be of either kind: halvings of three tiers to the end, latency, P0 only; sizes of the rings. */
#define MOST_STEPS 32

/* What was as it was before a step. */
struct step {
    unsigned budget; /* OT_BUDGET_* that was exceeded */
    double figure;   /* that led to it */
    double limit;
    double rate[OT_TIERS];
    bool p0_only;
    uint64_t buffers;
    uint64_t number; /* of all steps so far */
};

/* Steps of one kind: each gives back what the one before it had left. */
struct steps {
    struct step taken[MOST_STEPS];
    unsigned count;
};

static struct {
    double rate[OT_TIERS]; /* the share of a tier's traces that the steps leave; P0's is 1 */
    bool p0_only;
    struct steps rates;   /* CPU, latency, P0 only */
    struct steps buffers; /* memory */
    uint64_t numbers;
    unsigned mode;   /* as of the last tick */
    bool begun;      /* judged and what follows are valid */
    double judged;   /* when usage was last looked at, or the mode changed */
    double violated; /* when a violation was last counted */
    double changed;  /* when a step was last taken back */
    double exceeded[OT_BUDGETS];
    bool helpless[OT_BUDGETS]; /* told so already */
    uint64_t in_a_row;
    uint64_t violations[OT_BUDGETS];
} enforcer = {.rate = {1, 1, 1, 1}};

static uint32_t stay_small; /* set under the GIL, taken by the next tick; atomic */

void
ot_enforcer_open(void)
{
    memset(&enforcer, 0, sizeof enforcer);
    for (unsigned t = 0; t < OT_TIERS; t++)
        enforcer.rate[t] = 1;
    OT_STORE(&stay_small, 0);
}

void
ot_enforcer_stay_small(void)
{
    OT_STORE(&stay_small, 1);
}

uint64_t
ot_enforcer_steps(void)
{
    uint64_t waits = OT_LOAD(&ot_rec.control->exports_wait);
    return enforcer.rates.count + enforcer.buffers.count + !!(waits & OT_WAIT_NETWORK) + !!(waits & OT_WAIT_DISK);
}

uint64_t
ot_enforcer_in_a_row(void)
{
    return enforcer.in_a_row;
}

uint64_t
ot_enforcer_violations(unsigned budget)
{
    return enforcer.violations[budget];
}

/* The share of a tier's traces that a mode leaves. */
static double
mode_rate(unsigned mode, unsigned tier)
{
    if (tier == 0 || mode < OT_MODE_STRESSED)
        return 1;
    if (mode == OT_MODE_EMERGENCY || tier == 3)
        return 0;
    return tier == 2 ? 0.5 : 1;
}

static void
say(unsigned kind, const struct step *s, unsigned reason, unsigned tier, double before, double after)
{
    struct ot_decided d = {.kind = (uint8_t)kind,
                           .reason = (uint8_t)reason,
                           .tier = (uint8_t)tier,
                           .mode = (uint8_t)enforcer.mode,
                           .figure = s->figure,
                           .limit = s->limit,
                           .before = before,
                           .after = after};
    ot_decide(&d);
}

static void
push(struct steps *list, const struct step *s)
{
    if (list->count == MOST_STEPS) /* can not be; the newest two become one */
        return;
    list->taken[list->count] = *s;
    list->taken[list->count++].number = enforcer.numbers++;
}

static struct step
now_is(unsigned budget, double figure, double limit)
{
    struct step s = {.budget = budget,
                     .buffers = OT_LOAD(&ot_rec.control->buffers),
                     .figure = figure,
                     .limit = limit,
                     .p0_only = enforcer.p0_only};
    memcpy(s.rate, enforcer.rate, sizeof s.rate);
    return s;
}

static double
share_of(uint64_t buffers)
{
    return 1.0 / (double)(1ULL << (buffers < 63 ? buffers : 63));
}

static double
share_of_word(uint64_t word)
{
    return word & OT_TIER_ON ? 1 - (double)(word >> 8) / (double)(1ULL << OT_SAMPLE_BITS) : 0;
}

void
ot_enforcer_resume(void)
{
    const struct ot_control *c = ot_rec.control;
    const struct ot_readings *r = ot_rec.readings;
    uint64_t mode = OT_LOAD(&c->mode), buffers = OT_LOAD(&c->buffers);
    ot_enforcer_open();
    for (unsigned b = 0; b < OT_BUDGETS; b++)
        enforcer.violations[b] = OT_LOAD(&r->violations[b]);
    enforcer.in_a_row = OT_LOAD(&r->in_a_row);
    struct step before = now_is(OT_BUDGET_CPU, NAN, NAN);
    bool shed = false;
    for (unsigned t = 1; t < OT_TIERS; t++) {
        double left = mode_rate(mode < OT_MODES ? (unsigned)mode : OT_MODE_NORMAL, t);
        double rate =
            left > 0 ? share_of_word(OT_LOAD(&c->shed[t])) / left : 1; /* what the mode takes all of is not known */
        if (rate < 1 - 1e-9) {
            enforcer.rate[t] = rate;
            shed = true;
        }
    }
    if (shed)
        push(&enforcer.rates, &before);
    buffers = buffers < MOST_STEPS ? buffers : MOST_STEPS;
    for (uint64_t b = 0; b < buffers; b += OT_BUFFERS_STEP) {
        struct step s = {.budget = OT_BUDGET_MEMORY, .buffers = b, .figure = NAN, .limit = NAN};
        push(&enforcer.buffers, &s);
    }
}

/* ---- steps; false: nothing is left that could be given up ---- */

static bool
halve_lowest(const struct step *s)
{
    for (unsigned t = OT_TIERS - 1; t > 0 && !enforcer.p0_only; t--) {
        double rate = enforcer.rate[t];
        if (rate == 0 || mode_rate(enforcer.mode, t) == 0 || !(OT_LOAD(&ot_rec.control->asked[t]) & OT_TIER_ON))
            continue;
        enforcer.rate[t] = rate / 2 < LEAST_RATE ? 0 : rate / 2;
        push(&enforcer.rates, s);
        say(OT_DECISION_RATE, s, OT_REASON_BUDGET_CPU, t, rate, enforcer.rate[t]);
        return true;
    }
    return false;
}

static bool
shrink(const struct step *s)
{
    uint64_t more = s->buffers + OT_BUFFERS_STEP;
    if (!ot_buffers_possible(more))
        return false;
    push(&enforcer.buffers, s);
    OT_STORE(&ot_rec.control->buffers, more);
    say(OT_DECISION_BUFFERS, s, OT_REASON_BUDGET_MEMORY, 0, share_of(s->buffers), share_of(more));
    return true;
}

static bool
stop_sampling(const struct ot_allowed *r, const struct ot_sight *sight, const struct step *s)
{
    bool changed = false;
    for (unsigned t = OT_TIERS - 1; t > 0 && !enforcer.p0_only; t--) {
        double rate = enforcer.rate[t];
        if (rate <= LEAST_RATE)
            continue;
        enforcer.rate[t] = LEAST_RATE;
        say(OT_DECISION_RATE, s, OT_REASON_BUDGET_LATENCY, t, rate, LEAST_RATE);
        changed = true;
    }
    if (changed)
        push(&enforcer.rates, s);
    if (changed || ot_engine_may_reach_emergency()) {
        enforcer.mode = ot_engine_latency(r, sight);
        return true;
    }
    return false;
}

static bool
have_exports_wait(const struct step *s)
{
    uint64_t bit = s->budget == OT_BUDGET_NETWORK ? OT_WAIT_NETWORK : OT_WAIT_DISK;
    uint64_t waits = OT_LOAD(&ot_rec.control->exports_wait);
    if (waits & bit)
        return false;
    OT_STORE(&ot_rec.control->exports_wait, waits | bit);
    say(OT_DECISION_EXPORTS, s, OT_REASON_BUDGET_CPU + s->budget, 0, 0, 1);
    return true;
}

static void
leave_p0_only(const struct step *s, double allowed)
{
    push(&enforcer.rates, s);
    enforcer.p0_only = true;
    struct step alert = *s;
    alert.figure = (double)enforcer.in_a_row;
    alert.limit = allowed;
    say(OT_DECISION_ALERT, &alert, OT_REASON_VIOLATIONS, 0, 0, (double)enforcer.in_a_row);
}

static bool
take_step(const struct ot_allowed *r, const struct ot_sight *sight, const struct step *s)
{
    switch (s->budget) {
    case OT_BUDGET_CPU:
        return halve_lowest(s);
    case OT_BUDGET_MEMORY:
        return shrink(s);
    case OT_BUDGET_LATENCY:
        return stop_sampling(r, sight, s);
    default:
        return have_exports_wait(s);
    }
}

/* Could the step for it still help? */
static bool
may_help(unsigned budget)
{
    uint64_t waits = OT_LOAD(&ot_rec.control->exports_wait);
    bool some = false, more = false;
    for (unsigned t = 1; t < OT_TIERS && !enforcer.p0_only; t++) {
        bool runs = mode_rate(enforcer.mode, t) > 0 && (OT_LOAD(&ot_rec.control->asked[t]) & OT_TIER_ON);
        some = some || (runs && enforcer.rate[t] > 0);
        more = more || enforcer.rate[t] > LEAST_RATE;
    }
    switch (budget) {
    case OT_BUDGET_CPU:
        return some;
    case OT_BUDGET_MEMORY:
        return ot_buffers_possible(OT_LOAD(&ot_rec.control->buffers) + OT_BUFFERS_STEP);
    case OT_BUDGET_LATENCY:
        return more || ot_engine_may_reach_emergency();
    case OT_BUDGET_NETWORK:
        return !(waits & OT_WAIT_NETWORK);
    default:
        return !(waits & OT_WAIT_DISK);
    }
}

/* ---- a window is over ---- */

static void
within(unsigned budget, const struct step *s)
{
    uint64_t bit = budget == OT_BUDGET_NETWORK ? OT_WAIT_NETWORK : budget == OT_BUDGET_DISK ? OT_WAIT_DISK : 0;
    uint64_t waits = OT_LOAD(&ot_rec.control->exports_wait);
    enforcer.helpless[budget] = false;
    if (waits & bit) {
        OT_STORE(&ot_rec.control->exports_wait, waits & ~bit);
        say(OT_DECISION_EXPORTS, s, OT_REASON_RECOVERED, 0, 1, 0);
    }
}

static void
judge(const struct ot_allowed *r, const struct ot_sight *sight)
{
    const unsigned mode = enforcer.mode; /* whose limits hold for this window, whatever a step leads to */
    struct step over[OT_BUDGETS];
    unsigned count = 0;
    bool counted = false;
    for (unsigned b = 0; b < OT_BUDGETS; b++) {
        double limit = r->budget[b][mode];
        struct step s = now_is(b, sight->usage[b], limit);
        if (isnan(s.figure))
            continue;
        if (!(s.figure > limit)) {
            within(b, &s);
            continue;
        }
        enforcer.exceeded[b] = sight->now;
        enforcer.violations[b]++;
        if (may_help(b)) {
            counted = true;
            over[count++] = s;
        }
        else if (!enforcer.helpless[b]) {
            enforcer.helpless[b] = true;
            say(OT_DECISION_VIOLATION, &s, OT_REASON_BUDGET_CPU + b, 0, 0, 0);
        }
    }
    if (!counted) {
        enforcer.in_a_row = 0;
        return;
    }
    enforcer.in_a_row++;
    enforcer.violated = sight->now;
    if ((double)enforcer.in_a_row > r->violations && !enforcer.p0_only) {
        leave_p0_only(&over[0], r->violations);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        struct step s = now_is(over[i].budget, over[i].figure, over[i].limit); /* as the steps before have left it */
        (void)take_step(r, sight, &s);
    }
}

/* ---- recovery ---- */

/* Has its own limit been kept long enough, and will it be? */
static bool
may_return(const struct step *s, bool of_buffers, const struct ot_allowed *r, const struct ot_sight *sight)
{
    if (sight->now - enforcer.exceeded[s->budget] < r->recover)
        return false;
    if (!of_buffers)
        return true;
    double more = (double)ot_buffers_bytes(s->buffers) - (double)ot_buffers_bytes(OT_LOAD(&ot_rec.control->buffers));
    double used = sight->usage[OT_BUDGET_MEMORY];
    return (isnan(used) ? 0 : used) + more <= r->budget[OT_BUDGET_MEMORY][enforcer.mode];
}

static void
give_back_buffers(const struct step *s)
{
    uint64_t buffers = OT_LOAD(&ot_rec.control->buffers);
    OT_STORE(&ot_rec.control->buffers, s->buffers);
    say(OT_DECISION_BUFFERS, s, OT_REASON_RECOVERED, 0, share_of(buffers), share_of(s->buffers));
}

static void
give_back_rates(const struct step *s)
{
    for (unsigned t = OT_TIERS - 1; t > 0; t--) {
        double before = enforcer.p0_only ? 0 : enforcer.rate[t], after = s->p0_only ? 0 : s->rate[t];
        enforcer.rate[t] = s->rate[t];
        if (before != after)
            say(OT_DECISION_RATE, s, OT_REASON_RECOVERED, t, before, after);
    }
    enforcer.p0_only = s->p0_only;
}

/* Take the newest step back that may be. */
static void
recover(const struct ot_allowed *r, const struct ot_sight *sight)
{
    if (sight->now - enforcer.violated < r->recover || sight->now - enforcer.changed < r->recover)
        return;
    struct step *newest = NULL;
    struct steps *list[] = {&enforcer.rates, &enforcer.buffers}, *from = NULL;
    for (int i = 0; i < 2; i++) {
        struct step *s = list[i]->count > 0 ? &list[i]->taken[list[i]->count - 1] : NULL;
        if (s != NULL && (newest == NULL || s->number > newest->number) &&
            may_return(s, list[i] == &enforcer.buffers, r, sight)) {
            newest = s;
            from = list[i];
        }
    }
    if (newest == NULL)
        return;
    from->count--;
    newest->figure = sight->usage[newest->budget];
    newest->limit = r->budget[newest->budget][enforcer.mode];
    if (from == &enforcer.buffers)
        give_back_buffers(newest);
    else
        give_back_rates(newest);
    enforcer.changed = sight->now;
}

static void
begin(const struct ot_allowed *r, double now)
{
    enforcer.begun = true;
    enforcer.judged = now - r->window;
    enforcer.violated = enforcer.changed = now;
    for (unsigned b = 0; b < OT_BUDGETS; b++)
        enforcer.exceeded[b] = now - r->recover;
}

unsigned
ot_enforcer_tick(const struct ot_allowed *r, const struct ot_sight *sight, unsigned mode)
{
    if (!enforcer.begun || sight->now < enforcer.judged) {
        begin(r, sight->now);
        enforcer.mode = mode;
    }
    if (mode != enforcer.mode) { /* what was used so far was another mode's */
        enforcer.mode = mode;
        enforcer.judged = sight->now;
    }
    if (__atomic_exchange_n(&stay_small, 0, __ATOMIC_RELAXED)) {
        struct step s = now_is(OT_BUDGET_MEMORY, sight->usage[OT_BUDGET_MEMORY], r->budget[OT_BUDGET_MEMORY][mode]);
        s.buffers = s.buffers >= OT_BUFFERS_STEP ? s.buffers - OT_BUFFERS_STEP : 0;
        push(&enforcer.buffers, &s);
    }
    if (sight->now - enforcer.judged >= r->window) {
        enforcer.judged = sight->now;
        judge(r, sight);
    }
    recover(r, sight);
    return enforcer.mode;
}

/* ---- what is in force ---- */

static uint64_t
word_of(double rate)
{
    if (rate >= 1)
        return OT_TIER_ON;
    return rate > 0 ? (uint64_t)((1 - rate) * (double)(1ULL << OT_SAMPLE_BITS)) << 8 | OT_TIER_ON : 0;
}

void
ot_enforcer_words(unsigned mode)
{
    struct ot_control *c = ot_rec.control;
    uint64_t rollout = OT_LOAD(&c->rollout);
    rollout = rollout < OT_RANDOM_MASK ? rollout : OT_RANDOM_MASK;
    bool changed = false;
    for (unsigned t = 0; t < OT_TIERS; t++) {
        uint64_t shed = t == 0 ? OT_TIER_ON : enforcer.p0_only ? 0 : word_of(enforcer.rate[t] * mode_rate(mode, t));
        uint64_t asked = OT_LOAD(&c->asked[t]), threshold = asked >> 8;
        threshold = shed >> 8 > threshold ? shed >> 8 : threshold;
        threshold = rollout > threshold ? rollout : threshold;
        uint64_t word = t == 0 ? OT_TIER_ON : threshold << 8 | (asked & shed & OT_TIER_ON);
        if (OT_LOAD(&c->shed[t]) != shed || OT_LOAD(&c->tier_word[t]) != word) {
            OT_STORE(&c->shed[t], shed);
            OT_STORE(&c->tier_word[t], word);
            changed = true;
        }
    }
    if (changed)
        (void)__atomic_fetch_add(&c->generation, 1, __ATOMIC_RELAXED);
}

void
ot_enforcer_instruments(double cpu_load)
{
    if (isnan(cpu_load))
        return;
    uint32_t count = OT_LOAD_ACQUIRE(&ot_rec.header->instrument_count);
    for (uint32_t i = 0; i < count && i < OT_MAX_INSTRUMENTS; i++) {
        struct ot_instrument *m = &ot_rec.instruments[i];
        if (m->off_cpu == 0 || m->tier == 0)
            continue;
        double percent = cpu_load * 100;
        uint8_t off = OT_LOAD(&m->off);
        if (!off && percent >= m->off_cpu)
            OT_STORE(&m->off, 1);
        else if (off && percent < (double)m->off_cpu - OT_OFF_HYSTERESIS)
            OT_STORE(&m->off, 0);
    }
}

void
ot_enforcer_rest(void)
{
    ot_enforcer_open();
    OT_STORE(&ot_rec.control->buffers, 0);
    OT_STORE(&ot_rec.control->exports_wait, 0);
    uint32_t count = OT_LOAD_ACQUIRE(&ot_rec.header->instrument_count);
    for (uint32_t i = 0; i < count && i < OT_MAX_INSTRUMENTS; i++)
        OT_STORE(&ot_rec.instruments[i].off, 0);
}
