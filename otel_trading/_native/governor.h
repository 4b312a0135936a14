/* The governor: what monitoring may cost, what it costs, and what is given up to keep to that. */
#ifndef OTEL_TRADING_GOVERNOR_H
#define OTEL_TRADING_GOVERNOR_H

#include "recorder.h"

PyObject *ot_govern_start(PyObject *module, PyObject *ignored);
PyObject *ot_govern_stop(PyObject *module, PyObject *ignored);
PyObject *ot_govern(PyObject *module, PyObject *args);
PyObject *ot_await_decision(PyObject *module, PyObject *args);
PyObject *ot_fit_buffers(PyObject *module, PyObject *ignored);
PyObject *ot_count_thread(PyObject *module, PyObject *on);
PyObject *ot_count_io(PyObject *module, PyObject *args);
PyObject *ot_market_data(PyObject *module, PyObject *args);
PyObject *ot_market_condition(PyObject *module, PyObject *args);

#endif
