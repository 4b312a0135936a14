/* Arena blocks: written for what does not fit a slot, and found again. */
#include "blocks.h"

#include <stdlib.h>

#include "entry.h"
#include "message.h"
#include "names.h"

/* ---- writing ---- */

static struct ot_block *
block_in_arena(const struct ot_writer *w, uint64_t position)
{
    return (struct ot_block *)(void *)(w->arena + (position & w->arena_mask));
}

/* Depth and counts of the span's newest block so far, all 0 where there is none or it is gone. */
static void
counts_before(const struct ot_writer *w, uint64_t newest, uint32_t *depth, uint32_t *counts)
{
    *depth = *counts = 0;
    if (newest == 0 || w->arena_head - (newest - 1) > w->arena_mask + 1)
        return;
    const struct ot_block *b = block_in_arena(w, newest - 1);
    *depth = b->depth;
    *counts = b->counts;
}

bool
ot_block_append(struct ot_writer *w, struct ot_slot *e, unsigned kind, uint32_t key, unsigned type, const void *first,
                size_t first_bytes, const void *second, size_t second_bytes)
{
    size_t payload = first_bytes + second_bytes;
    if (payload > ot_block_room(w))
        return false;
    uint32_t depth, counts;
    counts_before(w, e->arena, &depth, &counts);
    if (kind == OT_BLOCK_EVENT && (counts & 0xffff) != 0xffff)
        counts += 1;
    if (kind == OT_BLOCK_LINK && counts >> 16 != 0xffff)
        counts += 1U << 16;
    uint64_t need = ot_block_whole(payload), size = w->arena_mask + 1, at = w->arena_head;
    uint64_t left = size - (at & w->arena_mask);
    if (left < need)
        at += left; /* never across the end */
    w->arena_head = at + need;
    /* readers that copied an older block find by the head that it is gone */
    OT_STORE(&w->ring->arena_head, w->arena_head);
    OT_FENCE_RELEASE();
    struct ot_block *b = block_in_arena(w, at);
    b->position = at;
    b->previous = e->arena;
    b->bytes = (uint32_t)payload;
    b->depth = depth + 1;
    b->key = (uint16_t)key;
    b->type = (uint8_t)type;
    b->kind = (uint8_t)kind;
    b->counts = counts;
    uint8_t *to = (uint8_t *)(b + 1);
    if (first_bytes > 0)
        memcpy(to, first, first_bytes);
    if (second_bytes > 0)
        memcpy(to + first_bytes, second, second_bytes);
    OT_STORE_RELEASE(&e->arena, at + 1);
    return true;
}

bool
ot_block_add(struct ot_writer *w, struct ot_slot *e, unsigned kind, const void *payload, size_t bytes)
{
    ot_entry_extra(e);
    return ot_block_append(w, e, kind, 0, 0, payload, bytes, NULL, 0);
}

static bool
add_text(struct ot_writer *w, struct ot_slot *e, unsigned kind, PyObject *text)
{
    uint32_t room = ot_block_room(w), bytes;
    struct ot_rules rules = {OT_NO_LIMIT, room < OT_TEXT_BYTES ? room : OT_TEXT_BYTES, true, false};
    PyObject *keep;
    const char *utf8 = ot_text_utf8(text, &rules, &keep, &bytes);
    if (utf8 != NULL)
        (void)ot_block_add(w, e, kind, utf8, bytes);
    else
        ot_fault();
    Py_XDECREF(keep);
    return utf8 != NULL;
}

void
ot_name_set(struct ot_writer *w, struct ot_slot *e, PyObject *name)
{
    (void)add_text(w, e, OT_BLOCK_NAME, name);
}

void
ot_status_set(struct ot_writer *w, struct ot_slot *e, unsigned code, PyObject *description)
{
    OT_STORE(&e->status, (uint8_t)code);
    if (description != NULL && description != Py_None)
        (void)add_text(w, e, OT_BLOCK_STATUS, description);
    else if (e->extra && e->arena != 0)
        (void)ot_block_add(w, e, OT_BLOCK_STATUS, NULL, 0); /* takes an older one's place */
}

/* ---- events and links ---- */

/* What may have happened while a value's own code ran. */
struct moment {
    uint64_t epoch;
    uint64_t span_id;
    uint8_t state;
};

static bool
same(const struct moment *m, const struct ot_slot *e)
{
    return m->epoch == ot_rec.epoch && m->span_id == e->span_id && m->state == e->state;
}

