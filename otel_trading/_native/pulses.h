/* A look at the process once a second, by whoever drains its segment. */
#ifndef OTEL_TRADING_PULSES_H
#define OTEL_TRADING_PULSES_H

#include <stdint.h>

/* Look, where the last look was a second ago or there was none; the segment is open, the drain's lock held.  `mono_ns` is
 * CLOCK_MONOTONIC now. */
void ot_pulse_due(uint64_t mono_ns);

/* Another segment follows, or none: close the files of /proc.  The drain's lock held, or nothing is drained. */
void ot_pulses_forget(void);

#endif
