/* What has become of each span, told in the segment: a mark a record, and behind the oldest record that is not settled the
 * counts themselves (struct ot_progress).  So that another drain can go on where this one was killed, at any instruction.
 * With the drain's lock held. */
#ifndef OTEL_TRADING_PROGRESS_H
#define OTEL_TRADING_PROGRESS_H

#include "recorder.h"

#define OT_NO_TIER OT_TIERS /* of a record that is no span, or that is gone: it counts nowhere */

/* The counts of a ring's spans that are settled: rows of OT_TIERS. */
struct ot_fates {
    uint64_t exported[OT_TIERS];
    uint64_t sampled_out[OT_TIERS];
    uint64_t refused[OT_TIERS];
};

/* The drain's own view of a ring's progress. */
struct ot_settling {
    uint8_t *marks;         /* in the mapped file; NULL: the ring has none, and nothing is told of it */
    uint16_t *told;         /* owned: the marks from `done` on as they were told, and their tiers; by place */
    uint64_t mask;          /* capacity - 1 */
    unsigned shift;         /* capacity = 1 << shift */
    uint64_t done;          /* all before it is in `counts`, or only in this process's hands */
    uint64_t from;          /* `done` can go back to here: no newer record has taken the place of a mark */
    struct ot_fates counts; /* of what is before `done` */
    uint64_t side;          /* in force in the file */
    bool changed;           /* since it was published */
};

/* What a takeover has found in a ring. */
struct ot_found {
    uint64_t begin;               /* records from here on are still there, and not counted */
    uint64_t until;               /* up to here they may be marked */
    bool stale;                   /* all marks are of a ring of another size */
    struct ot_fates fates;        /* of all that is settled, wherever it says so */
    uint64_t unsettled[OT_TIERS]; /* spans that are still there and wait for somebody */
};

extern struct ot_settling ot_settlings[OT_MAX_RINGS];

/* The writer's counts at one moment, or as near to that as they come; a dead writer may have been killed between two of them. */
bool ot_progress_look(const struct ot_writer *w, uint64_t *head, uint64_t recorded[OT_TIERS], uint64_t *values);
/* What the segment says of a ring, and no more than that: nothing is changed. */
void ot_progress_read(uint32_t ring, uint64_t head, struct ot_found *found);
/* The same, and go on from there. */
void ot_progress_take(uint32_t ring, uint64_t head, struct ot_found *found);
/* The ring has another size, and all before `from` is counted or gone. */
void ot_progress_resized(uint32_t ring, uint64_t from);
/* Before a pass that goes up to `head`: each record that it may mark has a mark of its own. */
void ot_progress_begin(uint32_t ring, uint64_t head);
/* After a pass, or when spans of the ring were settled: count what is settled without a gap, and publish. */
void ot_progress_end(uint32_t ring);
/* Forget all that is on the heap. */
void ot_progress_forget(void);

/* The slow half of ot_progress_pass. */
void ot_progress_count(struct ot_fates *counts, unsigned mark, unsigned tier, uint64_t by);
/* Go over what is marked already, from `done` on. */
void ot_progress_advance(struct ot_settling *p);
/* A span that was handed over before: `before` is what was told of it then, OT_MARK_NONE or OT_MARK_SENT. */
void ot_progress_settle(uint32_t ring, uint64_t n, unsigned tier, unsigned before, unsigned mark);
/* A span is in a request whose last byte is sent next (`offered`), or is not after all: a mark for who takes over, and nothing else. */
void ot_progress_offer(uint32_t ring, uint64_t n, bool offered);

/* The mark of a record: 0 where it has none, or the mark is an older record's. */
static inline unsigned
ot_progress_mark(const struct ot_settling *p, uint64_t n)
{
    uint8_t mark = OT_LOAD(&p->marks[n & p->mask]);
    unsigned kind = mark & ((1U << OT_MARK_BITS) - 1);
    return mark >> OT_MARK_BITS == ((n >> p->shift) & 31) && kind <= OT_MARK_REFUSED ? kind : OT_MARK_NONE;
}

/* An item of p->told: the mark, and from bit 8 on the tier. */
static inline uint16_t
ot_progress_told_as(const struct ot_settling *p, uint64_t n, unsigned mark, unsigned tier)
{
    return (uint16_t)(mark | ((n >> p->shift) & 31) << OT_MARK_BITS | tier << 8);
}

/* What this drain has told of a record from `done` on; OT_MARK_NONE: nothing. */
static inline unsigned
ot_progress_told(const struct ot_settling *p, uint64_t n)
{
    unsigned told = p->told[n & p->mask];
    return (told >> OT_MARK_BITS & 31) == ((n >> p->shift) & 31) ? told & ((1U << OT_MARK_BITS) - 1) : OT_MARK_NONE;
}

static inline void
ot_progress_put(struct ot_settling *p, uint64_t n, unsigned mark)
{
    OT_STORE(&p->marks[n & p->mask], (uint8_t)(mark | ((n >> p->shift) & 31) << OT_MARK_BITS));
}

/* A record's turn has come in a pass.  Its mark is stored also where it is counted at once: a place that kept an old mark for 32
 * laps would say that its record is settled.  `mark` OT_MARK_NONE: it goes to the queue. */
static inline void
ot_progress_pass(struct ot_settling *p, uint64_t n, unsigned mark, unsigned tier)
{
    if (OT_UNLIKELY(p->marks == NULL || n < p->done))
        return;
    ot_progress_put(p, n, mark);
    p->told[n & p->mask] = ot_progress_told_as(p, n, mark, tier);
    p->changed = true;
    if (mark == OT_MARK_NONE)
        return;
    if (n == p->done) {
        p->done = n + 1;
        ot_progress_count(&p->counts, mark, tier, 1);
    }
}

/* A record's turn has come that was marked before. */
static inline void
ot_progress_skip(struct ot_settling *p, uint64_t n)
{
    if (n == p->done && p->marks != NULL)
        ot_progress_advance(p);
}

#endif
