/* What a pass does with the rings: records go into the aggregates, and, when it is known what becomes of their traces, into the
 * queue or out.  With the drain's lock held. */
#ifndef OTEL_TRADING_SELECT_H
#define OTEL_TRADING_SELECT_H

#include "recorder.h"

/* All rings once; how many records were new.  `everything`: nothing waits afterwards.  `since_s`: since the pass before. */
uint64_t ot_select_pass(bool everything, double since_s);
/* Go on with a ring where whoever drained it before has got to; its counts are added to what is settled. */
void ot_select_take(uint32_t ring);
/* A ring has another size, which ot_writers knows: what is before `resized` is not there any more. */
void ot_select_resized(uint32_t ring);
/* Another segment: no ring has anything that waits. */
void ot_select_forget(void);

#endif
