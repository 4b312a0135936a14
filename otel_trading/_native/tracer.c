#include "tracer.h"

#include <stddef.h>
#include <structmember.h>

#include "apispan.h"
#include "arguments.h"
#include "context.h"
#include "hooks.h"
#include "names.h"

#define MOST_RENAMED 1024

static PyObject *tier_key; /* "trading.tier" */
static PyObject *no_links; /* () */

/* ---- the probe of a name and a kind ---- */

static PyObject *
ask(ot_tracer *t, PyObject *name, unsigned kind, PyObject *tier)
{
    PyObject *probe = PyObject_CallFunction(t->make_probe, "OIO", name, kind, tier);
    if (OT_LIKELY(probe != NULL && Py_IS_TYPE(probe, &ot_probe_type)))
        return probe;
    if (probe != NULL)
        PyErr_Format(PyExc_TypeError, "make_probe gave %R", probe);
    Py_XDECREF(probe);
    ot_told("make_probe", "no probe for a span");
    return NULL;
}

/* Where a probe for `name` is kept; NULL with an exception set. */
static PyObject *
shelf(ot_tracer *t, const PyObject *probe, PyObject *name, unsigned kind)
{
    if (PyUnicode_Compare(((const ot_probe_object *)probe)->name, name) == 0)
        return t->probes[kind];
    PyObject *renamed = t->renamed[kind];
    if (renamed == NULL)
        renamed = t->renamed[kind] = PyDict_New();
    else if (PyDict_GET_SIZE(renamed) >= MOST_RENAMED)
        PyDict_Clear(renamed);
    return renamed;
}

static ot_probe_object *
probe_by_tier(ot_tracer *t, PyObject *name, unsigned kind, PyObject *tier)
{
    PyObject *key = Py_BuildValue("OIO", name, kind, tier), *probe = NULL;
    if (t->tiered == NULL)
        t->tiered = PyDict_New();
    if (key != NULL && t->tiered != NULL) {
        probe = Py_XNewRef(PyDict_GetItemWithError(t->tiered, key));
        if (probe == NULL && !PyErr_Occurred()) {
            probe = ask(t, name, kind, tier);
            if (PyDict_GET_SIZE(t->tiered) >= MOST_RENAMED)
                PyDict_Clear(t->tiered);
            if (probe != NULL)
                (void)PyDict_SetItem(t->tiered, key, probe);
        }
    }
    PyErr_Clear();
    Py_XDECREF(key);
    return (ot_probe_object *)probe;
}

/* Owned; NULL where there is none.  `name` is a str and no subclass of it. */
static ot_probe_object *
probe_for(ot_tracer *t, PyObject *name, unsigned kind, PyObject *attributes)
{
    if (attributes != NULL && attributes != Py_None) {
        PyObject *tier = NULL;
        if (OT_LIKELY(PyDict_CheckExact(attributes)))
            tier = Py_XNewRef(PyDict_GetItemWithError(attributes, tier_key));
        else if (PyMapping_Check(attributes))
            tier = PyObject_GetItem(attributes, tier_key);
        if (OT_UNLIKELY(tier != NULL)) {
            ot_probe_object *probe =
                PyUnicode_CheckExact(tier) || PyLong_CheckExact(tier) ? probe_by_tier(t, name, kind, tier) : NULL;
            Py_DECREF(tier);
            if (probe != NULL)
                return probe;
        }
        PyErr_Clear();
    }
    PyObject *probe = PyDict_GetItemWithError(t->probes[kind], name);
    if (OT_LIKELY(probe != NULL))
        return (ot_probe_object *)Py_NewRef(probe);
    PyErr_Clear();
    if (t->renamed[kind] != NULL)
        probe = Py_XNewRef(PyDict_GetItemWithError(t->renamed[kind], name));
    if (probe == NULL) {
        PyErr_Clear();
        probe = ask(t, name, kind, Py_None);
        if (probe != NULL) {
            PyObject *dict = shelf(t, probe, name, kind);
            if (dict == NULL || PyDict_SetItem(dict, name, probe) < 0)
                PyErr_Clear();
        }
    }
    return (ot_probe_object *)probe;
}

static unsigned
kind_of(PyObject *kind)
{
    if (OT_LIKELY(kind == NULL || ot_hooks.kinds == NULL))
        return 0;
    for (unsigned i = 0; i < OT_KINDS; i++) {
        if (PyTuple_GET_ITEM(ot_hooks.kinds, i) == kind)
            return i;
    }
    ot_fault();
    return 0;
}

