/* A span as Python sees it. */
#ifndef OTEL_TRADING_SPANSTATE_H
#define OTEL_TRADING_SPANSTATE_H

#include "recorder.h"

/* The str of a name id, owned by the caller; never NULL but for want of memory. */
typedef PyObject *(*ot_name_fn)(void *context, uint32_t id);

/* How many count, the newest; OT_NO_LIMIT = all. */
struct ot_limits {
    uint32_t attributes;
    uint32_t events;
    uint32_t links;
};

/* The limits of the segment that is open here. */
struct ot_limits ot_own_limits(void);
/* ot_name_fn of the segment that is open here, or was last; `context` is not used. */
PyObject *ot_own_name(void *context, uint32_t id);

struct ot_odds;

/* The tuple SpanState of _native.pyi.  `blocks`: arena blocks newest first, believed in nothing. */
PyObject *ot_span_state(const struct ot_slot *s, uint64_t start_ns, uint64_t end_ns, const uint8_t *blocks,
                        size_t bytes, const struct ot_limits *limits, ot_name_fn name, void *context);
/* The same of a span whose trace was kept by a threshold, which its tracestate then says; `odds` NULL: by none. */
PyObject *ot_kept_state(const struct ot_slot *s, uint64_t start_ns, uint64_t end_ns, const uint8_t *blocks,
                        size_t bytes, const struct ot_limits *limits, const struct ot_odds *odds);

#endif
