/* The keep rules of one pass of the drain.  With its lock held. */
#ifndef OTEL_TRADING_RULES_H
#define OTEL_TRADING_RULES_H

#include "recorder.h"
#include "traces.h"

struct ot_selection {
    bool selecting;               /* the policy is active, somebody takes spans, and there is a table */
    bool at_once;                 /* nothing has to wait for its verdict */
    uint64_t threshold[OT_TIERS]; /* in force: what was planned and what the sampling rate says */
    uint64_t now_ns;              /* CLOCK_MONOTONIC */
    uint32_t moment;              /* the same in ms */
    uint32_t hold;                /* ms */
};

/* What becomes of a span. */
enum ot_verdict_on_span {
    OT_SPAN_WAITS,
    OT_SPAN_KEPT,
    OT_SPAN_DROPPED,
};

/* Look at policy, bucket, pins.  `everything`: nothing waits in this pass. */
void ot_rules_begin(struct ot_selection *r, uint64_t now_ns, bool everything);
/* All that is new has been noted: where it is more than the bucket has, not all of it is kept at once. */
void ot_rules_plan(struct ot_selection *r);
void ot_rules_end(const struct ot_selection *r);

/* A span was drained: put it down with its trace.  `triggers`: a set; `bytes`: its estimate.  Whether it is likely that the trace
 * is kept. */
bool ot_rules_note(const struct ot_selection *r, const struct ot_slot *s, unsigned triggers, uint32_t bytes);
/* A span's turn has come; `forced`: there is no room to wait.  `threshold`: what its trace was kept by. */
enum ot_verdict_on_span ot_rules_verdict(const struct ot_selection *r, const struct ot_slot *s, uint32_t bytes,
                                         bool forced, uint16_t *threshold);
/* A span of the trace was kept, or dropped, by who drained before: the rest goes the same way. */
void ot_rules_recall(const struct ot_selection *r, const struct ot_slot *s, bool kept);
/* The trigger that a probe's name is, as a set; 0 for most. */
unsigned ot_rules_named(uint32_t probe);
/* Seconds that a trace can wait at most. */
double ot_rules_hold(void);
/* How far back the rings reach, for the readings. */
void ot_rules_horizon(double seconds);
void ot_rules_forget(void);

#endif
