/* The queue between the drain and the exporters, and the accounts of both. */
#include <stdlib.h>
#include <string.h>

#include "bucket.h"
#include "drain.h"
#include "governor.h"
#include "progress.h"
#include "room.h"
#include "threads.h"

#define FIRST_ROOM 256

static bool
make_room(void)
{
    uint32_t room = ot_drain.kept_room == 0 ? FIRST_ROOM : ot_drain.kept_room * 2;
    if (room > ot_drain.kept_limit)
        room = ot_drain.kept_limit;
    if (room <= ot_drain.kept_count)
        return false;
    struct ot_kept *bigger = malloc(sizeof *bigger * room);
    if (bigger == NULL)
        return false;
    for (uint32_t i = 0; i < ot_drain.kept_count; i++)
        bigger[i] = ot_drain.kept[(ot_drain.kept_first + i) % ot_drain.kept_room];
    free(ot_drain.kept);
    ot_drain.kept = bigger;
    ot_drain.kept_room = room;
    ot_drain.kept_first = 0;
    return true;
}

static struct ot_kept *
place_of(uint32_t number)
{
    return &ot_drain.kept[(ot_drain.kept_first + number) % ot_drain.kept_room];
}

/* Of the queue's room, what a tier may take: an eighth less than the tier before, so that where exporters hang the most
 * important spans are the last to be refused. */
static uint64_t
share_of(uint64_t room, unsigned tier)
{
    uint64_t share = room - room * tier / 8;
    return share > 0 || room == 0 ? share : 1;
}

bool
ot_kept_push(const struct ot_slot *slot, const struct ot_writer *w, uint64_t n, uint64_t start_ns, uint64_t end_ns,
             uint16_t threshold)
{
    unsigned tier = slot->tier % OT_TIERS;
    if (ot_drain.kept_count >= share_of(ot_drain.kept_limit, tier))
        return false;
    if (ot_drain.kept_count == ot_drain.kept_room && !make_room())
        return false;
    struct ot_kept *k = place_of(ot_drain.kept_count);
    k->blocks = (struct ot_blocks){NULL, 0, 0};
    if (slot->extra && slot->arena != 0) {
        ot_blocks_copy(w, slot->arena, &k->blocks);
        ot_drain.text_overwritten += k->blocks.gone;
        if (ot_drain.kept_bytes + k->blocks.bytes > share_of(ot_drain.kept_bytes_limit, tier)) {
            free(k->blocks.data);
            return false;
        }
        OT_STORE(&ot_drain.kept_bytes, ot_drain.kept_bytes + k->blocks.bytes);
    }
    k->slot = *slot;
    k->n = n;
    k->ring = (uint8_t)(w - ot_writers);
    k->told = OT_MARK_NONE;
    k->start_ns = start_ns;
    k->end_ns = end_ns;
    k->threshold = threshold;
    k->raw = ot_record_bytes(slot, k->blocks.bytes);
    k->charged = (uint32_t)(k->raw * ot_bucket_factor() + 0.5);
    OT_STORE(&ot_drain.kept_count, ot_drain.kept_count + 1);
    return true;
}

uint32_t
ot_kept_take(struct ot_kept *to, uint32_t count)
{
    count = count < ot_drain.kept_count ? count : ot_drain.kept_count;
    for (uint32_t i = 0; i < count; i++) {
        to[i] = *place_of(i);
        OT_STORE(&ot_drain.kept_bytes, ot_drain.kept_bytes - to[i].blocks.bytes);
    }
    if (count > 0)
        ot_drain.kept_first = (ot_drain.kept_first + count) % ot_drain.kept_room;
    OT_STORE(&ot_drain.kept_count, ot_drain.kept_count - count);
    ot_room_taken(count);
    return count;
}

void
ot_kept_clear(void)
{
    for (uint32_t i = 0; i < ot_drain.kept_count; i++)
        free(place_of(i)->blocks.data);
    free(ot_drain.kept);
    ot_drain.kept = NULL;
    ot_drain.kept_room = ot_drain.kept_first = 0;
    OT_STORE(&ot_drain.kept_bytes, 0);
    OT_STORE(&ot_drain.kept_count, 0);
}

void
ot_keep_shrink(unsigned buffers)
{
    uint32_t limit = buffers < 32 ? ot_drain.kept_configured >> buffers : 0;
    if (limit == 0 && ot_drain.kept_configured > 0)
        limit = 1; /* 0 says that nobody takes any */
    OT_STORE(&ot_drain.kept_limit, limit);
    while (ot_drain.kept_count > limit) { /* the newest go, as those that find the queue full do */
        struct ot_kept *k = place_of(ot_drain.kept_count - 1);
        ot_drain.settled.refused[k->slot.tier % OT_TIERS]++;
        ot_progress_settle(k->ring, k->n, k->slot.tier % OT_TIERS, k->told, OT_MARK_REFUSED);
        OT_STORE(&ot_drain.kept_bytes, ot_drain.kept_bytes - k->blocks.bytes);
        free(k->blocks.data);
        OT_STORE(&ot_drain.kept_count, ot_drain.kept_count - 1);
    }
    if (ot_drain.kept_room > limit && ot_drain.kept_room > FIRST_ROOM) { /* and give their room back */
        uint32_t room = limit > FIRST_ROOM ? limit : FIRST_ROOM;
        struct ot_kept *smaller = malloc(sizeof *smaller * room);
        if (smaller == NULL)
            return;
        for (uint32_t i = 0; i < ot_drain.kept_count; i++)
            smaller[i] = *place_of(i);
        free(ot_drain.kept);
        ot_drain.kept = smaller;
        ot_drain.kept_room = room;
        ot_drain.kept_first = 0;
    }
}

