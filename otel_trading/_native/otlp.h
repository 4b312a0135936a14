/* Kept spans as an ExportTraceServiceRequest, byte for byte what the stock exporter makes of them. */
#ifndef OTEL_TRADING_OTLP_H
#define OTEL_TRADING_OTLP_H

#include "batch.h"

/* Batch.otlp(resource, schema_url, scopes). */
PyObject *ot_batch_otlp(PyObject *self, PyObject *args);

#endif
