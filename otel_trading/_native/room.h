/* What the queue to the exporters has room for: thresholds of this process alone, so that plain traces do not fill it up. */
#ifndef OTEL_TRADING_ROOM_H
#define OTEL_TRADING_ROOM_H

#include "recorder.h"

/* With the drain's lock: a span was drained, of a plain trace of a tier, or with `tier` OT_TIERS of one with a trigger. */
void ot_room_came(unsigned tier);
/* Likewise: exporters took so many. */
void ot_room_taken(uint32_t spans);
/* Plan anew where a tenth of a second has gone by.  One thread at a time. */
void ot_room_plan(uint64_t now_ns);
/* Whether there is room left only for traces with a trigger.  Any thread. */
bool ot_room_is_full(void);
/* The threshold of a tier: a multiple of 2^40, at most OT_THRESHOLD_ALL.  Any thread. */
uint64_t ot_room_threshold(unsigned tier);
/* Another segment, or another queue: no thresholds.  With the drain's lock. */
void ot_room_forget(void);

#endif
