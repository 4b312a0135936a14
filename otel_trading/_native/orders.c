#include "orders.h"

#include <string.h>

#include "doubles.h"
#include "names.h"
#include "span.h"

static uint64_t open_orders; /* neither filled, cancelled nor rejected */

void
ot_orders_open(void)
{
    open_orders = 0;
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

static PyObject *
order_put(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *key, *trace_id, *symbol;
    unsigned long long span_id, sent_ns, changed_ns;
    double quantity, price, filled, paid;
    int sampled, state, side;
    if (!PyArg_ParseTuple(args, "UO!KpiKKddddUi:order_put", &key, &PyLong_Type, &trace_id, &span_id, &sampled, &state,
                          &sent_ns, &changed_ns, &quantity, &price, &filled, &paid, &symbol, &side))
        return NULL;
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
        .quantity = ot_bits_of(quantity),
        .price = ot_bits_of(price),
        .filled = ot_bits_of(filled),
        .paid = ot_bits_of(paid),
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
    open_orders += (uint64_t)is_open(o.state) - (uint64_t)was_open;
    write_order(to, &o);
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
    return PyLong_FromUnsignedLongLong(ot_rec.epoch != OT_CLOSED ? open_orders : 0);
}

static PyMethodDef functions[] = {
    {"order_put", order_put, METH_VARARGS, NULL},
    {"order_get", order_get, METH_O, NULL},
    {"orders_open", count_open, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int
ot_orders_start(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
