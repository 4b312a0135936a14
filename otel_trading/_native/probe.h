/* Probes, and the flat pairs that they start and stop. */
#ifndef OTEL_TRADING_PROBE_H
#define OTEL_TRADING_PROBE_H

#include "entry.h"

#define OT_PROBE_KEYS 8

typedef struct {
    PyObject_HEAD
    PyObject *name;  /* owned str */
    PyObject *scope; /* owned str: JSON object of the instrumentation scope, "" for our own */
    uint64_t sla_ns;
    uint32_t id;
    uint8_t tier;
    uint8_t leaf;
    uint8_t kind;
    uint64_t key_epoch;            /* the cache below is of this segment */
    PyObject *keys[OT_PROBE_KEYS]; /* owned str: attribute keys seen, by identity */
    uint16_t key_ids[OT_PROBE_KEYS];
} ot_probe_object;

extern PyTypeObject ot_probe_type;
extern PyTypeObject ot_token_type;
extern PyTypeObject ot_traced_type;

int ot_probes_start(PyObject *module); /* once, at import */
int ot_traced_start(PyObject *module);
PyObject *ot_traced(PyObject *module, PyObject *args);

/* The name id of an attribute key, by identity where the key was seen before.  Needs an open segment. */
uint32_t ot_probe_key(ot_probe_object *p, PyObject *key);

/* An entry for a flat span of this probe, begun; OT_NO_ENTRY where nothing is recorded. */
uint32_t ot_flat_begin(struct ot_writer *w, const ot_probe_object *p, PyObject *parent);

#endif
