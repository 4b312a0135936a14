#include "probe.h"

#include <stddef.h>
#include <string.h>

#include "names.h"
#include "span.h"

#define FREE_TOKENS 256

/* ---- flat pairs ---- */

typedef struct {
    PyObject_HEAD
    ot_probe_object *probe;   /* owned */
    struct ot_writer *writer; /* borrowed; good while epoch is the recorder's */
    uint64_t epoch;
    uint64_t span_id;
    uint32_t entry; /* OT_NO_ENTRY: stopped, or nothing is recorded */
    bool inert;
} ot_token;

static ot_token *free_tokens[FREE_TOKENS];
static int free_count;
static ot_token *inert_token; /* owned: what start() gives where nothing is recorded */

uint32_t
ot_flat_begin(struct ot_writer *w, const ot_probe_object *p, PyObject *parent)
{
    struct ot_origin o;
    if (parent != NULL && Py_IS_TYPE(parent, &ot_span_type) && ((ot_span *)parent)->span_id != 0)
        ot_origin_of((ot_span *)parent, &o);
    else
        ot_origin_here(w, &o);
    if (OT_UNLIKELY(!ot_tier_takes(p->tier, o.trace_lo)))
        return OT_NO_ENTRY;
    uint32_t index = ot_entry_take(w);
    if (OT_UNLIKELY(index == OT_NO_ENTRY)) {
        ot_span_refused(p->tier);
        return index;
    }
    struct ot_slot *e = ot_entry(w, index);
    unsigned extra = 0;
    if (OT_UNLIKELY(o.tracestate != NULL)) {
        *OT_META(e) = 0;
        ot_entry_tracestate(w, e, o.tracestate);
        extra = e->extra;
    }
    ot_entry_begin(e, &o, ot_random_id(w),
                   OT_META_WORD(p->id, OT_SLOT_OPEN, 0, o.flags | OT_FLAG_LEAF, 0, extra, p->tier));
    return index;
}

static ot_token *
new_token(ot_probe_object *probe)
{
    ot_token *t;
    if (OT_LIKELY(free_count > 0)) {
        t = free_tokens[--free_count];
        (void)PyObject_Init((PyObject *)t, &ot_token_type);
    }
    else {
        t = PyObject_New(ot_token, &ot_token_type);
        if (t == NULL)
            return NULL;
    }
    t->probe = (ot_probe_object *)Py_NewRef((PyObject *)probe);
    t->entry = OT_NO_ENTRY;
    t->inert = false;
    return t;
}

/* The entry of a token that is still open, or NULL. */
static inline struct ot_slot *
token_entry(const ot_token *t)
{
    if (OT_UNLIKELY(t->entry == OT_NO_ENTRY || t->epoch != ot_rec.epoch))
        return NULL;
    struct ot_slot *e = ot_entry(t->writer, t->entry);
    return OT_LIKELY(e->span_id == t->span_id && e->state == OT_SLOT_OPEN) ? e : NULL;
}

static void
token_dealloc(PyObject *self)
{
    ot_token *t = (ot_token *)self;
    struct ot_slot *e = token_entry(t);
    if (OT_UNLIKELY(e != NULL)) { /* dropped without stop() */
        OT_STORE(&e->flags, e->flags | OT_FLAG_ABANDONED);
        ot_commit(t->writer, e, ot_ticks());
        ot_entry_give(t->writer, t->entry, e);
    }
    Py_CLEAR(t->probe);
    if (OT_LIKELY(free_count < FREE_TOKENS))
        free_tokens[free_count++] = t;
    else
        PyObject_Free(t);
}

static PyObject *
probe_start(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    ot_probe_object *p = (ot_probe_object *)self;
    struct ot_writer *w = ot_writer_here();
    if (OT_UNLIKELY(w == NULL || !ot_tier_on(p->tier)))
        return Py_NewRef((PyObject *)inert_token);
    ot_token *t = new_token(p);
    if (OT_UNLIKELY(t == NULL))
        return NULL;
    uint32_t entry = ot_flat_begin(w, p, nargs > 0 ? args[0] : NULL);
    if (OT_UNLIKELY(entry == OT_NO_ENTRY)) {
        Py_DECREF(t);
        return Py_NewRef((PyObject *)inert_token);
    }
    t->entry = entry;
    t->writer = w;
    t->epoch = ot_rec.epoch;
    t->span_id = ot_entry(w, entry)->span_id;
    return (PyObject *)t;
}

