/* The meter: what monitoring itself uses. */
#ifndef OTEL_TRADING_METER_H
#define OTEL_TRADING_METER_H

#include "governor.h"

/* Whose thread it is. */
enum {
    OT_METER_DRAIN = 0,
    OT_METER_EXPORT = 1,
    OT_METER_GOVERNOR = 2,
    OT_METER_KINDS = 3,
};

int ot_meter_start(void); /* once, at import; -1 with an exception set */
/* `whole_process`: the segment is another process's, and all that this one uses is monitoring's. */
void ot_meter_open(bool whole_process);
void ot_meter_close(void);
/* Go on with the totals of who governed before. */
void ot_meter_resume(void);
void ot_meter_forked(void);
/* Count the calling thread's CPU time from now on, until it ends or says so; false: it has no place, or no clock.  Any
 * thread, with or without the GIL. */
bool ot_meter_thread(unsigned kind);
void ot_meter_thread_leaves(void);
/* usage and its parts over the policy's window, and the totals. */
void ot_meter_tick(const struct ot_allowed *rules, struct ot_sight *sight);

PyObject *ot_count_thread(PyObject *module, PyObject *on);
PyObject *ot_count_io(PyObject *module, PyObject *args);

#endif
