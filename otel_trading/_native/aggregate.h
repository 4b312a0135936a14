/* What the drain keeps of one probe or histogram: the total, and windows of 1 s, 5 s and 1 min.  No Python in here. */
#ifndef OTEL_TRADING_AGGREGATE_H
#define OTEL_TRADING_AGGREGATE_H

#include "histogram.h"

#define OT_SECONDS 5
#define OT_FIVES 12
#define OT_EXEMPLARS 64
#define OT_SLOW_LEAST 100 /* spans of a minute, for their p99 to say anything */

struct ot_exemplar {
    double value;
    uint64_t trace_hi;
    uint64_t trace_lo;
    uint64_t span_id; /* 0: none yet */
    uint64_t unix_ns;
};

struct ot_aggregate {
    struct ot_histogram total;
    struct ot_histogram second;              /* the unfinished one */
    struct ot_histogram seconds[OT_SECONDS]; /* finished ones, a ring */
    struct ot_histogram five;                /* the unfinished piece of 5 s */
    struct ot_histogram fives[OT_FIVES];     /* finished ones, a ring */
    uint64_t errors;
    uint64_t sla_breaches;
    double slow;      /* seconds: a span that took longer is a trigger; infinity = not known yet */
    bool named;       /* `triggers` is known */
    uint8_t triggers; /* a set: what any span of the probe is a trigger of */
    struct ot_exemplar exemplars[OT_EXEMPLARS]; /* the latest of each power of two, by its low six bits */
};

struct ot_aggregate *ot_aggregate_new(void); /* NULL for want of memory */
void ot_aggregate_free(struct ot_aggregate *a);
void ot_aggregate_add(struct ot_aggregate *a, double value);
void ot_aggregate_exemplar(struct ot_aggregate *a, const struct ot_exemplar *e);
/* A second has ended; `second` is its number since any start, the same for all aggregates. */
void ot_aggregate_tick(struct ot_aggregate *a, uint64_t second);
/* Merge what a window holds into an empty histogram: 1, 5 or 60 seconds, as of the second that is going on. */
void ot_aggregate_window(const struct ot_aggregate *a, int seconds, uint64_t second, struct ot_histogram *into);
/* The upper border of the 99th percentile's bucket over the last minute; infinity for fewer than 100 values. */
double ot_aggregate_p99(const struct ot_aggregate *a, uint64_t second);
uint64_t ot_aggregate_bytes(const struct ot_aggregate *a); /* on the heap */

#endif