static PyObject *
probe_stop(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (OT_UNLIKELY(nargs < 1 || nargs > 2 || !Py_IS_TYPE(args[0], &ot_token_type))) {
        PyErr_SetString(PyExc_TypeError, "stop() takes what start() gave, and perhaps the exception that was raised");
        return NULL;
    }
    ot_token *t = (ot_token *)args[0];
    struct ot_slot *e = token_entry(t);
    if (OT_UNLIKELY(e == NULL)) {
        if (!t->inert && t->entry == OT_NO_ENTRY)
            ot_fault();         /* stopped twice */
        t->entry = OT_NO_ENTRY; /* else written as interrupted meanwhile, or of a segment that is gone */
        Py_RETURN_NONE;
    }
    if (OT_UNLIKELY((PyObject *)t->probe != self))
        ot_fault(); /* another probe's: it is that one's span all the same */
    if (OT_UNLIKELY(nargs == 2 && args[1] != Py_None))
        ot_entry_raised(e, (PyObject *)Py_TYPE(args[1]));
    if (OT_UNLIKELY(t->epoch != ot_rec.epoch)) /* closed by code that ran in between */
        Py_RETURN_NONE;
    ot_commit(t->writer, e, ot_ticks());
    ot_entry_give(t->writer, t->entry, e);
    t->entry = OT_NO_ENTRY;
    Py_RETURN_NONE;
}

PyTypeObject ot_token_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native.Token",
    .tp_basicsize = sizeof(ot_token),
    .tp_dealloc = token_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "What Probe.start gives and Probe.stop takes.",
};

/* ---- `with probe:` ----
 *
 * The statement looks __exit__ and __enter__ up on the type before it calls either.  Both are
 * descriptors that give one and the same new span, which is called once to enter and once to leave:
 * so each `with` remembers its own span, wherever it is left, and nothing is allocated but that. */

enum half { ENTERING, LEAVING };

typedef struct {
    PyObject_HEAD
    enum half half;
} half_descriptor;

static ot_span *pending; /* owned: given for one half, waiting for the other; used up within one statement */
static enum half pending_wants;

static PyObject *
half_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    enum half half = ((half_descriptor *)self)->half;
    if (object == NULL || !Py_IS_TYPE(object, &ot_probe_type))
        return Py_NewRef(self);
    ot_probe_object *probe = (ot_probe_object *)object;
    if (OT_LIKELY(pending != NULL && pending_wants == half && pending->probe == probe)) {
        PyObject *span = (PyObject *)pending;
        pending = NULL;
        return span;
    }
    ot_span *s = ot_span_new(probe);
    if (s == NULL)
        return NULL;
    ot_span *stale = pending;
    pending = (ot_span *)Py_NewRef((PyObject *)s);
    pending_wants = half == ENTERING ? LEAVING : ENTERING;
    Py_XDECREF(stale);
    return (PyObject *)s;
}

/* type(probe).__enter__(probe), as contextlib.ExitStack does: the halves are told apart only by what is open. */
static PyObject *
half_call(PyObject *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    if (PyTuple_GET_SIZE(args) < 1 || !Py_IS_TYPE(PyTuple_GET_ITEM(args, 0), &ot_probe_type)) {
        PyErr_SetString(PyExc_TypeError, "needs a probe");
        return NULL;
    }
    ot_probe_object *probe = (ot_probe_object *)PyTuple_GET_ITEM(args, 0);
    if (((half_descriptor *)self)->half == ENTERING) {
        ot_span *s = ot_span_new(probe);
        if (s == NULL)
            return NULL;
        ot_span_enter(s);
        return (PyObject *)s;
    }
    ot_span *found = ot_span_innermost(probe);
    if (found == NULL) {
        ot_fault();
        Py_RETURN_NONE;
    }
    ot_span_leave(found, PyTuple_GET_SIZE(args) > 1 ? PyTuple_GET_ITEM(args, 1) : NULL);
    Py_DECREF(found);
    Py_RETURN_NONE;
}

static PyTypeObject half_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native._half",
    .tp_basicsize = sizeof(half_descriptor),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_descr_get = half_get,
    .tp_call = half_call,
};

/* ---- the probe ---- */

/* The name id of an attribute key; keys are interned strings, so identity finds almost all. */
uint32_t
ot_probe_key(ot_probe_object *p, PyObject *key)
{
    if (OT_UNLIKELY(p->key_epoch != ot_rec.epoch)) {
        for (int i = 0; i < OT_PROBE_KEYS; i++)
            Py_CLEAR(p->keys[i]);
        p->key_epoch = ot_rec.epoch;
    }
    for (int i = 0; i < OT_PROBE_KEYS; i++) {
        if (OT_LIKELY(p->keys[i] == key))
            return p->key_ids[i];
        if (p->keys[i] == NULL) {
            uint32_t id = ot_name_id(key);
            p->keys[i] = Py_NewRef(key);
            p->key_ids[i] = (uint16_t)id;
            return id;
        }
    }
    return ot_name_id(key);
}

