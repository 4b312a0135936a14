/* What is current: one context variable, so that tasks, threads and copied contexts behave as Python's own. */
#include "context.h"

static PyObject *current_var; /* owned: the contextvars.ContextVar; None, a span or a frame */

int
ot_current_start(void)
{
    current_var = PyContextVar_New("otel_trading.current", NULL);
    return current_var != NULL ? 0 : -1;
}

PyObject *
ot_current_value(void)
{
    PyObject *value = NULL;
    if (OT_UNLIKELY(PyContextVar_Get(current_var, NULL, &value) < 0)) {
        PyErr_Clear();
        return NULL;
    }
    if (value == NULL)
        return NULL;
    Py_DECREF(value); /* the context keeps it alive */
    return OT_LIKELY(Py_IS_TYPE(value, &ot_span_type) || Py_IS_TYPE(value, &ot_frame_type)) ? value : NULL;
}

PyObject *
ot_current_set(PyObject *value)
{
    return PyContextVar_Set(current_var, value != NULL ? value : Py_None);
}

static void
set_current(PyObject *value)
{
    PyObject *token = ot_current_set(value);
    if (OT_UNLIKELY(token == NULL))
        PyErr_Clear();
    else
        Py_DECREF(token);
}

ot_span *
ot_span_current(void)
{
    PyObject *value = ot_current_value();
    if (value == NULL)
        return NULL;
    ot_span *s = OT_LIKELY(Py_IS_TYPE(value, &ot_span_type)) ? (ot_span *)value : ((ot_frame *)value)->span;
    return OT_LIKELY(s != NULL && s->span_id != 0) ? s : NULL;
}

void
ot_origin_of(const ot_span *s, struct ot_origin *o)
{
    o->trace_hi = s->trace_hi;
    o->trace_lo = s->trace_lo;
    o->parent_id = s->span_id;
    o->tracestate = s->tracestate;
    o->flags = (uint8_t)(s->flags & OT_FLAG_UNSAMPLED) | (s->remote ? OT_FLAG_REMOTE_PARENT : 0);
    o->random = s->random;
}

void
ot_origin_new(struct ot_writer *w, struct ot_origin *o)
{
    o->trace_hi = ot_random_id(w);
    o->trace_lo = ot_random_id(w);
    o->parent_id = 0;
    o->tracestate = NULL;
    o->flags = 0;
    o->random = true;
}

void
ot_origin_here(struct ot_writer *w, struct ot_origin *o)
{
    const ot_span *s = ot_span_current();
    if (s != NULL)
        ot_origin_of(s, o);
    else
        ot_origin_new(w, o);
}

void
ot_span_become_current(ot_span *s)
{
    PyObject *before = ot_current_value(), *under = NULL;
    if (before != NULL) {
        Py_INCREF(before);
        under = Py_IS_TYPE(before, &ot_span_type) ? ((ot_span *)before)->under : ((ot_frame *)before)->context;
    }
    Py_XSETREF(s->prev, before);
    if (OT_UNLIKELY(under != s->under))
        ot_span_put_over(s, under);
    s->current = true;
    s->left_early = false;
    set_current((PyObject *)s);
}

/* Back to `before`, or to what was before that where it has been left already. */
static void
restore(PyObject *before)
{
    while (before != NULL && Py_IS_TYPE(before, &ot_span_type) && ((ot_span *)before)->left_early)
        before = ((ot_span *)before)->prev;
    set_current(before);
}

/* Is all that is current above a span only what nobody will come back to: contexts that were attached and not detached? */
static bool
only_frames_above(const ot_span *s)
{
    PyObject *value = ot_current_value();
    while (value != NULL && value != (const PyObject *)s) {
        if (Py_IS_TYPE(value, &ot_frame_type)) {
            value = (PyObject *)((ot_frame *)value)->below;
        }
        else {
            if (((ot_span *)value)->current)
                return false;
            value = ((ot_span *)value)->prev;
        }
    }
    return value != NULL;
}

void
ot_span_give_place_back(ot_span *s)
{
    if (!s->current)
        return;
    s->current = false;
    ot_span_drop_context(s);
    if (OT_LIKELY(ot_current_value() == (PyObject *)s)) {
        restore(s->prev);
        Py_CLEAR(s->prev);
        return;
    }
    s->left_early = true; /* and prev stays: a late detach() that would come back here goes there */
    if (only_frames_above(s))
        restore(s->prev);
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
    PyObject *inner = ot_current_value();
    if (inner != (PyObject *)s && s->state == SPAN_OPEN)
        Py_XSETREF(s->inner, Py_XNewRef(inner));
    s->current = false;
    ot_span_drop_context(s);
    restore(s->prev);
    Py_CLEAR(s->prev);
}

int
ot_current_reset(PyObject *token)
{
    if (PyContextVar_Reset(current_var, token) < 0)
        return -1;
    PyObject *value = ot_current_value();
    if (OT_UNLIKELY(value != NULL && Py_IS_TYPE(value, &ot_span_type) && ((ot_span *)value)->left_early)) {
        Py_INCREF(value);
        restore(value);
        Py_DECREF(value);
    }
    return 0;
}

/* The span at or below a value of the context variable; borrowed. */
static ot_span *
span_below(PyObject *value)
{
    if (value == NULL || Py_IS_TYPE(value, &ot_span_type))
        return (ot_span *)value;
    return ((ot_frame *)value)->below;
}

ot_span *
ot_span_innermost(const ot_probe_object *probe)
{
    for (ot_span *s = span_below(ot_current_value()); s != NULL; s = span_below(s->prev)) {
        if (s->probe == probe && s->state == SPAN_OPEN && s->current && s->tracer == NULL)
            return (ot_span *)Py_NewRef((PyObject *)s);
    }
    return NULL;
}

ot_span *
ot_span_entered(const ot_span *parent)
{
    for (ot_span *s = span_below(ot_current_value()); s != NULL; s = span_below(s->prev)) {
        if (s->state == SPAN_REMOTE && s->current && s->span_id == parent->span_id && s->trace_lo == parent->trace_lo)
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
