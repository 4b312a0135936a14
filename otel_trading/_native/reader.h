/* Read a segment from outside: another process's, a dead one's, a damaged one.  Never writes to it. */
#ifndef OTEL_TRADING_READER_H
#define OTEL_TRADING_READER_H

#include "recorder.h"

struct ring_place {
    uint64_t next; /* first record not yet read */
};

typedef struct {
    PyObject_HEAD
    int fd;                /* owned; -1 = closed */
    uint64_t bytes;        /* of the file, by the last fstat */
    struct ot_header head; /* as of the last refresh; geometry checked */
    struct ot_calibration calibration;
    struct ring_place rings[OT_MAX_RINGS];
    PyObject *names; /* owned dict: id → str */
    size_t name_bytes;
    uint8_t *blocks; /* owned: a span's arena blocks while it is built */
    size_t room;
    size_t fetched; /* bytes of arena blocks in this call */
    bool busy;      /* blocks is in use: a finalizer that reads too is refused */
    uint64_t missed;
    uint64_t torn;
} ot_reader;

int ot_reader_start(PyObject *module); /* once, at import */

/* Bytes of the file; false where they are not there. */
bool ot_reader_fetch(const ot_reader *r, uint64_t offset, void *to, size_t bytes);
/* The counts that grow, and the clock's calibration, as of now. */
void ot_reader_refresh(ot_reader *r);
/* A ring's header, checked; false for one that can not be right. */
bool ot_reader_ring(const ot_reader *r, uint32_t i, struct ot_ring *ring);
/* ot_name_fn; `context` is the reader. */
PyObject *ot_reader_name(void *context, uint32_t id);

/* Append, stealing; 0 or -1. */
static inline int
ot_reader_append(PyObject *list, PyObject *item)
{
    int result = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    return result;
}

/* A finite double, else None; of its bits. */
PyObject *ot_reader_float(uint64_t bits);

/* reader_tables.c */
bool ot_reader_instrument(const ot_reader *r, uint64_t i,
                          struct ot_instrument *m); /* false where it can not be right */
/* Of all tiers, from the accounts page and the rings' counts. */
void ot_reader_balance(ot_reader *r, struct ot_accounts *a, uint64_t recorded[OT_TIERS], uint64_t pending[OT_TIERS]);
PyObject *ot_reader_info(PyObject *self, PyObject *ignored);
PyObject *ot_reader_probes(PyObject *self, PyObject *ignored);
PyObject *ot_reader_accounts(PyObject *self, PyObject *ignored);
PyObject *ot_reader_instruments(PyObject *self, PyObject *ignored);
PyObject *ot_reader_markets(PyObject *self, PyObject *ignored);

/* reader_orders.c */
PyObject *ot_reader_order(PyObject *self, PyObject *key);
PyObject *ot_reader_orders(PyObject *self, PyObject *ignored);

/* reader_life.c */
PyObject *ot_reader_life(PyObject *self, PyObject *ignored);
PyObject *ot_reader_vitals(PyObject *self, PyObject *args);
PyObject *ot_reader_pulses(PyObject *self, PyObject *args);

/* reader_settled.c */
PyObject *ot_reader_settled(PyObject *self, PyObject *ignored);

#endif
