/* A span as Python sees it. */
#ifndef OTEL_TRADING_SPANSTATE_H
#define OTEL_TRADING_SPANSTATE_H

#include "recorder.h"

/* The str of a name id, owned by the caller; never NULL but for want of memory. */
typedef PyObject *(*ot_name_fn)(void *context, uint32_t id);

/* The tuple SpanState of _native.pyi.  `blocks`: arena blocks newest first, each checked to lie within `bytes`. */
PyObject *ot_span_state(const struct ot_slot *s, uint64_t start_ns, uint64_t end_ns, const uint8_t *blocks,
                        size_t bytes, ot_name_fn name, void *context);

#endif
