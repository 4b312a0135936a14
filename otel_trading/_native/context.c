#include "context.h"

#include "hooks.h"

static PyObject *empty;       /* owned: the Context of the installed class where nothing is current */
static PyObject *empty_class; /* owned: the class that it is of */

/* ---- a context's span ---- */

/* A stand-in for what the hook tells of a foreign span; NULL for an invalid one. */
static ot_span *
stand_in(PyObject *span)
{
    PyObject *told = PyObject_CallOneArg(ot_hooks.foreign, span);
    uint64_t words[2];
    if (told == NULL || !PyTuple_Check(told) || PyTuple_GET_SIZE(told) != 5 ||
        ot_long_words(PyTuple_GET_ITEM(told, 0), words) < 0) {
        Py_XDECREF(told);
        PyErr_Clear();
        return NULL;
    }
    uint64_t span_id = PyLong_AsUnsignedLongLongMask(PyTuple_GET_ITEM(told, 1));
    int remote = PyObject_IsTrue(PyTuple_GET_ITEM(told, 2));
    unsigned long flags = PyLong_AsUnsignedLongMask(PyTuple_GET_ITEM(told, 3));
    ot_span *s = NULL;
    if (!PyErr_Occurred() && (words[0] | words[1]) != 0 && span_id != 0)
        s = ot_span_stand_in(words, span_id, remote > 0, (flags & 1) != 0, (flags & 2) != 0, PyTuple_GET_ITEM(told, 4));
    Py_DECREF(told);
    PyErr_Clear();
    return s;
}

ot_span *
ot_context_span(PyObject *context)
{
    if (OT_UNLIKELY(ot_hooks.span_key == NULL))
        return NULL;
    PyObject *span;
    if (OT_LIKELY(PyDict_Check(context)))
        span = Py_XNewRef(PyDict_GetItemWithError(context, ot_hooks.span_key));
    else
        span = PyObject_CallMethod(context, "get", "O", ot_hooks.span_key);
    if (span == NULL) {
        PyErr_Clear();
        return NULL;
    }
    if (OT_LIKELY(Py_IS_TYPE(span, &ot_span_type)))
        return (ot_span *)span;
    ot_span *s = span != Py_None ? stand_in(span) : NULL;
    Py_DECREF(span);
    return s;
}

/* ---- frames ---- */

static int
frame_traverse(PyObject *self, visitproc visit, void *arg)
{
    ot_frame *f = (ot_frame *)self;
    Py_VISIT(f->context);
    Py_VISIT(f->below);
    Py_VISIT(f->span);
    return 0;
}

static int
frame_clear(PyObject *self)
{
    ot_frame *f = (ot_frame *)self;
    PyObject *below = (PyObject *)f->below;
    f->below = NULL;
    Py_CLEAR(f->context);
    Py_CLEAR(f->span);
    ot_chain_release(below);
    return 0;
}

static void
frame_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    (void)frame_clear(self);
    PyObject_GC_Del(self);
}

PyTypeObject ot_frame_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native._frame",
    .tp_basicsize = sizeof(ot_frame),
    .tp_dealloc = frame_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_traverse = frame_traverse,
    .tp_clear = frame_clear,
};

int
ot_contexts_start(void)
{
    return PyType_Ready(&ot_frame_type);
}

/* ---- the runtime's three functions ---- */

static PyObject *
installed(void)
{
    if (ot_hooks.context == NULL)
        PyErr_SetString(PyExc_RuntimeError, "otel_trading: api_install() comes before contexts are used");
    return ot_hooks.context;
}

static PyObject *
empty_context(void)
{
    PyObject *class = installed();
    if (class == NULL)
        return NULL;
    if (OT_UNLIKELY(empty_class != class)) {
        PyObject *made = PyObject_CallNoArgs(class);
        if (made == NULL)
            return NULL;
        Py_XSETREF(empty, made);
        Py_XSETREF(empty_class, Py_NewRef(class));
    }
    return Py_NewRef(empty);
}

/* What is under the span and the span itself, as a Context; kept while the span is current. */
static PyObject *
span_context(ot_span *s)
{
    if (OT_LIKELY(s->context != NULL))
        return Py_NewRef(s->context);
    PyObject *class = installed();
    if (class == NULL)
        return NULL;
    PyObject *made = s->under != NULL ? PyObject_CallOneArg(class, s->under) : PyObject_CallNoArgs(class);
    if (made == NULL)
        return NULL;
    if (!PyDict_Check(made) || PyDict_SetItem(made, ot_hooks.span_key, (PyObject *)s) < 0) {
        Py_DECREF(made);
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "otel_trading: Context is not a dict");
        return NULL;
    }
    if (s->current && s->state != SPAN_ENDED && s->context == NULL)
        ot_span_keep_context(s, made);
    return made;
}

PyObject *
ot_get_context(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    PyObject *value = ot_current_value();
    if (value == NULL)
        return empty_context();
    if (Py_IS_TYPE(value, &ot_span_type)) {
        Py_INCREF(value);
        PyObject *context = span_context((ot_span *)value);
        Py_DECREF(value);
        return context;
    }
    return Py_NewRef(((ot_frame *)value)->context);
}

PyObject *
ot_attach_context(PyObject *Py_UNUSED(module), PyObject *context)
{
    ot_span *span = ot_context_span(context); /* runs a foreign span's code, so it comes first */
    ot_frame *f = PyObject_GC_New(ot_frame, &ot_frame_type);
    if (f == NULL) {
        Py_XDECREF(span);
        return NULL;
    }
    PyObject *value = ot_current_value();
    if (value != NULL && !Py_IS_TYPE(value, &ot_span_type))
        value = (PyObject *)((ot_frame *)value)->below;
    f->context = Py_NewRef(context);
    f->below = (ot_span *)Py_XNewRef(value);
    f->span = span;
    PyObject_GC_Track((PyObject *)f);
    PyObject *token = ot_current_set((PyObject *)f);
    Py_DECREF(f);
    return token;
}

PyObject *
ot_detach_context(PyObject *Py_UNUSED(module), PyObject *token)
{
    if (ot_current_reset(token) < 0)
        return NULL;
    Py_RETURN_NONE;
}
