/* Doubles in the words of the segment. */
#ifndef OTEL_TRADING_DOUBLES_H
#define OTEL_TRADING_DOUBLES_H

#include <stdint.h>
#include <string.h>

static inline uint64_t
ot_bits_of(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

static inline double
ot_double_of(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

#endif
