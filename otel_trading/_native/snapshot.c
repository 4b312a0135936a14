/* snapshot(): the aggregates as Python objects.  What is merged is merged without the GIL. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "adopt.h"
#include "doubles.h"
#include "drain.h"
#include "instruments.h"
#include "names.h"
#include "probe.h"
#include "span.h"

#define WINDOWS 3

static const int window_seconds[WINDOWS] = {1, 5, 60};
static const char *const window_names[WINDOWS] = {"1s", "5s", "1m"};

/* A copy of one aggregate. */
struct row {
    bool used;
    struct ot_histogram total;
    struct ot_histogram windows[WINDOWS];
    uint64_t errors;
    uint64_t sla_breaches;
    struct ot_exemplar exemplars[OT_EXEMPLARS];
};

struct picture {
    uint32_t probe_count;
    uint32_t instrument_count;
    struct row *probes;            /* owned */
    struct row *instruments;       /* owned */
    struct ot_instrument *numbers; /* owned: the instrument table */
    struct ot_ring rings[OT_MAX_RINGS];
    uint32_t ring_count;
    uint64_t unix_ns, start_unix_ns, passes, cpu_ns, period_ms;
    uint64_t file_bytes, resident_bytes, names_refused, faults, text_overwritten, values_overwritten;
    uint64_t attributes_dropped, open_spans;
    uint64_t ring_bytes;
    uint32_t damaged; /* rings */
};

static void
copy_row(struct row *r, const struct ot_aggregate *a)
{
    ot_histogram_init(&r->total, true);
    for (int i = 0; i < WINDOWS; i++)
        ot_histogram_init(&r->windows[i], true);
    if (a == NULL)
        return;
    r->used = true;
    ot_histogram_merge(&r->total, &a->total);
    ot_histogram_merge(&r->total, &a->second);
    for (int i = 0; i < WINDOWS; i++)
        ot_aggregate_window(a, window_seconds[i], ot_drain.second, &r->windows[i]);
    r->errors = a->errors;
    r->sla_breaches = a->sla_breaches;
    memcpy(r->exemplars, a->exemplars, sizeof r->exemplars);
}

static void
free_rows(struct row *rows, uint32_t count)
{
    for (uint32_t i = 0; rows != NULL && i < count; i++) {
        ot_histogram_free(&rows[i].total);
        for (int w = 0; w < WINDOWS; w++)
            ot_histogram_free(&rows[i].windows[w]);
    }
    free(rows);
}

