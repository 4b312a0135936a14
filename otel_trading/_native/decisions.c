#include "decisions.h"

#include "doubles.h"

void
ot_decide(const struct ot_decided *d)
{
    uint64_t n = OT_LOAD(&ot_rec.readings->decisions);
    struct ot_decision *place = &ot_rec.decisions[n % OT_DECISIONS];
    OT_STORE(&place->seq, 2 * n + 1);
    OT_FENCE_RELEASE();
    OT_STORE(&place->unix_ns, ot_nanoseconds(CLOCK_REALTIME));
    OT_STORE(&place->figure, ot_bits_of(d->figure));
    OT_STORE(&place->limit, ot_bits_of(d->limit));
    OT_STORE(&place->before, ot_bits_of(d->before));
    OT_STORE(&place->after, ot_bits_of(d->after));
    OT_STORE(&place->kind, d->kind);
    OT_STORE(&place->reason, d->reason);
    OT_STORE(&place->tier, d->tier);
    OT_STORE(&place->mode, d->mode);
    OT_STORE_RELEASE(&place->seq, 2 * n + 2);
    OT_STORE_RELEASE(&ot_rec.readings->decisions, n + 1);
}
