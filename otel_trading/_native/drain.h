/* The embedded drain: reads this process's segment, feeds the aggregates, decides which spans are kept. */
#ifndef OTEL_TRADING_DRAIN_H
#define OTEL_TRADING_DRAIN_H

#include <pthread.h>

#include "aggregate.h"
#include "blocks.h"
#include "keep.h"
#include "recorder.h"

/* A span that goes to the exporters. */
struct ot_kept {
    struct ot_slot slot;
    uint64_t n;   /* its record's number … */
    uint8_t ring; /* … in this ring */
    uint8_t told; /* OT_MARK_*: what its mark says, NONE or SENT */
    uint64_t start_ns;
    uint64_t end_ns;
    struct ot_blocks blocks; /* owned */
    uint32_t raw;            /* estimate of its bytes, before the learned factor … */
    uint32_t charged;        /* … and after it */
    uint16_t threshold;      /* its trace was kept by: the highest 16 of 56 bits, 0 = for certain */
};

/* Counts that only the drain changes. */
struct ot_settled {
    uint64_t exported[OT_TIERS];
    uint64_t sampled_out[OT_TIERS];
    uint64_t overwritten[OT_TIERS];
    uint64_t refused[OT_TIERS];
    uint64_t recorded[OT_TIERS];            /* by the writers, as of the last look */
    uint64_t refused_at_the_door[OT_TIERS]; /* likewise */
};

/* Everything below `lock` is used with it held; it is never taken while the GIL is held and waited for. */
struct ot_drain {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool running;
    bool stopping;
    bool open;       /* a segment is there to be drained */
    bool mine;       /* by this process */
    bool fresh;      /* taken over, and nobody has said yet what is to be kept: nothing is decided */
    uint64_t term;   /* +1 each time that this process begins or ends to drain */
    uint32_t rings;  /* of the segment's that are known here */
    uint64_t now_ns; /* CLOCK_MONOTONIC of the pass */
    uint64_t period_ms;
    uint64_t wait_us; /* until the thread's next pass: sooner than the period where rings fill fast */
    double used;      /* part of the fullest ring that was used up between the last two passes */
    uint64_t passes;
    uint64_t cpu_ns;
    uint64_t start_unix_ns;
    uint64_t second; /* number of the unfinished second */
    struct ot_calibration calibration;
    uint64_t classes[OT_COSTS]; /* records that were aggregated, by OT_COST_*, but updates and market data; the governor
                                 * loads them without the lock */
    uint64_t operations;        /* spans among them that have no parent in this process; likewise */
    uint64_t heap_bytes;        /* as of the last pass; likewise */
    uint64_t aggregate_bytes;   /* of it, as of the last second */
    struct ot_settled settled;
    uint64_t values_drained;
    uint64_t values_overwritten;
    uint64_t text_overwritten;
    struct ot_aggregate *probes[OT_MAX_PROBES];           /* owned */
    struct ot_aggregate *instruments[OT_MAX_INSTRUMENTS]; /* owned */
    struct ot_instrument *last_instruments;               /* owned: their table as it was at close */
    uint32_t last_instrument_count;
    struct ot_kept *kept; /* owned: a ring of kept_room */
    uint32_t kept_room;
    uint32_t kept_first;
    uint32_t kept_count;
    uint32_t kept_limit;       /* 0: nobody takes spans */
    uint32_t kept_configured;  /* what keep() said, before the governor made it less */
    uint64_t kept_bytes;       /* of the blocks of those in the ring */
    uint64_t kept_bytes_limit; /* likewise, the most */
};

extern struct ot_drain ot_drain;

int ot_drain_start_module(void); /* once, at import */
void ot_drain_open(void);        /* the segment is laid out; GIL held */
void ot_drain_close(void);       /* GIL held; the thread is stopped, the last pass made */
void ot_drain_forked(void);      /* in the child */
double ot_drain_ns_per_tick(void);
/* The calibration of the last pass, without the lock; the segment is open. */
void ot_drain_calibration(struct ot_calibration *calibration);

void ot_drain_lock(void); /* with the GIL held; gives it up meanwhile */
void ot_drain_unlock(void);
uint64_t ot_drain_pass(void);    /* with the lock held; records handled */
void ot_drain_decide_all(void);  /* likewise: a pass after which nothing waits for its verdict */
void ot_drain_look(void);        /* with the lock held: settled.recorded from the rings */
void ot_drain_stop_thread(void); /* GIL held, given up meanwhile */
void ot_drain_heap_forget(void); /* likewise: what is settled, waits, or is kept; the aggregates stay */
void ot_drain_publish(void);     /* with the lock held: the accounts */
uint32_t ot_drain_rings(void);   /* with the lock held: their number; new ones are taken over */
/* With the lock held: take all rings over, as the segment tells of them. */
void ot_drain_begin(unsigned host);
/* Likewise: this process drains no longer; what it has is left to the next one. */
void ot_drain_end(void);
/* Likewise: what the segment tells of a drain that is another process's. */
void ot_drain_told(struct ot_settled *s);

/* kept.c, with the lock held */
/* False: the queue is full. */
bool ot_kept_push(const struct ot_slot *slot, const struct ot_writer *w, uint64_t n, uint64_t start_ns, uint64_t end_ns,
                  uint16_t threshold);
/* Move up to `count` of the oldest to `to`, which takes them over; how many. */
uint32_t ot_kept_take(struct ot_kept *to, uint32_t count);
void ot_kept_clear(void);
void ot_kept_tell(void);  /* have await_kept see what came */
void ot_kept_start(void); /* once, at import, and in a forked child */

PyObject *ot_drain_start(PyObject *module, PyObject *period);
PyObject *ot_drain_stop(PyObject *module, PyObject *timeout);
PyObject *ot_drain_now(PyObject *module, PyObject *args);
PyObject *ot_keep(PyObject *module, PyObject *args);
PyObject *ot_kept_count(PyObject *module, PyObject *ignored);
PyObject *ot_share(PyObject *module, PyObject *fd);
PyObject *ot_pin(PyObject *module, PyObject *trace_id);
PyObject *ot_await_kept(PyObject *module, PyObject *args);
PyObject *ot_wake(PyObject *module, PyObject *ignored);
PyObject *ot_drain_give(PyObject *module, PyObject *ignored);
PyObject *ot_drain_take(PyObject *module, PyObject *ignored);
PyObject *ot_await_host(PyObject *module, PyObject *args);
PyObject *ot_ask_host(PyObject *module, PyObject *args);
void ot_host_wake(void); /* have await_host look */
PyObject *ot_accounts(PyObject *module, PyObject *ignored);
PyObject *ot_snapshot(PyObject *module, PyObject *ignored);

#endif
