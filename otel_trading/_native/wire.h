/* Writing OTLP messages in protobuf's wire format: into a buffer that grows up to a limit, fields in the order of
 * their numbers, as the stock encoder has them. */
#ifndef OTEL_TRADING_WIRE_H
#define OTEL_TRADING_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "atomic.h"

#define OT_WIRE_FIRST 512

/* Bytes being written.  Once `failed` is set nothing more is, and what there is is good for nothing. */
struct ot_wire {
    uint8_t *data; /* owned where it is not `first` */
    size_t used;
    size_t room;
    size_t limit; /* of used; past it the buffer fails */
    bool failed;
    uint8_t first[OT_WIRE_FIRST];
};

static inline void
ot_wire_start(struct ot_wire *w, size_t limit)
{
    w->data = w->first;
    w->used = 0;
    w->room = limit < sizeof w->first ? limit : sizeof w->first;
    w->limit = limit;
    w->failed = false;
}

void ot_wire_free(struct ot_wire *w);
bool ot_wire_grow(struct ot_wire *w, size_t bytes); /* the slow half of ot_wire_room */

/* Have room for so many bytes more; false where there is none. */
static inline bool
ot_wire_room(struct ot_wire *w, size_t bytes)
{
    return OT_LIKELY(w->room - w->used >= bytes && !w->failed) || ot_wire_grow(w, bytes);
}

/* A number as protobuf's varint; at most 10 bytes. */
static inline uint8_t *
ot_put_varint(uint8_t *at, uint64_t number)
{
    while (number >= 0x80) {
        *at++ = (uint8_t)number | 0x80;
        number >>= 7;
    }
    *at++ = (uint8_t)number;
    return at;
}

static inline uint8_t *
ot_put_fixed64(uint8_t *at, uint8_t tag, uint64_t word)
{
    *at++ = tag;
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(word >> (8 * i));
    return at + 8;
}

static inline uint8_t *
ot_put_fixed32(uint8_t *at, uint32_t word)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(word >> (8 * i));
    return at + 4;
}

/* An id as its 8 bytes, most significant first. */
static inline uint8_t *
ot_put_id(uint8_t *at, uint64_t word)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(word >> (56 - 8 * i));
    return at + 8;
}

static inline size_t
ot_varint_bytes(uint64_t number)
{
    size_t n = 1;
    while (number >= 0x80) {
        number >>= 7;
        n++;
    }
    return n;
}

void ot_wire_varint(struct ot_wire *w, uint8_t tag, uint64_t number);
void ot_wire_fixed64(struct ot_wire *w, uint8_t tag, uint64_t word);
void ot_wire_fixed32(struct ot_wire *w, uint8_t tag, uint32_t word);
void ot_wire_bytes(struct ot_wire *w, uint8_t tag, const void *bytes, size_t count);
/* A message within: ot_wire_open writes its tag, ot_wire_close its length before what was written since. */
size_t ot_wire_open(struct ot_wire *w, uint8_t tag);
void ot_wire_close(struct ot_wire *w, size_t opened);

/* Tags: field number << 3 | wire type. */
enum {
    OT_TAG_STRING_VALUE = 1 << 3 | 2, /* AnyValue */
    OT_TAG_BOOL_VALUE = 2 << 3,
    OT_TAG_INT_VALUE = 3 << 3,
    OT_TAG_DOUBLE_VALUE = 4 << 3 | 1,
    OT_TAG_ARRAY_VALUE = 5 << 3 | 2,
    OT_TAG_KVLIST_VALUE = 6 << 3 | 2,
    OT_TAG_BYTES_VALUE = 7 << 3 | 2,
    OT_TAG_VALUES = 1 << 3 | 2, /* ArrayValue, KeyValueList */
    OT_TAG_KEY = 1 << 3 | 2,    /* KeyValue */
    OT_TAG_VALUE = 2 << 3 | 2,
};

/* SpanFlags */
#define OT_SPAN_FLAGS_HAS_REMOTE 0x100U
#define OT_SPAN_FLAGS_REMOTE 0x200U

#endif
