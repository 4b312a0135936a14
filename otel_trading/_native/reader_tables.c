/* What a segment says of itself: header, probes, rings, accounts. */
#include "reader.h"

#include <math.h>
#include <string.h>

#include "doubles.h"

PyObject *
ot_reader_float(uint64_t bits)
{
    double d = ot_double_of(bits);
    return isfinite(d) ? PyFloat_FromDouble(d) : Py_NewRef(Py_None);
}

PyObject *
ot_reader_probes(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_reader *r = (ot_reader *)self;
    ot_reader_refresh(r);
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < r->head.probe_count; i++) {
        struct ot_probe p;
        if (!ot_reader_fetch(r, r->head.probes_offset + (uint64_t)i * sizeof p, &p, sizeof p))
            break;
        PyObject *name = ot_reader_name(r, p.name), *scope = ot_reader_name(r, p.scope);
        if (name == NULL || scope == NULL ||
            ot_reader_append(list,
                             Py_BuildValue("(OIKOIO)", name, (unsigned)p.tier % OT_TIERS, (unsigned long long)p.sla_ns,
                                           p.leaf ? Py_True : Py_False, (unsigned)p.kind, scope)) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
        Py_XDECREF(scope);
    }
    return list;
}

void
ot_reader_balance(ot_reader *r, struct ot_accounts *a, uint64_t recorded[OT_TIERS], uint64_t pending[OT_TIERS])
{
    *a = (struct ot_accounts){0};
    memset(recorded, 0, OT_TIERS * sizeof *recorded);
    (void)ot_reader_fetch(r, r->head.accounts_offset, a, sizeof *a);
    for (uint32_t i = 0; i < r->head.ring_count; i++) {
        struct ot_ring ring;
        for (int t = 0; ot_reader_ring(r, i, &ring) && t < OT_TIERS; t++)
            recorded[t] += ring.recorded[t];
    }
    for (int t = 0; t < OT_TIERS; t++) {
        recorded[t] += r->head.spans_refused[t];
        a->refused[t] += r->head.spans_refused[t];
        uint64_t settled = a->exported[t] + a->sampled_out[t] + a->overwritten[t] + a->refused[t];
        pending[t] = recorded[t] > settled ? recorded[t] - settled : 0;
    }
}

PyObject *
ot_reader_accounts(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_reader *r = (ot_reader *)self;
    struct ot_accounts a;
    uint64_t recorded[OT_TIERS], pending[OT_TIERS];
    ot_reader_refresh(r);
    ot_reader_balance(r, &a, recorded, pending);
    PyObject *list = PyList_New(0);
    for (int t = 0; list != NULL && t < OT_TIERS; t++) {
        if (ot_reader_append(list, Py_BuildValue("{sKsKsKsKsKsK}", "recorded", (unsigned long long)recorded[t],
                                                 "exported", (unsigned long long)a.exported[t], "sampled_out",
                                                 (unsigned long long)a.sampled_out[t], "overwritten",
                                                 (unsigned long long)a.overwritten[t], "refused",
                                                 (unsigned long long)a.refused[t], "pending",
                                                 (unsigned long long)pending[t])) < 0)
            Py_CLEAR(list);
    }
    return list;
}

bool
ot_reader_instrument(const ot_reader *r, uint64_t i, struct ot_instrument *m)
{
    return i < r->head.instrument_count &&
           ot_reader_fetch(r, r->head.instruments_offset + i * sizeof *m, m, sizeof *m) &&
           m->kind >= OT_INSTRUMENT_COUNTER && m->kind <= OT_INSTRUMENT_HISTOGRAM && m->tier < OT_TIERS;
}

/* A counter's sum, int where it was only ever added to in whole numbers; a gauge's value. */
static PyObject *
value_of(const struct ot_instrument *m)
{
    if (m->kind == OT_INSTRUMENT_HISTOGRAM || (m->kind == OT_INSTRUMENT_GAUGE && m->updates == 0))
        return Py_NewRef(Py_None);
    if (m->kind == OT_INSTRUMENT_GAUGE)
        return ot_reader_float(m->value);
    double part = ot_double_of(m->value);
    return part == 0 ? PyLong_FromLongLong((long long)m->sum_int)
                     : ot_reader_float(ot_bits_of((double)(int64_t)m->sum_int + part));
}

PyObject *
ot_reader_instruments(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_reader *r = (ot_reader *)self;
    ot_reader_refresh(r);
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < r->head.instrument_count; i++) {
        struct ot_instrument m;
        if (!ot_reader_instrument(r, i, &m))
            continue;
        PyObject *name = ot_reader_name(r, m.name), *unit = ot_reader_name(r, m.unit);
        PyObject *attributes = ot_reader_name(r, m.attributes), *value = value_of(&m);
        PyObject *item = NULL;
        if (name && unit && attributes && value)
            item = Py_BuildValue("{sOsIsIsOsOsKsO}", "name", name, "kind", (unsigned)m.kind, "tier", (unsigned)m.tier,
                                 "unit", unit, "attributes", attributes, "updates", (unsigned long long)m.updates,
                                 "value", value);
        Py_XDECREF(name);
        Py_XDECREF(unit);
        Py_XDECREF(attributes);
        Py_XDECREF(value);
        if (ot_reader_append(list, item) < 0)
            Py_CLEAR(list);
    }
    return list;
}

