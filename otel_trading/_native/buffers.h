/* The rings' sizes: smaller where monitoring takes more memory than it may, and back. */
#ifndef OTEL_TRADING_BUFFERS_H
#define OTEL_TRADING_BUFFERS_H

#include "recorder.h"

#define OT_BUFFERS_STEP 2      /* a step leaves a quarter of the slots */
#define OT_BUFFERS_LEAST 64    /* slots that every ring keeps, where it had as many */
#define OT_BUFFERS_USEFUL 2048 /* slots that the steps leave a large main ring: less saves nothing and loses records */

/* Slots of a ring that was made with so many. */
static inline uint32_t
ot_buffers_slots(uint32_t slots, uint64_t buffers)
{
    uint32_t least = slots < OT_BUFFERS_LEAST ? slots : OT_BUFFERS_LEAST;
    uint32_t left = buffers < 32 ? slots >> buffers : 0;
    return left > least ? left : least;
}

/* Is there so much to be taken from the main ring?  Any thread, a segment is open. */
bool ot_buffers_possible(uint64_t buffers);
/* Bytes of all rings' slots with that size. */
uint64_t ot_buffers_bytes(uint64_t buffers);

void ot_buffers_open(void); /* a new segment; GIL held */
/* GIL held, where another process drains: fit the rings, when little of them is lost by it. */
void ot_buffers_turn(void);
PyObject *ot_fit_buffers(PyObject *module, PyObject *ignored);

#endif
