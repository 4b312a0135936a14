/* A ring changes its size between two records: under the GIL, which its writers hold, and with the drain's lock, when all
 * that was written is drained and decided.  So nothing has to be moved, and no record is lost.  The bytes beyond go back
 * to the system as a hole in the file, and are reserved anew before the ring grows. */
#include "buffers.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "drain.h"
#include "enforcer.h"
#include "governor.h"
#include "keep.h"
#include "select.h"

#if defined(__linux__) && !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23
#endif

#define NEAR_PART 16 /* of a ring, that may be lost when it shrinks without its drain */
#define PATIENCE 64  /* turns of 1,024 records until more is lost */

static bool fitting;    /* GIL */
static unsigned waited; /* GIL; turns so far */

static uint32_t
configured(uint32_t ring)
{
    return ot_writers[ring].configured;
}

bool
ot_buffers_possible(uint64_t buffers)
{
    uint64_t slots = configured(0);
    return buffers < 24 && slots >> buffers >= (slots > 2 * OT_BUFFERS_USEFUL ? OT_BUFFERS_USEFUL : OT_BUFFERS_LEAST);
}

uint64_t
ot_buffers_bytes(uint64_t buffers)
{
    uint64_t slots = 0;
    uint32_t rings = OT_LOAD_ACQUIRE(&ot_rec.header->ring_count);
    for (uint32_t i = 0; i < rings && i < OT_MAX_RINGS; i++)
        slots += ot_buffers_slots(configured(i), buffers);
    return slots * sizeof(struct ot_slot);
}

/* One ring's change. */
struct change {
    uint64_t offset; /* of the bytes that come or go */
    uint64_t bytes;
    uint32_t slots; /* afterwards */
    bool grows;
};

static uint32_t
plan(struct change *changes, uint64_t buffers)
{
    uint32_t rings = ot_rec.header->ring_count;
    for (uint32_t i = 0; i < rings; i++) {
        const struct ot_ring *ring = &ot_rec.rings[i];
        uint32_t now = ring->capacity, slots = ot_buffers_slots(configured(i), buffers);
        uint32_t low = now < slots ? now : slots, high = now < slots ? slots : now;
        uint64_t from = ring->slots_offset + (uint64_t)low * sizeof(struct ot_slot);
        uint64_t to = ring->slots_offset + (uint64_t)high * sizeof(struct ot_slot);
        from = (from + OT_PAGE - 1) / OT_PAGE * OT_PAGE; /* whole pages, of this ring alone */
        to = (to + OT_PAGE - 1) / OT_PAGE * OT_PAGE;
        changes[i] = (struct change){from, to > from ? to - from : 0, slots, slots > now};
    }
    return rings;
}

/* Without the GIL, the mapping held. */
static int
reserve(const struct change *changes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!changes[i].grows || changes[i].bytes == 0)
            continue;
        int error = ot_reserve(ot_rec.fd, changes[i].offset, changes[i].bytes);
        if (error != 0)
            return error;
#if defined(__linux__)
        (void)madvise(ot_rec.base + changes[i].offset, changes[i].bytes, MADV_POPULATE_WRITE);
#endif
    }
    return 0;
}

/* Give the pages back: those of rings that shrink, or, where growing failed, of those that were to grow. */
static void
punch(const struct change *changes, uint32_t count, bool grown)
{
    for (uint32_t i = 0; i < count; i++) {
        if (changes[i].bytes == 0 || changes[i].grows != grown)
            continue;
#if defined(__linux__)
        if (fallocate(ot_rec.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)changes[i].offset,
                      (off_t)changes[i].bytes) != 0)
            (void)madvise(ot_rec.base + changes[i].offset, changes[i].bytes, MADV_REMOVE);
#endif
    }
}

static void
set_size(struct ot_writer *w, uint32_t slots)
{
    w->mask = slots - 1;
    OT_STORE(&w->ring->resized, w->head); /* readers: what is older is not there any more */
    OT_STORE_RELEASE(&w->ring->capacity, slots);
}

/* GIL and the drain's lock held; nothing is left in the rings. */
static void
set_sizes(const struct change *changes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct ot_writer *w = &ot_writers[i];
        if (w->mask + 1 == changes[i].slots || OT_LOAD(&w->ring->tail) != w->head)
            continue;
        set_size(w, changes[i].slots);
        ot_select_resized(i);
    }
}

/* Free memory of the allocator; without the GIL. */
static void
trim(void)
{
#if defined(__GLIBC__)
    (void)malloc_trim(0);
#endif
}

static bool
still_open(uint64_t epoch)
{
    return OT_LOAD(&ot_rec.epoch) == epoch;
}

