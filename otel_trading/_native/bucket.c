#include "bucket.h"

#include <math.h>

#include "blocks.h"
#include "doubles.h"
#include "keep.h"
#include "room.h"
#include "verdicts.h"

#define SPAN_BYTES 60
#define ATTRIBUTE_BYTES 24
#define ERROR_BYTES 60
#define HEADERS 32           /* of a record's blocks that are looked at before their number says the rest */
#define USABLE 0.85          /* of the network's budget: exporters pace themselves below it */
#define PLAN_NS 100000000ULL /* between two plans */
#define SMOOTH_S 1.0         /* of the rates that a plan goes by */
#define SETTLE_S 10.0        /* in which a plan brings the bucket back to its half */
#define STEADY_LOW 0.95      /* a threshold stays while the share is between these parts of the one it stands for */
#define STEADY_HIGH 1.1
#define OPEN_AGAIN 1.05 /* a tier is whole again where so many times its rate would fit */
#define MOST_TOKENS (1LL << 50)
#define UNIT (OT_SAMPLE_BITS - OT_THRESHOLD_BITS)

/* The drain's own, with its lock. */
static struct {
    double network;  /* bytes a second, of the mode */
    double capacity; /* of the bucket, in a mode that has a budget */
    double counted[OT_TIERS + 1];
    double spent;
} now_here;

static uint64_t factor_bits; /* a double; relaxed: whoever learns stores, the drain loads */
static uint64_t taken_bits;  /* a double: estimate after to before the factor, of the last batch; relaxed likewise */

/* ---- the estimate ---- */

uint32_t
ot_record_bytes(const struct ot_slot *s, uint64_t block_bytes)
{
    if (!s->extra)
        return SPAN_BYTES;
    unsigned count = s->count < OT_INLINE_ATTRIBUTES ? s->count : OT_INLINE_ATTRIBUTES;
    uint64_t bytes = SPAN_BYTES + ATTRIBUTE_BYTES * count + (s->error != 0 ? ERROR_BYTES : 0) + block_bytes;
    return bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX;
}

/* Bytes of a chain of blocks by their headers, which may be written meanwhile and are believed in nothing. */
static uint64_t
chain_bytes(const struct ot_writer *w, uint64_t newest)
{
    uint64_t size = w->arena_mask + 1, bytes = 0, at = newest;
    for (unsigned n = 1; at != 0; n++) {
        uint64_t position = at - 1, offset = position & w->arena_mask;
        struct ot_block b;
        if (offset + sizeof b > size)
            break;
        memcpy(&b, w->arena + offset, sizeof b);
        if (b.position != position || b.bytes > OT_BLOCK_BYTES)
            break;
        bytes += ot_block_whole(b.bytes);
        if (n == HEADERS) {
            uint64_t left = b.depth < OT_MAX_BLOCKS ? b.depth : OT_MAX_BLOCKS;
            bytes += left > 1 ? (left - 1) * (bytes / HEADERS) : 0;
            break;
        }
        at = b.previous < at ? b.previous : 0;
    }
    return bytes < OT_RECORD_BYTES ? bytes : OT_RECORD_BYTES;
}

uint32_t
ot_record_bytes_in(const struct ot_writer *w, const struct ot_slot *s)
{
    return ot_record_bytes(s, s->extra && s->arena != 0 ? chain_bytes(w, s->arena) : 0);
}

double
ot_bucket_factor(void)
{
    uint64_t bits = OT_LOAD(&factor_bits);
    return bits == 0 ? 1.0 : ot_double_of(bits);
}

void
ot_bucket_taken(uint64_t raw, uint64_t charged)
{
    if (raw > 0)
        OT_STORE(&taken_bits, ot_bits_of((double)charged / (double)raw));
}

static void
add_tokens(struct ot_shared *s, double bytes)
{
    if (bytes != 0 && isfinite(bytes))
        __atomic_fetch_add(&s->tokens, (uint64_t)(int64_t)fmax(-1e15, fmin(1e15, bytes)), __ATOMIC_RELAXED);
}

void
ot_keep_learn(uint64_t sent, uint64_t estimated)
{
    if (estimated == 0) { /* never charged for */
        pthread_rwlock_rdlock(&ot_sharing);
        if (ot_shared_page() != NULL)
            add_tokens(ot_shared_page(), -(double)sent);
        pthread_rwlock_unlock(&ot_sharing);
        return;
    }
    uint64_t taken = OT_LOAD(&taken_bits);
    double factor = ot_bucket_factor(), charged = taken == 0 ? 1.0 : ot_double_of(taken);
    factor += 0.2 * ((double)sent / (double)estimated * charged - factor);
    OT_STORE(&factor_bits, ot_bits_of(fmax(0.05, fmin(4.0, factor))));
}

