/* A tracestate header as the stock exporter writes it again: parsed by W3C's rules, empty where it breaks one. */
#ifndef OTEL_TRADING_TRACESTATE_H
#define OTEL_TRADING_TRACESTATE_H

#include <stdint.h>

#include "segment.h"

/* The last one that was met, as the spans of a trace follow each other. */
struct ot_tracestate {
    const char *text; /* borrowed: a name, or in a span's blocks, none of which moves meanwhile; NULL = none yet */
    uint32_t bytes;   /* of the result */
    char result[OT_NAME_BYTES];
};

static inline void
ot_tracestate_start(struct ot_tracestate *t)
{
    t->text = NULL;
}

/* The text again, its members without the white space around them; borrowed from `t`. */
const char *ot_tracestate_encode(struct ot_tracestate *t, const char *text, uint32_t bytes, uint32_t *encoded);

#endif