PyObject *
ot_reader_markets(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_reader *r = (ot_reader *)self;
    uint32_t count = 0;
    ot_reader_refresh(r);
    (void)ot_reader_fetch(r, offsetof(struct ot_header, market_count), &count, sizeof count);
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < count && i < OT_MARKETS; i++) {
        struct ot_market m;
        if (!ot_reader_fetch(r, r->head.markets_offset + (uint64_t)i * sizeof m, &m, sizeof m))
            break;
        PyObject *symbol = ot_reader_name(r, m.symbol), *price = ot_reader_float(m.price);
        PyObject *volume = ot_reader_float(isfinite(ot_double_of(m.volume)) ? m.volume : 0), *item = NULL;
        if (symbol && price && volume)
            item = Py_BuildValue("{sOsKsKsKsOsO}", "symbol", symbol, "exchange_ns", (unsigned long long)m.exchange_ns,
                                 "received_ns", (unsigned long long)m.received_ns, "updates",
                                 (unsigned long long)m.updates, "price", price, "volume", volume);
        Py_XDECREF(symbol);
        Py_XDECREF(price);
        Py_XDECREF(volume);
        if (ot_reader_append(list, item) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *
rings_of(const ot_reader *r)
{
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < r->head.ring_count; i++) {
        struct ot_ring ring;
        if (ot_reader_ring(r, i, &ring) &&
            ot_reader_append(list,
                             Py_BuildValue("{sKsIsKsKsKsK}", "thread_id", (unsigned long long)ring.thread_id,
                                           "capacity", (unsigned)ring.capacity, "head", (unsigned long long)ring.head,
                                           "tail", (unsigned long long)ring.tail, "backlog",
                                           (unsigned long long)(ring.head > ring.tail ? ring.head - ring.tail : 0),
                                           "backlog_max", (unsigned long long)ring.backlog_max)) < 0)
            Py_CLEAR(list);
    }
    return list;
}

PyObject *
ot_reader_info(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_reader *r = (ot_reader *)self;
    ot_reader_refresh(r);
    const struct ot_header *h = &r->head;
    struct ot_control c = {0};
    (void)ot_reader_fetch(r, h->control_offset, &c, sizeof c);
    /* on the clock that all processes of this boot share, whatever the ticks are */
    const struct ot_moment *anchor = &r->calibration.anchor;
    double since_anchor = (double)(int64_t)(c.heartbeat - anchor->ticks) * r->calibration.ns_per_tick;
    double age = (double)(int64_t)(ot_nanoseconds(CLOCK_MONOTONIC) - anchor->mono_ns) - since_anchor;
    bool comparable = c.heartbeat != 0 && age > -1e9 && age < 9e18;
    age = age < 0 ? 0 : age;
    char boot_id[40];
    PyOS_snprintf(boot_id, sizeof boot_id, "%016llx%016llx", (unsigned long long)h->boot_id[0],
                  (unsigned long long)h->boot_id[1]);
    PyObject *rings = rings_of(r);
    PyObject *resource = PyUnicode_DecodeUTF8((const char *)h->resource, (Py_ssize_t)h->resource_bytes, "replace");
    PyObject *result = NULL;
    static const char *const clocks[] = {"monotonic", "tsc", "cntvct"};
    if (rings && resource)
        result = Py_BuildValue(
            "{sIsIsIsssssKsKsssOsOsOsKsKs(KKKK)sLsKsK}", "pid", (unsigned)h->pid, "uid", (unsigned)h->uid, "version",
            (unsigned)h->version, "backend", h->backend == 1 ? "native" : "pure", "clock",
            h->clock < 3 ? clocks[h->clock] : "unknown", "created_ns", (unsigned long long)h->created_ns,
            "process_start", (unsigned long long)h->process_start, "boot_id", boot_id, "closed",
            h->closed ? Py_True : Py_False, "resource", resource, "rings", rings, "switches",
            (unsigned long long)c.switches, "threshold", (unsigned long long)c.threshold, "tier_words",
            (unsigned long long)c.tier_word[0], (unsigned long long)c.tier_word[1], (unsigned long long)c.tier_word[2],
            (unsigned long long)c.tier_word[3], "heartbeat_age_ns", comparable ? (long long)age : -1LL, "faults",
            (unsigned long long)h->faults, "names_refused", (unsigned long long)h->names_refused);
    Py_XDECREF(rings);
    Py_XDECREF(resource);
    return result;
}
