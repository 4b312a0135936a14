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
/* When the newest update of any symbol came, Unix time, as the page tells; 0 = none yet. */
uint64_t ot_market_newest(void);
/* The same, of this process's own updates; stored relaxed under the GIL, loaded relaxed by anyone in this process. */
extern uint64_t ot_market_newest_ns;

PyObject *ot_market(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *ot_market_data(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *ot_market_condition(PyObject *module, PyObject *args);

#define OT_MARKET_DATA_DOC                                                                                            \
    "market_data(symbol, exchange_ts_ms, price=None, volume=None)\n"                                                  \
    "--\n"                                                                                                            \
    "\n"                                                                                                              \
    "Note an update of a symbol's market data.\n"                                                                     \
    "\n"                                                                                                              \
    "``exchange_ts_ms`` is the exchange's stamp, Unix time in milliseconds (None or 0: it has none), ``price`` the\n" \
    "last or the mid price, ``volume`` what was traded in this update.  From the stamps comes the staleness of the\n" \
    "data, from prices and volumes the market's volatility and volume, by which the budget's engine knows a moving\n" \
    "market.  At most 256 symbols are known; more are a fault.\n"                                                     \
    "\n"                                                                                                              \
    "Takes some 50 ns, recorded or not.  In the mode HIGH_VOLATILITY each update is also a span\n"                    \
    "``market_data.tick`` of no length, tier P1, with its symbol, stamp, price and volume.\n"                         \
    "\n"                                                                                                              \
    "Never raises for a wrong value: that is a fault, and the value is left out."

/* For module.c's table. */
#define OT_MARKET_METHODS                                                                                             \
    {"market", (PyCFunction)(void (*)(void))ot_market, METH_FASTCALL, NULL},                                          \
    {                                                                                                                 \
        "market_data", (PyCFunction)(void (*)(void))ot_market_data, METH_FASTCALL | METH_KEYWORDS, OT_MARKET_DATA_DOC \
    }

#endif
