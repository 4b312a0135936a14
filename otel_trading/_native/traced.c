/* What `@probe` makes of a plain function: a callable that binds like one and answers to introspection
 * as the function it wraps. */
#include <stddef.h>

#include "probe.h"
#include "span.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    ot_probe_object *probe; /* owned */
    PyObject *function;     /* owned */
    PyObject *dict;         /* owned: __name__, __doc__, __wrapped__ … and what users set */
    PyObject *weakrefs;
} ot_traced_object;

static PyObject *
call_span(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    ot_traced_object *t = (ot_traced_object *)self;
    ot_span *s = ot_span_new(t->probe);
    if (OT_UNLIKELY(s == NULL))
        return NULL;
    ot_span_enter(s);
    PyObject *result = PyObject_Vectorcall(t->function, args, nargsf, kwnames);
    if (OT_LIKELY(result != NULL)) {
        ot_span_leave(s, NULL);
    }
    else {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        ot_span_leave(s, type);
        PyErr_Restore(type, value, trace);
    }
    Py_DECREF(s);
    return result;
}

static PyObject *
call_leaf(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    ot_traced_object *t = (ot_traced_object *)self;
    struct ot_writer *w = ot_writer_here();
    uint32_t entry = OT_NO_ENTRY;
    uint64_t epoch = ot_rec.epoch, span_id = 0;
    if (OT_LIKELY(w != NULL && ot_tier_on(t->probe->tier))) {
        entry = ot_flat_begin(w, t->probe, NULL);
        if (OT_LIKELY(entry != OT_NO_ENTRY))
            span_id = ot_entry(w, entry)->span_id;
    }
    PyObject *result = PyObject_Vectorcall(t->function, args, nargsf, kwnames);
    if (OT_LIKELY(entry != OT_NO_ENTRY && epoch == ot_rec.epoch)) {
        struct ot_slot *e = ot_entry(w, entry);
        uint64_t end = ot_ticks();
        if (OT_UNLIKELY(result == NULL)) {
            PyObject *type, *value, *trace;
            PyErr_Fetch(&type, &value, &trace);
            ot_entry_raised(e, type);
            PyErr_Restore(type, value, trace);
        }
        if (OT_LIKELY(epoch == ot_rec.epoch && e->state == OT_SLOT_OPEN && e->span_id == span_id)) {
            ot_commit(w, e, end);
            ot_entry_give(w, entry, e);
        }
    }
    return result;
}

static PyObject *
traced_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    if (object == NULL || object == Py_None)
        return Py_NewRef(self);
    return PyMethod_New(self, object);
}

static PyObject *
traced_getattr(PyObject *self, PyObject *name)
{
    PyObject *value = PyObject_GenericGetAttr(self, name);
    if (value != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return value;
    PyErr_Clear();
    return PyObject_GetAttr(((ot_traced_object *)self)->function, name);
}

static int
traced_traverse(PyObject *self, visitproc visit, void *arg)
{
    ot_traced_object *t = (ot_traced_object *)self;
    Py_VISIT(t->probe);
    Py_VISIT(t->function);
    Py_VISIT(t->dict);
    return 0;
}

static int
traced_clear(PyObject *self)
{
    ot_traced_object *t = (ot_traced_object *)self;
    Py_CLEAR(t->function);
    Py_CLEAR(t->dict);
    return 0;
}

static void
traced_dealloc(PyObject *self)
{
    ot_traced_object *t = (ot_traced_object *)self;
    PyObject_GC_UnTrack(self);
    if (t->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    (void)traced_clear(self);
    Py_CLEAR(t->probe);
    PyObject_GC_Del(self);
}

static PyObject *
traced_repr(PyObject *self)
{
    const ot_traced_object *t = (const ot_traced_object *)self;
    return PyUnicode_FromFormat("<traced %R by %R>", t->function, t->probe);
}

/* Found again by name, as functions are. */
static PyObject *
traced_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyObject_GetAttrString(self, "__qualname__");
}

static PyMethodDef traced_methods[] = {
    {"__reduce__", traced_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef traced_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject ot_traced_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native.traced_function",
    .tp_basicsize = sizeof(ot_traced_object),
    .tp_dealloc = traced_dealloc,
    .tp_vectorcall_offset = offsetof(ot_traced_object, vectorcall),
    .tp_repr = traced_repr,
    .tp_call = PyVectorcall_Call,
    .tp_getattro = traced_getattr,
    .tp_setattro = PyObject_GenericSetAttr,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
                Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_traverse = traced_traverse,
    .tp_clear = traced_clear,
    .tp_weaklistoffset = offsetof(ot_traced_object, weakrefs),
    .tp_methods = traced_methods,
    .tp_getset = traced_getset,
    .tp_descr_get = traced_get,
    .tp_dictoffset = offsetof(ot_traced_object, dict),
};

/* What functools.wraps copies. */
static int
copy_identity(ot_traced_object *t)
{
    static const char *const names[] = {"__module__", "__name__", "__qualname__", "__doc__"};
    t->dict = PyDict_New();
    if (t->dict == NULL)
        return -1;
    PyObject *theirs = PyObject_GetAttrString(t->function, "__dict__");
    if (theirs == NULL || PyDict_Update(t->dict, theirs) < 0)
        PyErr_Clear();
    Py_XDECREF(theirs);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        PyObject *value = PyObject_GetAttrString(t->function, names[i]);
        if (value == NULL) {
            PyErr_Clear();
            continue;
        }
        int failed = PyDict_SetItemString(t->dict, names[i], value);
        Py_DECREF(value);
        if (failed < 0)
            return -1;
    }
    return PyDict_SetItemString(t->dict, "__wrapped__", t->function);
}

PyObject *
ot_traced(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *probe, *function;
    if (!PyArg_ParseTuple(args, "O!O:traced", &ot_probe_type, &probe, &function))
        return NULL;
    if (!PyCallable_Check(function)) {
        PyErr_SetString(PyExc_TypeError, "traced() needs a callable");
        return NULL;
    }
    ot_traced_object *t = PyObject_GC_New(ot_traced_object, &ot_traced_type);
    if (t == NULL)
        return NULL;
    t->probe = (ot_probe_object *)Py_NewRef(probe);
    t->vectorcall = t->probe->leaf ? call_leaf : call_span;
    t->function = Py_NewRef(function);
    t->dict = NULL;
    t->weakrefs = NULL;
    PyObject_GC_Track((PyObject *)t);
    if (copy_identity(t) < 0) {
        Py_DECREF(t);
        return NULL;
    }
    return (PyObject *)t;
}

int
ot_traced_start(PyObject *Py_UNUSED(module))
{
    return PyType_Ready(&ot_traced_type);
}
