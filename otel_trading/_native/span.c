#include "span.h"

#include <stddef.h>
#include <string.h>

#include "names.h"

#define FREE_SPANS 256

static ot_span *free_spans[FREE_SPANS];
static int free_count;

static PyObject *span_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames);

/* ---- a span's life ---- */

ot_span *
ot_span_new(ot_probe_object *probe)
{
    ot_span *s;
    if (OT_LIKELY(free_count > 0)) {
        s = free_spans[--free_count];
        (void)PyObject_Init((PyObject *)s, &ot_span_type);
    }
    else {
        s = PyObject_New(ot_span, &ot_span_type);
        if (s == NULL)
            return NULL;
    }
    memset((char *)s + offsetof(ot_span, vectorcall), 0, sizeof *s - offsetof(ot_span, vectorcall));
    s->vectorcall = span_vectorcall;
    s->probe = (ot_probe_object *)Py_XNewRef((PyObject *)probe);
    s->entry = OT_NO_ENTRY;
    return s;
}

static inline bool
writable(const ot_span *s)
{
    return s->entry != OT_NO_ENTRY && s->epoch == ot_rec.epoch;
}

/* Have an entry, reserved; false where nothing is recorded now. */
static bool
reserve(ot_span *s)
{
    if (writable(s))
        return true;
    struct ot_writer *w = ot_writer_here();
    if (w == NULL || !ot_tier_on(s->probe->tier))
        return false;
    s->entry = ot_entry_take(w);
    if (s->entry == OT_NO_ENTRY) {
        ot_span_refused(s->probe->tier);
        return false;
    }
    s->writer = w;
    s->epoch = ot_rec.epoch;
    OT_STORE(OT_META(ot_entry(w, s->entry)), OT_META_WORD(s->probe->id, OT_SLOT_RESERVED, 0, 0, 0, 0, s->probe->tier));
    return true;
}

void
ot_span_set_parent(ot_span *s, PyObject *parent)
{
    if (!Py_IS_TYPE(parent, &ot_span_type) || ((ot_span *)parent)->span_id == 0)
        return;
    struct ot_origin o;
    ot_origin_of((ot_span *)parent, &o);
    s->trace_hi = o.trace_hi;
    s->trace_lo = o.trace_lo;
    s->parent_id = o.parent_id;
    s->flags = o.flags;
    Py_XSETREF(s->tracestate, Py_XNewRef(o.tracestate));
    s->parented = true;
}

void
ot_span_begin(ot_span *s)
{
    if (s->state != SPAN_MADE) {
        if (s->state != SPAN_INERT)
            ot_fault();
        return;
    }
    if (!reserve(s)) {
        s->state = SPAN_INERT;
        s->entry = OT_NO_ENTRY;
        return;
    }
    struct ot_writer *w = s->writer;
    struct ot_origin o;
    if (s->parented) {
        o = (struct ot_origin){s->trace_hi, s->trace_lo, s->parent_id, s->tracestate, s->flags};
    }
    else {
        ot_origin_here(w, &o);
        s->trace_hi = o.trace_hi;
        s->trace_lo = o.trace_lo;
        s->parent_id = o.parent_id;
        s->flags = o.flags;
        s->tracestate = Py_XNewRef(o.tracestate);
    }
    struct ot_slot *e = ot_entry(w, s->entry);
    if (OT_UNLIKELY(!ot_tier_takes(s->probe->tier, o.trace_lo))) {
        ot_entry_give(w, s->entry, e);
        s->state = SPAN_INERT;
        s->span_id = 0;
        s->entry = OT_NO_ENTRY;
        return;
    }
    s->span_id = ot_random_id(w);
    if (OT_UNLIKELY(o.tracestate != NULL)) {
        ot_entry_extra(e);
        OT_STORE(&e->tracestate, ot_name_id(o.tracestate));
    }
    s->state = SPAN_OPEN;
    ot_entry_begin(e, &o, s->span_id,
                   OT_META_WORD(s->probe->id, OT_SLOT_OPEN, 0, o.flags, e->count, e->extra, s->probe->tier));
}

