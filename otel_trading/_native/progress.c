/* The order of the stores, which is what makes a kill harmless:
 *
 *   1. A mark is one byte.  Before it is stored the record is undecided, after it settled; there is no between.
 *   2. `done` and the counts before it are two sides of struct ot_progress.  The side that is not in force is filled, then `side`
 *      is stored with release: before that the old side holds, and with it the marks from the old `done` on, which are all still
 *      there; after that the new one.
 *   3. A mark is stored only for records below the published `done` + capacity.  So the byte of record n is taken by record
 *      n + capacity only after n is counted in a side that is in force.
 *   4. Before the last byte of a request is sent its spans are marked as offered, and control.handed is 0; it is 1 in the next
 *      store after the kernel has taken that byte; then they are marked as sent.  A drain that takes over counts those that are
 *      sent, or offered and handed, as exported, and decides on all others again.
 *   5. A ring that has another size: its marks are cleared, then a side is published that begins at `resized` or later.  A side
 *      that begins before says that the marks are of another size, and of no use.
 *
 * Stores of one thread are seen in this order by whoever looks after it has died: those before the side's are kept before it by
 * its release, the marks that follow behind it by a fence.
 */
#include "progress.h"

#include <stdlib.h>
#include <string.h>

#include "ring.h"

struct ot_settling ot_settlings[OT_MAX_RINGS];

/* ---- counts ---- */

void
ot_progress_count(struct ot_fates *counts, unsigned mark, unsigned tier, uint64_t by)
{
    if (tier >= OT_TIERS)
        return;
    if (mark == OT_MARK_DROPPED)
        counts->sampled_out[tier] += by;
    else if (mark == OT_MARK_REFUSED)
        counts->refused[tier] += by;
    else if (mark != OT_MARK_NONE)
        counts->exported[tier] += by;
}

void
ot_progress_advance(struct ot_settling *p)
{
    for (uint64_t n = p->done, end = n + p->mask + 1; n < end; n++) {
        unsigned mark = ot_progress_told(p, n);
        if (mark == OT_MARK_NONE)
            return;
        ot_progress_count(&p->counts, mark, p->told[n & p->mask] >> 8, 1);
        p->done = n + 1;
    }
}

static void
publish(uint32_t ring)
{
    struct ot_settling *p = &ot_settlings[ring];
    struct ot_progress *to = &ot_rec.progress[ring];
    uint64_t side = !p->side;
    OT_STORE(&to->done[side], p->done);
    for (unsigned t = 0; t < OT_TIERS; t++) {
        OT_STORE(&to->exported[side * OT_TIERS + t], p->counts.exported[t]);
        OT_STORE(&to->sampled_out[side * OT_TIERS + t], p->counts.sampled_out[t]);
        OT_STORE(&to->refused[side * OT_TIERS + t], p->counts.refused[t]);
    }
    OT_STORE_RELEASE(&to->side, side);
    OT_FENCE_RELEASE(); /* before marks that take the place of those that are counted now */
    p->side = side;
    p->changed = false;
}

void
ot_progress_begin(uint32_t ring, uint64_t head)
{
    struct ot_settling *p = &ot_settlings[ring];
    if (p->marks == NULL || head <= p->mask + 1)
        return;
    uint64_t least = head - p->mask - 1;
    p->from = p->from > least ? p->from : least;
    if (least <= p->done)
        return;
    for (uint64_t n = p->done, end = n + p->mask + 1; n < end && n < least; n++)
        ot_progress_count(&p->counts, ot_progress_told(p, n), p->told[n & p->mask] >> 8, 1);
    p->done = least; /* what is not marked before it is gone, or in the queue */
    publish(ring);
}

void
ot_progress_end(uint32_t ring)
{
    struct ot_settling *p = &ot_settlings[ring];
    if (p->marks == NULL || !p->changed)
        return;
    ot_progress_advance(p);
    publish(ring);
}

/* Go back to a record that is not settled after all: what is counted from there on is told by its marks again, as long as no
 * newer record has taken one of their places. */
