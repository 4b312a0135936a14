/* The table of orders that were sent, by client order id: so that an ack or a fill that arrives elsewhere, or after a
 * restart, finds the trace of its order. */
#ifndef OTEL_TRADING_ORDERS_H
#define OTEL_TRADING_ORDERS_H

#include "recorder.h"

int ot_orders_start(PyObject *module); /* once, at import: order_put, order_get, orders_open */
void ot_orders_open(void);             /* a new segment: no order is in it */

/* FNV-1a, 64 bit. */
static inline uint64_t
ot_order_hash(const void *key, size_t bytes)
{
    const uint8_t *at = key;
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ at[i]) * 0x100000001b3ULL;
    return hash;
}

/* Can a recorder have written this? */
static inline bool
ot_order_plausible(const struct ot_order *o)
{
    return o->seq != 0 && o->seq % 2 == 0 && o->key_bytes <= OT_ORDER_KEY_BYTES && o->state >= OT_ORDER_SENT &&
           o->state <= OT_ORDER_REJECTED && o->side <= OT_SIDE_SELL;
}

/* The tuple OrderState of _native.pyi; `symbol` is taken over, NULL for want of memory. */
PyObject *ot_order_state(const struct ot_order *o, PyObject *symbol);

#endif
