/* Base-2 exponential histograms, OpenTelemetry's layout at scale 6: 64 buckets for each factor of two,
 * bucket i = (base^i, base^(i+1)], base = 2^(1/64).  No Python in here. */
#ifndef OTEL_TRADING_HISTOGRAM_H
#define OTEL_TRADING_HISTOGRAM_H

#include <stdbool.h>
#include <stdint.h>

#define OT_SCALE 6
#define OT_BUCKETS_PER_OCTAVE (1 << OT_SCALE)
/* Values beyond 2^±64 count in the outermost bucket; below 2^-64 as zero. */
#define OT_INDEX_MAX (64 * OT_BUCKETS_PER_OCTAVE - 1)
#define OT_INDEX_MIN (-64 * OT_BUCKETS_PER_OCTAVE)

struct ot_buckets {
    int32_t offset; /* index of counts[0] */
    uint32_t capacity;
    uint32_t first; /* first and past the last one in use, from offset */
    uint32_t past;
    uint32_t *counts; /* owned; narrow: what one window holds */
    uint64_t *wide;   /* owned; instead of counts, for totals */
};

struct ot_histogram {
    uint64_t count;
    uint64_t zero;
    double sum;
    double min;
    double max;
    struct ot_buckets positive;
    struct ot_buckets negative;
    bool is_wide;
};

void ot_histogram_start(void); /* once: fills the table of borders */
void ot_histogram_init(struct ot_histogram *h, bool wide);
void ot_histogram_free(struct ot_histogram *h);
void ot_histogram_clear(struct ot_histogram *h); /* keeps the memory */
void ot_histogram_add(struct ot_histogram *h, double value);
void ot_histogram_merge(struct ot_histogram *into, const struct ot_histogram *from);
/* Index of the bucket of a finite value > 0, within OT_INDEX_MIN … OT_INDEX_MAX; INT32_MIN for one that counts as zero. */
int32_t ot_bucket_index(double value);

static inline uint64_t
ot_bucket_at(const struct ot_buckets *b, uint32_t i)
{
    return b->wide != 0 ? b->wide[i] : b->counts[i];
}

#endif
