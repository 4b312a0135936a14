/* Critical events, each with the state that the process was in: what is known when it dies (docs/forensics.md). */
#ifndef OTEL_TRADING_VITALS_H
#define OTEL_TRADING_VITALS_H

#include "recorder.h"

/* Write an event.  Of `v` the caller has set unix_ns, kind, state, name, latency and the trace, the rest is filled in here.
 * `key` is UTF-8; its beginning is kept.  GIL held, segment open; no lock, no system call, no allocation. */
void ot_vital_note(struct ot_vital *v, const char *key, size_t bytes);

/* Is anything recorded now?  The segment is open. */
static inline bool
ot_recording(void)
{
    return (OT_LOAD(&ot_rec.control->switches) & OT_SWITCH_RECORD) != 0;
}

/* `received_ns`: when the newest market data of any symbol came; 0 = there is none. */
static inline uint32_t
ot_age_ms(uint64_t now_ns, uint64_t received_ns)
{
    if (received_ns == 0)
        return UINT32_MAX;
    uint64_t ms = now_ns > received_ns ? (now_ns - received_ns) / 1000000 : 0;
    return ms < UINT32_MAX - 1 ? (uint32_t)ms : UINT32_MAX - 1;
}

PyObject *ot_critical(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#endif