void
ot_entry_raised(struct ot_slot *e, PyObject *type)
{
    if (type == NULL || type == Py_None || !PyType_Check(type))
        return;
    if (PyType_IsSubtype((PyTypeObject *)type, (PyTypeObject *)PyExc_Exception)) {
        ot_entry_extra(e);
        OT_STORE(&e->error, ot_error_name(type));
        OT_STORE(&e->status, OT_STATUS_ERROR);
        return;
    }
    for (PyTypeObject *t = (PyTypeObject *)type; t != NULL; t = t->tp_base) {
        if (strcmp(t->tp_name, "CancelledError") == 0) { /* asyncio's; not an error, but not the end either */
            OT_STORE(&e->flags, e->flags | OT_FLAG_CANCELLED);
            return;
        }
    }
}

void
ot_span_end(ot_span *s, PyObject *error_type)
{
    if (s->state != SPAN_OPEN) {
        if (s->state == SPAN_ENDED)
            ot_fault();
        else if (s->state == SPAN_MADE)
            s->state = SPAN_INERT;
        return;
    }
    s->state = SPAN_ENDED;
    Py_CLEAR(s->inner);
    if (!writable(s)) /* begun before a fork or in a segment that is gone */
        return;
    struct ot_writer *w = s->writer;
    struct ot_slot *e = ot_entry(w, s->entry);
    if (OT_UNLIKELY(error_type != NULL && error_type != Py_None)) {
        ot_entry_raised(e, error_type);
        if (!writable(s))
            return;
    }
    uint64_t end = ot_ticks();
    if (OT_LIKELY(e->state == OT_SLOT_OPEN && e->span_id == s->span_id)) {
        ot_commit(w, e, end); /* into the ring it began in, where its arena blocks are, whatever thread this is */
        ot_entry_give(w, s->entry, e);
    }
    s->entry = OT_NO_ENTRY;
}

void
ot_span_enter(ot_span *s)
{
    ot_span_begin(s);
    if (s->state == SPAN_OPEN)
        ot_span_become_current(s);
}

void
ot_span_leave(ot_span *s, PyObject *error_type)
{
    ot_span_end(s, error_type);
    ot_span_give_place_back(s);
}

void
ot_span_set_attribute(ot_span *s, PyObject *key, uint32_t key_id, PyObject *value)
{
    if (s->state == SPAN_INERT)
        return;
    if (s->state > SPAN_OPEN) {
        ot_fault();
        return;
    }
    if (s->state == SPAN_MADE && !reserve(s))
        return;
    if (writable(s))
        ot_attribute_set(s->writer, ot_entry(s->writer, s->entry), key, key_id, value);
}

/* ---- the type ---- */

static void
span_dealloc(PyObject *self)
{
    /* a chain of spans is let go one by one: no recursion however long it is */
    ot_span *s = (ot_span *)self;
    ot_span *before = s->prev;
    s->prev = NULL;
    if (OT_UNLIKELY(s->entry != OT_NO_ENTRY) && writable(s)) {
        struct ot_slot *e = ot_entry(s->writer, s->entry);
        if (s->state == SPAN_OPEN && e->span_id == s->span_id && e->state == OT_SLOT_OPEN) {
            OT_STORE(&e->flags, e->flags | OT_FLAG_ABANDONED);
            ot_commit(s->writer, e, ot_ticks());
            ot_entry_give(s->writer, s->entry, e);
        }
        else if (s->state == SPAN_MADE) {
            ot_entry_give(s->writer, s->entry, e);
        }
    }
    Py_CLEAR(s->probe);
    Py_CLEAR(s->tracestate);
    Py_CLEAR(s->inner);
    if (free_count < FREE_SPANS)
        free_spans[free_count++] = s;
    else
        PyObject_Free(s);
    while (before != NULL && Py_REFCNT(before) == 1) {
        ot_span *next = before->prev;
        before->prev = NULL;
        Py_DECREF(before);
        before = next;
    }
    Py_XDECREF(before);
}

