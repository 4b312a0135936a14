/* What the process tells of its own life: the beats of its loops, which gauge is its queue, how it ended. */
#ifndef OTEL_TRADING_LIFE_H
#define OTEL_TRADING_LIFE_H

#include "recorder.h"

#define OT_NAN_BITS 0x7ff8000000000000ULL

void ot_life_open(void);  /* a new segment is laid out, nobody records in it yet; GIL held */
void ot_life_close(void); /* it is about to be unmapped, or never was mapped; also in a forked child */
/* A gauge is there; whether it is the queue until the program names one. */
void ot_life_gauge(PyObject *gauge);

/* The queue's gauge, double bits; NaN where there is none, or it was never set, or is switched off.  Any thread; the life
 * page may be another process's. */
static inline uint64_t
ot_queue_bits(void)
{
    uint64_t id = OT_LOAD(&ot_rec.life->queue) - 1;
    if (id >= OT_MAX_INSTRUMENTS)
        return OT_NAN_BITS;
    const struct ot_instrument *m = &ot_rec.instruments[id];
    return OT_LOAD(&m->updates) != 0 && !OT_LOAD(&m->off) ? OT_LOAD(&m->value) : OT_NAN_BITS;
}

/* signals.c */
void ot_signals_open(void);
void ot_signals_close(void);

PyObject *ot_beat(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *ot_queue_gauge(PyObject *module, PyObject *gauge);
PyObject *ot_ending(PyObject *module, PyObject *args);
PyObject *ot_note_signals(PyObject *module, PyObject *on); /* signals.c */

#endif
