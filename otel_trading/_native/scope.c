/* What start_as_current_span() gives: a context manager, and a decorator. */
#include <stddef.h>

#include "apispan.h"
#include "hooks.h"
#include "tracer.h"

#define FREE_SCOPES 64

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    ot_tracer *tracer;         /* owned */
    struct ot_request request; /* its objects are owned */
    ot_span *span;             /* owned; between entering and leaving */
} ot_scope;

static ot_scope *free_scopes[FREE_SCOPES];
static int free_count;

static PyObject *scope_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames);

PyObject *
ot_scope_new(ot_tracer *t, const struct ot_request *r)
{
    ot_scope *s;
    if (OT_LIKELY(free_count > 0)) {
        s = free_scopes[--free_count];
        (void)PyObject_Init((PyObject *)s, &ot_scope_type);
    }
    else {
        s = PyObject_New(ot_scope, &ot_scope_type);
        if (s == NULL)
            return NULL;
    }
    s->vectorcall = scope_vectorcall;
    s->tracer = (ot_tracer *)Py_NewRef((PyObject *)t);
    s->request = *r;
    s->span = NULL;
    Py_INCREF(r->name);
    Py_XINCREF(r->context);
    Py_XINCREF(r->kind);
    Py_XINCREF(r->attributes);
    Py_XINCREF(r->links);
    Py_XINCREF(r->start_time);
    return (PyObject *)s;
}

static void
scope_dealloc(PyObject *self)
{
    ot_scope *s = (ot_scope *)self;
    Py_CLEAR(s->span);
    Py_CLEAR(s->tracer);
    Py_CLEAR(s->request.name);
    Py_CLEAR(s->request.context);
    Py_CLEAR(s->request.kind);
    Py_CLEAR(s->request.attributes);
    Py_CLEAR(s->request.links);
    Py_CLEAR(s->request.start_time);
    if (OT_LIKELY(free_count < FREE_SCOPES))
        free_scopes[free_count++] = s;
    else
        PyObject_Free(s);
}

static PyObject *
enter(ot_scope *s)
{
    if (OT_UNLIKELY(s->span != NULL)) { /* entered twice: the SDK's is for one use, too */
        ot_fault();
        return Py_NewRef((PyObject *)s->span);
    }
    ot_span *span = ot_tracer_span(s->tracer, &s->request);
    if (OT_UNLIKELY(span == NULL))
        return NULL;
    ot_span_become_current(span);
    s->span = (ot_span *)Py_NewRef((PyObject *)span);
    return (PyObject *)span;
}

/* As use_span() does it: the place is given back first, then what was raised is recorded, then the span ends. */
static void
leave(ot_scope *s, PyObject *error)
{
    ot_span *span = s->span;
    if (OT_UNLIKELY(span == NULL)) {
        ot_fault();
        return;
    }
    s->span = NULL;
    ot_span_give_place_back(span);
    if (OT_UNLIKELY(PyExceptionInstance_Check(error) &&
                    PyType_IsSubtype(Py_TYPE(error), (PyTypeObject *)PyExc_Exception)))
        ot_api_raised(span, error, false);
    if (OT_LIKELY(s->request.end_on_exit) && span->state != SPAN_INERT)
        ot_span_end(span, NULL);
    Py_DECREF(span);
}

/* The statement `with` finds the scope itself as its two halves, and calls it: without arguments to enter, with three to
 * leave.  One argument is the function that it decorates. */
static PyObject *
scope_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (OT_LIKELY(kwnames == NULL || PyTuple_GET_SIZE(kwnames) == 0)) {
        if (nargs == 0)
            return enter((ot_scope *)self);
        if (OT_LIKELY(nargs == 3)) {
            leave((ot_scope *)self, args[1]);
            Py_RETURN_NONE;
        }
        if (nargs == 1 && ot_hooks.decorate != NULL)
            return PyObject_CallFunctionObjArgs(ot_hooks.decorate, self, args[0], NULL);
    }
    PyErr_SetString(PyExc_TypeError, "start_as_current_span() gives a context manager, or a decorator of one function");
    return NULL;
}

static PyObject *
scope_again(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const ot_scope *s = (const ot_scope *)self;
    return ot_scope_new(s->tracer, &s->request);
}

static PyObject *
scope_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<otel_trading.Scope %R>", ((ot_scope *)self)->request.name);
}

static PyMethodDef scope_methods[] = {
    {"again", scope_again, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject ot_scope_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native.Scope",
    .tp_basicsize = sizeof(ot_scope),
    .tp_dealloc = scope_dealloc,
    .tp_vectorcall_offset = offsetof(ot_scope, vectorcall),
    .tp_repr = scope_repr,
    .tp_call = PyVectorcall_Call,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "What start_as_current_span() gives: a context manager, and a decorator.",
    .tp_methods = scope_methods,
};

/* ---- __enter__ and __exit__ ---- */

typedef struct {
    PyObject_HEAD
} scope_half;

static PyObject *
half_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    return Py_NewRef(object != NULL && Py_IS_TYPE(object, &ot_scope_type) ? object : self);
}

/* type(scope).__enter__(scope), as contextlib.ExitStack does. */
static PyObject *
half_call(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    Py_ssize_t count = PyTuple_GET_SIZE(args);
    if (count < 1 || !Py_IS_TYPE(PyTuple_GET_ITEM(args, 0), &ot_scope_type) ||
        (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)) {
        PyErr_SetString(PyExc_TypeError, "needs what start_as_current_span() gave");
        return NULL;
    }
    return PyObject_Vectorcall(PyTuple_GET_ITEM(args, 0), &PyTuple_GET_ITEM(args, 1), (size_t)(count - 1), NULL);
}

static PyTypeObject half_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native._scope_half",
    .tp_basicsize = sizeof(scope_half),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_descr_get = half_get,
    .tp_call = half_call,
};

int
ot_scope_start(PyObject *module)
{
    if (PyType_Ready(&half_type) < 0 || PyType_Ready(&ot_scope_type) < 0)
        return -1;
    PyObject *half = (PyObject *)PyObject_New(scope_half, &half_type);
    if (half == NULL)
        return -1;
    int failed = PyDict_SetItemString(ot_scope_type.tp_dict, "__enter__", half) < 0 ||
                 PyDict_SetItemString(ot_scope_type.tp_dict, "__exit__", half) < 0;
    Py_DECREF(half);
    if (failed)
        return -1;
    PyType_Modified(&ot_scope_type);
    return PyModule_AddObjectRef(module, "Scope", (PyObject *)&ot_scope_type);
}
