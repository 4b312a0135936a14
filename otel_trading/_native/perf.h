/* Hardware counters, where they can be had. */
#ifndef OTEL_TRADING_PERF_H
#define OTEL_TRADING_PERF_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *ot_hardware_cycles(PyObject *module, PyObject *ignored);

#endif
