/* Spans that become current, and the context variable that says which one is. */
#ifndef OTEL_TRADING_SPAN_H
#define OTEL_TRADING_SPAN_H

#include "entry.h"
#include "probe.h"

enum span_state {
    SPAN_MADE,
    SPAN_OPEN,
    SPAN_ENDED,
    SPAN_INERT,  /* nothing is recorded; never current */
    SPAN_REMOTE, /* a parent from elsewhere */
};

typedef struct ot_span {
    PyObject_HEAD
    vectorcallfunc vectorcall; /* `with probe:` calls the span itself: once to enter, once to leave */
    ot_probe_object *probe;    /* owned; NULL for a remote one */
    struct ot_span *prev;      /* owned; what was current before; dropped when the span is left in order */
    struct ot_span *inner;     /* owned; what was current at suspend(), until the next resume() */
    struct ot_writer *writer;  /* borrowed; good while epoch is the recorder's */
    uint64_t epoch;
    uint64_t trace_hi;
    uint64_t trace_lo;
    uint64_t span_id;
    uint64_t parent_id;
    PyObject *tracestate; /* owned str, or NULL */
    uint32_t entry;       /* OT_NO_ENTRY: none */
    uint8_t state;
    uint8_t flags;   /* OT_FLAG_* that children inherit or that are the span's own */
    bool parented;   /* origin settled when it was made, by an explicit parent */
    bool current;    /* between becoming current and giving the place back */
    bool left_early; /* left while another span was current: whoever restores skips it */
} ot_span;

extern PyTypeObject ot_span_type;

int ot_spans_start(PyObject *module); /* once, at import */

/* Made for a probe, not yet open; NULL only for want of memory. */
ot_span *ot_span_new(ot_probe_object *probe);
/* Settle the origin by an explicit parent; anything but a span of ours means "none". */
void ot_span_set_parent(ot_span *s, PyObject *parent);
void ot_span_set_attribute(ot_span *s, PyObject *key, uint32_t key_id, PyObject *value);
void ot_span_begin(ot_span *s);
void ot_span_end(ot_span *s, PyObject *error_type);
void ot_span_enter(ot_span *s);                       /* begin and become current */
void ot_span_leave(ot_span *s, PyObject *error_type); /* end and give the place back */
/* The innermost open span of this probe in this context, owned; NULL where there is none. */
ot_span *ot_span_innermost(const ot_probe_object *probe);

int ot_current_start(void); /* once, at import */
void ot_span_become_current(ot_span *s);
void ot_span_give_place_back(ot_span *s);
void ot_span_resume(ot_span *s);
void ot_span_suspend(ot_span *s);
/* The current span, borrowed from the context; NULL without one. */
ot_span *ot_span_current(void);
void ot_origin_here(struct ot_writer *w, struct ot_origin *o);
void ot_origin_of(const ot_span *s, struct ot_origin *o);

PyObject *ot_current(PyObject *module, PyObject *ignored);
PyObject *ot_remote(PyObject *module, PyObject *args);

/* 128-bit ids as Python's int. */
PyObject *ot_long_128(uint64_t hi, uint64_t lo);
int ot_long_words(PyObject *number, uint64_t words[2]); /* high, low; -1 with an exception set */

/* Status and flags by the type of what was raised (NULL or None: nothing), for an open entry. */
void ot_entry_raised(struct ot_slot *e, PyObject *error_type);

#endif
