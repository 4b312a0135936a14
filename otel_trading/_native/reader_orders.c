/* The order table of another process's segment. */
#include "orders.h"
#include "reader.h"

#include <string.h>

#define BATCH 64
#define LOOKS 16

/* One entry that was whole when it was read; false for a free one, a changing one, and one that can not be right. */
static bool
entry_at(const ot_reader *r, uint64_t number, struct ot_order *o)
{
    uint64_t offset = r->head.orders_offset + number * sizeof *o;
    for (int i = 0; i < LOOKS; i++) {
        uint64_t again = 0;
        if (!ot_reader_fetch(r, offset, o, sizeof *o) || o->seq == 0)
            return false;
        OT_FENCE_ACQUIRE();
        if (!ot_reader_fetch(r, offset, &again, sizeof again))
            return false;
        if (again == o->seq && o->seq % 2 == 0)
            return ot_order_plausible(o);
    }
    return false;
}

PyObject *
ot_reader_order(PyObject *self, PyObject *key)
{
    ot_reader *r = (ot_reader *)self;
    Py_ssize_t bytes;
    if (!PyUnicode_Check(key)) {
        PyErr_SetString(PyExc_TypeError, "order() takes a str");
        return NULL;
    }
    const char *utf8 = PyUnicode_AsUTF8AndSize(key, &bytes);
    if (utf8 == NULL || bytes > OT_ORDER_KEY_BYTES) {
        PyErr_Clear(); /* no order has such a key */
        Py_RETURN_NONE;
    }
    ot_reader_refresh(r);
    uint64_t hash = ot_order_hash(utf8, (size_t)bytes);
    for (unsigned i = 0; i < OT_ORDER_PROBES && r->head.max_orders > 0; i++) {
        struct ot_order o;
        if (entry_at(r, (hash + i) & (r->head.max_orders - 1), &o) && o.key_bytes == bytes &&
            memcmp(o.key, utf8, (size_t)bytes) == 0)
            return ot_order_state(&o, ot_reader_name(r, o.symbol));
    }
    Py_RETURN_NONE;
}

/* Append (key, OrderState); 0 or -1. */
static int
append(PyObject *list, ot_reader *r, const struct ot_order *o)
{
    PyObject *key = PyUnicode_DecodeUTF8((const char *)o->key, o->key_bytes, "replace");
    PyObject *state = ot_order_state(o, ot_reader_name(r, o->symbol)), *pair = NULL;
    if (key != NULL && state != NULL)
        pair = PyTuple_Pack(2, key, state);
    int result = pair == NULL ? -1 : PyList_Append(list, pair);
    Py_XDECREF(key);
    Py_XDECREF(state);
    Py_XDECREF(pair);
    return result;
}

PyObject *
ot_reader_orders(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_reader *r = (ot_reader *)self;
    ot_reader_refresh(r);
    PyObject *list = PyList_New(0);
    for (uint32_t at = 0; list != NULL && at < r->head.max_orders; at += BATCH) {
        struct ot_order batch[BATCH], o;
        uint32_t count = r->head.max_orders - at < BATCH ? r->head.max_orders - at : BATCH;
        if (!ot_reader_fetch(r, r->head.orders_offset + at * sizeof o, batch, count * sizeof o))
            break;
        for (uint32_t i = 0; i < count && list != NULL; i++) {
            if (batch[i].seq != 0 && entry_at(r, at + i, &o) && append(list, r, &o) < 0)
                Py_CLEAR(list);
        }
    }
    return list;
}
