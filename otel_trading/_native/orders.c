#include "orders.h"

#include <string.h>

#include "doubles.h"
#include "life.h"
#include "names.h"
#include "span.h"
#include "vitals.h"

void
ot_orders_open(void)
{
    ot_life_open(); /* the counts are in its page, and that is new */
}

static inline bool
is_open(unsigned state)
{
    return state == OT_ORDER_SENT || state == OT_ORDER_ACKED || state == OT_ORDER_PARTLY_FILLED;
}

static struct ot_order *
place(uint64_t hash, unsigned probe)
{
    return &ot_rec.orders[(hash + probe) & (ot_rec.settings.max_orders - 1)];
}

static bool
is_of(const struct ot_order *o, uint64_t hash, const char *key, size_t bytes)
{
    return o->seq != 0 && o->hash == hash && o->key_bytes == bytes && memcmp(o->key, key, bytes) == 0;
}

static struct ot_order *
find(uint64_t hash, const char *key, size_t bytes)
{
    for (unsigned i = 0; i < OT_ORDER_PROBES; i++) {
        struct ot_order *o = place(hash, i);
        if (is_of(o, hash, key, bytes))
            return o;
    }
    return NULL;
}

/* Where a new order goes: a free place, else that of the ended one, else of the open one, that changed longest ago. */
static struct ot_order *
make_place(uint64_t hash)
{
    struct ot_order *best = NULL;
    for (unsigned i = 0; i < OT_ORDER_PROBES; i++) {
        struct ot_order *o = place(hash, i);
        if (o->seq == 0)
            return o;
        if (best == NULL ||
            (is_open(o->state) == is_open(best->state) ? o->changed_ns < best->changed_ns : is_open(best->state)))
            best = o;
    }
    if (is_open(best->state)) {
        struct ot_header *h = ot_rec.header;
        OT_STORE(&h->orders_evicted, h->orders_evicted + 1);
    }
    return best;
}

/* Words and small fields alike: whoever reads meanwhile is told by seq. */
static void
write_order(struct ot_order *o, const struct ot_order *from)
{
    const ot_word *source = (const ot_word *)(const void *)from;
    ot_word *target = (ot_word *)(void *)o;
    uint64_t seq = o->seq;
    OT_STORE(&target[0], seq + 1);
    OT_FENCE_RELEASE();
    for (size_t i = 1; i < sizeof *o / sizeof *source; i++)
        OT_STORE(&target[i], source[i]);
    OT_STORE_RELEASE(&target[0], seq + 2);
}

/* UTF-8 of a key, or NULL with ValueError set. */
static const char *
key_of(PyObject *key, Py_ssize_t *bytes)
{
    const char *utf8 = PyUnicode_AsUTF8AndSize(key, bytes);
    if (utf8 == NULL) {
        PyErr_Clear();
        PyErr_SetString(PyExc_ValueError, "an order's key is text that UTF-8 can hold");
    }
    else if (*bytes > OT_ORDER_KEY_BYTES) {
        PyErr_Format(PyExc_ValueError, "an order's key has at most %d bytes of UTF-8, this one %zd", OT_ORDER_KEY_BYTES,
                     *bytes);
        utf8 = NULL;
    }
    return utf8;
}

static void
count(const struct ot_order *o, bool was_open)
{
    struct ot_life *life = ot_rec.life;
    uint64_t open = OT_LOAD(&life->open_orders) + (uint64_t)is_open(o->state) - (uint64_t)was_open;
    OT_STORE(&life->open_orders, open);
    if (o->state == OT_ORDER_SENT)
        OT_STORE(&life->orders, OT_LOAD(&life->orders) + 1);
    else if (o->state == OT_ORDER_REJECTED)
        OT_STORE(&life->rejects, OT_LOAD(&life->rejects) + 1);
}

/* The change as a critical event. */
static void
note(const struct ot_order *o)
{
    uint64_t since = o->changed_ns > o->sent_ns ? o->changed_ns - o->sent_ns : 0;
    struct ot_vital v = {
        .unix_ns = o->changed_ns,
        .kind = OT_VITAL_ORDER,
        .state = o->state,
        .name = o->symbol,
        .latency = o->state == OT_ORDER_SENT ? OT_NAN_BITS : ot_bits_of((double)since * 1e-9),
        .trace_hi = o->trace_hi,
        .trace_lo = o->trace_lo,
    };
    ot_vital_note(&v, (const char *)o->key, o->key_bytes);
}

/* The arguments of order_put in their order. */
enum {
    KEY,
    TRACE_ID,
    SPAN_ID,
    SAMPLED,
    STATE,
    SENT_NS,
    CHANGED_NS,
    QUANTITY,
    PRICE,
    FILLED,
    PAID,
    SYMBOL,
    SIDE,
    COUNT
};

/* Those of `count` arguments from `first` on as words, or as doubles' bits; false with an exception set. */
static bool
numbers_of(PyObject *const *args, int first, int count, bool doubles, uint64_t *to)
{
    for (int i = 0; i < count; i++) {
        PyObject *value = args[first + i];
        if (doubles)
            to[i] = ot_bits_of(PyFloat_CheckExact(value) ? PyFloat_AS_DOUBLE(value) : PyFloat_AsDouble(value));
        else
            to[i] = PyLong_AsUnsignedLongLongMask(value);
        if (OT_UNLIKELY(to[i] == (doubles ? ot_bits_of(-1.0) : UINT64_MAX)) && PyErr_Occurred())
            return false;
    }
    return true;
}

