#include "span.h"

#include <stddef.h>
#include <string.h>

#include "context.h"
#include "hooks.h"
#include "names.h"
#include "tracer.h"

#define FREE_SPANS 256

static ot_span *free_spans[FREE_SPANS];
static int free_count;

/* ---- a span's life ---- */

ot_span *
ot_span_new(ot_probe_object *probe)
{
    ot_span *s;
    if (OT_LIKELY(free_count > 0)) {
        s = free_spans[--free_count];
        (void)PyObject_Init((PyObject *)s, &ot_span_type);
    }
    else {
        s = PyObject_GC_New(ot_span, &ot_span_type);
        if (s == NULL)
            return NULL;
    }
    memset((char *)s + offsetof(ot_span, vectorcall), 0, sizeof *s - offsetof(ot_span, vectorcall));
    s->vectorcall = ot_span_vectorcall;
    s->probe = (ot_probe_object *)Py_XNewRef((PyObject *)probe);
    s->entry = OT_NO_ENTRY;
    return s;
}

ot_span *
ot_span_stand_in(const uint64_t trace_id[2], uint64_t span_id, bool remote, bool sampled, bool random,
                 PyObject *tracestate)
{
    ot_span *s = ot_span_new(NULL);
    if (s == NULL)
        return NULL;
    s->trace_hi = trace_id[0];
    s->trace_lo = trace_id[1];
    s->span_id = span_id;
    s->state = SPAN_REMOTE;
    s->remote = remote;
    s->random = random;
    s->flags = sampled ? 0 : OT_FLAG_UNSAMPLED;
    if (tracestate != NULL && PyUnicode_Check(tracestate) && PyUnicode_GET_LENGTH(tracestate) > 0)
        s->tracestate = Py_NewRef(tracestate);
    return s;
}

/* The collector need not know of a span but where it may be part of a cycle: then only does it cost something. */
static void
track(ot_span *s)
{
    if (!s->tracked) {
        s->tracked = true;
        PyObject_GC_Track((PyObject *)s);
    }
}

void
ot_span_put_over(ot_span *s, PyObject *under)
{
    Py_XSETREF(s->under, Py_XNewRef(under));
    if (under != NULL)
        track(s);
}

void
ot_span_keep_context(ot_span *s, PyObject *context)
{
    Py_XSETREF(s->context, Py_NewRef(context));
    track(s);
}

/* Have an entry, reserved; false where nothing is recorded now. */
static bool
reserve(ot_span *s)
{
    if (ot_span_writable(s))
        return true;
    struct ot_writer *w = ot_writer_here();
    if (w == NULL || !ot_tier_on(s->probe->tier))
        return false;
    s->entry = ot_entry_take(w);
    if (s->entry == OT_NO_ENTRY) {
        ot_span_refused(s->probe->tier);
        return false;
    }
    s->writer = w;
    s->epoch = ot_rec.epoch;
    OT_STORE(OT_META(ot_entry(w, s->entry)), OT_META_WORD(s->probe->id, OT_SLOT_RESERVED, 0, 0, 0, 0, s->probe->tier));
    return true;
}

void
ot_span_set_parent(ot_span *s, PyObject *parent)
{
    if (!Py_IS_TYPE(parent, &ot_span_type) || ((ot_span *)parent)->span_id == 0)
        return;
    struct ot_origin o;
    ot_origin_of((ot_span *)parent, &o);
    s->trace_hi = o.trace_hi;
    s->trace_lo = o.trace_lo;
    s->parent_id = o.parent_id;
    s->flags = o.flags;
    s->random = o.random;
    Py_XSETREF(s->tracestate, Py_XNewRef(o.tracestate));
    s->parented = true;
}

void
ot_span_begin(ot_span *s)
{
    if (s->state != SPAN_MADE) {
        if (s->state != SPAN_INERT)
            ot_fault();
        return;
    }
    if (!reserve(s)) {
        s->state = SPAN_INERT;
        s->entry = OT_NO_ENTRY;
        return;
    }
    struct ot_writer *w = s->writer;
    struct ot_origin o;
    if (s->parented) {
        o = (struct ot_origin){s->trace_hi, s->trace_lo, s->parent_id, s->tracestate, s->flags, s->random};
    }
    else {
        ot_origin_here(w, &o);
        s->trace_hi = o.trace_hi;
        s->trace_lo = o.trace_lo;
        s->parent_id = o.parent_id;
        s->flags = o.flags;
        s->random = o.random;
        s->tracestate = Py_XNewRef(o.tracestate);
    }
    struct ot_slot *e = ot_entry(w, s->entry);
    if (OT_UNLIKELY(!ot_tier_takes(s->probe->tier, o.trace_lo))) {
        ot_entry_give(w, s->entry, e);
        s->state = SPAN_INERT;
        s->span_id = 0;
        s->entry = OT_NO_ENTRY;
        return;
    }
    s->span_id = ot_random_id(w);
    if (OT_UNLIKELY(o.tracestate != NULL)) {
        ot_entry_tracestate(w, e, o.tracestate);
    }
    s->state = SPAN_OPEN;
    ot_entry_begin(e, &o, s->span_id,
                   OT_META_WORD(s->probe->id, OT_SLOT_OPEN, 0, o.flags, e->count, e->extra, s->probe->tier));
}

