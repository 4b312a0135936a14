/* Counters, gauges and histograms. */
#ifndef OTEL_TRADING_INSTRUMENTS_H
#define OTEL_TRADING_INSTRUMENTS_H

#include "recorder.h"

/* Percent of CPU load below off_cpu at which an instrument is switched on again. */
#define OT_OFF_HYSTERESIS 5

typedef struct {
    PyObject_HEAD
    PyObject *name; /* owned str, as are the next three */
    PyObject *unit;
    PyObject *description;
    PyObject *attributes; /* JSON object, or "" */
    int32_t id;           /* -1: the table was full; inert */
    uint8_t kind;         /* OT_INSTRUMENT_* */
    uint8_t tier;
    uint8_t off_cpu; /* percent of CPU load; 0: goes with its tier */
} ot_instrument_object;

int ot_instruments_start(PyObject *module); /* once, at import */
bool ot_is_gauge(PyObject *o);

/* gc.callbacks: the pause of each collection */
PyObject *ot_gc_callback(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#endif
