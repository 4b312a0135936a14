#include "instruments.h"

#include <math.h>

#include "doubles.h"
#include "drain.h"
#include "entry.h"
#include "life.h"
#include "names.h"
#include "span.h"

static PyTypeObject counter_type, gauge_type, histogram_type;
static ot_instrument_object *gc_pause; /* owned; made at the first collection that is seen */
static uint64_t gc_began;

/* Where an instrument's numbers are, or NULL where nothing is recorded now. */
static struct ot_instrument *
place(const ot_instrument_object *i, struct ot_writer **writer)
{
    *writer = ot_writer_here();
    if (OT_UNLIKELY(*writer == NULL || i->id < 0 || !ot_tier_on(i->tier)))
        return NULL;
    struct ot_instrument *m = &ot_rec.instruments[i->id];
    return OT_UNLIKELY(OT_LOAD(&m->off)) && i->tier != 0 ? NULL : m; /* in the line that is written anyway */
}

static void
updated(struct ot_instrument *m)
{
    OT_STORE(&m->updated, ot_ticks());
    OT_STORE(&m->updates, m->updates + 1);
}

/* 0, or -1 with TypeError set. */
static int
number(PyObject *value, double *d)
{
    *d = PyFloat_CheckExact(value) ? PyFloat_AS_DOUBLE(value) : PyFloat_AsDouble(value);
    return *d == -1.0 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *
counter_add(PyObject *self, PyObject *amount)
{
    struct ot_writer *w;
    struct ot_instrument *m = place((ot_instrument_object *)self, &w);
    if (m == NULL)
        Py_RETURN_NONE;
    if (OT_LIKELY(PyLong_CheckExact(amount))) {
        int overflow;
        long long n = PyLong_AsLongLongAndOverflow(amount, &overflow);
        if (OT_LIKELY(overflow == 0 && n >= 0 && m->sum_int + (uint64_t)n <= INT64_MAX)) {
            OT_STORE(&m->sum_int, m->sum_int + (uint64_t)n);
            updated(m);
        }
        else {
            ot_fault();
        }
        Py_RETURN_NONE;
    }
    double d;
    uint64_t epoch = ot_rec.epoch;
    if (number(amount, &d) < 0)
        return NULL;
    if (epoch == ot_rec.epoch && isfinite(d) && d >= 0) {
        OT_STORE(&m->value, ot_bits_of(ot_double_of(m->value) + d));
        updated(m);
    }
    else {
        ot_fault();
    }
    Py_RETURN_NONE;
}

static PyObject *
gauge_set(PyObject *self, PyObject *value)
{
    double d;
    if (number(value, &d) < 0)
        return NULL;
    struct ot_writer *w;
    struct ot_instrument *m = place((ot_instrument_object *)self, &w);
    if (m == NULL)
        Py_RETURN_NONE;
    if (isfinite(d)) {
        OT_STORE(&m->value, ot_bits_of(d));
        updated(m);
    }
    else {
        ot_fault();
    }
    Py_RETURN_NONE;
}

/* An observation is a record of the ring, so that the drain does the sorting into buckets. */
static void
observe(struct ot_writer *w, struct ot_instrument *m, const ot_instrument_object *i, double d)
{
    struct ot_origin o = {0};
    const ot_span *s = ot_span_current();
    if (s != NULL)
        ot_origin_of(s, &o);
    uint64_t n = w->head, now = ot_ticks();
    struct ot_slot *slot = &w->slots[n & w->mask];
    OT_STORE(&slot->seq, 2 * n + 1);
    OT_FENCE_RELEASE();
    OT_STORE(&slot->trace_hi, o.trace_hi);
    OT_STORE(&slot->trace_lo, o.trace_lo);
    OT_STORE(&slot->span_id, o.parent_id);
    OT_STORE(&slot->parent_id, 0);
    OT_STORE(&slot->start, now);
    OT_STORE(&slot->end, now);
    OT_STORE(OT_META(slot), OT_META_WORD(i->id, OT_SLOT_VALUE, 0, o.flags, 0, 1, i->tier));
    OT_STORE(&slot->value[0], ot_bits_of(d));
    OT_STORE_RELEASE(&slot->seq, 2 * n + 2);
    OT_STORE(&w->ring->values, ++w->values);
    w->head = n + 1;
    OT_STORE_RELEASE(&w->ring->head, n + 1);
    updated(m);
}

static PyObject *
histogram_record(PyObject *self, PyObject *value)
{
    double d;
    if (number(value, &d) < 0)
        return NULL;
    struct ot_writer *w;
    struct ot_instrument *m = place((ot_instrument_object *)self, &w);
    if (m == NULL)
        Py_RETURN_NONE;
    if (isfinite(d))
        observe(w, m, (ot_instrument_object *)self, d);
    else
        ot_fault();
    Py_RETURN_NONE;
}

PyObject *
ot_gc_callback(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || !PyUnicode_Check(args[0]) || PyUnicode_GET_LENGTH(args[0]) < 4)
        Py_RETURN_NONE;
    if (PyUnicode_READ_CHAR(args[0], 2) == 'a') { /* "start" */
        gc_began = ot_ticks();
        Py_RETURN_NONE;
    }
    uint64_t began = gc_began;
    gc_began = 0;
    struct ot_writer *w;
    struct ot_instrument *m = gc_pause != NULL && began != 0 ? place(gc_pause, &w) : NULL;
    if (m != NULL)
        observe(w, m, gc_pause, (double)(ot_ticks() - began) * ot_drain_ns_per_tick() * 1e-9);
    Py_RETURN_NONE;
}

