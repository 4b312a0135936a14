/* The traces of which the drain has seen spans of late, and what was decided of them.  With the drain's lock held. */
#ifndef OTEL_TRADING_TRACES_H
#define OTEL_TRADING_TRACES_H

#include <stdbool.h>
#include <stdint.h>

#define OT_TRACES 65536
#define OT_TRACE_WAYS 16 /* places that a trace may be in */

/* ot_trace.state */
enum {
    OT_TRACE_FREE = 0,
    OT_TRACE_WAITS = 1,
    OT_TRACE_KEPT = 2,
    OT_TRACE_DROPPED = 3,
};

/* ot_trace.marks */
enum {
    OT_TRACE_ROOT = 1,   /* its root has ended in this process */
    OT_TRACE_REMOTE = 2, /* a span's parent is another process's */
    OT_TRACE_TOLD = 4,   /* that it was dropped in spite of a trigger has been counted */
    OT_TRACE_CUT = 8,    /* its tier was cut altogether when it came */
};

struct ot_trace {
    uint64_t lo;
    uint64_t hi;
    uint32_t moment;    /* ms: of its first span while it waits, of its last one afterwards; wraps */
    uint32_t bytes;     /* estimate of its spans so far, while it waits */
    uint16_t threshold; /* it was kept by, or, while it waits, of its tier when it came: the highest 16 of 56 bits */
    uint8_t state;      /* OT_TRACE_* */
    uint8_t triggers;   /* a set, by OT_TRIGGER_* */
    uint8_t tier;       /* the best of its spans' */
    uint8_t reason;     /* OT_TRIGGER_* that it was kept for */
    uint8_t marks;      /* OT_TRACE_ROOT, … */
    uint8_t reserved;
};

bool ot_traces_make(void); /* false for want of memory */
void ot_traces_free(void);
bool ot_traces_there(void);
uint64_t ot_traces_bytes(void);

/* A trace is about to be looked for: have its places in the cache. */
void ot_trace_prefetch(uint64_t hi, uint64_t lo);
/* NULL where it is not known, or no longer.  What these give is good until the next ot_trace_enter. */
struct ot_trace *ot_trace_find(uint64_t hi, uint64_t lo);
/* The same, and where it is not known a new one that waits, in the place of the one that matters least. */
struct ot_trace *ot_trace_enter(uint64_t hi, uint64_t lo, uint32_t moment);
/* Another span of a trace that waits: its tier, the estimate of its bytes, and the thresholds (56 bits) in force. */
void ot_trace_grow(struct ot_trace *t, unsigned tier, uint32_t bytes, const uint64_t *thresholds);
/* The threshold, 56 bits, that its tier had when it came. */
uint64_t ot_trace_met(const struct ot_trace *t);
/* It waits no longer. */
void ot_trace_decided(const struct ot_trace *t);
/* Bytes that are to be expected of all traces of a tier that wait, by the thresholds that they met. */
uint64_t ot_traces_waiting(unsigned tier);

#endif
