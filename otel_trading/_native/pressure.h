/* Pressure: how loaded what this process may use is. */
#ifndef OTEL_TRADING_PRESSURE_H
#define OTEL_TRADING_PRESSURE_H

#include "governor.h"

/* With the governor's lock held.  Opens what is read; costs some file look-ups. */
void ot_pressure_open(void);
void ot_pressure_close(void);
/* cpu_load, memory_load and the stalls; reads up to five small files. */
void ot_pressure_tick(struct ot_sight *sight);
/* Has the load risen so much that the next tick should come sooner? */
bool ot_pressure_rises(void);

PyObject *ot_system_root(PyObject *module, PyObject *path);

#endif
