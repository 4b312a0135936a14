/* What a segment tells of its process's life: beats, how it ended, critical events, pulses. */
#include "reader.h"

#include <string.h>

#include "boot.h"
#include "doubles.h"
#include "span.h"

#define BATCH 64
#define NS_MOST ((uint64_t)INT64_MAX)

/* ---- beats and the end ---- */

/* CLOCK_MONOTONIC that ages are counted to: now in this boot, else the last that is known of the process. */
static uint64_t
now_of(const ot_reader *r, const struct ot_life *l, uint32_t beats)
{
    uint64_t boot_id[2];
    ot_boot_id(boot_id);
    if (memcmp(boot_id, r->head.boot_id, sizeof boot_id) == 0 || (r->head.boot_id[0] | r->head.boot_id[1]) == 0)
        return ot_nanoseconds(CLOCK_MONOTONIC);
    uint64_t newest = r->calibration.anchor.mono_ns;
    for (uint32_t i = 0; i < beats; i++)
        newest = l->beat_ns[i] > newest ? l->beat_ns[i] : newest;
    return newest;
}

/* Unix time of a moment of CLOCK_MONOTONIC; None where that can't be. */
static PyObject *
unix_of(const ot_reader *r, uint64_t mono_ns)
{
    const struct ot_moment *anchor = &r->calibration.anchor;
    uint64_t unix_ns = anchor->unix_ns + (mono_ns - anchor->mono_ns);
    return anchor->unix_ns != 0 && unix_ns <= NS_MOST ? PyLong_FromUnsignedLongLong(unix_ns) : Py_NewRef(Py_None);
}

