/* Spans that become current, and the context variable that says which one is. */
#ifndef OTEL_TRADING_SPAN_H
#define OTEL_TRADING_SPAN_H

#include "entry.h"
#include "probe.h"

enum span_state {
    SPAN_MADE,
    SPAN_OPEN,
    SPAN_ENDED,
    SPAN_INERT,  /* nothing is recorded; a tracer's has the ids of its parent, any other's span id is 0 */
    SPAN_REMOTE, /* a parent from elsewhere, or one of ours that was handed on without its span */
};

struct ot_tracer;

typedef struct ot_span {
    PyObject_HEAD
    vectorcallfunc vectorcall; /* `with probe:` calls the span itself: once to enter, once to leave */
    ot_probe_object *probe;    /* owned; NULL for a remote or an inert one */
    PyObject *prev;    /* owned: a span or a frame, what was current before; dropped when the span is left in order */
    PyObject *inner;   /* owned: the same; what was current at suspend(), until the next resume() */
    PyObject *under;   /* owned, NULL = empty: the OpenTelemetry context that the span became current over */
    PyObject *context; /* owned: `under` and the span itself.  A cycle, so kept only while the span is current and open,
                        * and shown to the collector */
    PyObject *span_context;   /* owned, or NULL: what get_span_context() gives */
    struct ot_tracer *tracer; /* owned; NULL for a span that no tracer made */
    struct ot_writer *writer; /* borrowed; good while epoch is the recorder's */
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
    bool tracked;    /* the collector knows of it: it has `context` or `under` */
    bool random;     /* the trace id's low 56 bits are known to be random */
    bool remote;     /* it is another process's */
    bool api;        /* made by a tracer, if only to say that nothing is recorded */
    bool dropped;    /* by the sampler: counts in the metrics and takes nothing */
    bool record_exception;
    bool set_status_on_exception;
} ot_span;

extern PyTypeObject ot_span_type; /* spantype.c */
PyObject *ot_span_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames);
int ot_span_traverse(PyObject *self, visitproc visit, void *arg);
int ot_span_clear(PyObject *self);
void ot_span_dealloc(PyObject *self);

int ot_spans_start(PyObject *module); /* once, at import */

/* Made for a probe, not yet open; NULL only for want of memory. */
ot_span *ot_span_new(ot_probe_object *probe);
/* A parent that is known by its ids alone, which are not 0; NULL only for want of memory. */
ot_span *ot_span_stand_in(const uint64_t trace_id[2], uint64_t span_id, bool remote, bool sampled, bool random,
                          PyObject *tracestate);
/* Settle the origin by an explicit parent; anything but a span of ours means "none". */
void ot_span_set_parent(ot_span *s, PyObject *parent);
void ot_span_set_attribute(ot_span *s, PyObject *key, uint32_t key_id, PyObject *value);
void ot_span_begin(ot_span *s);
void ot_span_end(ot_span *s, PyObject *error_type);
void ot_span_end_at(ot_span *s, uint64_t unix_ns);    /* at a time that the program gave */
void ot_span_enter(ot_span *s);                       /* begin and become current */
void ot_span_leave(ot_span *s, PyObject *error_type); /* end and give the place back */
/* The innermost open span of this probe in this context, owned; NULL where there is none. */
ot_span *ot_span_innermost(const ot_probe_object *probe);
/* The parent from elsewhere, or the copy of it, that is current in this context; owned; NULL where there is none. */
ot_span *ot_span_entered(const ot_span *parent);

/* Is there an entry of the present segment that is still this span's? */
static inline bool
ot_span_writable(const ot_span *s)
{
    return s->entry != OT_NO_ENTRY && s->epoch == ot_rec.epoch;
}

/* `context` and `under`, which only spans have that are current over or asked for an OpenTelemetry context. */
void ot_span_put_over(ot_span *s, PyObject *under);
void ot_span_keep_context(ot_span *s, PyObject *context);
static inline void
ot_span_drop_context(ot_span *s)
{
    if (OT_UNLIKELY(s->context != NULL))
        Py_CLEAR(s->context);
}
/* Let go of a chain of spans and frames that is owned, one by one: no recursion however long it is. */
void ot_chain_release(PyObject *value);

/* current.c */
int ot_current_start(void);                /* once, at import */
PyObject *ot_current_value(void);          /* a span or a frame, borrowed from the context; NULL without one */
PyObject *ot_current_set(PyObject *value); /* the variable's token, owned; NULL with an exception set */
int ot_current_reset(PyObject *token);     /* -1 with an exception set */
void ot_span_become_current(ot_span *s);
void ot_span_give_place_back(ot_span *s);
void ot_span_resume(ot_span *s);
void ot_span_suspend(ot_span *s);
/* The current span, borrowed from the context; NULL without one, or where it has no ids. */
ot_span *ot_span_current(void);
void ot_origin_here(struct ot_writer *w, struct ot_origin *o);
void ot_origin_new(struct ot_writer *w, struct ot_origin *o);
void ot_origin_of(const ot_span *s, struct ot_origin *o);

PyObject *ot_current(PyObject *module, PyObject *ignored);
PyObject *ot_remote(PyObject *module, PyObject *args);

/* 128-bit ids as Python's int. */
PyObject *ot_long_128(uint64_t hi, uint64_t lo);
int ot_long_words(PyObject *number, uint64_t words[2]); /* high, low; -1 with an exception set */

/* The tracestate of an entry that is reserved; none where the name table has no more room for such. */
void ot_entry_tracestate(struct ot_writer *w, struct ot_slot *e, PyObject *tracestate);
/* The start that the program gave in place of now, for an entry that has begun. */
void ot_entry_start_at(struct ot_slot *e, uint64_t unix_ns);
/* Status and flags by the type of what was raised (NULL or None: nothing), for an open entry. */
void ot_entry_raised(struct ot_slot *e, PyObject *error_type);

#endif
