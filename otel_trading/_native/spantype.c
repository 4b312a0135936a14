/* The type Span: what Python sees of a span, but for OpenTelemetry's API. */
#include <stddef.h>

#include "apispan.h"
#include "context.h"

static PyObject *
span_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_span *s = (ot_span *)self;
    if (s->state == SPAN_REMOTE) {
        if (!s->current) {
            ot_span_become_current(s);
        }
        else { /* one parent entered by several tasks: each has a copy of its own as current */
            uint64_t trace_id[2] = {s->trace_hi, s->trace_lo};
            ot_span *copy = ot_span_stand_in(trace_id, s->span_id, s->remote, !(s->flags & OT_FLAG_UNSAMPLED),
                                             s->random, s->tracestate);
            if (copy == NULL)
                return NULL;
            ot_span_become_current(copy);
            Py_DECREF(copy);
        }
    }
    else if (!s->api) { /* a tracer's is open, and only Scope makes it current */
        ot_span_enter(s);
    }
    return Py_NewRef(self);
}

static void
leave(ot_span *s, PyObject *error_type)
{
    if (s->state != SPAN_REMOTE) {
        ot_span_leave(s, error_type);
        return;
    }
    ot_span *entered = ot_span_entered(s);
    ot_span_give_place_back(entered != NULL ? entered : s);
    Py_XDECREF(entered);
}

static PyObject *
span_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    ot_span *s = (ot_span *)self;
    if (s->api)
        ot_api_left(s, nargs > 0 ? args[0] : NULL, nargs > 1 ? args[1] : NULL);
    else
        leave(s, nargs > 0 ? args[0] : NULL);
    Py_RETURN_NONE;
}

PyObject *
ot_span_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *Py_UNUSED(kwnames))
{
    ot_span *s = (ot_span *)self;
    if (PyVectorcall_NARGS(nargsf) == 0)
        return span_enter(self, NULL);
    if (OT_UNLIKELY(s->state == SPAN_MADE)) {
        /* the leaving half of a pair whose entering half was another object: find what it opened */
        ot_span *found = s->probe != NULL ? ot_span_innermost(s->probe) : NULL;
        if (found == NULL) {
            ot_fault();
            Py_RETURN_NONE;
        }
        leave(found, args[0]);
        Py_DECREF(found);
        Py_RETURN_NONE;
    }
    leave(s, args[0]);
    Py_RETURN_NONE;
}

static PyObject *
span_begin(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_span_begin((ot_span *)self);
    Py_RETURN_NONE;
}

static PyObject *
span_finish(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *error = nargs > 0 && args[0] != Py_None ? (PyObject *)Py_TYPE(args[0]) : NULL;
    ot_span_end((ot_span *)self, error);
    Py_RETURN_NONE;
}

static PyObject *
span_resume(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_span_resume((ot_span *)self);
    Py_RETURN_NONE;
}

static PyObject *
span_suspend(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_span_suspend((ot_span *)self);
    Py_RETURN_NONE;
}

static PyObject *
get_trace_id(PyObject *self, void *Py_UNUSED(closure))
{
    const ot_span *s = (const ot_span *)self;
    return ot_long_128(s->trace_hi, s->trace_lo);
}

static PyObject *
get_span_id(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((ot_span *)self)->span_id);
}

static PyObject *
get_sampled(PyObject *self, void *Py_UNUSED(closure))
{
    const ot_span *s = (const ot_span *)self;
    return PyBool_FromLong(s->span_id != 0 && !(s->flags & OT_FLAG_UNSAMPLED));
}

static PyObject *
get_tracestate(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *tracestate = ((ot_span *)self)->tracestate;
    return Py_NewRef(tracestate != NULL ? tracestate : Py_None);
}

static PyObject *
get_recording(PyObject *self, void *Py_UNUSED(closure))
{
    const ot_span *s = (const ot_span *)self;
    return PyBool_FromLong(s->state == SPAN_OPEN && ot_span_writable(s));
}