static PyObject *
beats_of(ot_reader *r, const struct ot_life *l)
{
    uint32_t count = l->beat_count < OT_BEATS ? (uint32_t)l->beat_count : OT_BEATS;
    uint64_t now = now_of(r, l, count);
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        uint64_t beat = l->beat_ns[i], age = now > beat ? now - beat : 0, late = l->beat_late_ns[i];
        bool rests = beat == 0;
        PyObject *name = ot_reader_name(r, l->beat_name[i]);
        PyObject *ns = rests ? Py_NewRef(Py_None) : PyLong_FromUnsignedLongLong(age);
        PyObject *unix_ns = rests ? Py_NewRef(Py_None) : unix_of(r, beat);
        PyObject *item = NULL;
        if (name && ns && unix_ns)
            item =
                Py_BuildValue("{sOsOsOsKsO}", "name", name, "age_ns", ns, "unix_ns", unix_ns, "late_ns",
                              (unsigned long long)late, "late", !rests && late != 0 && age > late ? Py_True : Py_False);
        Py_XDECREF(name);
        Py_XDECREF(ns);
        Py_XDECREF(unix_ns);
        if (ot_reader_append(list, item) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *
ending_of(ot_reader *r, const struct ot_life *l)
{
    uint64_t kind = l->ending <= OT_ENDING_SIGNAL ? l->ending : OT_ENDING_NONE;
    bool told = kind != OT_ENDING_NONE;
    PyObject *name = told && l->ending_name != OT_NAME_NONE && l->ending_name <= UINT32_MAX
                         ? ot_reader_name(r, (uint32_t)l->ending_name)
                         : Py_NewRef(Py_None);
    return Py_BuildValue("{sKsLsKsN}", "kind", (unsigned long long)kind, "code", told ? (long long)l->ending_code : 0LL,
                         "unix_ns", (unsigned long long)(told && l->ending_ns <= NS_MOST ? l->ending_ns : 0), "name",
                         name);
}

static PyObject *
queue_of(ot_reader *r, const struct ot_life *l)
{
    struct ot_instrument m;
    return l->queue != 0 && ot_reader_instrument(r, l->queue - 1, &m) && m.kind == OT_INSTRUMENT_GAUGE
               ? ot_reader_name(r, m.name)
               : Py_NewRef(Py_None);
}

PyObject *
ot_reader_life(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_reader *r = (ot_reader *)self;
    struct ot_life l = {0};
    struct ot_control c = {0};
    ot_reader_refresh(r);
    (void)ot_reader_fetch(r, r->head.life_offset, &l, sizeof l);
    (void)ot_reader_fetch(r, r->head.control_offset, &c, sizeof c);
    PyObject *beats = beats_of(r, &l), *ending = ending_of(r, &l), *queue = queue_of(r, &l), *result = NULL;
    if (beats && ending && queue)
        result =
            Py_BuildValue("{sOsOsKsOsKsKsKsKsKsO}", "beats", beats, "ending", ending, "open_orders",
                          (unsigned long long)l.open_orders, "queue", queue, "host", (unsigned long long)c.host,
                          "host_now", (unsigned long long)c.host_now, "drained_by", (unsigned long long)c.drained_by,
                          "vitals", (unsigned long long)l.vital_count, "pulses", (unsigned long long)l.pulse_count,
                          "drain_missing", l.drain_missing ? Py_True : Py_False);
    Py_XDECREF(beats);
    Py_XDECREF(ending);
    Py_XDECREF(queue);
    return result;
}

/* ---- critical events and pulses: both are rings of entries of two lines, with a count ---- */

_Static_assert(sizeof(struct ot_vital) == sizeof(struct ot_pulse), "one batch serves both");
_Static_assert(OT_VITALS % BATCH == 0 && OT_PULSES % BATCH == 0 && OT_VITALS == OT_PULSES, "batches end with the ring");

union entry {
    uint64_t seq;
    struct ot_vital vital;
    struct ot_pulse pulse;
};

typedef PyObject *(*build)(ot_reader *r, const union entry *e); /* NULL without an exception: it can not be right */

static PyObject *
age_of(uint32_t ms)
{
    return ms == UINT32_MAX ? Py_NewRef(Py_None) : PyLong_FromUnsignedLong(ms);
}

static PyObject *
known(uint64_t n, uint64_t unknown)
{
    return n == unknown ? Py_NewRef(Py_None) : PyLong_FromUnsignedLongLong(n);
}

/* A dict of `count` keys and values, which are stolen; NULL where one of them is. */
static PyObject *
dict_of(const char *const *keys, PyObject **values, size_t count)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 0; i < count; i++) {
        if (dict != NULL && (values[i] == NULL || PyDict_SetItemString(dict, keys[i], values[i]) < 0))
            Py_CLEAR(dict);
        Py_XDECREF(values[i]);
    }
    return dict;
}

static PyObject *
vital_of(ot_reader *r, const union entry *e)
{
    static const char *const keys[] = {
        "unix_ns", "kind",        "state",    "key",     "name",     "active_orders", "market_age_ms",
        "queue",   "memory_load", "cpu_load", "latency", "resident", "trace_id",
    };
    const struct ot_vital *v = &e->vital;
    if (v->kind < OT_VITAL_ORDER || v->kind > OT_VITAL_CRITICAL || v->state > OT_ORDER_REJECTED ||
        v->key_bytes > OT_VITAL_KEY_BYTES || v->unix_ns > NS_MOST)
        return NULL;
    PyObject *values[] = {
        PyLong_FromUnsignedLongLong(v->unix_ns),
        PyLong_FromLong(v->kind),
        PyLong_FromLong(v->state),
        PyUnicode_DecodeUTF8((const char *)v->key, v->key_bytes, "replace"),
        ot_reader_name(r, v->name),
        PyLong_FromUnsignedLong(v->active_orders),
        age_of(v->market_age_ms),
        ot_reader_float(v->queue),
        ot_reader_float(v->memory_load),
        ot_reader_float(v->cpu_load),
        ot_reader_float(v->latency),
        known(v->resident, 0),
        ot_long_128(v->trace_hi, v->trace_lo),
    };
    _Static_assert(sizeof keys / sizeof *keys == sizeof values / sizeof *values, "a value a key");
    return dict_of(keys, values, sizeof keys / sizeof *keys);
}