static PyObject *
span_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_span *s = (ot_span *)self;
    if (s->state == SPAN_REMOTE) {
        if (!s->current) {
            ot_span_become_current(s);
        }
        else { /* one parent entered by several tasks: each has a copy of its own as current */
            ot_span *copy = ot_span_new(NULL);
            if (copy == NULL)
                return NULL;
            copy->trace_hi = s->trace_hi;
            copy->trace_lo = s->trace_lo;
            copy->span_id = s->span_id;
            copy->flags = s->flags;
            copy->state = SPAN_REMOTE;
            copy->tracestate = Py_XNewRef(s->tracestate);
            ot_span_become_current(copy);
            Py_DECREF(copy);
        }
    }
    else {
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
    for (ot_span *c = ot_span_current(); c != NULL; c = c->prev) {
        if (c->state == SPAN_REMOTE && c->current && c->span_id == s->span_id && c->trace_lo == s->trace_lo) {
            Py_INCREF(c);
            ot_span_give_place_back(c);
            Py_DECREF(c);
            return;
        }
    }
    ot_span_give_place_back(s);
}

static PyObject *
span_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    leave((ot_span *)self, nargs > 0 ? args[0] : NULL);
    Py_RETURN_NONE;
}

static PyObject *
span_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *Py_UNUSED(kwnames))
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
span_set_attribute(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "set_attribute() takes a str and a value");
        return NULL;
    }
    ot_span_set_attribute((ot_span *)self, args[0], OT_NAME_NONE, args[1]);
    Py_RETURN_NONE;
}

static PyObject *
span_begin(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_span_begin((ot_span *)self);
    Py_RETURN_NONE;
}

static PyObject *
span_end(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
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
    return PyBool_FromLong(s->state == SPAN_OPEN && writable(s));
}

static PyObject *
span_repr(PyObject *self)
{
    static const char *const states[] = {"made", "open", "ended", "inert", "remote"};
    const ot_span *s = (const ot_span *)self;
    return PyUnicode_FromFormat("<otel_trading.Span %V %s>", s->probe ? s->probe->name : NULL, "parent",
                                states[s->state]);
}

static PyMethodDef span_methods[] = {
    {"__enter__", span_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))span_exit, METH_FASTCALL, NULL},
    {"set_attribute", (PyCFunction)(void (*)(void))span_set_attribute, METH_FASTCALL, NULL},
    {"begin", span_begin, METH_NOARGS, NULL},
    {"end", (PyCFunction)(void (*)(void))span_end, METH_FASTCALL, NULL},
    {"resume", span_resume, METH_NOARGS, NULL},
    {"suspend", span_suspend, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef span_getset[] = {
    {"trace_id", get_trace_id, NULL, NULL, NULL},   {"span_id", get_span_id, NULL, NULL, NULL},
    {"sampled", get_sampled, NULL, NULL, NULL},     {"tracestate", get_tracestate, NULL, NULL, NULL},
    {"recording", get_recording, NULL, NULL, NULL}, {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject ot_span_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native.Span",
    .tp_basicsize = sizeof(ot_span),
    .tp_dealloc = span_dealloc,
    .tp_vectorcall_offset = offsetof(ot_span, vectorcall),
    .tp_repr = span_repr,
    .tp_call = PyVectorcall_Call,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "A span, or the remote parent that remote() makes.",
    .tp_methods = span_methods,
    .tp_getset = span_getset,
};

PyObject *
ot_remote(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *trace_id, *tracestate;
    unsigned long long span_id;
    int sampled;
    if (!PyArg_ParseTuple(args, "O!KpO:remote", &PyLong_Type, &trace_id, &span_id, &sampled, &tracestate))
        return NULL;
    uint64_t words[2];
    if (ot_long_words(trace_id, words) < 0)
        return NULL;
    ot_span *s = ot_span_new(NULL);
    if (s == NULL)
        return NULL;
    s->trace_hi = words[0];
    s->trace_lo = words[1];
    s->span_id = span_id;
    /* without ids it is nobody's parent: `with` does nothing, as a parent it says nothing */
    bool valid = (words[0] | words[1]) != 0 && span_id != 0;
    s->state = valid ? SPAN_REMOTE : SPAN_INERT;
    if (!valid)
        s->span_id = 0;
    s->flags = sampled ? 0 : OT_FLAG_UNSAMPLED;
    if (PyUnicode_Check(tracestate) && PyUnicode_GET_LENGTH(tracestate) > 0)
        s->tracestate = Py_NewRef(tracestate);
    return (PyObject *)s;
}

int
ot_spans_start(PyObject *module)
{
    if (PyType_Ready(&ot_span_type) < 0)
        return -1;
    if (ot_current_start() < 0)
        return -1;
    return PyModule_AddObjectRef(module, "Span", (PyObject *)&ot_span_type);
}