/* Attributes, in a message that goes on in `w`; with ever shorter texts, and at last without any, until it fits. */
static bool
with_attributes(struct ot_wire *w, uint8_t tag, uint8_t dropped_tag, PyObject *attributes, uint32_t limit,
                uint32_t room)
{
    if (attributes == NULL || attributes == Py_None)
        return true;
    size_t before = w->used;
    for (uint32_t bytes = room < OT_TEXT_BYTES ? room : OT_TEXT_BYTES;; bytes /= 4) {
        struct ot_rules rules = {ot_rec.settings.event_value_length, bytes, true, false};
        uint32_t dropped = 0;
        bool mapping = ot_wire_attributes(w, tag, attributes, bytes < 64 ? 0 : limit, &rules, &dropped);
        if (dropped > 0)
            ot_wire_varint(w, dropped_tag, dropped);
        if (!w->failed)
            return mapping;
        w->failed = false;
        w->used = before;
        if (bytes < 64)
            return true;
    }
}

static void
commit_message(struct ot_writer *w, struct ot_slot *e, const struct moment *m, unsigned kind,
               const struct ot_wire *wire)
{
    if (!same(m, e) || wire->failed || !ot_block_add(w, e, kind, wire->data, wire->used))
        ot_fault();
}

void
ot_event_add(struct ot_writer *w, struct ot_slot *e, PyObject *name, PyObject *attributes, uint64_t unix_ns)
{
    struct moment m = {ot_rec.epoch, e->span_id, e->state};
    uint32_t room = ot_block_room(w), bytes = 0;
    struct ot_wire wire;
    ot_wire_start(&wire, room);
    if (unix_ns != 0)
        ot_wire_fixed64(&wire, 1 << 3 | 1, unix_ns);
    struct ot_rules rules = {OT_NO_LIMIT, room / 4 < OT_TEXT_BYTES ? room / 4 : OT_TEXT_BYTES, true, false};
    PyObject *keep;
    const char *utf8 = ot_text_utf8(name, &rules, &keep, &bytes);
    if (utf8 != NULL && bytes > 0)
        ot_wire_bytes(&wire, 2 << 3 | 2, utf8, bytes);
    Py_XDECREF(keep);
    if (utf8 == NULL ||
        !with_attributes(&wire, 3 << 3 | 2, 4 << 3, attributes, ot_rec.settings.event_attribute_limit, room))
        ot_fault();
    commit_message(w, e, &m, OT_BLOCK_EVENT, &wire);
    ot_wire_free(&wire);
}

static void
add_tracestate(struct ot_wire *wire, PyObject *text)
{
    struct ot_rules rules = {OT_NO_LIMIT, 512, true, false}; /* bytes, as W3C wants them carried at least */
    PyObject *keep;
    uint32_t bytes;
    const char *utf8 = ot_text_utf8(text, &rules, &keep, &bytes);
    if (utf8 != NULL && !rules.cut)
        ot_wire_bytes(wire, 3 << 3 | 2, utf8, bytes);
    Py_XDECREF(keep);
}

void
ot_link_add(struct ot_writer *w, struct ot_slot *e, const struct ot_origin *to, PyObject *attributes)
{
    struct moment m = {ot_rec.epoch, e->span_id, e->state};
    uint8_t ids[16];
    struct ot_wire wire;
    ot_wire_start(&wire, ot_block_room(w));
    (void)ot_put_id(ot_put_id(ids, to->trace_hi), to->trace_lo);
    ot_wire_bytes(&wire, 1 << 3 | 2, ids, 16);
    (void)ot_put_id(ids, to->parent_id);
    ot_wire_bytes(&wire, 2 << 3 | 2, ids, 8);
    uint32_t flags = OT_SPAN_FLAGS_HAS_REMOTE | (to->flags & OT_FLAG_REMOTE_PARENT ? OT_SPAN_FLAGS_REMOTE : 0);
    flags |= (to->flags & OT_FLAG_UNSAMPLED ? 0U : 1U) | (to->random ? 2U : 0U);
    if (to->tracestate != NULL && PyUnicode_GET_LENGTH(to->tracestate) > 0)
        add_tracestate(&wire, to->tracestate);
    if (!with_attributes(&wire, 4 << 3 | 2, 5 << 3, attributes, ot_rec.settings.link_attribute_limit, ot_block_room(w)))
        ot_fault();
    ot_wire_fixed32(&wire, 6 << 3 | 5, flags);
    commit_message(w, e, &m, OT_BLOCK_LINK, &wire);
    ot_wire_free(&wire);
}