static PyObject *
probe_span(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    ot_probe_object *p = (ot_probe_object *)self;
    if (OT_UNLIKELY(nargs > 1)) {
        PyErr_SetString(PyExc_TypeError, "span() takes one parent and attributes by name");
        return NULL;
    }
    ot_span *s = ot_span_new(p);
    if (OT_UNLIKELY(s == NULL))
        return NULL;
    if (nargs == 1)
        ot_span_set_parent(s, args[0]);
    Py_ssize_t count = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    if (count > 0 && ot_writer_here() != NULL && ot_tier_on(p->tier)) {
        uint64_t epoch = ot_rec.epoch; /* the code of a value's type may close the segment */
        for (Py_ssize_t i = 0; i < count && epoch == ot_rec.epoch; i++) {
            PyObject *key = PyTuple_GET_ITEM(kwnames, i);
            ot_span_set_attribute(s, key, ot_probe_key(p, key), args[nargs + i]);
        }
    }
    return (PyObject *)s;
}

/* A time of record(): false with TypeError set for what is no int; one that is out of range is a fault, and now. */
static bool
time_given(PyObject *value, bool *given, uint64_t *unix_ns)
{
    if (!PyLong_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "record() takes times as int, in Unix ns");
        return false;
    }
    *unix_ns = PyLong_AsUnsignedLongLong(value);
    *given = *unix_ns != 0;
    if (PyErr_Occurred()) {
        PyErr_Clear();
        ot_fault();
        *given = false;
    }
    return true;
}

/* Before the span begins, as span() has them. */
static void
record_attributes(ot_span *s, PyObject *attributes)
{
    ot_probe_object *p = s->probe;
    PyObject *items = PyDict_Check(attributes) ? NULL : PyMapping_Items(attributes), *key, *value;
    PyErr_Clear();
    Py_ssize_t at = 0, count = items != NULL ? PyList_GET_SIZE(items) : PyDict_Check(attributes) ? PY_SSIZE_T_MAX : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (items != NULL) {
            PyObject *pair = PyList_GET_ITEM(items, i);
            if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2)
                continue;
            key = PyTuple_GET_ITEM(pair, 0);
            value = PyTuple_GET_ITEM(pair, 1);
        }
        else if (!PyDict_Next(attributes, &at, &key, &value)) {
            break;
        }
        Py_INCREF(key); /* the code of a value's type may change the dict */
        Py_INCREF(value);
        if (!PyUnicode_CheckExact(key))
            ot_fault();
        else if (ot_writer_here() != NULL)
            ot_span_set_attribute(s, key, ot_probe_key(p, key), value);
        Py_DECREF(key);
        Py_DECREF(value);
    }
    Py_XDECREF(items);
}

static PyObject *
probe_record(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    ot_probe_object *p = (ot_probe_object *)self;
    bool start_given, end_given;
    uint64_t start_ns, end_ns;
    if (OT_UNLIKELY(nargs != 5)) {
        PyErr_SetString(PyExc_TypeError, "record() takes a parent, two times, whether it is an error, and attributes");
        return NULL;
    }
    if (!time_given(args[1], &start_given, &start_ns) || !time_given(args[2], &end_given, &end_ns))
        return NULL;
    int error = PyObject_IsTrue(args[3]);
    if (error < 0 || (args[4] != Py_None && !PyDict_Check(args[4]) && !PyMapping_Check(args[4]))) {
        if (error >= 0)
            PyErr_SetString(PyExc_TypeError, "record() takes attributes as a mapping, or None");
        return NULL;
    }
    ot_span *s = ot_span_new(p);
    if (OT_UNLIKELY(s == NULL))
        return NULL;
    ot_span_set_parent(s, args[0]);
    if (args[4] != Py_None && ot_writer_here() != NULL && ot_tier_on(p->tier))
        record_attributes(s, args[4]);
    ot_span_begin(s);
    if (OT_LIKELY(s->state == SPAN_OPEN)) {
        struct ot_slot *e = ot_entry(s->writer, s->entry);
        if (OT_LIKELY(start_given))
            ot_entry_start_at(e, start_ns);
        if (error)
            OT_STORE(&e->status, OT_STATUS_ERROR);
        if (end_given)
            ot_span_end_at(s, end_ns);
        else
            ot_span_end(s, NULL);
    }
    return (PyObject *)s;
}

static PyObject *
probe_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) != 1 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0)) {
        PyErr_SetString(PyExc_TypeError, "a probe decorates one function");
        return NULL;
    }
    PyObject *module = PyImport_ImportModule("otel_trading._wrap");
    if (module == NULL)
        return NULL;
    PyObject *result = PyObject_CallMethod(module, "wrap", "OO", self, PyTuple_GET_ITEM(args, 0));
    Py_DECREF(module);
    return result;
}

