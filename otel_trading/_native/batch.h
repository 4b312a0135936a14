/* Spans that were taken out of the queue, until they are exported. */
#ifndef OTEL_TRADING_BATCH_H
#define OTEL_TRADING_BATCH_H

#include "drain.h"

/* A probe that made some of a batch's spans. */
struct ot_batch_probe {
    const char *name; /* borrowed from the probe, which lives as long as the process */
    uint32_t name_bytes;
    uint32_t scope; /* the place of its scope in the list */
    uint8_t kind;   /* OpenTelemetry's SpanKind */
    bool scope_is_api;
};

typedef struct {
    PyObject_HEAD
    struct ot_kept *kept; /* owned */
    uint32_t count;
    uint32_t tiers[OT_TIERS];
    uint64_t charged;              /* to the bucket, for all of them */
    uint64_t term;                 /* of the drain that they were taken from */
    bool settled;                  /* with the drain's lock */
    PyObject *held;                /* owned: keeps their probes alive */
    uint64_t epoch;                /* of the segment whose names they have */
    PyObject *scopes;              /* owned list of str: instrumentation scopes in order of first appearance */
    struct ot_batch_probe *probes; /* owned */
    uint16_t *probe_of;            /* owned: of each span the place of its probe among those */
} ot_batch;

int ot_batches_start(PyObject *module); /* once, at import: Batch, take, keep, kept */

#endif
