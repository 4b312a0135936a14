/* Which traces are kept (docs/keeping.md), as the rest of the recorder sees it. */
#ifndef OTEL_TRADING_KEEP_H
#define OTEL_TRADING_KEEP_H

#include "recorder.h"

/* Fill the bucket, and plan the thresholds anew where a tenth of a second has gone by since the last plan of any process.
 * `now_s`: CLOCK_MONOTONIC; `network`: bytes a second that may be sent, 0 = none, infinity = no limit.  Needs no lock and
 * takes none; the segment is open, or it does nothing. */
void ot_keep_plan(double now_s, double network);
/* Tokens, thresholds, horizon, kept, missed and dropped into the page; the governor holds its sequence lock open. */
void ot_keep_readings(struct ot_readings *readings);
/* An exporter has sent so many bytes for spans that the bucket was charged so many for.  Any thread. */
void ot_keep_learn(uint64_t sent, uint64_t estimated);
/* Bytes of the drain's aggregates, its queue with the blocks in it, and the table of traces, as of its last pass.  Any
 * thread; takes no lock. */
uint64_t ot_drain_heap_bytes(void);

/* With the drain's lock held: the queue holds what keep() said >> buffers from now on; what waits beyond it is let go. */
void ot_keep_shrink(unsigned buffers);

/* +1 by wake(): whoever waits in await_kept or await_decision looks at it when it begins, and ends when it changes.
 * Atomic; what follows is called after it has changed. */
extern uint64_t ot_wake_generation;

#endif