/* A str, owned, of what was given as a name. */
static PyObject *
name_of(PyObject *name)
{
    if (OT_LIKELY(PyUnicode_CheckExact(name)))
        return Py_NewRef(name);
    PyObject *text = PyUnicode_Check(name) ? PyUnicode_FromObject(name) : PyObject_Str(name);
    if (text == NULL) {
        PyErr_Clear();
        text = PyUnicode_FromString("");
    }
    return text;
}

/* ---- sampling ---- */

enum verdict { DROP = 0, RECORD = 1, SAMPLE = 2 };

struct decision {
    enum verdict verdict;
    uint64_t span_id;     /* 0: not decided */
    PyObject *attributes; /* borrowed, or NULL */
    PyObject *told;       /* owned, or NULL: what the above and the tracestate are borrowed from */
};

static void
decide_here(const ot_tracer *t, const struct ot_origin *o, struct decision *d)
{
    if (o->parent_id != 0 && t->parent_based)
        d->verdict = o->flags & OT_FLAG_UNSAMPLED ? DROP : SAMPLE;
    else if (t->sampler == OT_SAMPLER_RATIO)
        d->verdict = o->trace_lo < t->bound ? SAMPLE : DROP;
    else
        d->verdict = t->sampler == OT_SAMPLER_DROP ? DROP : SAMPLE;
}

static bool
believe(PyObject *told, struct ot_origin *o, struct decision *d)
{
    if (!PyTuple_Check(told) || PyTuple_GET_SIZE(told) != 6)
        return false;
    uint64_t trace_id[2];
    long verdict = PyLong_AsLong(PyTuple_GET_ITEM(told, 2));
    uint64_t span_id = PyLong_AsUnsignedLongLongMask(PyTuple_GET_ITEM(told, 1));
    if (PyErr_Occurred() || verdict < DROP || verdict > SAMPLE ||
        ot_long_words(PyTuple_GET_ITEM(told, 0), trace_id) < 0 || (trace_id[0] | trace_id[1]) == 0)
        return false;
    PyObject *tracestate = PyTuple_GET_ITEM(told, 3), *attributes = PyTuple_GET_ITEM(told, 4);
    o->trace_hi = trace_id[0];
    o->trace_lo = trace_id[1];
    o->tracestate = PyUnicode_Check(tracestate) && PyUnicode_GET_LENGTH(tracestate) > 0 ? tracestate : NULL;
    o->random = PyObject_IsTrue(PyTuple_GET_ITEM(told, 5)) > 0;
    d->verdict = (enum verdict)verdict;
    d->span_id = span_id;
    d->attributes = attributes != Py_None ? attributes : NULL;
    return true;
}

/* By the program's own sampler or id generator. */
static void
decide_there(ot_tracer *t, const struct ot_request *r, unsigned kind, struct ot_origin *o, struct decision *d)
{
    PyObject *trace_id = o->parent_id != 0 ? ot_long_128(o->trace_hi, o->trace_lo) : PyLong_FromLong(0);
    if (trace_id != NULL)
        d->told = PyObject_CallFunctionObjArgs(t->decide, r->context != NULL ? r->context : Py_None, trace_id, r->name,
                                               PyTuple_GET_ITEM(ot_hooks.kinds, kind),
                                               r->attributes != NULL ? r->attributes : Py_None,
                                               r->links != NULL && r->links != Py_None ? r->links : no_links, NULL);
    Py_XDECREF(trace_id);
    if (d->told != NULL && believe(d->told, o, d))
        return;
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "decide gave %R", d->told);
    ot_told("decide", "a sampler or an id generator failed, so the span is sampled by its parent");
    decide_here(t, o, d);
}

/* ---- a span ---- */

/* Nothing is recorded, and the parent's context goes on to the children. */
static ot_span *
inert(const ot_span *parent)
{
    ot_span *s = ot_span_new(NULL);
    if (s == NULL)
        return NULL;
    s->state = SPAN_INERT;
    s->api = true;
    if (parent != NULL) {
        s->trace_hi = parent->trace_hi;
        s->trace_lo = parent->trace_lo;
        s->span_id = parent->span_id;
        s->flags = parent->flags & OT_FLAG_UNSAMPLED;
        s->random = parent->random;
        s->remote = parent->remote;
        s->tracestate = Py_XNewRef(parent->tracestate);
    }
    return s;
}

