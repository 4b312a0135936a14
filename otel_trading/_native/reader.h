/* Read a segment from outside: another process's, a dead one's, a damaged one.  Never writes to it. */
#ifndef OTEL_TRADING_READER_H
#define OTEL_TRADING_READER_H

#include "recorder.h"

int ot_reader_start(PyObject *module); /* once, at import */

#endif