/* There may be one for each trace, so they are interned as attributes' values are: names always find room. */
void
ot_entry_tracestate(struct ot_writer *w, struct ot_slot *e, PyObject *tracestate)
{
    const struct ot_header *h = ot_rec.header;
    uint32_t id = OT_NAME_NONE;
    if (PyUnicode_GET_LENGTH(tracestate) <= OT_SHORT_TEXT)
        id = ot_value_id(tracestate);
    else if (h->name_count < h->max_names / 2 && h->text_used < h->text_bytes / 2)
        id = ot_name_id(tracestate);
    ot_entry_extra(e);
    if (OT_LIKELY(id != OT_NAME_NONE && id != OT_NAME_OTHER)) {
        OT_STORE(&e->tracestate, id);
        return;
    }
    Py_ssize_t bytes;
    const char *utf8 = PyUnicode_AsUTF8AndSize(tracestate, &bytes);
    if (utf8 == NULL)
        PyErr_Clear();
    else
        (void)ot_block_add(w, e, OT_BLOCK_TRACESTATE, utf8, (size_t)bytes);
}

/* The start that the program gave, in place of now. */
void
ot_entry_start_at(struct ot_slot *e, uint64_t unix_ns)
{
    uint64_t seq = e->seq;
    OT_STORE(&e->seq, seq + 1);
    OT_FENCE_RELEASE();
    OT_STORE(&e->start, unix_ns);
    OT_STORE(&e->flags, e->flags | OT_FLAG_START_UNIX);
    OT_STORE_RELEASE(&e->seq, seq + 2);
}

void
ot_entry_raised(struct ot_slot *e, PyObject *type)
{
    if (type == NULL || type == Py_None || !PyType_Check(type))
        return;
    if (PyType_IsSubtype((PyTypeObject *)type, (PyTypeObject *)PyExc_Exception)) {
        ot_entry_extra(e);
        OT_STORE(&e->error, ot_error_name(type));
        OT_STORE(&e->status, OT_STATUS_ERROR);
        return;
    }
    for (PyTypeObject *t = (PyTypeObject *)type; t != NULL; t = t->tp_base) {
        if (strcmp(t->tp_name, "CancelledError") == 0) { /* asyncio's; not an error, but not the end either */
            OT_STORE(&e->flags, e->flags | OT_FLAG_CANCELLED);
            return;
        }
    }
}

/* The end of a span that is open: true where a record was written, and `*record` is it then. */
static inline bool
commit(ot_span *s, uint64_t end, struct ot_slot *record)
{
    struct ot_writer *w = s->writer;
    struct ot_slot *e = ot_entry(w, s->entry);
    bool open = e->state == OT_SLOT_OPEN && e->span_id == s->span_id;
    if (OT_LIKELY(open)) {
        if (OT_UNLIKELY(record != NULL)) {
            *record = *e;
            record->state = OT_SLOT_SPAN;
            record->end = end;
        }
        ot_commit(w, e, end); /* into the ring it began in, where its arena blocks are, whatever thread this is */
        ot_entry_give(w, s->entry, e);
    }
    s->entry = OT_NO_ENTRY;
    return open;
}

/* Tell the tracer's processors; what they raise stays inside. */
static void
tell(ot_span *s, const struct ot_slot *record)
{
    PyObject *state = ot_entry_state(s->writer, record);
    PyObject *on_end = Py_XNewRef(s->tracer->on_end);
    PyObject *result = NULL;
    if (state != NULL && on_end != NULL)
        result = PyObject_CallFunctionObjArgs(on_end, (PyObject *)s, state, NULL);
    if (result == NULL)
        ot_told("on_end", "a span processor raised at a span's end");
    Py_XDECREF(result);
    Py_XDECREF(on_end);
    Py_XDECREF(state);
}

/* Whether a call comes too late or too early; then the span is not to be ended. */
static bool
not_open(ot_span *s)
{
    if (OT_LIKELY(s->state == SPAN_OPEN))
        return false;
    if (s->state == SPAN_ENDED && !s->dropped)
        ot_fault();
    else if (s->state == SPAN_MADE)
        s->state = SPAN_INERT;
    return true;
}

