#include "aggregate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ot_aggregate *
ot_aggregate_new(void)
{
    struct ot_aggregate *a = calloc(1, sizeof *a);
    if (a == NULL)
        return NULL;
    a->slow = INFINITY;
    ot_histogram_init(&a->total, true);
    ot_histogram_init(&a->second, false);
    ot_histogram_init(&a->five, false);
    for (int i = 0; i < OT_SECONDS; i++)
        ot_histogram_init(&a->seconds[i], false);
    for (int i = 0; i < OT_FIVES; i++)
        ot_histogram_init(&a->fives[i], false);
    return a;
}

void
ot_aggregate_free(struct ot_aggregate *a)
{
    if (a == NULL)
        return;
    ot_histogram_free(&a->total);
    ot_histogram_free(&a->second);
    ot_histogram_free(&a->five);
    for (int i = 0; i < OT_SECONDS; i++)
        ot_histogram_free(&a->seconds[i]);
    for (int i = 0; i < OT_FIVES; i++)
        ot_histogram_free(&a->fives[i]);
    free(a);
}

/* Into the unfinished second only: the total and the pieces of 5 s take it over when it ends. */
void
ot_aggregate_add(struct ot_aggregate *a, double value)
{
    ot_histogram_add(&a->second, value);
}

void
ot_aggregate_exemplar(struct ot_aggregate *a, const struct ot_exemplar *e)
{
    int exponent;
    (void)frexp(e->value, &exponent);
    a->exemplars[(unsigned)exponent % OT_EXEMPLARS] = *e;
}

static void
swap(struct ot_histogram *a, struct ot_histogram *b)
{
    struct ot_histogram t = *a;
    *a = *b;
    *b = t;
}

void
ot_aggregate_tick(struct ot_aggregate *a, uint64_t second)
{
    struct ot_histogram *finished = &a->seconds[second % OT_SECONDS];
    ot_histogram_merge(&a->total, &a->second);
    ot_histogram_merge(&a->five, &a->second);
    swap(finished, &a->second);
    ot_histogram_clear(&a->second);
    if (second % 5 == 4) {
        swap(&a->fives[second / 5 % OT_FIVES], &a->five);
        ot_histogram_clear(&a->five);
    }
}

void
ot_aggregate_window(const struct ot_aggregate *a, int seconds, uint64_t second, struct ot_histogram *into)
{
    if (seconds == 1) {
        ot_histogram_merge(into, &a->seconds[(second + OT_SECONDS - 1) % OT_SECONDS]);
    }
    else if (seconds <= OT_SECONDS) {
        for (int i = 0; i < OT_SECONDS; i++)
            ot_histogram_merge(into, &a->seconds[i]);
    }
    else {
        /* eleven finished pieces (the twelfth is the one that the unfinished piece will replace), and what is unfinished */
        for (int i = 0; i < OT_FIVES; i++) {
            if (i != (int)(second / 5 % OT_FIVES))
                ot_histogram_merge(into, &a->fives[i]);
        }
        ot_histogram_merge(into, &a->five);
        ot_histogram_merge(into, &a->second);
    }
}

/* Counts of the last minute's positive values by bucket; with the drain's lock held, all zero between two uses. */
static uint64_t tally[OT_INDEX_MAX - OT_INDEX_MIN + 1];

struct span_of_tally {
    int32_t least;
    int32_t most;
    uint64_t count;
};

static void
tally_up(struct span_of_tally *t, const struct ot_histogram *h)
{
    const struct ot_buckets *b = &h->positive;
    t->count += h->count;
    for (uint32_t i = b->first; i < b->past; i++) {
        int32_t index = b->offset + (int32_t)i;
        uint64_t n = ot_bucket_at(b, i);
        if (n == 0 || index < OT_INDEX_MIN || index > OT_INDEX_MAX)
            continue;
        tally[index - OT_INDEX_MIN] += n;
        t->least = index < t->least ? index : t->least;
        t->most = index > t->most ? index : t->most;
    }
}

double
ot_aggregate_p99(const struct ot_aggregate *a, uint64_t second)
{
    struct span_of_tally t = {.least = OT_INDEX_MAX + 1, .most = OT_INDEX_MIN - 1};
    for (int i = 0; i < OT_FIVES; i++) {
        if (i != (int)(second / 5 % OT_FIVES))
            tally_up(&t, &a->fives[i]);
    }
    tally_up(&t, &a->five);
    tally_up(&t, &a->second);
    double border = t.count < OT_SLOW_LEAST ? INFINITY : 0;
    uint64_t above = 0;
    for (int32_t i = t.most; i >= t.least; i--) {
        above += tally[i - OT_INDEX_MIN];
        tally[i - OT_INDEX_MIN] = 0;
        if (border == 0 && above * 100 > t.count)
            border = exp2((double)(i + 1) / OT_BUCKETS_PER_OCTAVE);
    }
    return border;
}

static uint64_t
bytes_of(const struct ot_histogram *h)
{
    uint64_t width = h->is_wide ? sizeof *h->positive.wide : sizeof *h->positive.counts;
    return width * ((uint64_t)h->positive.capacity + h->negative.capacity);
}

uint64_t
ot_aggregate_bytes(const struct ot_aggregate *a)
{
    uint64_t bytes = sizeof *a + bytes_of(&a->total) + bytes_of(&a->second) + bytes_of(&a->five);
    for (int i = 0; i < OT_SECONDS; i++)
        bytes += bytes_of(&a->seconds[i]);
    for (int i = 0; i < OT_FIVES; i++)
        bytes += bytes_of(&a->fives[i]);
    return bytes;
}
