#include "wire.h"

#include <stdlib.h>

void
ot_wire_free(struct ot_wire *w)
{
    if (w->data != w->first)
        free(w->data);
    w->data = w->first;
    w->room = sizeof w->first;
    w->used = 0;
}

bool
ot_wire_grow(struct ot_wire *w, size_t bytes)
{
    if (w->failed || bytes > w->limit || w->used > w->limit - bytes) {
        w->failed = true;
        return false;
    }
    if (w->room - w->used >= bytes)
        return true;
    size_t room = w->room * 2 > w->used + bytes ? w->room * 2 : w->used + bytes;
    room = room < w->limit ? room : w->limit;
    uint8_t *bigger = w->data == w->first ? malloc(room) : realloc(w->data, room);
    if (bigger == NULL) {
        w->failed = true;
        return false;
    }
    if (w->data == w->first)
        memcpy(bigger, w->first, w->used);
    w->data = bigger;
    w->room = room;
    return true;
}

void
ot_wire_varint(struct ot_wire *w, uint8_t tag, uint64_t number)
{
    if (!ot_wire_room(w, 11))
        return;
    uint8_t *at = w->data + w->used;
    *at++ = tag;
    w->used = (size_t)(ot_put_varint(at, number) - w->data);
}

void
ot_wire_fixed64(struct ot_wire *w, uint8_t tag, uint64_t word)
{
    if (ot_wire_room(w, 9))
        w->used = (size_t)(ot_put_fixed64(w->data + w->used, tag, word) - w->data);
}

void
ot_wire_fixed32(struct ot_wire *w, uint8_t tag, uint32_t word)
{
    if (!ot_wire_room(w, 5))
        return;
    w->data[w->used] = tag;
    w->used = (size_t)(ot_put_fixed32(w->data + w->used + 1, word) - w->data);
}

void
ot_wire_bytes(struct ot_wire *w, uint8_t tag, const void *bytes, size_t count)
{
    if (!ot_wire_room(w, count + 11))
        return;
    uint8_t *at = w->data + w->used;
    *at++ = tag;
    at = ot_put_varint(at, count);
    if (count > 0)
        memcpy(at, bytes, count);
    w->used = (size_t)(at + count - w->data);
}

size_t
ot_wire_open(struct ot_wire *w, uint8_t tag)
{
    if (!ot_wire_room(w, 2))
        return 0;
    w->data[w->used] = tag;
    w->used += 2; /* most messages are shorter than 128 bytes: one for the length */
    return w->used;
}

void
ot_wire_close(struct ot_wire *w, size_t opened)
{
    if (w->failed)
        return;
    size_t bytes = w->used - opened, more = ot_varint_bytes(bytes) - 1;
    if (more > 0) {
        if (!ot_wire_room(w, more))
            return;
        memmove(w->data + opened + more, w->data + opened, bytes);
        w->used += more;
    }
    (void)ot_put_varint(w->data + opened - 1, bytes);
}
