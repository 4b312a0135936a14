/* The ring's protocol, both sides of it: a sequence lock a slot, and counts that tell whether they belong together. */
#ifndef OTEL_TRADING_RING_H
#define OTEL_TRADING_RING_H

#include <stdbool.h>

#include "atomic.h"
#include "recorder.h"
#include "segment.h"

#define OT_LOOKS 64
#define OT_TURN 1024 /* records between two turns of a writer */

/* probe, state, status, flags, count, extra, tier: the last word of a slot's first line. */
#define OT_META(slot) ((ot_word *)(void *)&(slot)->probe)
#define OT_META_WORD(probe, state, status, flags, count, extra, tier)                                   \
    ((uint64_t)(probe) | (uint64_t)(state) << 16 | (uint64_t)(status) << 24 | (uint64_t)(flags) << 32 | \
     (uint64_t)(count) << 40 | (uint64_t)(extra) << 48 | (uint64_t)(tier) << 56)

/* Copy a finished entry into the ring. */
static inline void
ot_commit(struct ot_writer *w, const struct ot_slot *e, uint64_t end)
{
    uint64_t n = w->head;
    struct ot_slot *s = &w->slots[n & w->mask];
    uint64_t meta = *OT_META(e);
    meta = (meta & ~(0xffULL << 16)) | (uint64_t)OT_SLOT_SPAN << 16;
    OT_STORE(&s->seq, 2 * n + 1);
    OT_FENCE_RELEASE();
    OT_STORE(&s->trace_hi, e->trace_hi);
    OT_STORE(&s->trace_lo, e->trace_lo);
    OT_STORE(&s->span_id, e->span_id);
    OT_STORE(&s->parent_id, e->parent_id);
    OT_STORE(&s->start, e->start);
    OT_STORE(&s->end, end);
    OT_STORE(OT_META(s), meta);
    if (OT_UNLIKELY(e->extra)) {
        const ot_word *from = (const ot_word *)(const void *)e->key;
        ot_word *to = (ot_word *)(void *)s->key;
        for (int i = 0; i < 8; i++)
            OT_STORE(&to[i], from[i]);
    }
    OT_STORE_RELEASE(&s->seq, 2 * n + 2);
    OT_STORE(&w->ring->recorded[e->tier], ++w->recorded[e->tier]);
    w->head = n + 1;
    OT_STORE_RELEASE(&w->ring->head, n + 1);
    if (OT_UNLIKELY(n % OT_TURN == OT_TURN - 1) && w->turn != NULL)
        w->turn();
    __builtin_prefetch(&w->slots[(n + 2) & w->mask], 1);
}

/* Copy record n out of a slot; false where it has been overwritten, also in the meantime. */
static inline bool
ot_slot_copy(const struct ot_slot *from, uint64_t n, struct ot_slot *to)
{
    if (OT_LOAD_ACQUIRE(&from->seq) != 2 * n + 2)
        return false;
    const ot_word *source = (const ot_word *)(const void *)from;
    ot_word *target = (ot_word *)(void *)to;
    for (int i = 1; i < 8; i++)
        target[i] = OT_LOAD(&source[i]);
    if (to->extra) {
        for (int i = 8; i < 16; i++)
            target[i] = OT_LOAD(&source[i]);
    }
    OT_FENCE_ACQUIRE();
    return OT_LOAD(&from->seq) == 2 * n + 2;
}

/* The writer's counts at one moment: they are one when their sum is the head, and the head stood still. */
static inline bool
ot_ring_look(const struct ot_ring *r, uint64_t *head, uint64_t recorded[OT_TIERS], uint64_t *values)
{
    for (int i = 0; i < OT_LOOKS; i++) {
        uint64_t before = OT_LOAD_ACQUIRE(&r->head), sum = *values = OT_LOAD_ACQUIRE(&r->values);
        for (int t = 0; t < OT_TIERS; t++)
            sum += recorded[t] = OT_LOAD_ACQUIRE(&r->recorded[t]);
        *head = OT_LOAD_ACQUIRE(&r->head);
        if (before == *head && sum == *head)
            return true;
    }
    return false;
}

#endif