/* ---- the bucket ---- */

/* A number of the policy page, which anybody may have written. */
static double
number(const uint64_t *field, double most, double otherwise)
{
    double d = ot_double_of(OT_LOAD(field));
    return d >= 0 ? fmin(d, most) : otherwise;
}

/* Bytes a second that a mode leaves for spans. */
static double
network_of(uint64_t mode)
{
    return USABLE *
           number(&ot_rec.policy->budget[OT_BUDGET_NETWORK * OT_MODES + (mode < OT_MODES ? mode : 0)], INFINITY, 0);
}

/* What the bucket holds: of a mode without a budget, what it holds in NORMAL. */
static double
capacity_of(double network)
{
    if (!(network > 0))
        network = network_of(OT_MODE_NORMAL);
    return fmin(network * number(&ot_rec.policy->burst, 86400, 60), (double)MOST_TOKENS);
}

static void
fill(struct ot_shared *s, uint64_t now_ns, double network)
{
    uint64_t before = OT_LOAD(&s->filled_ns);
    if (before == now_ns ||
        !__atomic_compare_exchange_n(&s->filled_ns, &before, now_ns, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return;
    double capacity = capacity_of(network);
    double more = before == 0 ? capacity : before > now_ns ? 0 : network * (double)(now_ns - before) * 1e-9;
    if (!(network > 0) && before != 0)
        return;
    if (isinf(network))
        more = capacity = (double)MOST_TOKENS;
    int64_t tokens = (int64_t)OT_LOAD(&s->tokens), next;
    do {
        double sum = fmax(fmax((double)tokens, -capacity) + more, -capacity);
        next = (int64_t)fmin(sum, capacity);
    } while (
        !__atomic_compare_exchange_n((int64_t *)&s->tokens, &tokens, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

void
ot_bucket_begin(uint64_t now_ns)
{
    now_here.network = network_of(OT_LOAD(&ot_rec.control->mode));
    now_here.capacity = capacity_of(now_here.network);
    if (ot_shared_page() != NULL)
        fill(ot_shared_page(), now_ns, now_here.network);
}

uint64_t
ot_bucket_threshold(unsigned tier)
{
    const struct ot_shared *s = ot_shared_page();
    uint64_t t = s == NULL ? 0 : OT_LOAD(&s->threshold[tier]);
    return t < OT_THRESHOLD_ALL ? t >> UNIT << UNIT : OT_THRESHOLD_ALL;
}

/* Hand on what was gathered since the last time. */
static void
hand_on(struct ot_shared *s)
{
    if (!isinf(now_here.network))
        add_tokens(s, -now_here.spent);
    now_here.spent = 0;
}

bool
ot_bucket_admits(bool modest)
{
    struct ot_shared *s = ot_shared_page();
    if (s == NULL || isinf(now_here.network))
        return true;
    hand_on(s);
    double tokens = (double)(int64_t)OT_LOAD(&s->tokens);
    return modest ? now_here.network > 0 && tokens > now_here.capacity / 4 : tokens > 0;
}

double
ot_bucket_free(void)
{
    const struct ot_shared *s = ot_shared_page();
    if (s == NULL || isinf(now_here.network))
        return INFINITY;
    return (double)(int64_t)OT_LOAD(&s->tokens) - now_here.spent - now_here.capacity / 4;
}

void
ot_bucket_spend(double bytes)
{
    now_here.spent += bytes;
}

void
ot_bucket_count(unsigned tier, double bytes)
{
    now_here.counted[tier] += bytes;
}

void
ot_bucket_end(void)
{
    struct ot_shared *s = ot_shared_page();
    for (unsigned i = 0; i <= OT_TIERS; i++) {
        if (s != NULL && fabs(now_here.counted[i]) >= 1) {
            uint64_t whole = (uint64_t)(int64_t)now_here.counted[i];
            __atomic_fetch_add(i < OT_TIERS ? &s->candidates[i] : &s->triggered, whole, __ATOMIC_RELAXED);
            now_here.counted[i] -= (double)(int64_t)whole;
        }
    }
    if (s != NULL && now_here.spent >= 1)
        hand_on(s);
}

void
ot_bucket_forget(void)
{
    now_here.spent = 0;
    for (unsigned i = 0; i <= OT_TIERS; i++)
        now_here.counted[i] = 0;
    OT_STORE(&factor_bits, 0);
    OT_STORE(&taken_bits, 0);
}

double
ot_bucket_tokens(void)
{
    const struct ot_shared *s = ot_shared_page();
    if (s == NULL || isinf(network_of(OT_LOAD(&ot_rec.control->mode))))
        return INFINITY;
    return (double)(int64_t)OT_LOAD(&s->tokens);
}

/* ---- the plan ---- */

/* The threshold that leaves a share, or the one before where that is about the same. */
static uint64_t
threshold_for(double share, uint64_t before)
{
    if (before > 0 && before < OT_THRESHOLD_ALL) {
        double stands_for = 1.0 - (double)before / (double)OT_THRESHOLD_ALL;
        if (share >= STEADY_LOW * stands_for && share <= STEADY_HIGH * stands_for)
            return before;
    }
    double steps = ceil((1.0 - share) * (1 << OT_THRESHOLD_BITS));
    return (uint64_t)fmax(1, fmin(steps, 1 << OT_THRESHOLD_BITS)) << UNIT;
}

void
ot_bucket_pour(uint64_t threshold[OT_TIERS], const double rate[OT_TIERS], double free)
{
    bool cut = free == -INFINITY;
    for (unsigned t = 0; t < OT_TIERS; t++) {
        uint64_t old = OT_LOAD(&threshold[t]), next = OT_THRESHOLD_ALL;
        uint64_t before = old < OT_THRESHOLD_ALL ? old : OT_THRESHOLD_ALL;
        if (isinf(free) && !cut) {
            next = 0;
        }
        else if (!cut && free > 0 && rate[t] * (before > 0 ? OPEN_AGAIN : 1.0) <= free) {
            next = 0;
            free -= rate[t];
        }
        else if (!cut) {
            next = threshold_for(free > 0 ? fmin(free / rate[t], 1.0) : 0.0, before);
            cut = true;
        }
        if (next != old)
            OT_STORE(&threshold[t], next);
    }
}

static void
plan(struct ot_shared *s, uint64_t now_ns, double network)
{
    uint64_t before = OT_LOAD(&s->planned_ns);
    if (before <= now_ns && now_ns - before < PLAN_NS && before != 0)
        return;
    if (!__atomic_compare_exchange_n(&s->planned_ns, &before, now_ns, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    double dt = before == 0 || before > now_ns ? 0 : (double)(now_ns - before) * 1e-9, rate[OT_TIERS + 1];
    for (unsigned i = 0; i <= OT_TIERS; i++) {
        uint64_t counter = OT_LOAD(i < OT_TIERS ? &s->candidates[i] : &s->triggered);
        int64_t delta = (int64_t)(counter - OT_LOAD(&s->planned[i]));
        double old = ot_double_of(OT_LOAD(&s->rate[i])); /* whatever somebody else wrote there */
        rate[i] = old >= 0 && old < 1e15 ? old : 0;
        if (dt > 0)
            rate[i] += (1 - exp(-dt / SMOOTH_S)) * ((delta > 0 ? (double)delta : 0) / dt - rate[i]);
        OT_STORE(&s->planned[i], counter);
        OT_STORE(&s->rate[i], ot_bits_of(rate[i]));
    }
    if (dt == 0 && network > 0)
        return;
    double tokens = (double)(int64_t)OT_LOAD(&s->tokens);
    double free = network - rate[OT_TIERS] + (tokens - capacity_of(network) / 2) / SETTLE_S;
    if (!(network > 0))
        free = -INFINITY;
    else if (isinf(network))
        free = INFINITY;
    ot_bucket_pour(s->threshold, rate, free);
}

void
ot_keep_plan(double now_s, double network)
{
    if (!(now_s > 0 && now_s < 1e10) || isnan(network))
        return;
    uint64_t now_ns = (uint64_t)(now_s * 1e9);
    network = USABLE * fmax(network, 0);
    pthread_rwlock_rdlock(&ot_sharing);
    struct ot_shared *s = ot_shared_page();
    if (s != NULL && ot_rec.policy != NULL && OT_LOAD(&ot_rec.policy->active)) {
        fill(s, now_ns, network);
        plan(s, now_ns, network);
        ot_room_plan(now_ns);
    }
    pthread_rwlock_unlock(&ot_sharing);
}
