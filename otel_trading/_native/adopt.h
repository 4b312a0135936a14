/* Another process's segment, drained in this one; and written to, when its process has ended.  Nothing in it is believed: what is
 * used to find something is checked and copied first. */
#ifndef OTEL_TRADING_ADOPT_H
#define OTEL_TRADING_ADOPT_H

#include "recorder.h"

PyObject *ot_adopt(PyObject *module, PyObject *fd);
PyObject *ot_let_go(PyObject *module, PyObject *ignored);
PyObject *ot_inherit(PyObject *module, PyObject *ignored);
PyObject *ot_adopted(PyObject *module, PyObject *ignored);

/* With the drain's lock held. */

/* Is all of the file there that is mapped and used?  A file that was cut is touched no more. */
bool ot_adopt_whole(void);
/* Find a ring that has not been looked at; false, and its writer has no ring, where it is damaged. */
bool ot_adopt_ring(uint32_t ring);
/* A ring's size has changed: false, and its writer has no ring, where the new one can not be.  Of an own ring always true. */
bool ot_adopt_resized(uint32_t ring);
/* Pieces of the open-span tables that have come. */
void ot_adopt_extents(void);
/* Rings that were left out. */
uint32_t ot_adopt_damaged(void);
/* The rate of the clock from the segment's own last calibration, where that is the longer look. */
void ot_adopt_calibrate(struct ot_calibration *calibration);

/* When a span ends that its process has left open: `now`, or, where those ticks are not this machine's now, the last sign of life. */
uint64_t ot_adopt_end(const struct ot_slot *e, uint64_t now);
/* GIL: it is unmapped: names, probes and the clock are this process's own again. */
void ot_adopt_forget(void);
/* GIL: a forked child lets go of what its parent has adopted. */
void ot_adopt_drop(void);

#endif