/* ---- waiting for the queue ---- */

/* Whoever waits for the queue: its own lock, so that a waiter and the drain never wait for each other. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t came;
    uint32_t
        waiters; /* the drain loads it without the lock; sequentially consistent, as the count that it stores before */
    uint32_t spans; /* the least that one of them waits for */
    uint64_t bytes; /* likewise */
} queue;

uint64_t ot_wake_generation;

void
ot_kept_start(void)
{
    pthread_mutex_init(&queue.lock, NULL);
    ot_condition_make(&queue.came);
    queue.waiters = 0;
}

static bool
enough(uint64_t spans, uint64_t bytes)
{
    return OT_LOAD(&ot_drain.kept_count) >= spans || OT_LOAD(&ot_drain.kept_bytes) >= bytes;
}

void
ot_kept_tell(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (OT_LOAD(&queue.waiters) == 0 || !enough(OT_LOAD(&queue.spans), OT_LOAD(&queue.bytes)))
        return;
    pthread_mutex_lock(&queue.lock);
    pthread_cond_broadcast(&queue.came);
    pthread_mutex_unlock(&queue.lock);
}

static bool
wait_for(uint64_t spans, uint64_t bytes, double timeout)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)timeout;
    until.tv_nsec += (long)((timeout - (double)(time_t)timeout) * 1e9);
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    int error = 0;
    pthread_mutex_lock(&queue.lock);
    uint64_t generation = OT_LOAD(&ot_wake_generation);
    if (queue.waiters == 0 || spans < queue.spans)
        OT_STORE(&queue.spans, spans < UINT32_MAX ? (uint32_t)spans : UINT32_MAX);
    if (queue.waiters == 0 || bytes < queue.bytes)
        OT_STORE(&queue.bytes, bytes);
    OT_STORE(&queue.waiters, queue.waiters + 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bool there = enough(spans, bytes);
    while (!there && error == 0 && OT_LOAD(&ot_wake_generation) == generation) {
        error = pthread_cond_timedwait(&queue.came, &queue.lock, &until);
        there = enough(spans, bytes);
    }
    OT_STORE(&queue.waiters, queue.waiters - 1);
    pthread_mutex_unlock(&queue.lock);
    return there;
}

PyObject *
ot_await_kept(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long spans, bytes;
    double timeout;
    if (!PyArg_ParseTuple(args, "KKd:await_kept", &spans, &bytes, &timeout))
        return NULL;
    timeout = timeout > 0 ? (timeout < 1e8 ? timeout : 1e8) : 0;
    bool there;
    Py_BEGIN_ALLOW_THREADS
        there = wait_for(spans, bytes, timeout);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(there);
}

PyObject *
ot_wake(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    pthread_mutex_lock(&queue.lock); /* never held for long */
    OT_STORE(&ot_wake_generation, ot_wake_generation + 1);
    pthread_cond_broadcast(&queue.came);
    pthread_mutex_unlock(&queue.lock);
    ot_await_decision_wake();
    ot_host_wake();
    Py_RETURN_NONE;
}

/* ---- the accounts ---- */

PyObject *
ot_keep(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long limit, bytes = 8 << 20;
    if (!PyArg_ParseTuple(args, "K|K:keep", &limit, &bytes))
        return NULL;
    if (limit > 1UL << 24) {
        PyErr_SetString(PyExc_ValueError, "the queue holds at most 16777216 spans");
        return NULL;
    }
    ot_drain_lock();
    if (!ot_drain.fresh)
        ot_drain_decide_all(); /* what was recorded so far falls under what was said so far */
    ot_drain.fresh = false;
    OT_STORE(&ot_drain.kept_limit, (uint32_t)limit);
    ot_drain.kept_configured = (uint32_t)limit;
    OT_STORE(&ot_drain.kept_bytes_limit, bytes);
    ot_room_forget();
    ot_drain_unlock();
    Py_RETURN_NONE;
}

PyObject *
ot_kept_count(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLong(OT_LOAD(&ot_drain.kept_count));
}

PyObject *
ot_accounts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    struct ot_settled s;
    ot_drain_lock();
    if (ot_drain.open && !ot_drain.mine) {
        ot_drain_told(&s);
    }
    else {
        (void)ot_drain_pass();
        ot_drain_look();
        s = ot_drain.settled;
    }
    ot_drain_unlock();
    PyObject *list = PyList_New(0);
    for (int t = 0; t < OT_TIERS && list != NULL; t++) {
        s.refused[t] += s.refused_at_the_door[t];
        uint64_t settled = s.exported[t] + s.sampled_out[t] + s.overwritten[t] + s.refused[t];
        PyObject *row =
            Py_BuildValue("{sKsKsKsKsKsK}", "recorded", (unsigned long long)s.recorded[t], "exported",
                          (unsigned long long)s.exported[t], "sampled_out", (unsigned long long)s.sampled_out[t],
                          "overwritten", (unsigned long long)s.overwritten[t], "refused",
                          (unsigned long long)s.refused[t], "pending", (unsigned long long)(s.recorded[t] - settled));
        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}
