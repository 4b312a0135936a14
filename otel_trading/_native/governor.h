/* The governor: what monitoring may cost, what it costs, and what is given up to keep to that (docs/budget.md).
 *
 * One tick is pressure, market, meter, engine, enforcer, words, plan of the keep rules, readings; each has a file.  All of
 * it runs with the governor's lock held and without the GIL, in the thread `otel-budget` or in a caller of govern().
 */
#ifndef OTEL_TRADING_GOVERNOR_H
#define OTEL_TRADING_GOVERNOR_H

#include "recorder.h"

/* The policy page at one moment. */
struct ot_allowed {
    double budget[OT_BUDGETS][OT_MODES];
    double stressed_cpu, emergency_cpu, stressed_memory, emergency_memory;
    double margin;
    double dwell;
    double volatility;
    double volume;
    double period;
    double window;
    double recover;
    double violations;
    double cost[OT_COSTS];
    double base_memory;
};

/* What a tick has found out, by measuring or as govern() was told; NaN = can not be told. */
struct ot_sight {
    double now; /* s, CLOCK_MONOTONIC */
    double cpu_load;
    double memory_load;
    double cpu_stall;
    double memory_stall;
    double volatility;
    double volume;
    double usage[OT_BUDGETS];
    double cpu_hot, cpu_drain, cpu_export, cpu_governor; /* of usage */
    double segment_bytes, heap_bytes;
    double network_total, disk_total, cpu_total_ns;
};

int ot_governor_start_module(void); /* once, at import, after the drain's */
void ot_governor_open(void);        /* the segment is laid out; GIL held */
void ot_governor_close(void);  /* GIL held, given up meanwhile; after it nothing of the governor touches the mapping */
void ot_governor_forked(void); /* in the child */
/* Have those that wait in await_decision look again; any thread, also with the GIL held. */
void ot_await_decision_wake(void);

PyObject *ot_govern_start(PyObject *module, PyObject *ignored);
PyObject *ot_govern_stop(PyObject *module, PyObject *ignored);
PyObject *ot_govern(PyObject *module, PyObject *args);
PyObject *ot_await_decision(PyObject *module, PyObject *args);
PyObject *ot_mode(PyObject *module, PyObject *ignored);

#endif