/* With the lock held, without the GIL; the counts of rows are settled by the caller. */
static bool
draw(struct picture *p)
{
    (void)ot_drain_pass();
    p->probes = calloc(p->probe_count + 1, sizeof *p->probes);
    p->instruments = calloc(p->instrument_count + 1, sizeof *p->instruments);
    p->numbers = calloc(p->instrument_count + 1, sizeof *p->numbers);
    if (p->probes == NULL || p->instruments == NULL || p->numbers == NULL)
        return false;
    for (uint32_t i = 0; i < p->probe_count; i++)
        copy_row(&p->probes[i], ot_drain.probes[i]);
    for (uint32_t i = 0; i < p->instrument_count; i++)
        copy_row(&p->instruments[i], ot_drain.instruments[i]);
    p->unix_ns = ot_nanoseconds(CLOCK_REALTIME);
    p->start_unix_ns = ot_drain.start_unix_ns;
    p->passes = ot_drain.passes;
    p->cpu_ns = ot_drain.cpu_ns;
    p->period_ms = ot_drain.period_ms;
    p->text_overwritten = ot_drain.text_overwritten;
    p->values_overwritten = ot_drain.values_overwritten;
    if (!ot_drain.open) {
        uint32_t count = ot_drain.last_instrument_count;
        count = count < p->instrument_count ? count : p->instrument_count;
        if (count > 0)
            memcpy(p->numbers, ot_drain.last_instruments, sizeof *p->numbers * count);
        return true;
    }
    memcpy(p->numbers, ot_rec.instruments, sizeof *p->numbers * p->instrument_count);
    p->ring_count = ot_drain.mine ? ot_drain_rings() : OT_LOAD_ACQUIRE(&ot_rec.header->ring_count);
    p->damaged = ot_rec.adopted ? ot_adopt_damaged() : 0;
    for (uint32_t i = 0; i < p->ring_count; i++) {
        if (ot_writers[i].ring == NULL)
            continue;
        memcpy(&p->rings[i], ot_writers[i].ring, sizeof *p->rings);
        const struct ot_slot *open = ot_writers[i].open;
        for (uint32_t e = 0; e < ot_writers[i].open_capacity; e++)
            p->open_spans += OT_LOAD(&open[e].state) == OT_SLOT_OPEN;
        for (uint32_t e = 0; e < ot_writers[i].extents * OT_EXTENT_ENTRIES; e++)
            p->open_spans +=
                OT_LOAD(&ot_writers[i].extent[e / OT_EXTENT_ENTRIES][e % OT_EXTENT_ENTRIES].state) == OT_SLOT_OPEN;
        p->attributes_dropped += p->rings[i].attributes_dropped;
        p->ring_bytes += (uint64_t)p->rings[i].capacity * sizeof(struct ot_slot);
    }
    p->file_bytes = OT_LOAD(&ot_rec.header->file_bytes);
    struct stat st;
    p->resident_bytes = fstat(ot_rec.fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : p->file_bytes;
    p->names_refused = OT_LOAD(&ot_rec.header->names_refused);
    p->faults = OT_LOAD(&ot_rec.header->faults);
    return true;
}

static PyObject *
counts_of(const struct ot_buckets *b, int32_t *offset)
{
    uint32_t n = b->past - b->first;
    *offset = n == 0 ? 0 : b->offset + (int32_t)b->first;
    return PyBytes_FromStringAndSize(n == 0 ? NULL : (const char *)(b->wide + b->first), (Py_ssize_t)(n * 8));
}

static PyObject *
histogram_state(const struct ot_histogram *h)
{
    int32_t up, down;
    PyObject *positive = counts_of(&h->positive, &up), *negative = counts_of(&h->negative, &down);
    PyObject *result = NULL;
    if (positive && negative)
        result =
            Py_BuildValue("(iKdddKiOiO)", OT_SCALE, (unsigned long long)h->count, h->sum, h->count ? h->min : 0.0,
                          h->count ? h->max : 0.0, (unsigned long long)h->zero, (int)up, positive, (int)down, negative);
    Py_XDECREF(positive);
    Py_XDECREF(negative);
    return result;
}

/* Steals `value`; 0 or -1. */
static int
set(PyObject *dict, const char *key, PyObject *value)
{
    int result = value == NULL ? -1 : PyDict_SetItemString(dict, key, value);
    Py_XDECREF(value);
    return result;
}

static int
set_number(PyObject *dict, const char *key, uint64_t value)
{
    return set(dict, key, PyLong_FromUnsignedLongLong(value));
}

static int
set_distribution(PyObject *dict, const struct row *r)
{
    PyObject *windows = PyDict_New(), *exemplars = PyList_New(0);
    int result = windows != NULL && exemplars != NULL ? 0 : -1;
    for (int i = 0; i < WINDOWS && result == 0; i++)
        result = set(windows, window_names[i], histogram_state(&r->windows[i]));
    for (int i = 0; i < OT_EXEMPLARS && result == 0; i++) {
        const struct ot_exemplar *e = &r->exemplars[i];
        if (e->span_id == 0)
            continue;
        PyObject *trace_id = ot_long_128(e->trace_hi, e->trace_lo);
        PyObject *item = trace_id == NULL ? NULL
                                          : Py_BuildValue("(dOKK)", e->value, trace_id, (unsigned long long)e->span_id,
                                                          (unsigned long long)e->unix_ns);
        result = item == NULL ? -1 : PyList_Append(exemplars, item);
        Py_XDECREF(item);
        Py_XDECREF(trace_id);
    }
    if (result == 0)
        result = set(dict, "total", histogram_state(&r->total)) < 0 ||
                         PyDict_SetItemString(dict, "windows", windows) < 0 ||
                         PyDict_SetItemString(dict, "exemplars", exemplars) < 0
                     ? -1
                     : 0;
    Py_XDECREF(windows);
    Py_XDECREF(exemplars);
    return result;
}

static PyObject *
probe_dict(const ot_probe_object *probe, const struct row *r)
{
    PyObject *d = PyDict_New();
    if (d != NULL && (PyDict_SetItemString(d, "name", probe->name) < 0 ||
                      PyDict_SetItemString(d, "scope", ot_probe_scope((PyObject *)(uintptr_t)probe)) < 0 ||
                      set_number(d, "tier", probe->tier) < 0 || set_number(d, "sla_ns", probe->sla_ns) < 0 ||
                      set_number(d, "count", r->total.count) < 0 || set_number(d, "kind", probe->kind) < 0 ||
                      set_number(d, "errors", r->errors) < 0 || set_number(d, "sla_breaches", r->sla_breaches) < 0 ||
                      set_distribution(d, r) < 0))
        Py_CLEAR(d);
    return d;
}

static PyObject *
number_of(const ot_instrument_object *i, const struct ot_instrument *m)
{
    double d = ot_double_of(m->value);
    if (i->kind == OT_INSTRUMENT_COUNTER)
        return d == 0 ? PyLong_FromUnsignedLongLong(m->sum_int) : PyFloat_FromDouble((double)m->sum_int + d);
    if (i->kind == OT_INSTRUMENT_GAUGE && m->updates > 0)
        return PyFloat_FromDouble(d);
    return Py_NewRef(Py_None);
}

static PyObject *
instrument_dict(const ot_instrument_object *i, const struct ot_instrument *m, const struct row *r)
{
    PyObject *d = PyDict_New();
    if (d != NULL &&
        (PyDict_SetItemString(d, "name", i->name) < 0 || PyDict_SetItemString(d, "unit", i->unit) < 0 ||
         PyDict_SetItemString(d, "description", i->description) < 0 ||
         PyDict_SetItemString(d, "attributes", i->attributes) < 0 || set_number(d, "kind", i->kind) < 0 ||
         set_number(d, "tier", i->tier) < 0 || set_number(d, "updates", m->updates) < 0 ||
         set(d, "value", number_of(i, m)) < 0 || (i->kind == OT_INSTRUMENT_HISTOGRAM && set_distribution(d, r) < 0)))
        Py_CLEAR(d);
    return d;
}

static PyObject *
ring_dict(const struct ot_ring *r)
{
    return Py_BuildValue("{sKsIsKsKsKsK}", "thread_id", (unsigned long long)r->thread_id, "capacity",
                         (unsigned)r->capacity, "head", (unsigned long long)r->head, "tail",
                         (unsigned long long)r->tail, "backlog", (unsigned long long)(r->head - r->tail), "backlog_max",
                         (unsigned long long)r->backlog_max);
}

static const char *
clock_name(void)
{
    return ot_clock_kind == OT_CLOCK_TSC ? "tsc" : ot_clock_kind == OT_CLOCK_CNTVCT ? "cntvct" : "monotonic";
}

/* Append, stealing; 0 or -1. */
static int
append(PyObject *list, PyObject *item)
{
    int result = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    return result;
}

static PyObject *
build(const struct picture *p)
{
    PyObject *result = PyDict_New(), *probes = PyList_New(0), *instruments = PyList_New(0), *rings = PyList_New(0);
    int ok = result && probes && instruments && rings;
    for (uint32_t i = 0; ok && i < p->probe_count; i++)
        ok = append(probes, probe_dict((ot_probe_object *)ot_probe_at(i), &p->probes[i])) == 0;
    for (uint32_t i = 0; ok && i < p->instrument_count; i++)
        ok = append(instruments, instrument_dict((ot_instrument_object *)ot_instrument_at(i), &p->numbers[i],
                                                 &p->instruments[i])) == 0;
    for (uint32_t i = 0; ok && i < p->ring_count; i++)
        ok = append(rings, ring_dict(&p->rings[i])) == 0;
    ok = ok && set_number(result, "unix_ns", p->unix_ns) == 0 &&
         set_number(result, "start_unix_ns", p->start_unix_ns) == 0 &&
         PyDict_SetItemString(result, "probes", probes) == 0 &&
         PyDict_SetItemString(result, "instruments", instruments) == 0 &&
         PyDict_SetItemString(result, "rings", rings) == 0 &&
         set(result, "drain",
             Py_BuildValue("{sKsKsK}", "passes", (unsigned long long)p->passes, "cpu_ns", (unsigned long long)p->cpu_ns,
                           "period_ms", (unsigned long long)p->period_ms)) == 0 &&
         set(result, "segment",
             Py_BuildValue("{sKsKsKsKsKsKsKsKsKsIss}", "bytes", (unsigned long long)p->file_bytes, "ring_bytes",
                           (unsigned long long)p->ring_bytes, "resident_bytes", (unsigned long long)p->resident_bytes,
                           "names_refused", (unsigned long long)p->names_refused, "faults",
                           (unsigned long long)p->faults, "text_overwritten", (unsigned long long)p->text_overwritten,
                           "values_overwritten", (unsigned long long)p->values_overwritten, "attributes_dropped",
                           (unsigned long long)p->attributes_dropped, "open_spans", (unsigned long long)p->open_spans,
                           "rings_damaged", (unsigned)p->damaged, "clock", clock_name())) == 0;
    Py_XDECREF(probes);
    Py_XDECREF(instruments);
    Py_XDECREF(rings);
    if (!ok)
        Py_CLEAR(result);
    return result;
}

PyObject *
ot_snapshot(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    struct picture *p = calloc(1, sizeof *p);
    if (p == NULL)
        return PyErr_NoMemory();
    p->probe_count = ot_probe_total();
    p->instrument_count = ot_instrument_total();
    bool drawn;
    Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&ot_drain.lock);
        drawn = draw(p);
        pthread_mutex_unlock(&ot_drain.lock);
    Py_END_ALLOW_THREADS
    PyObject *result = drawn ? build(p) : PyErr_NoMemory();
    free_rows(p->probes, p->probe_count);
    free_rows(p->instruments, p->instrument_count);
    free(p->numbers);
    free(p);
    return result;
}
