/* The hot path: an entry of the open-span table is filled at a span's start, and its end copies it
 * into the ring. */
#ifndef OTEL_TRADING_ENTRY_H
#define OTEL_TRADING_ENTRY_H

#include "recorder.h"
#include "ring.h"

#define OT_NO_ENTRY UINT32_MAX
#define OT_MAX_ATTRIBUTES 128
#define OT_TEXT_MAX 4096

/* Whose child a new span is. */
struct ot_origin {
    uint64_t trace_hi;
    uint64_t trace_lo;
    uint64_t parent_id;   /* 0: none, the trace is new */
    PyObject *tracestate; /* borrowed, or NULL */
    uint8_t flags;        /* OT_FLAG_UNSAMPLED, OT_FLAG_REMOTE_PARENT */
};

static inline struct ot_slot *
ot_entry(struct ot_writer *w, uint32_t index)
{
    if (OT_LIKELY(index < w->open_capacity))
        return &w->open[index];
    index -= w->open_capacity;
    return &w->extent[index / OT_EXTENT_ENTRIES][index % OT_EXTENT_ENTRIES];
}

static inline uint32_t
ot_entry_take(struct ot_writer *w)
{
    if (OT_UNLIKELY(w->free_count == 0) && !ot_entries_grow(w))
        return OT_NO_ENTRY;
    return w->free[--w->free_count];
}

static inline void
ot_entry_give(struct ot_writer *w, uint32_t index, struct ot_slot *e)
{
    OT_STORE(OT_META(e), 0);
    w->free[w->free_count++] = index;
}

/* Make the second line valid. */
static inline void
ot_entry_extra(struct ot_slot *e)
{
    if (e->extra)
        return;
    OT_STORE(&e->error, 0);
    OT_STORE(&e->arena, 0);
    OT_STORE(&e->tracestate, 0);
    OT_STORE(&e->dropped, 0);
    OT_STORE(&e->extra, 1);
}

/* Fill an entry and show it to readers.  `seq` counts the entry's changes, odd while one is going on. */
static inline void
ot_entry_begin(struct ot_slot *e, const struct ot_origin *o, uint64_t span_id, uint64_t meta)
{
    uint64_t seq = e->seq;
    OT_STORE(&e->seq, seq + 1);
    OT_FENCE_RELEASE();
    OT_STORE(&e->trace_hi, o->trace_hi);
    OT_STORE(&e->trace_lo, o->trace_lo);
    OT_STORE(&e->span_id, span_id);
    OT_STORE(&e->parent_id, o->parent_id);
    OT_STORE(OT_META(e), meta);
    OT_STORE(&e->start, ot_ticks());
    OT_STORE_RELEASE(&e->seq, seq + 2);
}

/* attributes.c: on an entry that is reserved or open.  Wrong values are faults, lost ones are counted. */
void ot_attribute_set(struct ot_writer *w, struct ot_slot *e, PyObject *key, uint32_t key_id, PyObject *value);
/* "module.qualname" of an exception's type, without "builtins."; OT_NAME_OTHER where it can't be told. */
uint32_t ot_error_name(PyObject *type);

#endif
