/* What is current: one context variable, so that tasks, threads and copied contexts behave as Python's own. */
#include "span.h"

static PyObject *current_var; /* owned: the contextvars.ContextVar; None or a span */

int
ot_current_start(void)
{
    current_var = PyContextVar_New("otel_trading.current", NULL);
    return current_var != NULL ? 0 : -1;
}

ot_span *
ot_span_current(void)
{
    PyObject *value = NULL;
    if (OT_UNLIKELY(PyContextVar_Get(current_var, NULL, &value) < 0)) {
        PyErr_Clear();
        return NULL;
    }
    if (value == NULL)
        return NULL;
    Py_DECREF(value); /* the context keeps it alive */
    return Py_IS_TYPE(value, &ot_span_type) ? (ot_span *)value : NULL;
}

static void
set_current(ot_span *s)
{
    PyObject *token = PyContextVar_Set(current_var, s != NULL ? (PyObject *)s : Py_None);
    if (OT_UNLIKELY(token == NULL))
        PyErr_Clear();
    else
        Py_DECREF(token);
}

void
ot_origin_of(const ot_span *s, struct ot_origin *o)
{
    o->trace_hi = s->trace_hi;
    o->trace_lo = s->trace_lo;
    o->parent_id = s->span_id;
    o->tracestate = s->tracestate;
    o->flags = (uint8_t)(s->flags & OT_FLAG_UNSAMPLED) | (s->state == SPAN_REMOTE ? OT_FLAG_REMOTE_PARENT : 0);
}

static void
origin_new(struct ot_writer *w, struct ot_origin *o)
{
    o->trace_hi = ot_random_id(w);
    o->trace_lo = ot_random_id(w);
    o->parent_id = 0;
    o->tracestate = NULL;
    o->flags = 0;
}

void
ot_origin_here(struct ot_writer *w, struct ot_origin *o)
{
    const ot_span *s = ot_span_current();
    if (s != NULL)
        ot_origin_of(s, o);
    else
        origin_new(w, o);
}

void
ot_span_become_current(ot_span *s)
{
    ot_span *before = ot_span_current();
    Py_XINCREF(before);
    Py_XSETREF(s->prev, before);
    s->current = true;
    s->left_early = false;
    set_current(s);
}

void
ot_span_give_place_back(ot_span *s)
{
    if (!s->current)
        return;
    s->current = false;
    if (ot_span_current() != s) {
        s->left_early = true;
        return;
    }
    ot_span *before = s->prev;
    while (before != NULL && before->left_early)
        before = before->prev;
    set_current(before);
    Py_CLEAR(s->prev);
}

/* A generator's step: what its body had made current comes back with it, above what is current now. */
void
ot_span_resume(ot_span *s)
{
    if (s->state != SPAN_OPEN || s->current)
        return;
    ot_span_become_current(s);
    if (s->inner != NULL) {
        set_current(s->inner);
        Py_CLEAR(s->inner);
    }
}

void
ot_span_suspend(ot_span *s)
{
    if (!s->current)
        return;
    ot_span *inner = ot_span_current(), *before = s->prev;
    if (inner != s && s->state == SPAN_OPEN)
        s->inner = (ot_span *)Py_XNewRef((PyObject *)inner);
    s->current = false;
    while (before != NULL && before->left_early)
        before = before->prev;
    set_current(before);
    Py_CLEAR(s->prev);
}

ot_span *
ot_span_innermost(const ot_probe_object *probe)
{
    for (ot_span *s = ot_span_current(); s != NULL; s = s->prev) {
        if (s->probe == probe && s->state == SPAN_OPEN && s->current)
            return (ot_span *)Py_NewRef((PyObject *)s);
    }
    return NULL;
}

PyObject *
ot_current(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    ot_span *s = ot_span_current();
    return Py_NewRef(s != NULL ? (PyObject *)s : Py_None);
}