static PyObject *
pulse_of(ot_reader *Py_UNUSED(r), const union entry *e)
{
    static const char *const keys[] = {
        "unix_ns", "resident",      "process_cpu",   "cpu_load", "memory_load", "queue",
        "spans",   "active_orders", "market_age_ms", "threads",  "late_beats",  "orders",
        "rejects", "updates",       "major_faults",  "swap",
    };
    const struct ot_pulse *p = &e->pulse;
    if (p->unix_ns > NS_MOST)
        return NULL;
    PyObject *values[] = {
        PyLong_FromUnsignedLongLong(p->unix_ns),
        known(p->resident, 0),
        ot_reader_float(p->process_cpu),
        ot_reader_float(p->cpu_load),
        ot_reader_float(p->memory_load),
        ot_reader_float(p->queue),
        PyLong_FromUnsignedLongLong(p->spans),
        PyLong_FromUnsignedLong(p->active_orders),
        age_of(p->market_age_ms),
        known(p->threads, 0),
        PyLong_FromUnsignedLong(p->late_beats),
        PyLong_FromUnsignedLongLong(p->orders),
        PyLong_FromUnsignedLongLong(p->rejects),
        PyLong_FromUnsignedLongLong(p->updates),
        known(p->major_faults, UINT64_MAX),
        known(p->swap, UINT64_MAX),
    };
    _Static_assert(sizeof keys / sizeof *keys == sizeof values / sizeof *values, "a value a key");
    return dict_of(keys, values, sizeof keys / sizeof *keys);
}

/* The newest entries of a ring that starts at `table`, of which there were `count`, oldest first. */
static PyObject *
newest(ot_reader *r, uint64_t table, uint64_t count, Py_ssize_t limit, build of)
{
    uint64_t want = limit < 0 ? 0 : limit < OT_VITALS ? (uint64_t)limit : OT_VITALS;
    want = want < count ? want : count;
    PyObject *list = PyList_New(0);
    union entry batch[BATCH], again[BATCH];
    for (uint64_t n = count - want; list != NULL && n != count;) {
        uint64_t place = n % OT_VITALS, some = BATCH - place % BATCH;
        some = some < count - n ? some : count - n;
        uint64_t offset = table + place * sizeof *batch;
        if (!ot_reader_fetch(r, offset, batch, some * sizeof *batch))
            break;
        OT_FENCE_ACQUIRE();
        if (!ot_reader_fetch(r, offset, again, some * sizeof *again))
            break;
        for (uint64_t i = 0; i < some && list != NULL; i++, n++) {
            if (batch[i].seq == 0 || batch[i].seq != 2 * n + 2 || again[i].seq != batch[i].seq)
                continue;
            PyObject *item = of(r, &batch[i]);
            if ((item != NULL || PyErr_Occurred()) && ot_reader_append(list, item) < 0)
                Py_CLEAR(list);
        }
    }
    return list;
}

static bool
begin(ot_reader *r, PyObject *args, const char *format, Py_ssize_t *limit, struct ot_life *life)
{
    *limit = OT_VITALS;
    if (!PyArg_ParseTuple(args, format, limit))
        return false;
    ot_reader_refresh(r);
    *life = (struct ot_life){0};
    (void)ot_reader_fetch(r, r->head.life_offset, life, sizeof *life);
    return true;
}

PyObject *
ot_reader_vitals(PyObject *self, PyObject *args)
{
    ot_reader *r = (ot_reader *)self;
    Py_ssize_t limit;
    struct ot_life life;
    return begin(r, args, "|n:vitals", &limit, &life)
               ? newest(r, r->head.vitals_offset, life.vital_count, limit, vital_of)
               : NULL;
}

PyObject *
ot_reader_pulses(PyObject *self, PyObject *args)
{
    ot_reader *r = (ot_reader *)self;
    Py_ssize_t limit;
    struct ot_life life;
    return begin(r, args, "|n:pulses", &limit, &life)
               ? newest(r, r->head.pulses_offset, life.pulse_count, limit, pulse_of)
               : NULL;
}
