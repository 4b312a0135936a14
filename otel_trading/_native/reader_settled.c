/* Whether all that has ended in a segment is settled: exported, refused, or sampled out. */
#include "reader.h"

#include <string.h>

#define BATCH 128

/* What of ring `i` is not settled can only be here; false where nothing is. */
static bool
range_of(const ot_reader *r, uint32_t i, const struct ot_ring *ring, uint64_t *first)
{
    struct ot_progress p;
    uint64_t oldest = ring->head > ring->capacity ? ring->head - ring->capacity : 0;
    if (oldest < ring->resized && ring->resized <= ring->head)
        oldest = ring->resized;
    if (!ot_reader_fetch(r, r->head.progress_offset + (uint64_t)i * sizeof p, &p, sizeof p))
        return false;
    uint64_t done = p.done[p.side & 1];
    *first = done > oldest ? done : oldest;
    return *first < ring->head;
}

/* Are those of `count` records from n on that have no mark histograms' values, which nobody has to settle? */
static bool
are_values(const ot_reader *r, const struct ot_ring *ring, uint64_t n, uint64_t count, const bool *marked)
{
    struct ot_slot slots[BATCH];
    uint64_t offset = ring->slots_offset + (n & (ring->capacity - 1)) * sizeof *slots;
    if (!ot_reader_fetch(r, offset, slots, count * sizeof *slots))
        return false;
    for (uint64_t i = 0; i < count; i++) {
        if (!marked[i] && (slots[i].seq != 2 * (n + i) + 2 || slots[i].state != OT_SLOT_VALUE))
            return false;
    }
    return true;
}

/* `looks`: marks that may still be looked at; rings of a damaged file may lie in each other. */
static bool
ring_settled(const ot_reader *r, uint32_t i, uint64_t *looks)
{
    struct ot_ring ring;
    uint64_t n;
    if (!ot_reader_ring(r, i, &ring) || !range_of(r, i, &ring, &n))
        return true;
    if (ring.marks_offset > r->bytes || ring.capacity > r->bytes - ring.marks_offset)
        return false;
    while (n < ring.head) {
        uint8_t marks[BATCH];
        uint64_t place = n & (ring.capacity - 1), count = ring.head - n;
        count = count < BATCH ? count : BATCH;
        count = count < ring.capacity - place ? count : ring.capacity - place;
        if (count > *looks || !ot_reader_fetch(r, ring.marks_offset + place, marks, count))
            return false;
        *looks -= count;
        bool marked[BATCH], all = true;
        uint8_t lap = (uint8_t)(n / ring.capacity) & 31;
        for (uint64_t k = 0; k < count; k++) {
            unsigned kind = marks[k] & ((1 << OT_MARK_BITS) - 1);
            marked[k] = marks[k] >> OT_MARK_BITS == lap && kind != OT_MARK_NONE && kind != OT_MARK_OFFERED;
            all = all && marked[k];
        }
        if (!all && !are_values(r, &ring, n, count, marked))
            return false;
        n += count;
    }
    return true;
}

/* Does a drain still hold spans whose slots have been taken by newer ones?  It counts them as pending. */
static bool
held(ot_reader *r)
{
    struct ot_control c = {0};
    struct ot_accounts a;
    uint64_t recorded[OT_TIERS], pending[OT_TIERS], sum = 0;
    (void)ot_reader_fetch(r, r->head.control_offset, &c, sizeof c);
    ot_reader_balance(r, &a, recorded, pending);
    for (int t = 0; t < OT_TIERS; t++)
        sum |= pending[t];
    return c.drained_by != 0 && sum != 0;
}

PyObject *
ot_reader_settled(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_reader *r = (ot_reader *)self;
    ot_reader_refresh(r);
    uint64_t looks = r->bytes / sizeof(struct ot_slot);
    for (uint32_t i = 0; i < r->head.ring_count; i++) {
        if (!ring_settled(r, i, &looks))
            Py_RETURN_FALSE;
    }
    return PyBool_FromLong(!held(r));
}