static void
end(ot_span *s, PyObject *error_type, bool given, uint64_t unix_ns)
{
    if (OT_UNLIKELY(not_open(s)))
        return;
    s->state = SPAN_ENDED;
    Py_CLEAR(s->inner);
    ot_span_drop_context(s);
    if (!ot_span_writable(s)) /* begun before a fork or in a segment that is gone */
        return;
    struct ot_slot *e = ot_entry(s->writer, s->entry);
    if (OT_UNLIKELY(error_type != NULL && error_type != Py_None)) {
        ot_entry_raised(e, error_type);
        if (!ot_span_writable(s))
            return;
    }
    uint64_t at = ot_ticks();
    if (OT_UNLIKELY(given)) {
        at = unix_ns;
        OT_STORE(&e->flags, e->flags | OT_FLAG_END_UNIX);
    }
    if (OT_LIKELY(s->tracer == NULL || s->tracer->on_end == NULL || s->dropped)) {
        commit(s, at, NULL);
        return;
    }
    struct ot_slot record;
    if (commit(s, at, &record))
        tell(s, &record);
}

void
ot_span_end(ot_span *s, PyObject *error_type)
{
    end(s, error_type, false, 0);
}

void
ot_span_end_at(ot_span *s, uint64_t unix_ns)
{
    end(s, NULL, true, unix_ns);
}

void
ot_span_enter(ot_span *s)
{
    ot_span_begin(s);
    if (s->state == SPAN_OPEN)
        ot_span_become_current(s);
}

void
ot_span_leave(ot_span *s, PyObject *error_type)
{
    ot_span_end(s, error_type);
    ot_span_give_place_back(s);
}

void
ot_span_set_attribute(ot_span *s, PyObject *key, uint32_t key_id, PyObject *value)
{
    if (s->state == SPAN_INERT || s->state == SPAN_REMOTE)
        return;
    if (s->state > SPAN_OPEN) {
        ot_fault();
        return;
    }
    if (s->state == SPAN_MADE && !reserve(s))
        return;
    if (ot_span_writable(s))
        ot_attribute_set(s->writer, ot_entry(s->writer, s->entry), key, key_id, value, false);
}

/* ---- its end ---- */

void
ot_chain_release(PyObject *value)
{
    while (value != NULL && Py_REFCNT(value) == 1) {
        PyObject *next;
        if (Py_IS_TYPE(value, &ot_span_type)) {
            next = ((ot_span *)value)->prev;
            ((ot_span *)value)->prev = NULL;
        }
        else {
            next = (PyObject *)((ot_frame *)value)->below;
            ((ot_frame *)value)->below = NULL;
        }
        Py_DECREF(value);
        value = next;
    }
    Py_XDECREF(value);
}

int
ot_span_traverse(PyObject *self, visitproc visit, void *arg)
{
    ot_span *s = (ot_span *)self;
    Py_VISIT(s->prev);
    Py_VISIT(s->inner);
    Py_VISIT(s->under);
    Py_VISIT(s->context);
    Py_VISIT(s->tracer);
    return 0;
}

int
ot_span_clear(PyObject *self)
{
    ot_span *s = (ot_span *)self;
    Py_CLEAR(s->context);
    Py_CLEAR(s->under);
    Py_CLEAR(s->inner);
    return 0;
}

void
ot_span_dealloc(PyObject *self)
{
    ot_span *s = (ot_span *)self;
    PyObject *before = s->prev;
    s->prev = NULL;
    if (OT_UNLIKELY(s->tracked)) {
        PyObject_GC_UnTrack(self);
        s->tracked = false;
    }
    if (OT_UNLIKELY(s->entry != OT_NO_ENTRY) && ot_span_writable(s)) {
        struct ot_slot *e = ot_entry(s->writer, s->entry);
        if (s->state == SPAN_OPEN && e->span_id == s->span_id && e->state == OT_SLOT_OPEN) {
            OT_STORE(&e->flags, e->flags | OT_FLAG_ABANDONED);
            ot_commit(s->writer, e, ot_ticks());
            ot_entry_give(s->writer, s->entry, e);
        }
        else if (s->state == SPAN_MADE) {
            ot_entry_give(s->writer, s->entry, e);
        }
    }
    Py_CLEAR(s->probe);
    Py_CLEAR(s->tracestate);
    Py_CLEAR(s->inner);
    Py_CLEAR(s->under);
    Py_CLEAR(s->context);
    Py_CLEAR(s->span_context);
    Py_CLEAR(s->tracer);
    if (free_count < FREE_SPANS)
        free_spans[free_count++] = s;
    else
        PyObject_GC_Del(s);
    if (OT_UNLIKELY(before != NULL))
        ot_chain_release(before);
}