static PyObject *
instrument_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *words[] = {"name", "tier", "unit", "description", "attributes", "off_cpu", NULL};
    PyObject *name, *unit = NULL, *description = NULL, *attributes = NULL;
    unsigned char tier = 1, off_cpu = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|bUUUb", words, &name, &tier, &unit, &description, &attributes,
                                     &off_cpu))
        return NULL;
    if (tier >= OT_TIERS) {
        PyErr_SetString(PyExc_ValueError, "tier is 0 to 3");
        return NULL;
    }
    if (off_cpu > 100 || (tier == 0 && off_cpu != 0)) {
        PyErr_SetString(PyExc_ValueError, off_cpu > 100 ? "off_cpu is 0 to 100 percent"
                                                        : "tier P0 can not be switched off: off_cpu has to be 0");
        return NULL;
    }
    PyObject *empty = PyUnicode_FromString("");
    ot_instrument_object *i = empty != NULL ? (ot_instrument_object *)type->tp_alloc(type, 0) : NULL;
    if (i == NULL) {
        Py_XDECREF(empty);
        return NULL;
    }
    i->name = Py_NewRef(name);
    i->unit = Py_NewRef(unit != NULL ? unit : empty);
    i->description = Py_NewRef(description != NULL ? description : empty);
    i->attributes = Py_NewRef(attributes != NULL ? attributes : empty);
    Py_DECREF(empty);
    i->tier = tier;
    i->off_cpu = off_cpu;
    i->kind = type == &counter_type ? OT_INSTRUMENT_COUNTER
              : type == &gauge_type ? OT_INSTRUMENT_GAUGE
                                    : OT_INSTRUMENT_HISTOGRAM;
    i->id = ot_instrument_register((PyObject *)i);
    if (i->kind == OT_INSTRUMENT_GAUGE)
        ot_life_gauge((PyObject *)i);
    return (PyObject *)i;
}

static void
instrument_dealloc(PyObject *self)
{
    ot_instrument_object *i = (ot_instrument_object *)self;
    Py_CLEAR(i->name);
    Py_CLEAR(i->unit);
    Py_CLEAR(i->description);
    Py_CLEAR(i->attributes);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *
get_id(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((ot_instrument_object *)self)->id);
}

static PyGetSetDef getset[] = {{"id", get_id, NULL, NULL, NULL}, {NULL, NULL, NULL, NULL, NULL}};
static PyMethodDef counter_methods[] = {{"add", counter_add, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static PyMethodDef gauge_methods[] = {{"set", gauge_set, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static PyMethodDef histogram_methods[] = {{"record", histogram_record, METH_O, NULL}, {NULL, NULL, 0, NULL}};

#define INSTRUMENT(type, title, methods)                                        \
    static PyTypeObject type = {                                                \
        PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native." title, \
        .tp_basicsize = sizeof(ot_instrument_object),                           \
        .tp_dealloc = instrument_dealloc,                                       \
        .tp_flags = Py_TPFLAGS_DEFAULT,                                         \
        .tp_methods = (methods),                                                \
        .tp_getset = getset,                                                    \
        .tp_new = instrument_new,                                               \
    }
INSTRUMENT(counter_type, "Counter", counter_methods);
INSTRUMENT(gauge_type, "Gauge", gauge_methods);
INSTRUMENT(histogram_type, "Histogram", histogram_methods);

bool
ot_is_gauge(PyObject *o)
{
    return Py_IS_TYPE(o, &gauge_type);
}

int
ot_instruments_start(PyObject *module)
{
    if (PyType_Ready(&counter_type) < 0 || PyType_Ready(&gauge_type) < 0 || PyType_Ready(&histogram_type) < 0)
        return -1;
    gc_pause =
        (ot_instrument_object *)PyObject_CallFunction((PyObject *)&histogram_type, "sisssi", "gc.pause", 3, "s",
                                                      "Pause of the application by a garbage collection", "", 60);
    if (gc_pause == NULL)
        return -1;
    return PyModule_AddObjectRef(module, "Counter", (PyObject *)&counter_type) < 0 ||
                   PyModule_AddObjectRef(module, "Gauge", (PyObject *)&gauge_type) < 0 ||
                   PyModule_AddObjectRef(module, "Histogram", (PyObject *)&histogram_type) < 0
               ? -1
               : 0;
}
