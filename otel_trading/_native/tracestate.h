/* A tracestate header as the stock exporter writes it again: parsed by W3C's rules, empty where it breaks one. */
#ifndef OTEL_TRADING_TRACESTATE_H
#define OTEL_TRADING_TRACESTATE_H

#include <stdbool.h>
#include <stdint.h>

#include "segment.h"

/* The last one that was met, as the spans of a trace follow each other. */
struct ot_tracestate {
    const char *text; /* borrowed: a name, or in a span's blocks, none of which moves meanwhile; NULL = none yet */
    uint32_t bytes;   /* of the result */
    char result[OT_NAME_BYTES];
};

#define OT_TRACESTATE_BYTES 4000 /* a longer one is as good as none where a threshold goes into it */

/* How a span's trace was kept. */
struct ot_odds {
    uint16_t threshold; /* the highest 16 of 56 bits; not 0 */
    uint64_t trace_lo;  /* its low 56 bits are the trace's randomness */
};

static inline void
ot_tracestate_start(struct ot_tracestate *t)
{
    t->text = NULL;
}

/* The text again, its members without the white space around them; borrowed from `t`. */
const char *ot_tracestate_encode(struct ot_tracestate *t, const char *text, uint32_t bytes, uint32_t *encoded);

/* A tracestate that says `ot=th:`, the larger one of the threshold and what an earlier sampler said, unless the trace's randomness
 * contradicts that; all other members stay, in their order, after it.  `text` may be NULL.  `to` has OT_NAME_BYTES; how many of
 * them are used. */
uint32_t ot_tracestate_threshold(char *to, const char *text, uint32_t bytes, const struct ot_odds *odds);

#endif
