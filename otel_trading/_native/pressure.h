/* Pressure: how loaded what this process may use is. */
#ifndef OTEL_TRADING_PRESSURE_H
#define OTEL_TRADING_PRESSURE_H

#include "governor.h"

/* With the governor's lock held.  Opens what is read; costs some file look-ups.  `pid`: whose pressure, 0 = this process's. */
void ot_pressure_open(unsigned pid);
void ot_pressure_close(void);
/* cpu_load, memory_load and the stalls; reads one to five small files.  `memory`: the memory load at which something happens, the
 * nearer to which the more often it is looked at. */
void ot_pressure_tick(struct ot_sight *sight, double memory);

PyObject *ot_system_root(PyObject *module, PyObject *path);

#endif
