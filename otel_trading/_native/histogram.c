#include "histogram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "doubles.h"

#define MANTISSA_BITS 52
#define GUESS_BITS 8
#define SLACK 32

static uint64_t borders[OT_BUCKETS_PER_OCTAVE + 1]; /* mantissa bits of 2^(j/64) */
static uint8_t guesses[1 << GUESS_BITS];            /* by the top mantissa bits: a bucket not past the right one */

void
ot_histogram_start(void)
{
    for (int j = 0; j < OT_BUCKETS_PER_OCTAVE; j++)
        borders[j] = (uint64_t)ldexp(exp2((double)j / OT_BUCKETS_PER_OCTAVE) - 1.0, MANTISSA_BITS);
    borders[OT_BUCKETS_PER_OCTAVE] = 1ULL << MANTISSA_BITS;
    for (unsigned g = 0, j = 0; g < 1 << GUESS_BITS; g++) {
        uint64_t lowest = (uint64_t)g << (MANTISSA_BITS - GUESS_BITS);
        while (borders[j + 1] < lowest)
            j++;
        guesses[g] = (uint8_t)j;
    }
}

int32_t
ot_bucket_index(double value)
{
    uint64_t bits = ot_bits_of(value);
    int32_t exponent = (int32_t)((bits >> MANTISSA_BITS) & 0x7ff) - 1023;
    uint64_t mantissa = bits & ((1ULL << MANTISSA_BITS) - 1);
    int32_t index;
    if (mantissa == 0) { /* an exact power of two is the upper border of the bucket below */
        index = exponent * OT_BUCKETS_PER_OCTAVE - 1;
    }
    else {
        unsigned j = guesses[mantissa >> (MANTISSA_BITS - GUESS_BITS)];
        while (mantissa > borders[j + 1])
            j++;
        index = exponent * OT_BUCKETS_PER_OCTAVE + (int32_t)j;
    }
    if (index < OT_INDEX_MIN)
        return INT32_MIN;
    return index > OT_INDEX_MAX ? OT_INDEX_MAX : index;
}

void
ot_histogram_init(struct ot_histogram *h, bool wide)
{
    memset(h, 0, sizeof *h);
    h->is_wide = wide;
    h->min = INFINITY;
    h->max = -INFINITY;
}

static void
free_buckets(struct ot_buckets *b)
{
    free(b->counts);
    free(b->wide);
    memset(b, 0, sizeof *b);
}

void
ot_histogram_free(struct ot_histogram *h)
{
    free_buckets(&h->positive);
    free_buckets(&h->negative);
}

static void
clear_buckets(struct ot_buckets *b)
{
    if (b->past > b->first) {
        if (b->wide != NULL)
            memset(b->wide + b->first, 0, sizeof *b->wide * (b->past - b->first));
        else
            memset(b->counts + b->first, 0, sizeof *b->counts * (b->past - b->first));
    }
    b->first = b->past = 0;
}

void
ot_histogram_clear(struct ot_histogram *h)
{
    if (h->count == 0)
        return;
    clear_buckets(&h->positive);
    clear_buckets(&h->negative);
    h->count = h->zero = 0;
    h->sum = 0;
    h->min = INFINITY;
    h->max = -INFINITY;
}

/* Have room for an index. */
static bool
cover(struct ot_buckets *b, int32_t index, bool wide)
{
    if (b->capacity != 0 && index >= b->offset && (uint32_t)(index - b->offset) < b->capacity)
        return true;
    int32_t low = b->capacity == 0 || index < b->offset ? index - SLACK : b->offset;
    int32_t high = b->capacity == 0 || index >= b->offset + (int32_t)b->capacity ? index + SLACK
                                                                                 : b->offset + (int32_t)b->capacity - 1;
    uint32_t capacity = (uint32_t)(high - low + 1), shift = b->capacity == 0 ? 0 : (uint32_t)(b->offset - low);
    size_t width = wide ? sizeof *b->wide : sizeof *b->counts;
    char *memory = calloc(capacity, width);
    if (memory == NULL)
        return false;
    const char *old = wide ? (const char *)b->wide : (const char *)b->counts;
    if (old != NULL)
        memcpy(memory + shift * width, old, b->capacity * width);
    free(b->counts);
    free(b->wide);
    b->counts = wide ? NULL : (uint32_t *)(void *)memory;
    b->wide = wide ? (uint64_t *)(void *)memory : NULL;
    b->offset = low;
    b->capacity = capacity;
    b->first += shift;
    b->past += shift;
    return true;
}

static bool
bump(struct ot_buckets *b, int32_t index, uint64_t by, bool wide)
{
    if (!cover(b, index, wide))
        return false;
    uint32_t i = (uint32_t)(index - b->offset);
    if (wide)
        b->wide[i] += by;
    else
        b->counts[i] = (uint64_t)b->counts[i] + by > UINT32_MAX ? UINT32_MAX : b->counts[i] + (uint32_t)by;
    if (b->first == b->past) {
        b->first = i;
        b->past = i + 1;
    }
    else {
        if (i < b->first)
            b->first = i;
        if (i >= b->past)
            b->past = i + 1;
    }
    return true;
}

void
ot_histogram_add(struct ot_histogram *h, double value)
{
    bool counted = true;
    int32_t index = value == 0 ? INT32_MIN : ot_bucket_index(fabs(value));
    if (index == INT32_MIN)
        h->zero++;
    else
        counted = bump(value > 0 ? &h->positive : &h->negative, index, 1, h->is_wide);
    if (!counted)
        return; /* no memory */
    h->count++;
    h->sum += value;
    if (value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
}

static void
merge_buckets(struct ot_buckets *into, const struct ot_buckets *from, bool wide)
{
    for (uint32_t i = from->first; i < from->past; i++) {
        uint64_t n = ot_bucket_at(from, i);
        if (n != 0)
            (void)bump(into, from->offset + (int32_t)i, n, wide);
    }
}

void
ot_histogram_merge(struct ot_histogram *into, const struct ot_histogram *from)
{
    if (from->count == 0)
        return;
    merge_buckets(&into->positive, &from->positive, into->is_wide);
    merge_buckets(&into->negative, &from->negative, into->is_wide);
    into->count += from->count;
    into->zero += from->zero;
    into->sum += from->sum;
    if (from->min < into->min)
        into->min = from->min;
    if (from->max > into->max)
        into->max = from->max;
}
