/* What the processes of a directory have in common: the bucket, and the verdicts on traces that several of them have a part in.
 * One file, mapped; or memory of this process's own that looks the same. */
#ifndef OTEL_TRADING_VERDICTS_H
#define OTEL_TRADING_VERDICTS_H

#include <pthread.h>

#include "recorder.h"
#include "traces.h"

/* Held for reading by who uses what follows without the drain's lock; for writing, with the drain's lock, to exchange it. */
extern pthread_rwlock_t ot_sharing;

/* The page with the bucket; NULL before the first segment, and for want of memory. */
struct ot_shared *ot_shared_page(void);
/* Whether it is a file, so that there may be other processes: else there is nobody to agree with. */
bool ot_shared_by_others(void);

void ot_shared_own(void);    /* with the drain's lock: memory of this process's own, new */
void ot_shared_forget(void); /* likewise: none at all */

/* What follows is with the drain's lock held, and does nothing where there are no others. */

/* What somebody has said of a trace. */
struct ot_said {
    bool there;
    uint8_t verdict; /* OT_VERDICT_* */
    uint8_t triggers;
    uint16_t threshold;
};

struct ot_said ot_verdict_look(const struct ot_trace *t);
/* Ask for a trace of which only a part is here. */
void ot_verdict_ask(const struct ot_trace *t, uint64_t now_ns);
/* Have all know of its triggers; a verdict to drop it is open again if some of them are new. */
void ot_verdict_note(const struct ot_trace *t, uint64_t now_ns);
/* Tell what was decided of it here, where somebody asked, or `always`.  A verdict that is there already stays, and is what this
 * gives. */
struct ot_said ot_verdict_post(const struct ot_trace *t, bool always, uint64_t now_ns);

/* Go through all entries that are in use; `each` gets the ids and what was said. */
void ot_verdicts_all(uint64_t now_ns, void (*each)(void *context, uint64_t hi, uint64_t lo, const struct ot_said *said),
                     void *context);

#endif
