#include "vitals.h"

#include <math.h>
#include <string.h>

#include "doubles.h"
#include "drain.h"
#include "entry.h"
#include "life.h"
#include "market.h"
#include "names.h"
#include "span.h"

/* How much of a text of `bytes` bytes fits the entry, at a character's border. */
static size_t
cut(const char *key, size_t bytes)
{
    if (OT_LIKELY(bytes <= OT_VITAL_KEY_BYTES))
        return bytes;
    bytes = OT_VITAL_KEY_BYTES;
    while (bytes > 0 && ((unsigned char)key[bytes] & 0xc0) == 0x80)
        bytes--;
    return bytes;
}

void
ot_vital_note(struct ot_vital *v, const char *key, size_t bytes)
{
    struct ot_life *life = ot_rec.life;
    const struct ot_readings *readings = ot_rec.readings;
    uint64_t n = OT_LOAD(&life->vital_count), pulses = OT_LOAD(&life->pulse_count), open = OT_LOAD(&life->open_orders);
    ot_word *to = (ot_word *)(void *)&ot_rec.vitals[n % OT_VITALS];
    __builtin_prefetch(to, 1);
    __builtin_prefetch(to + 8, 1);
    bool read = OT_LOAD(&readings->ticks) != 0;
    v->active_orders = open < UINT32_MAX ? (uint32_t)open : UINT32_MAX;
    v->market_age_ms = ot_age_ms(v->unix_ns, OT_LOAD(&ot_market_newest_ns));
    v->queue = ot_queue_bits();
    v->cpu_load = read ? OT_LOAD(&readings->cpu_load) : OT_NAN_BITS;
    v->memory_load = read ? OT_LOAD(&readings->memory_load) : OT_NAN_BITS;
    v->resident = pulses != 0 ? OT_LOAD(&ot_rec.pulses[(pulses - 1) % OT_PULSES].resident) : 0;
    bytes = cut(key, bytes);
    memcpy(v->key, key, bytes);
    v->key_bytes = (uint8_t)bytes;
    const ot_word *from = (const ot_word *)(const void *)v;
    OT_STORE(&to[0], 2 * n + 1);
    OT_FENCE_RELEASE();
    for (size_t i = 1; i < sizeof *v / sizeof *to; i++)
        OT_STORE(&to[i], from[i]);
    OT_STORE_RELEASE(&to[0], 2 * n + 2);
    OT_STORE_RELEASE(&life->vital_count, n + 1);
}

PyObject *
ot_critical(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 5 || !PyUnicode_Check(args[0]) || !PyUnicode_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "critical() takes two str, two int and a float");
        return NULL;
    }
    long kind = PyLong_AsLong(args[2]);
    long state = kind == -1 && PyErr_Occurred() ? -1 : PyLong_AsLong(args[3]);
    double latency = PyErr_Occurred() ? -1.0 : PyFloat_AsDouble(args[4]);
    if (PyErr_Occurred())
        return NULL;
    if (kind < OT_VITAL_ORDER || kind > OT_VITAL_CRITICAL || state < 0 || state > OT_ORDER_REJECTED) {
        PyErr_SetString(PyExc_ValueError, "a critical event's kind is 1 to 3 and its state 0 to 6");
        return NULL;
    }
    Py_ssize_t bytes;
    const char *key = PyUnicode_AsUTF8AndSize(args[1], &bytes);
    PyObject *replaced = NULL;
    if (key == NULL) { /* lone surrogates */
        PyErr_Clear();
        replaced = PyUnicode_AsEncodedString(args[1], "utf-8", "replace");
        if (replaced == NULL)
            return NULL;
        key = PyBytes_AS_STRING(replaced);
        bytes = PyBytes_GET_SIZE(replaced);
    }
    if (ot_writer_here() != NULL && ot_recording()) { /* opens the segment of a forked child, as a span would */
        struct ot_origin o = {0};
        const ot_span *s = ot_span_current();
        if (s != NULL)
            ot_origin_of(s, &o);
        struct ot_calibration calibration;
        ot_drain_calibration(&calibration);
        struct ot_vital v = {
            .unix_ns = ot_unix_ns(&calibration, ot_ticks()),
            .kind = (uint8_t)kind,
            .state = (uint8_t)state,
            .name = ot_name_id(args[0]),
            .latency = isfinite(latency) ? ot_bits_of(latency) : OT_NAN_BITS,
            .trace_hi = o.trace_hi,
            .trace_lo = o.trace_lo,
        };
        ot_vital_note(&v, key, (size_t)bytes);
    }
    Py_XDECREF(replaced);
    Py_RETURN_NONE;
}
