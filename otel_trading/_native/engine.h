/* The engine: which mode the system's pressure and the market ask for. */
#ifndef OTEL_TRADING_ENGINE_H
#define OTEL_TRADING_ENGINE_H

#include "governor.h"

void ot_engine_open(void);
/* Go on with the mode that another governor has left in force. */
void ot_engine_resume(void);
/* One tick: the mode into the control page, decisions of it; the mode in force. */
unsigned ot_engine_tick(const struct ot_allowed *rules, const struct ot_sight *sight);
/* Recording adds more to an operation than it may: EMERGENCY for a dwell at least.  The mode in force. */
unsigned ot_engine_latency(const struct ot_allowed *rules, const struct ot_sight *sight);
/* Would that change the mode in force? */
bool ot_engine_may_reach_emergency(void);
/* Is there anything that it can not tell? */
bool ot_engine_failed(void);
/* Nothing is governed any longer: NORMAL, unless somebody forces another. */
void ot_engine_rest(void);

#endif
