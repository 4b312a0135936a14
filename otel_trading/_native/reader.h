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

/* reader_tables.c */
PyObject *ot_reader_info(PyObject *self, PyObject *ignored);
PyObject *ot_reader_probes(PyObject *self, PyObject *ignored);
PyObject *ot_reader_accounts(PyObject *self, PyObject *ignored);

/* reader_orders.c */
PyObject *ot_reader_order(PyObject *self, PyObject *key);
PyObject *ot_reader_orders(PyObject *self, PyObject *ignored);

#endif