static PyObject *
get_random(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((ot_span *)self)->random);
}

static PyObject *
get_remote(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((ot_span *)self)->remote);
}

static PyObject *
get_probe(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *probe = (PyObject *)((ot_span *)self)->probe;
    return Py_NewRef(probe != NULL ? probe : Py_None);
}

static PyObject *
span_state(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_span *s = (ot_span *)self;
    if (s->state != SPAN_OPEN || !ot_span_writable(s))
        Py_RETURN_NONE;
    const struct ot_slot *e = ot_entry(s->writer, s->entry);
    if (e->state != OT_SLOT_OPEN || e->span_id != s->span_id) /* written as interrupted meanwhile */
        Py_RETURN_NONE;
    return ot_entry_state(s->writer, e);
}

static PyObject *
span_repr(PyObject *self)
{
    static const char *const states[] = {"made", "open", "ended", "inert", "remote"};
    const ot_span *s = (const ot_span *)self;
    return PyUnicode_FromFormat("<otel_trading.Span %V %s>", s->probe ? s->probe->name : NULL, s->api ? "-" : "parent",
                                states[s->state]);
}

static PyMethodDef span_methods[] = {
    {"__enter__", span_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))span_exit, METH_FASTCALL, NULL},
    {"begin", span_begin, METH_NOARGS, NULL},
    {"finish", (PyCFunction)(void (*)(void))span_finish, METH_FASTCALL, NULL},
    {"resume", span_resume, METH_NOARGS, NULL},
    {"suspend", span_suspend, METH_NOARGS, NULL},
    {"state", span_state, METH_NOARGS, NULL},
    OT_API_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef span_getset[] = {
    {"trace_id", get_trace_id, NULL, NULL, NULL},
    {"span_id", get_span_id, NULL, NULL, NULL},
    {"sampled", get_sampled, NULL, NULL, NULL},
    {"tracestate", get_tracestate, NULL, NULL, NULL},
    {"recording", get_recording, NULL, NULL, NULL},
    {"random", get_random, NULL, NULL, NULL},
    {"remote", get_remote, NULL, NULL, NULL},
    {"probe", get_probe, NULL, NULL, NULL},
    OT_API_READABLE,
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject ot_span_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native.Span",
    .tp_basicsize = sizeof(ot_span),
    .tp_dealloc = ot_span_dealloc,
    .tp_vectorcall_offset = offsetof(ot_span, vectorcall),
    .tp_repr = span_repr,
    .tp_call = PyVectorcall_Call,
    .tp_flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_traverse = ot_span_traverse,
    .tp_clear = ot_span_clear,
    .tp_doc = "A span, or the remote parent that remote() makes.",
    .tp_methods = span_methods,
    .tp_getset = span_getset,
};

PyObject *
ot_remote(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *trace_id, *tracestate;
    unsigned long long span_id;
    int sampled, random = 1;
    if (!PyArg_ParseTuple(args, "O!KpO|p:remote", &PyLong_Type, &trace_id, &span_id, &sampled, &tracestate, &random))
        return NULL;
    uint64_t words[2];
    if (ot_long_words(trace_id, words) < 0)
        return NULL;
    /* without ids it is nobody's parent: `with` does nothing, as a parent it says nothing */
    bool valid = (words[0] | words[1]) != 0 && span_id != 0;
    ot_span *s = ot_span_stand_in(words, valid ? span_id : 0, true, sampled, random, tracestate);
    if (s != NULL && !valid)
        s->state = SPAN_INERT;
    return (PyObject *)s;
}

int
ot_spans_start(PyObject *module)
{
    if (PyType_Ready(&ot_span_type) < 0 || ot_contexts_start() < 0 || ot_api_start() < 0)
        return -1;
    if (ot_current_start() < 0)
        return -1;
    return PyModule_AddObjectRef(module, "Span", (PyObject *)&ot_span_type);
}