/* ---- reading ---- */

void
ot_blocks_copy(const struct ot_writer *w, uint64_t newest, struct ot_blocks *to)
{
    uint64_t size = w->arena_mask + 1, at = newest, positions[OT_MAX_BLOCKS];
    size_t ends[OT_MAX_BLOCKS], used = 0;
    unsigned n = 0;
    *to = (struct ot_blocks){NULL, 0, 0};
    while (at != 0) {
        uint64_t position = at - 1, offset = position & w->arena_mask;
        struct ot_block b;
        if (n == OT_MAX_BLOCKS || offset + sizeof b > size)
            break;
        memcpy(&b, w->arena + offset, sizeof b);
        size_t whole = ot_block_whole(b.bytes);
        if (b.position != position || b.bytes > OT_BLOCK_BYTES || offset + whole > size ||
            used + whole > OT_RECORD_BYTES || (n > 0 && position + whole > positions[n - 1]))
            break;
        used += whole;
        positions[n] = position;
        ends[n++] = used;
        to->gone = b.previous == 0 ? 0 : b.depth > 1 ? b.depth - 1 : 1;
        at = b.previous < at ? b.previous : 0;
    }
    if (n == 0) {
        to->gone = newest != 0;
        return;
    }
    to->data = malloc(used);
    if (to->data == NULL)
        return;
    for (unsigned i = 0; i < n; i++) {
        size_t from = i == 0 ? 0 : ends[i - 1];
        memcpy(to->data + from, w->arena + (positions[i] & w->arena_mask), ends[i] - from);
    }
    /* what the writer has reached meanwhile may be half new: the oldest go first */
    OT_FENCE_ACQUIRE();
    uint64_t head = OT_LOAD(&w->ring->arena_head);
    unsigned good = n;
    while (good > 0 && head - positions[good - 1] > size)
        good--;
    to->gone += n - good;
    to->bytes = good == 0 ? 0 : ends[good - 1];
}

void
ot_blocks_index(const uint8_t *data, size_t bytes, struct ot_contents *c)
{
    bool described = false;
    c->data = data;
    c->count = c->events = c->links = c->events_total = c->links_total = c->status = c->name = c->tracestate = 0;
    for (size_t at = 0; at + sizeof(struct ot_block) <= bytes && c->count < OT_MAX_BLOCKS;) {
        struct ot_block b = ot_block_at(c, (uint32_t)at);
        if (b.bytes > bytes - at - sizeof b)
            break;
        if (c->count == 0) {
            c->events_total = b.counts & 0xffff;
            c->links_total = b.counts >> 16;
        }
        if (b.kind == OT_BLOCK_EVENT) {
            c->events++;
        }
        else if (b.kind == OT_BLOCK_LINK) {
            c->links++;
        }
        else if (b.kind == OT_BLOCK_STATUS && !described) {
            described = true; /* an empty one takes the description away */
            c->status = b.bytes > 0 ? (uint32_t)at + 1 : 0;
        }
        else if (b.kind == OT_BLOCK_NAME && c->name == 0) {
            c->name = (uint32_t)at + 1;
        }
        else if (b.kind == OT_BLOCK_TRACESTATE) {
            c->tracestate = (uint32_t)at + 1;
        }
        c->start[c->count++] = (uint32_t)at;
        at += ot_block_whole(b.bytes);
    }
    c->events_total = c->events_total < c->events ? c->events : c->events_total;
    c->links_total = c->links_total < c->links ? c->links : c->links_total;
}

bool
ot_attribute_parse(const struct ot_block *b, const uint8_t *payload, struct ot_attribute *a)
{
    *a = (struct ot_attribute){.key = b->key, .bytes = b->bytes, .type = b->type, .payload = payload};
    if (b->type < OT_TYPE_BOOL || b->type > OT_TYPE_MESSAGE)
        return false;
    if (b->key != OT_NAME_OTHER)
        return true;
    if (b->bytes < sizeof a->text_bytes)
        return false;
    memcpy(&a->text_bytes, payload, sizeof a->text_bytes);
    if (a->text_bytes > b->bytes - sizeof a->text_bytes)
        return false;
    a->text = (const char *)payload + sizeof a->text_bytes;
    a->payload = payload + sizeof a->text_bytes + a->text_bytes;
    a->bytes = b->bytes - (uint32_t)sizeof a->text_bytes - a->text_bytes;
    return true;
}