/* 0, or an errno: nothing has changed then.  `given`: bytes that went back; negative: taken. */
static int
fit(uint64_t buffers, uint64_t epoch, int64_t *given)
{
    struct change changes[OT_MAX_RINGS];
    uint32_t count = plan(changes, buffers);
    int error = 0;
    Py_BEGIN_ALLOW_THREADS
        pthread_rwlock_rdlock(&ot_mapping);
        if (still_open(epoch))
            error = reserve(changes, count);
        if (error != 0 && still_open(epoch))
            punch(changes, count, true);
        pthread_rwlock_unlock(&ot_mapping);
        pthread_mutex_lock(&ot_drain.lock);
        if (error == 0)
            ot_drain_decide_all(); /* most of it, while others run */
        pthread_mutex_unlock(&ot_drain.lock);
    Py_END_ALLOW_THREADS
    if (error != 0 || !still_open(epoch))
        return error;
    ot_drain_lock();
    if (still_open(epoch)) {
        ot_drain_decide_all();
        set_sizes(changes, count);
        OT_STORE(&ot_rec.control->buffers_now, buffers);
        ot_keep_shrink((unsigned)buffers);
    }
    ot_drain_unlock();
    for (uint32_t i = 0; i < count; i++)
        *given += changes[i].grows ? -(int64_t)changes[i].bytes : (int64_t)changes[i].bytes;
    Py_BEGIN_ALLOW_THREADS
        pthread_rwlock_rdlock(&ot_mapping);
        if (still_open(epoch))
            punch(changes, count, false);
        pthread_rwlock_unlock(&ot_mapping);
    Py_END_ALLOW_THREADS
    return 0;
}

/* Has each ring its size?  One that another thread made meanwhile has not. */
static bool
fits(uint64_t buffers)
{
    for (uint32_t i = 0; i < ot_rec.header->ring_count; i++) {
        if (ot_rec.rings[i].capacity != ot_buffers_slots(configured(i), buffers))
            return false;
    }
    return true;
}

/* The writer is another process: what waits is decided, so that it loses little; the queue shrinks here. */
static void
make_ready(void)
{
    Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&ot_drain.lock);
        uint64_t buffers = OT_LOAD(&ot_rec.control->buffers);
        if (ot_drain.open && ot_drain.mine && buffers != OT_LOAD(&ot_rec.control->buffers_now)) {
            ot_drain_decide_all();
            ot_keep_shrink((unsigned)(buffers < 24 ? buffers : 24));
        }
        pthread_mutex_unlock(&ot_drain.lock);
    Py_END_ALLOW_THREADS
}

PyObject *
ot_fit_buffers(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (ot_rec.mapped == OT_CLOSED || fitting)
        return PyLong_FromLong(0);
    if (ot_rec.adopted || !ot_drain.mine) {
        make_ready();
        return PyLong_FromLong(0);
    }
    uint64_t buffers = OT_LOAD(&ot_rec.control->buffers);
    buffers = buffers < 24 ? buffers : 24;
    if (buffers == OT_LOAD(&ot_rec.control->buffers_now))
        return PyLong_FromLong(0);
    fitting = true;
    const uint64_t epoch = ot_rec.epoch;
    int64_t given = 0;
    int error = 0;
    for (int tries = 0; tries < 3 && error == 0 && still_open(epoch) && (tries == 0 || !fits(buffers)); tries++)
        error = fit(buffers, epoch, &given);
    if (error != 0 && still_open(epoch)) { /* no space: as it was, until the next try */
        OT_STORE(&ot_rec.control->buffers, ot_rec.control->buffers_now);
        ot_enforcer_stay_small();
    }
    if (given > 0) {
        Py_BEGIN_ALLOW_THREADS
            trim();
        Py_END_ALLOW_THREADS
    }
    fitting = false;
    return PyLong_FromLongLong(given);
}

/* Whether whoever drains has come so near to the head of each ring that shrinks that hardly anything is lost. */
static bool
nearly_drained(const struct change *changes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct ot_writer *w = &ot_writers[i];
        if (!changes[i].grows && w->mask + 1 != changes[i].slots &&
            w->head - OT_LOAD_ACQUIRE(&w->ring->tail) > (w->mask + 1) / NEAR_PART)
            return false;
    }
    return true;
}

/* What was not drained yet is overwritten by this, and counted so.  The marks are cleared for whoever reads them by the new size;
 * a drain that is at work sees the change, and goes by its own notes of what it told. */
void
ot_buffers_turn(void)
{
    if (ot_rec.epoch == OT_CLOSED || ot_drain.mine || fitting)
        return;
    uint64_t buffers = OT_LOAD(&ot_rec.control->buffers), now = OT_LOAD(&ot_rec.control->buffers_now);
    buffers = buffers < 24 ? buffers : 24;
    if (buffers == now)
        return;
    struct change changes[OT_MAX_RINGS];
    uint32_t count = plan(changes, buffers);
    if (!nearly_drained(changes, count) && ++waited < PATIENCE)
        return;
    waited = 0;
    if (reserve(changes, count) != 0) { /* no space: as it is */
        punch(changes, count, true);
        OT_STORE(&ot_rec.control->buffers, now);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct ot_writer *w = &ot_writers[i];
        if (w->mask + 1 == changes[i].slots)
            continue;
        memset(w->marks, 0, w->configured);
        set_size(w, changes[i].slots);
    }
    OT_STORE(&ot_rec.control->buffers_now, buffers);
    punch(changes, count, false);
}

void
ot_buffers_open(void)
{
    fitting = false;
    waited = 0;
}
