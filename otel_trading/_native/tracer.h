/* OpenTelemetry's Tracer: from the arguments of start_span to a span that is open. */
#ifndef OTEL_TRADING_TRACER_H
#define OTEL_TRADING_TRACER_H

#include "span.h"

enum ot_sampler { OT_SAMPLER_TAKE = 0, OT_SAMPLER_DROP = 1, OT_SAMPLER_RATIO = 2 };

#define OT_KINDS 5

typedef struct ot_tracer {
    PyObject_HEAD
    PyObject *scope;             /* owned str */
    PyObject *make_probe;        /* owned */
    PyObject *decide;            /* owned, or NULL: the sampler is one of the three */
    PyObject *on_start;          /* owned, or NULL */
    PyObject *on_end;            /* owned, or NULL */
    PyObject *probes[OT_KINDS];  /* owned: dict, name → probe of that name */
    PyObject *renamed[OT_KINDS]; /* owned, or NULL: dict, name → probe of another name; emptied when it is large */
    PyObject *tiered;            /* owned, or NULL: dict, (name, kind, tier) → probe */
    uint64_t bound;
    uint8_t sampler;
    char parent_based; /* as the members of a Python type are */
    char enabled;
} ot_tracer;

extern PyTypeObject ot_tracer_type;
extern PyTypeObject ot_scope_type;

/* What start_span() was asked for; NULL for what was not given. */
struct ot_request {
    PyObject *name;
    PyObject *context;
    PyObject *kind;
    PyObject *attributes;
    PyObject *links;
    PyObject *start_time;
    bool record_exception;
    bool set_status_on_exception;
    bool end_on_exit;
};

int ot_tracer_start(PyObject *module); /* once, at import */
int ot_scope_start(PyObject *module);

/* A span, open and not current, or one that records nothing; NULL only for want of memory. */
ot_span *ot_tracer_span(ot_tracer *t, const struct ot_request *r);
/* scope.c: what start_as_current_span() gives. */
PyObject *ot_scope_new(ot_tracer *t, const struct ot_request *r);

#endif
