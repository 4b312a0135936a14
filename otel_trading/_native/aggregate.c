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
