/* The governor's decisions, into the segment. */
#ifndef OTEL_TRADING_DECISIONS_H
#define OTEL_TRADING_DECISIONS_H

#include "recorder.h"

struct ot_decided {
    uint8_t kind;   /* OT_DECISION_* */
    uint8_t reason; /* OT_REASON_* */
    uint8_t tier;
    uint8_t mode; /* in force after it */
    double figure;
    double limit;
    double before;
    double after;
};

/* With the governor's lock held. */
void ot_decide(const struct ot_decided *d);

#endif
