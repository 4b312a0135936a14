/* The hot path: an entry of the open-span table is filled at a span's start, and its end copies it
 * into the ring. */
#ifndef OTEL_TRADING_ENTRY_H
#define OTEL_TRADING_ENTRY_H

#include "recorder.h"
#include "ring.h"

#define OT_NO_ENTRY UINT32_MAX

/* Whose child a new span is. */
struct ot_origin {
    uint64_t trace_hi;
    uint64_t trace_lo;
    uint64_t parent_id;   /* 0: none, the trace is new */
    PyObject *tracestate; /* borrowed, or NULL */
    uint8_t flags;        /* OT_FLAG_UNSAMPLED, OT_FLAG_REMOTE_PARENT */
    bool random;          /* the trace id's low 56 bits are known to be random */
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
    OT_STORE(&e->extra, OT_EXTRA_LINE);
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

/* Add an arena block: what attributes, events, links, names and descriptions have in common.  The payload comes in two parts,
 * either may be empty.  False where it can never fit. */
bool ot_block_append(struct ot_writer *w, struct ot_slot *e, unsigned kind, uint32_t key, unsigned type,
                     const void *first, size_t first_bytes, const void *second, size_t second_bytes);

/* Longest payload that fits a writer's arena. */
static inline uint32_t
ot_block_room(const struct ot_writer *w)
{
    uint64_t room = (w->arena_mask + 1) / 4 - sizeof(struct ot_block);
    return room < OT_BLOCK_BYTES ? (uint32_t)room : OT_BLOCK_BYTES;
}

/* What follows is used with the GIL held, on an entry that is reserved or open.  Wrong values are faults, lost ones are counted.
 * Code of a value's own type may run in it, and may end the span or close the segment: nothing is written then, and the caller
 * asks again before it touches `e`. */

/* attributes.c.  `key_id`: the key's name id, or OT_NAME_NONE.  `api`: by the SDK's rules; else other libraries' numbers are
 * taken too, and values of unknown types are faults. */
void ot_attribute_set(struct ot_writer *w, struct ot_slot *e, PyObject *key, uint32_t key_id, PyObject *value,
                      bool api);
/* An attribute that was not even looked at, as the SDK counts it. */
void ot_attribute_drop(struct ot_writer *w, struct ot_slot *e);
/* "module.qualname" of an exception's type, without "builtins."; OT_NAME_OTHER where it can't be told. */
uint32_t ot_error_name(PyObject *type);

/* blocks.c */
bool ot_block_add(struct ot_writer *w, struct ot_slot *e, unsigned kind, const void *payload, size_t bytes);
/* `attributes`: a mapping, NULL or None; texts in it are cut as the limits say. */
void ot_event_add(struct ot_writer *w, struct ot_slot *e, PyObject *name, PyObject *attributes, uint64_t unix_ns);
/* `to`: parent_id is the span's. */
void ot_link_add(struct ot_writer *w, struct ot_slot *e, const struct ot_origin *to, PyObject *attributes);
/* `description`: a str, NULL or None, which leaves the span without one.  Which status may follow which is the caller's. */
void ot_status_set(struct ot_writer *w, struct ot_slot *e, unsigned code, PyObject *description);
void ot_name_set(struct ot_writer *w, struct ot_slot *e, PyObject *name); /* a str */

/* spanstate.c: SpanState of an open entry; or of a copy of one that was committed, with `state` OT_SLOT_SPAN and `end` set.
 * NULL with an exception set for want of memory. */
PyObject *ot_entry_state(struct ot_writer *w, const struct ot_slot *e);

#endif