/* What a span has from the start, into the entry that is reserved for it. */
static void
describe(ot_span *s, const struct ot_request *r, PyObject *name, PyObject *attributes)
{
    if (OT_UNLIKELY(s->probe->name != name && PyUnicode_Compare(s->probe->name, name) != 0))
        ot_name_set(s->writer, ot_entry(s->writer, s->entry), name);
    if (attributes != NULL && attributes != Py_None)
        ot_api_attributes(s, attributes);
    if (OT_UNLIKELY(r->links != NULL && r->links != Py_None && r->links != no_links))
        ot_api_links(s, r->links);
}

static void
tell(ot_tracer *t, ot_span *s, const struct ot_request *r)
{
    PyObject *on_start = Py_NewRef(t->on_start);
    PyObject *result =
        PyObject_CallFunctionObjArgs(on_start, (PyObject *)s, r->context != NULL ? r->context : Py_None, NULL);
    if (result == NULL)
        ot_told("on_start", "a span processor raised at a span's start");
    Py_XDECREF(result);
    Py_DECREF(on_start);
}

/* Open `s`, which has its probe; false where nothing can be recorded now. */
static bool
open_span(ot_span *s, const struct ot_request *r, struct ot_origin *o, const struct decision *d, PyObject *name)
{
    unsigned tier = s->probe->tier;
    uint64_t unix_ns;
    bool given = ot_api_time(r->start_time, &unix_ns); /* may run code of the program's, as all before it */
    struct ot_writer *w = ot_writer_here();
    if (OT_UNLIKELY(w == NULL || !ot_tier_on(tier) || !ot_tier_takes(tier, o->trace_lo)))
        return false;
    uint32_t index = ot_entry_take(w);
    if (OT_UNLIKELY(index == OT_NO_ENTRY)) {
        ot_span_refused(tier);
        return false;
    }
    s->entry = index;
    s->writer = w;
    s->epoch = ot_rec.epoch;
    s->trace_hi = o->trace_hi;
    s->trace_lo = o->trace_lo;
    s->parent_id = o->parent_id;
    s->span_id = d->span_id != 0 ? d->span_id : ot_random_id(w);
    s->flags = o->flags;
    s->random = o->random;
    s->tracestate = Py_XNewRef(o->tracestate);
    struct ot_slot *e = ot_entry(w, index);
    OT_STORE(OT_META(e), OT_META_WORD(s->probe->id, OT_SLOT_RESERVED, 0, 0, 0, 0, tier));
    if (OT_UNLIKELY(o->tracestate != NULL)) {
        ot_entry_tracestate(w, e, o->tracestate);
    }
    if (OT_LIKELY(d->verdict != DROP))
        describe(s, r, name, d->attributes);
    if (OT_UNLIKELY(!ot_span_writable(s))) { /* the code of a value's type has closed the segment */
        s->entry = OT_NO_ENTRY;
        return false;
    }
    s->state = SPAN_OPEN;
    ot_entry_begin(e, o, s->span_id, OT_META_WORD(s->probe->id, OT_SLOT_OPEN, 0, o->flags, e->count, e->extra, tier));
    if (OT_UNLIKELY(given))
        ot_entry_start_at(e, unix_ns);
    return true;
}

ot_span *
ot_tracer_span(ot_tracer *t, const struct ot_request *r)
{
    ot_span *parent = NULL;
    if (OT_UNLIKELY(r->context != NULL && r->context != Py_None)) {
        parent = ot_context_span(r->context);
        if (parent != NULL && parent->span_id == 0)
            Py_CLEAR(parent);
    }
    else {
        parent = (ot_span *)Py_XNewRef((PyObject *)ot_span_current());
    }
    struct ot_writer *w = t->enabled ? ot_writer_here() : NULL;
    ot_span *s = NULL;
    if (OT_UNLIKELY(w == NULL)) {
        s = inert(parent);
        Py_XDECREF(parent);
        return s;
    }
    struct ot_origin o;
    struct decision d = {.attributes = r->attributes};
    if (parent != NULL)
        ot_origin_of(parent, &o);
    else
        ot_origin_new(w, &o);
    unsigned kind = kind_of(r->kind);
    if (OT_LIKELY(t->decide == NULL))
        decide_here(t, &o, &d);
    else
        decide_there(t, r, kind, &o, &d);
    o.flags = (uint8_t)((o.flags & ~OT_FLAG_UNSAMPLED) | (d.verdict != SAMPLE ? OT_FLAG_UNSAMPLED : 0));

    PyObject *name = name_of(r->name);
    ot_probe_object *probe = name != NULL ? probe_for(t, name, kind, d.attributes) : NULL;
    if (OT_LIKELY(probe != NULL))
        s = ot_span_new(probe);
    if (OT_LIKELY(s != NULL)) {
        Py_DECREF(probe);
        s->api = true;
        s->dropped = d.verdict == DROP;
        s->record_exception = r->record_exception;
        s->set_status_on_exception = r->set_status_on_exception;
        s->tracer = (ot_tracer *)Py_NewRef((PyObject *)t);
        if (OT_UNLIKELY(!open_span(s, r, &o, &d, name)))
            Py_CLEAR(s);
        else if (OT_UNLIKELY(t->on_start != NULL && d.verdict != DROP))
            tell(t, s, r);
    }
    else {
        Py_XDECREF(probe);
    }
    if (OT_UNLIKELY(s == NULL))
        s = inert(parent);
    Py_XDECREF(name);
    Py_XDECREF(d.told);
    Py_XDECREF(parent);
    return s;
}