static PyObject *
order_put(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != COUNT || !PyUnicode_Check(args[KEY]) || !PyLong_Check(args[TRACE_ID]) ||
        !PyUnicode_Check(args[SYMBOL])) {
        PyErr_SetString(PyExc_TypeError, "order_put() takes the 13 arguments that _native.pyi says");
        return NULL;
    }
    PyObject *key = args[KEY], *trace_id = args[TRACE_ID], *symbol = args[SYMBOL];
    uint64_t span_id, times[2], amounts[4];
    long state = PyLong_AsLong(args[STATE]);
    if (state == -1 && PyErr_Occurred())
        return NULL;
    long side = PyLong_AsLong(args[SIDE]);
    if (side == -1 && PyErr_Occurred())
        return NULL;
    int sampled = PyObject_IsTrue(args[SAMPLED]);
    if (sampled < 0 || !numbers_of(args, SPAN_ID, 1, false, &span_id) || !numbers_of(args, SENT_NS, 2, false, times) ||
        !numbers_of(args, QUANTITY, 4, true, amounts))
        return NULL;
    uint64_t sent_ns = times[0], changed_ns = times[1];
    uint64_t words[2];
    Py_ssize_t bytes;
    const char *utf8 = key_of(key, &bytes);
    if (utf8 == NULL || ot_long_words(trace_id, words) < 0)
        return NULL;
    if (state < OT_ORDER_SENT || state > OT_ORDER_REJECTED || side < OT_SIDE_NONE || side > OT_SIDE_SELL) {
        PyErr_SetString(PyExc_ValueError, "an order's state is 1 to 6 and its side 0 to 2");
        return NULL;
    }
    if (ot_writer_here() == NULL) /* opens the segment of a forked child, as a span would */
        Py_RETURN_NONE;
    struct ot_order o = {
        .hash = ot_order_hash(utf8, (size_t)bytes),
        .trace_hi = words[0],
        .trace_lo = words[1],
        .span_id = span_id,
        .sent_ns = sent_ns,
        .changed_ns = changed_ns,
        .quantity = amounts[0],
        .price = amounts[1],
        .filled = amounts[2],
        .paid = amounts[3],
        .symbol = ot_name_id(symbol),
        .side = (uint8_t)side,
        .state = (uint8_t)state,
        .flags = sampled ? 0 : OT_FLAG_UNSAMPLED,
        .key_bytes = (uint8_t)bytes,
    };
    memcpy(o.key, utf8, (size_t)bytes);
    struct ot_order *to = find(o.hash, utf8, (size_t)bytes);
    if (to == NULL)
        to = make_place(o.hash);
    bool was_open = to->seq != 0 && is_open(to->state);
    write_order(to, &o);
    count(&o, was_open);
    if (OT_LIKELY(ot_recording()))
        note(&o);
    Py_RETURN_NONE;
}

PyObject *
ot_order_state(const struct ot_order *o, PyObject *symbol)
{
    PyObject *trace_id = ot_long_128(o->trace_hi, o->trace_lo), *result = NULL;
    if (trace_id != NULL && symbol != NULL)
        result =
            Py_BuildValue("(OKOiKKddddOi)", trace_id, (unsigned long long)o->span_id,
                          o->flags & OT_FLAG_UNSAMPLED ? Py_False : Py_True, (int)o->state,
                          (unsigned long long)o->sent_ns, (unsigned long long)o->changed_ns, ot_double_of(o->quantity),
                          ot_double_of(o->price), ot_double_of(o->filled), ot_double_of(o->paid), symbol, (int)o->side);
    Py_XDECREF(trace_id);
    Py_XDECREF(symbol);
    return result;
}

static PyObject *
order_get(PyObject *Py_UNUSED(module), PyObject *key)
{
    Py_ssize_t bytes;
    if (!PyUnicode_Check(key)) {
        PyErr_SetString(PyExc_TypeError, "order_get() takes a str");
        return NULL;
    }
    const char *utf8 = key_of(key, &bytes);
    if (utf8 == NULL)
        return NULL;
    const struct ot_order *found =
        ot_rec.epoch != OT_CLOSED ? find(ot_order_hash(utf8, (size_t)bytes), utf8, (size_t)bytes) : NULL;
    if (found == NULL)
        Py_RETURN_NONE;
    struct ot_order o = *found; /* a finalizer that runs meanwhile may close the segment */
    return ot_order_state(&o, Py_NewRef(ot_name_text(o.symbol)));
}

static PyObject *
count_open(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(ot_rec.epoch != OT_CLOSED ? OT_LOAD(&ot_rec.life->open_orders) : 0);
}

static PyMethodDef functions[] = {
    {"order_put", (PyCFunction)(void (*)(void))order_put, METH_FASTCALL, NULL},
    {"order_get", order_get, METH_O, NULL},
    {"orders_open", count_open, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int
ot_orders_start(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