static PyObject *
probe_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *words[] = {"name", "tier", "sla_ns", "leaf", "kind", "scope", NULL};
    PyObject *name, *scope = NULL;
    unsigned char tier = 1, kind = 0;
    unsigned long long sla_ns = 0;
    int leaf = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|bKpbU:Probe", words, &name, &tier, &sla_ns, &leaf, &kind, &scope))
        return NULL;
    if (tier >= OT_TIERS || kind > 4) {
        PyErr_SetString(PyExc_ValueError, "tier is 0 to 3, kind 0 to 4");
        return NULL;
    }
    ot_probe_object *p = (ot_probe_object *)type->tp_alloc(type, 0);
    if (p == NULL)
        return NULL;
    p->name = Py_NewRef(name);
    p->scope = scope != NULL ? Py_NewRef(scope) : PyUnicode_FromString("");
    if (p->scope == NULL) {
        Py_DECREF(p);
        return NULL;
    }
    p->tier = tier;
    p->kind = kind;
    p->leaf = (uint8_t)leaf;
    p->sla_ns = sla_ns;
    int id = ot_probe_register((PyObject *)p);
    if (id < 0) {
        Py_DECREF(p);
        return NULL;
    }
    p->id = (uint32_t)id;
    return (PyObject *)p;
}

static void
probe_dealloc(PyObject *self)
{
    ot_probe_object *p = (ot_probe_object *)self;
    Py_CLEAR(p->name);
    Py_CLEAR(p->scope);
    for (int i = 0; i < OT_PROBE_KEYS; i++)
        Py_CLEAR(p->keys[i]);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *
probe_repr(PyObject *self)
{
    const ot_probe_object *p = (const ot_probe_object *)self;
    return PyUnicode_FromFormat("<otel_trading.Probe %R P%d>", p->name, (int)p->tier);
}

static PyObject *
get_name(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((ot_probe_object *)self)->name);
}

static PyObject *
get_scope(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((ot_probe_object *)self)->scope);
}

#define NUMBER(field, make)                                                \
    static PyObject *get_##field(PyObject *self, void *Py_UNUSED(closure)) \
    {                                                                      \
        return make(((ot_probe_object *)self)->field);                     \
    }
NUMBER(tier, PyLong_FromUnsignedLong)
NUMBER(sla_ns, PyLong_FromUnsignedLongLong)
NUMBER(leaf, PyBool_FromLong)
NUMBER(kind, PyLong_FromUnsignedLong)
NUMBER(id, PyLong_FromUnsignedLong)
#undef NUMBER

static PyMethodDef probe_methods[] = {
    {"start", (PyCFunction)(void (*)(void))probe_start, METH_FASTCALL, NULL},
    {"stop", (PyCFunction)(void (*)(void))probe_stop, METH_FASTCALL, NULL},
    {"record", (PyCFunction)(void (*)(void))probe_record, METH_FASTCALL, NULL},
    {"span", (PyCFunction)(void (*)(void))probe_span, METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef probe_getset[] = {
    {"name", get_name, NULL, NULL, NULL},     {"tier", get_tier, NULL, NULL, NULL},
    {"sla_ns", get_sla_ns, NULL, NULL, NULL}, {"leaf", get_leaf, NULL, NULL, NULL},
    {"kind", get_kind, NULL, NULL, NULL},     {"id", get_id, NULL, NULL, NULL},
    {"scope", get_scope, NULL, NULL, NULL},   {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject ot_probe_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native.Probe",
    .tp_basicsize = sizeof(ot_probe_object),
    .tp_dealloc = probe_dealloc,
    .tp_repr = probe_repr,
    .tp_call = probe_call,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "A named place in the program; makes spans.",
    .tp_methods = probe_methods,
    .tp_getset = probe_getset,
    .tp_new = probe_new,
};

static int
add_half(const char *name, enum half half)
{
    half_descriptor *d = PyObject_New(half_descriptor, &half_type);
    if (d == NULL)
        return -1;
    d->half = half;
    int result = PyDict_SetItemString(ot_probe_type.tp_dict, name, (PyObject *)d);
    Py_DECREF(d);
    return result;
}

int
ot_probes_start(PyObject *module)
{
    if (PyType_Ready(&half_type) < 0 || PyType_Ready(&ot_token_type) < 0 || PyType_Ready(&ot_probe_type) < 0 ||
        add_half("__enter__", ENTERING) < 0 || add_half("__exit__", LEAVING) < 0)
        return -1;
    PyType_Modified(&ot_probe_type);
    inert_token = PyObject_New(ot_token, &ot_token_type);
    if (inert_token == NULL)
        return -1;
    inert_token->probe = NULL;
    inert_token->entry = OT_NO_ENTRY;
    inert_token->inert = true;
    return PyModule_AddObjectRef(module, "Token", (PyObject *)&ot_token_type) < 0 ||
                   PyModule_AddObjectRef(module, "Probe", (PyObject *)&ot_probe_type) < 0
               ? -1
               : 0;
}