/* ---- the type ---- */

static struct ot_signature start_span = {
    "start_span",
    1,
    8,
    {"name", "context", "kind", "attributes", "links", "start_time", "record_exception", "set_status_on_exception"},
    {0}};
static struct ot_signature start_as_current_span = {"start_as_current_span",
                                                    1,
                                                    9,
                                                    {"name", "context", "kind", "attributes", "links", "start_time",
                                                     "record_exception", "set_status_on_exception", "end_on_exit"},
                                                    {0}};

static bool
truth(PyObject *value)
{
    if (OT_LIKELY(value == NULL || value == Py_True))
        return true;
    int result = PyObject_IsTrue(value);
    if (result < 0)
        PyErr_Clear();
    return result != 0;
}

static bool
understand(const struct ot_signature *s, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
           struct ot_request *r)
{
    PyObject *v[OT_MOST_ARGUMENTS];
    v[8] = NULL;
    if (OT_UNLIKELY(!ot_arguments(s, args, nargs, kwnames, v)))
        return false;
    *r = (struct ot_request){v[0], v[1], v[2], v[3], v[4], v[5], truth(v[6]), truth(v[7]), truth(v[8])};
    return true;
}

static PyObject *
tracer_start_span(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct ot_request r;
    return understand(&start_span, args, nargs, kwnames, &r) ? (PyObject *)ot_tracer_span((ot_tracer *)self, &r) : NULL;
}

static PyObject *
tracer_start_as_current_span(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct ot_request r;
    return understand(&start_as_current_span, args, nargs, kwnames, &r) ? ot_scope_new((ot_tracer *)self, &r) : NULL;
}

static int
tracer_traverse(PyObject *self, visitproc visit, void *arg)
{
    ot_tracer *t = (ot_tracer *)self;
    Py_VISIT(t->make_probe);
    Py_VISIT(t->decide);
    Py_VISIT(t->on_start);
    Py_VISIT(t->on_end);
    return 0;
}

static int
tracer_clear(PyObject *self)
{
    ot_tracer *t = (ot_tracer *)self;
    Py_CLEAR(t->decide);
    Py_CLEAR(t->on_start);
    Py_CLEAR(t->on_end);
    return 0;
}

static void
tracer_dealloc(PyObject *self)
{
    ot_tracer *t = (ot_tracer *)self;
    PyObject_GC_UnTrack(self);
    (void)tracer_clear(self);
    Py_CLEAR(t->scope);
    Py_CLEAR(t->make_probe);
    Py_CLEAR(t->tiered);
    for (int i = 0; i < OT_KINDS; i++) {
        Py_CLEAR(t->probes[i]);
        Py_CLEAR(t->renamed[i]);
    }
    Py_TYPE(self)->tp_free(self);
}

/* The bound of a ratio may be 2**64, which is "take all". */
static int
set_bound(ot_tracer *t, PyObject *bound)
{
    int sign = bound == NULL ? 0 : PyObject_IsTrue(bound);
    if (sign <= 0)
        return sign;
    t->bound = PyLong_AsUnsignedLongLong(bound);
    if (!PyErr_Occurred())
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_OverflowError))
        return -1;
    PyErr_Clear();
    PyObject *zero = PyLong_FromLong(0);
    int negative = zero != NULL ? PyObject_RichCompareBool(bound, zero, Py_LT) : -1;
    Py_XDECREF(zero);
    if (negative < 0)
        return -1;
    t->bound = 0;
    if (!negative && t->sampler == OT_SAMPLER_RATIO)
        t->sampler = OT_SAMPLER_TAKE;
    return 0;
}

