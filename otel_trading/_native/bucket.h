/* How many bytes of traces may be kept: one bucket for all processes of a directory, and thresholds that keep plain traces within
 * what it gets.  With the drain's lock held, but for what keep.h offers. */
#ifndef OTEL_TRADING_BUCKET_H
#define OTEL_TRADING_BUCKET_H

#include "recorder.h"

#define OT_THRESHOLD_ALL (1ULL << OT_SAMPLE_BITS) /* no trace is not below it */

/* Bytes of a record as an exporter is expected to send it, before the learned factor. */
uint32_t ot_record_bytes(const struct ot_slot *s, uint64_t block_bytes);
/* The same for one whose blocks were not copied: they are looked up in the arena. */
uint32_t ot_record_bytes_in(const struct ot_writer *w, const struct ot_slot *s);
/* Bytes sent for a byte of that estimate, of late. */
double ot_bucket_factor(void);

/* At the start of a pass: what the policy says, and a fill. */
void ot_bucket_begin(uint64_t now_ns);
/* The threshold that was planned for a tier: a multiple of 2^40, at most OT_THRESHOLD_ALL. */
uint64_t ot_bucket_threshold(unsigned tier);
/* Whether a trace with a trigger may be kept; `modest` ones leave a quarter of the bucket alone. */
bool ot_bucket_admits(bool modest);
/* Bytes that plain traces may take at once: a quarter of the bucket is for others.  Infinity: no limit. */
double ot_bucket_free(void);
/* So many bytes go into the queue. */
void ot_bucket_spend(double bytes);
/* So many bytes came, of plain traces of a tier, or with `tier` OT_TIERS of traces that a trigger kept; negative: they were others. */
void ot_bucket_count(unsigned tier, double bytes);
/* At the end of a pass: what was spent and counted is in the shared page. */
void ot_bucket_end(void);
/* A batch was taken: its estimate, before and after the factor. */
void ot_bucket_taken(uint64_t raw, uint64_t charged);
void ot_bucket_forget(void);
/* Give what is free, a second, to the tiers, P0 first, by their thresholds; nothing is cut where that is infinite, and all where it
 * is negative infinity.  No lock. */
void ot_bucket_pour(uint64_t threshold[OT_TIERS], const double rate[OT_TIERS], double free);
/* Tokens into the page; +inf where there is no limit. */
double ot_bucket_tokens(void);

#endif
