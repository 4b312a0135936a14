/* The enforcer: what is given up where monitoring exceeds its budget, and taken back when it does not. */
#ifndef OTEL_TRADING_ENFORCER_H
#define OTEL_TRADING_ENFORCER_H

#include "governor.h"

void ot_enforcer_open(void);
/* Go on with what another governor has given up: what it shed comes back as one step, the rings' sizes as they went. */
void ot_enforcer_resume(void);
/* One tick with this mode in force; a step may lead to another one, which it returns. */
unsigned ot_enforcer_tick(const struct ot_allowed *rules, const struct ot_sight *sight, unsigned mode);
/* shed and tier words, as mode, steps, people and rollout leave them. */
void ot_enforcer_words(unsigned mode);
/* Instruments that go by the CPU load; NaN leaves them as they are. */
void ot_enforcer_instruments(double cpu_load);
/* Nothing is governed any longer: all that was given up comes back. */
void ot_enforcer_rest(void);
/* Steps in force, and violations since the last window within the budget. */
uint64_t ot_enforcer_steps(void);
uint64_t ot_enforcer_in_a_row(void);
uint64_t ot_enforcer_violations(unsigned budget);
/* The rings could not grow back for want of space: the step is in force again. */
void ot_enforcer_stay_small(void);

#endif