static PyObject *
tracer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *words[] = {"scope", "make_probe", "sampler", "bound", "parent_based", "decide", NULL};
    PyObject *scope, *make_probe, *bound = NULL, *decide = Py_None;
    unsigned char sampler = 0;
    int parent_based = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UO|bO!pO:Tracer", words, &scope, &make_probe, &sampler,
                                     &PyLong_Type, &bound, &parent_based, &decide))
        return NULL;
    if (sampler > OT_SAMPLER_RATIO) {
        PyErr_SetString(PyExc_ValueError, "sampler is 0 to 2");
        return NULL;
    }
    if (decide != Py_None && ot_hooks.kinds == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "otel_trading: api_install() comes before a tracer with a sampler of its own");
        return NULL;
    }
    ot_tracer *t = (ot_tracer *)type->tp_alloc(type, 0);
    if (t == NULL)
        return NULL;
    t->scope = Py_NewRef(scope);
    t->make_probe = Py_NewRef(make_probe);
    t->decide = decide != Py_None ? Py_NewRef(decide) : NULL;
    t->sampler = sampler;
    t->parent_based = (char)parent_based;
    t->enabled = 1;
    bool complete = set_bound(t, bound) == 0;
    for (int i = 0; i < OT_KINDS && complete; i++)
        complete = (t->probes[i] = PyDict_New()) != NULL;
    if (!complete)
        Py_CLEAR(t);
    return (PyObject *)t;
}

static PyObject *
tracer_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<otel_trading.Tracer %U>", ((ot_tracer *)self)->scope);
}

/* `place`: of one of the callables, of which None is no callable. */
static PyObject *
get_callable(PyObject *self, void *place)
{
    PyObject *value = *(PyObject **)(void *)((char *)self + (size_t)place);
    return Py_NewRef(value != NULL ? value : Py_None);
}

static int
set_callable(PyObject *self, PyObject *value, void *place)
{
    PyObject **field = (PyObject **)(void *)((char *)self + (size_t)place), *before = *field;
    *field = value != NULL && value != Py_None ? Py_NewRef(value) : NULL;
    Py_XDECREF(before);
    return 0;
}

static PyMethodDef tracer_methods[] = {
    {"start_span", (PyCFunction)(void (*)(void))tracer_start_span, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"start_as_current_span", (PyCFunction)(void (*)(void))tracer_start_as_current_span, METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef tracer_members[] = {
    {"scope", T_OBJECT, offsetof(ot_tracer, scope), READONLY, NULL},
    {"enabled", T_BOOL, offsetof(ot_tracer, enabled), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef tracer_getset[] = {
    {"on_start", get_callable, set_callable, NULL, (void *)offsetof(ot_tracer, on_start)},
    {"on_end", get_callable, set_callable, NULL, (void *)offsetof(ot_tracer, on_end)},
    /* what the SDK's Tracer lets one read */
    OT_READABLE("resource"),
    OT_READABLE("sampler"),
    OT_READABLE("id_generator"),
    OT_READABLE("span_processor"),
    OT_READABLE("instrumentation_scope"),
    OT_READABLE("instrumentation_info"),
    OT_READABLE("_instrumentation_scope"),
    OT_READABLE("_span_limits"),
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject ot_tracer_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native.Tracer",
    .tp_basicsize = sizeof(ot_tracer),
    .tp_dealloc = tracer_dealloc,
    .tp_repr = tracer_repr,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = tracer_traverse,
    .tp_clear = tracer_clear,
    .tp_doc = "OpenTelemetry's Tracer of one instrumentation scope.",
    .tp_methods = tracer_methods,
    .tp_members = tracer_members,
    .tp_getset = tracer_getset,
    .tp_new = tracer_new,
};

int
ot_tracer_start(PyObject *module)
{
    tier_key = PyUnicode_InternFromString("trading.tier");
    no_links = PyTuple_New(0);
    if (tier_key == NULL || no_links == NULL || ot_signature_start(&start_span) < 0 ||
        ot_signature_start(&start_as_current_span) < 0 || PyType_Ready(&ot_tracer_type) < 0)
        return -1;
    return PyModule_AddObjectRef(module, "Tracer", (PyObject *)&ot_tracer_type);
}
