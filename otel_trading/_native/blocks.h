/* Arena blocks as they are read: a record's own, copied out of the arena. */
#ifndef OTEL_TRADING_BLOCKS_H
#define OTEL_TRADING_BLOCKS_H

#include <string.h>

#include "recorder.h"

#define OT_RECORD_BYTES (8U << 20) /* blocks of one record that are followed, together */

static inline size_t
ot_block_whole(uint64_t payload)
{
    return (sizeof(struct ot_block) + (size_t)payload + 7) & ~(size_t)7;
}

/* A record's blocks, newest first, each a struct ot_block and its payload padded to 8. */
struct ot_blocks {
    uint8_t *data; /* owned */
    size_t bytes;
    uint32_t gone; /* how many older ones are known to have been there */
};

/* Copy a chain out of a writer's arena while it may be written; `newest` is the position + 1 of its first block. */
void ot_blocks_copy(const struct ot_writer *w, uint64_t newest, struct ot_blocks *to);

/* Where everything is in such a copy.  The copy's bytes are believed in nothing. */
struct ot_contents {
    const uint8_t *data;
    uint32_t count;
    uint32_t events; /* found … */
    uint32_t links;
    uint32_t events_total; /* … and ever added */
    uint32_t links_total;
    uint32_t status; /* offset + 1 of the block that holds, 0 = none */
    uint32_t name;
    uint32_t tracestate;
    uint32_t start[OT_MAX_BLOCKS]; /* offsets, newest first */
};

void ot_blocks_index(const uint8_t *data, size_t bytes, struct ot_contents *c);

/* A block's header out of a copy. */
static inline struct ot_block
ot_block_at(const struct ot_contents *c, uint32_t start)
{
    struct ot_block b;
    memcpy(&b, c->data + start, sizeof b);
    return b;
}

static inline const uint8_t *
ot_block_payload(const struct ot_contents *c, uint32_t start)
{
    return c->data + start + sizeof(struct ot_block);
}

/* An attribute block's parts; false where they do not fit each other. */
struct ot_attribute {
    uint32_t key;     /* name id; OT_NAME_OTHER: the text below */
    uint32_t bytes;   /* of the payload */
    const char *text; /* of the key, borrowed, or NULL */
    uint32_t text_bytes;
    uint8_t type;
    const uint8_t *payload; /* borrowed */
};

bool ot_attribute_parse(const struct ot_block *b, const uint8_t *payload, struct ot_attribute *a);

#endif
