/* Market data: the newest of each symbol, and what they say of volatility and volume. */
#ifndef OTEL_TRADING_MARKET_H
#define OTEL_TRADING_MARKET_H

#include "governor.h"

int ot_market_start(void); /* once, at import; -1 with an exception set */
void ot_market_open(void); /* a new segment; GIL held, the governor's lock too */
/* Each whole second: returns and volumes of all symbols; then the condition, also where `market_condition` told it. */
void ot_market_tick(const struct ot_allowed *rules, struct ot_sight *sight);
/* Updates of all symbols so far. */
uint64_t ot_market_updates(void);

PyObject *ot_market_data(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *ot_market_condition(PyObject *module, PyObject *args);

#endif
