/* The name table, and the tables of probes and instruments that refer to it. */
#ifndef OTEL_TRADING_NAMES_H
#define OTEL_TRADING_NAMES_H

#include "recorder.h"

#define OT_SHORT_TEXT 64 /* bytes up to which an attribute's string is interned */

/* Id of a name, OT_NAME_NONE for an empty one; OT_NAME_OTHER, counted, where the table is full.  Needs an open segment.  `text` is a str. */
uint32_t ot_name_id(PyObject *text);
/* The same for an attribute's value, but OT_NAME_NONE and not counted where values have filled half of the table, which
 * is all that they get, or `text` is too long to be worth it. */
uint32_t ot_value_id(PyObject *text);
/* The str of an id of the present (or, after close, the last) segment; borrowed; "other" for an unknown one. */
PyObject *ot_name_text(uint32_t id);

int ot_names_start(void); /* once, at import */
/* The tables are an adopted segment's, and read as they grow; and after it this process's own again.  GIL. */
void ot_names_adopt(void);
void ot_names_own(void);
/* Go on in an adopted segment's tables: what is registered here is put behind what is there, under new ids. */
void ot_names_inherit(void);

int ot_names_open(void); /* a new segment: fill its tables with what is registered; -1 with an exception set */

/* Probes and instruments live as long as the process; ids are positions in these lists. */
int ot_probe_register(PyObject *probe); /* id; -1 with an exception set */
PyObject *ot_probe_at(uint32_t id);     /* borrowed, or NULL */
PyObject *ot_probes_held(void);         /* owned: while it is there, so are the probes of now */
uint32_t ot_probe_total(void);
/* JSON object of a probe's instrumentation scope, "" for our own; borrowed. */
PyObject *ot_probe_scope(PyObject *probe);
int ot_instrument_register(PyObject *instrument); /* id, or -1: no room, no exception */
PyObject *ot_instrument_at(uint32_t id);
uint32_t ot_instrument_total(void);

#endif