static void
go_back(struct ot_settling *p, uint64_t n)
{
    for (uint64_t k = n; k < p->done; k++)
        ot_progress_count(&p->counts, ot_progress_told(p, k), p->told[k & p->mask] >> 8, (uint64_t)-1);
    p->done = n;
}

void
ot_progress_settle(uint32_t ring, uint64_t n, unsigned tier, unsigned before, unsigned mark)
{
    struct ot_settling *p = &ot_settlings[ring];
    if (p->marks == NULL)
        return;
    p->changed = true;
    if (mark == OT_MARK_NONE && n < p->done && n >= p->from)
        go_back(p, n);
    if (n >= p->done) {
        p->told[n & p->mask] = ot_progress_told_as(p, n, mark, tier);
        ot_progress_put(p, n, mark);
        return;
    }
    ot_progress_count(&p->counts, before, tier, (uint64_t)-1);
    ot_progress_count(&p->counts, mark, tier, 1);
}

void
ot_progress_offer(uint32_t ring, uint64_t n, bool offered)
{
    struct ot_settling *p = &ot_settlings[ring];
    if (p->marks != NULL && n >= p->done)
        ot_progress_put(p, n, offered ? OT_MARK_OFFERED : OT_MARK_NONE);
}

/* ---- taking over ---- */

/* Was it offered, and neither sent nor taken back? */
static bool
is_offered(const struct ot_settling *p, uint64_t n)
{
    return OT_LOAD(&p->marks[n & p->mask]) == (OT_MARK_OFFERED | ((n >> p->shift) & 31) << OT_MARK_BITS);
}

/* What the drain before has told of a record. */
static unsigned
left_mark(const struct ot_settling *p, uint64_t n)
{
    if (!is_offered(p, n))
        return ot_progress_mark(p, n);
    return OT_LOAD_ACQUIRE(&ot_rec.control->handed) ? OT_MARK_SENT : OT_MARK_NONE;
}

bool
ot_progress_look(const struct ot_writer *w, uint64_t *head, uint64_t recorded[OT_TIERS], uint64_t *values)
{
    if (OT_LIKELY(ot_ring_look(w->ring, head, recorded, values)))
        return true;
    uint64_t sum = *values;
    for (int t = 0; t < OT_TIERS; t++)
        sum += recorded[t];
    /* its writer is between the count and the head, perhaps for ever: the record is whole */
    if (sum == *head + 1 && OT_LOAD_ACQUIRE(&w->slots[*head & w->mask].seq) == 2 * *head + 2) {
        ++*head;
        return true;
    }
    return false;
}

static uint64_t
oldest_there(const struct ot_writer *w, uint64_t head)
{
    uint64_t oldest = head > w->mask + 1 ? head - w->mask - 1 : 0, resized = OT_LOAD(&w->ring->resized);
    oldest = oldest > resized ? oldest : resized;
    return oldest < head ? oldest : head;
}

/* The side in force. */
static uint64_t
read_side(uint32_t ring, uint64_t *side, struct ot_fates *counts)
{
    const struct ot_progress *from = &ot_rec.progress[ring];
    *side = OT_LOAD_ACQUIRE(&from->side) & 1;
    for (unsigned t = 0; t < OT_TIERS; t++) {
        counts->exported[t] = OT_LOAD(&from->exported[*side * OT_TIERS + t]);
        counts->sampled_out[t] = OT_LOAD(&from->sampled_out[*side * OT_TIERS + t]);
        counts->refused[t] = OT_LOAD(&from->refused[*side * OT_TIERS + t]);
    }
    return OT_LOAD(&from->done[*side]);
}

static unsigned
tier_of(const struct ot_slot *s)
{
    return s->state == OT_SLOT_VALUE ? OT_NO_TIER : s->tier % OT_TIERS;
}

/* With p's marks, mask and shift.  `p->told` is filled, where it is there. */
static void
read_ring(uint32_t ring, uint64_t head, const struct ot_settling *p, struct ot_found *found, uint64_t *side,
          struct ot_fates *counts)
{
    const struct ot_writer *w = &ot_writers[ring];
    uint64_t done = read_side(ring, side, counts), oldest = oldest_there(w, head);
    done = done < head ? done : head;
    memset(found, 0, sizeof *found);
    found->fates = *counts;
    found->begin = done > oldest ? done : oldest;
    found->stale = done < OT_LOAD(&w->ring->resized);
    found->until = found->stale ? found->begin : done + p->mask + 1;
    found->until = found->until < head ? found->until : head;
    found->until = found->until > found->begin ? found->until : found->begin;
    for (uint64_t n = found->begin; n < head; n++) {
        struct ot_slot s;
        unsigned mark = n < found->until && p->marks != NULL ? left_mark(p, n) : OT_MARK_NONE;
        bool there = ot_slot_copy(&w->slots[n & w->mask], n, &s);
        unsigned tier = there ? tier_of(&s) : OT_NO_TIER;
        if (p->told != NULL)
            p->told[n & p->mask] = ot_progress_told_as(p, n, mark, tier);
        if (mark != OT_MARK_NONE)
            ot_progress_count(&found->fates, mark, tier, 1);
        else if (tier < OT_TIERS)
            found->unsettled[tier]++;
    }
}

static void
set_up(uint32_t ring, struct ot_settling *p)
{
    const struct ot_writer *w = &ot_writers[ring];
    p->marks = w->marks;
    p->mask = w->mask;
    p->shift = (unsigned)__builtin_ctzll(w->mask + 1);
}

void
ot_progress_read(uint32_t ring, uint64_t head, struct ot_found *found)
{
    struct ot_settling p = {0};
    uint64_t side;
    struct ot_fates counts;
    set_up(ring, &p);
    read_ring(ring, head, &p, found, &side, &counts);
}

/* Clear marks that are told of other records: of 32 laps ago, or of a ring of another size.  What was offered is told for good:
 * control.handed is the next request's. */
static void
clear(struct ot_settling *p, const struct ot_found *found)
{
    for (uint64_t n = found->begin; n < found->until; n++) {
        if (is_offered(p, n))
            ot_progress_put(p, n, left_mark(p, n));
    }
    for (uint64_t n = found->until; n < found->begin + p->mask + 1; n++) {
        if (found->stale || ot_progress_mark(p, n) != OT_MARK_NONE)
            OT_STORE(&p->marks[n & p->mask], 0);
    }
    OT_FENCE_RELEASE(); /* before the side that makes them count */
}

void
ot_progress_take(uint32_t ring, uint64_t head, struct ot_found *found)
{
    struct ot_settling *p = &ot_settlings[ring];
    free(p->told);
    memset(p, 0, sizeof *p);
    set_up(ring, p);
    p->told = calloc(p->mask + 1, sizeof *p->told); /* its pages are there only once they are written */
    read_ring(ring, head, p, found, &p->side, &p->counts);
    p->done = p->from = found->begin;
    if (p->told == NULL) /* for want of memory: nothing is told */
        p->marks = NULL;
    if (p->marks == NULL)
        return;
    clear(p, found);
    publish(ring);
}

void
ot_progress_resized(uint32_t ring, uint64_t from)
{
    struct ot_settling *p = &ot_settlings[ring];
    if (p->marks == NULL)
        return;
    for (uint64_t n = p->done, end = n + p->mask + 1; n < end && n < from; n++)
        ot_progress_count(&p->counts, ot_progress_told(p, n), p->told[n & p->mask] >> 8, 1);
    p->done = p->from = from > p->done ? from : p->done;
    uint64_t before = p->mask + 1;
    set_up(ring, p);
    memset(p->marks, 0, before > p->mask + 1 ? before : p->mask + 1);
    OT_FENCE_RELEASE();
    free(p->told);
    p->told = calloc(p->mask + 1, sizeof *p->told);
    publish(ring);
    if (p->told == NULL)
        p->marks = NULL;
}

void
ot_progress_forget(void)
{
    for (unsigned i = 0; i < OT_MAX_RINGS; i++)
        free(ot_settlings[i].told);
    memset(ot_settlings, 0, sizeof ot_settlings);
}
