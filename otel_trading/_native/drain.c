#include "drain.h"

#include "adopt.h"
#include "doubles.h"
#include "meter.h"
#include "progress.h"
#include "pulses.h"
#include "ring.h"
#include "rules.h"
#include "select.h"
#include "threads.h"
#include "verdicts.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define IDLE_FACTOR 4.0 /* to the drain's period, in EMERGENCY */

struct ot_drain ot_drain = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t ns_per_tick_bits; /* a double; stored by the drain, loaded by the hot path */

double
ot_drain_ns_per_tick(void)
{
    return ot_double_of(OT_LOAD(&ns_per_tick_bits));
}

void
ot_drain_calibration(struct ot_calibration *calibration)
{
    const struct ot_control *c = ot_rec.control;
    uint64_t seq;
    int looks = OT_LOOKS; /* whatever somebody else writes there */
    do {
        seq = OT_LOAD_ACQUIRE(&c->calibration);
        calibration->anchor.ticks = OT_LOAD(&c->anchor_ticks);
        calibration->anchor.unix_ns = OT_LOAD(&c->anchor_unix_ns);
        calibration->anchor.mono_ns = OT_LOAD(&c->anchor_mono_ns);
        calibration->ns_per_tick = ot_double_of(OT_LOAD(&c->ns_per_tick));
        OT_FENCE_ACQUIRE();
    } while (seq != OT_LOAD(&c->calibration) && --looks > 0);
}

static uint64_t
thread_cpu_ns(void)
{
    return ot_nanoseconds(CLOCK_THREAD_CPUTIME_ID);
}

/* ---- one pass ---- */

static void
calibrate(void)
{
    struct ot_control *c = ot_rec.control;
    if (ot_rec.foreign) { /* its ticks stand still, and so does what was known of them */
        ot_drain.now_ns = ot_nanoseconds(CLOCK_MONOTONIC);
        return;
    }
    ot_clock_calibrate(&ot_drain.calibration);
    if (ot_rec.adopted)
        ot_adopt_calibrate(&ot_drain.calibration);
    ot_drain.now_ns = ot_drain.calibration.anchor.mono_ns;
    uint64_t bits = ot_bits_of(ot_drain.calibration.ns_per_tick);
    OT_STORE(&ns_per_tick_bits, bits);
    uint64_t seq = c->calibration;
    OT_STORE(&c->calibration, seq + 1);
    OT_FENCE_RELEASE();
    OT_STORE(&c->anchor_ticks, ot_drain.calibration.anchor.ticks);
    OT_STORE(&c->anchor_unix_ns, ot_drain.calibration.anchor.unix_ns);
    OT_STORE(&c->anchor_mono_ns, ot_drain.calibration.anchor.mono_ns);
    OT_STORE(&c->ns_per_tick, bits);
    OT_STORE_RELEASE(&c->calibration, seq + 2);
}

static void
tick_all(struct ot_aggregate **list, uint32_t count, uint64_t second)
{
    for (uint32_t i = 0; i < count; i++) {
        if (list[i] != NULL)
            ot_aggregate_tick(list[i], second);
    }
}

/* Once a second: from when on a span is slow, and what the aggregates take. */
static void
take_stock(void)
{
    uint64_t bytes = 0;
    bool selecting = OT_LOAD(&ot_rec.policy->active);
    for (uint32_t i = 0; i < OT_MAX_PROBES + OT_MAX_INSTRUMENTS; i++) {
        struct ot_aggregate *a = i < OT_MAX_PROBES ? ot_drain.probes[i] : ot_drain.instruments[i - OT_MAX_PROBES];
        if (a == NULL)
            continue;
        bytes += ot_aggregate_bytes(a);
        if (i < OT_MAX_PROBES && selecting)
            a->slow = ot_aggregate_p99(a, ot_drain.second);
    }
    ot_drain.aggregate_bytes = bytes;
}

/* End the seconds that have gone by; after a minute without a pass all windows are empty anyway. */
static void
rotate(void)
{
    uint64_t now = ot_drain.now_ns / 1000000000ULL;
    int guard = 0;
    for (; ot_drain.second < now && guard < 70; guard++, ot_drain.second++) {
        tick_all(ot_drain.probes, OT_MAX_PROBES, ot_drain.second);
        tick_all(ot_drain.instruments, OT_MAX_INSTRUMENTS, ot_drain.second);
    }
    ot_drain.second = now;
    if (guard > 0)
        take_stock();
}

void
ot_drain_publish(void)
{
    struct ot_accounts *a = ot_rec.accounts;
    uint64_t overwritten[OT_TIERS] = {0}, drained[OT_TIERS] = {0}, values_overwritten = 0, values_drained = 0;
    for (uint32_t i = 0; i < ot_drain.rings; i++) {
        if (ot_writers[i].ring == NULL)
            continue;
        for (int t = 0; t < OT_TIERS; t++) {
            overwritten[t] += ot_writers[i].overwritten[t];
            drained[t] += ot_writers[i].ring->drained[t];
        }
        values_overwritten += ot_writers[i].values_overwritten;
        values_drained += ot_writers[i].ring->values_drained;
    }
    for (int t = 0; t < OT_TIERS; t++) {
        ot_drain.settled.overwritten[t] = overwritten[t];
        OT_STORE(&a->exported[t], ot_drain.settled.exported[t]);
        OT_STORE(&a->sampled_out[t], ot_drain.settled.sampled_out[t]);
        OT_STORE(&a->overwritten[t], overwritten[t]);
        OT_STORE(&a->refused[t], ot_drain.settled.refused[t]);
        OT_STORE(&a->drained[t], drained[t]);
    }
    ot_drain.values_drained = values_drained;
    ot_drain.values_overwritten = values_overwritten;
    OT_STORE(&a->values_drained, values_drained);
    OT_STORE(&a->values_overwritten, values_overwritten);
    OT_STORE(&a->text_overwritten, ot_drain.text_overwritten);
}

/* When the thread comes next: before a quarter of the fullest ring is used up, at the rate of the time since the last pass.
 * It gets back to the period bit by bit, as bursts come in rows.  In an emergency, where little is recorded and nothing
 * sent, the period is longer: waking up is most of what a pass costs then. */
static void
plan(double since_us)
{
    double period = (double)ot_drain.period_ms * 1e3, wait = (double)ot_drain.wait_us * 1.25;
    if (OT_LOAD(&ot_rec.control->mode) == OT_MODE_EMERGENCY)
        period *= IDLE_FACTOR;
    double full = ot_drain.used > 0 ? since_us * 0.25 / ot_drain.used : period;
    wait = wait < full ? wait : full;
    wait = wait < period ? wait : period;
    ot_drain.wait_us = wait > 1000 ? (uint64_t)wait : 1000;
}

static uint64_t
pass(bool everything)
{
    if (!ot_drain.open || !ot_drain.mine || ot_drain.fresh || (ot_rec.adopted && !ot_adopt_whole()))
        return 0;
    uint64_t began = thread_cpu_ns(), handled;
    uint64_t before_ns = ot_drain.now_ns;
    ot_drain.used = 0;
    calibrate();
    rotate();
    ot_pulse_due(ot_drain.now_ns);
    double since_us = (double)(ot_drain.now_ns - before_ns) * 1e-3;
    handled = ot_select_pass(everything, since_us * 1e-6);
    plan(since_us);
    ot_drain_publish();
    OT_STORE(&ot_drain.heap_bytes, ot_drain.aggregate_bytes + ot_traces_bytes() + ot_drain.kept_bytes +
                                       (uint64_t)ot_drain.kept_room * sizeof *ot_drain.kept);
    ot_drain.passes++;
    ot_drain.cpu_ns += thread_cpu_ns() - began;
    OT_STORE(&ot_rec.control->passes, ot_drain.passes);
    OT_STORE(&ot_rec.control->drain_cpu_ns, ot_drain.cpu_ns);
    OT_STORE_RELEASE(&ot_rec.control->heartbeat, ot_ticks());
    ot_kept_tell();
    return handled;
}

uint64_t
ot_drain_pass(void)
{
    return pass(false);
}

void
ot_drain_decide_all(void)
{
    (void)pass(true);
}

uint64_t
ot_drain_heap_bytes(void)
{
    return OT_LOAD(&ot_drain.heap_bytes);
}

uint32_t
ot_drain_rings(void)
{
    uint32_t count = OT_LOAD_ACQUIRE(&ot_rec.header->ring_count);
    for (; ot_drain.rings < count && ot_drain.rings < OT_MAX_RINGS; ot_drain.rings++) {
        if (!ot_rec.adopted || ot_adopt_ring(ot_drain.rings))
            ot_select_take(ot_drain.rings);
    }
    if (ot_rec.adopted)
        ot_adopt_extents();
    return ot_drain.rings;
}

void
ot_drain_look(void)
{
    if (!ot_drain.open)
        return;
    uint64_t total[OT_TIERS] = {0};
    for (uint32_t i = 0, rings = ot_drain_rings(); i < rings; i++) {
        for (int t = 0; t < OT_TIERS && ot_writers[i].ring != NULL; t++)
            total[t] += OT_LOAD(&ot_rec.rings[i].recorded[t]);
    }
    for (int t = 0; t < OT_TIERS; t++) {
        /* those that found no entry count on both sides */
        uint64_t at_the_door = OT_LOAD(&ot_rec.header->spans_refused[t]);
        ot_drain.settled.recorded[t] = total[t] + at_the_door;
        ot_drain.settled.refused_at_the_door[t] = at_the_door;
    }
}

/* ---- the thread ---- */

/* Never in the way of the thread that trades: lowest weight, and a waking trader is not held up by it. */
static void
be_modest(void)
{
#if defined(__linux__)
    struct sched_param none = {0};
    (void)prctl(PR_SET_NAME, "otel-drain");
    (void)sched_setscheduler(0, SCHED_BATCH, &none);
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
#endif
}

static void *
run(void *Py_UNUSED(argument))
{
    be_modest();
    (void)ot_meter_thread(OT_METER_DRAIN);
    pthread_mutex_lock(&ot_drain.lock);
    ot_drain.wait_us = ot_drain.period_ms * 1000;
    while (!ot_drain.stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)(ot_drain.wait_us % 1000000) * 1000L;
        until.tv_sec += (time_t)(ot_drain.wait_us / 1000000) + until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        int woken = 0;
        while (!ot_drain.stopping && woken != ETIMEDOUT)
            woken = pthread_cond_timedwait(&ot_drain.wake, &ot_drain.lock, &until);
        if (!ot_drain.stopping)
            (void)ot_drain_pass();
    }
    pthread_mutex_unlock(&ot_drain.lock);
    return NULL;
}

void
ot_drain_lock(void)
{
    if (pthread_mutex_trylock(&ot_drain.lock) == 0)
        return;
    Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&ot_drain.lock);
    Py_END_ALLOW_THREADS
}

void
ot_drain_unlock(void)
{
    pthread_mutex_unlock(&ot_drain.lock);
}

PyObject *
ot_drain_start(PyObject *Py_UNUSED(module), PyObject *period)
{
    unsigned long ms = PyLong_AsUnsignedLong(period);
    if (PyErr_Occurred())
        return NULL;
    if (ms < 1 || ms > 60000) {
        PyErr_SetString(PyExc_ValueError, "the period is 1 to 60000 ms");
        return NULL;
    }
    ot_drain_lock();
    ot_drain.period_ms = ms;
    ot_drain.fresh = false;
    int error = 0;
    if (!ot_drain.running) {
        ot_drain.stopping = false;
        error = ot_thread_start(&ot_drain.thread, run);
        ot_drain.running = error == 0;
    }
    ot_drain_unlock();
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

void
ot_drain_stop_thread(void)
{
    ot_drain_lock();
    bool running = ot_drain.running;
    ot_drain.running = false;
    ot_drain.stopping = true;
    pthread_cond_broadcast(&ot_drain.wake);
    ot_drain_unlock();
    if (running) {
        Py_BEGIN_ALLOW_THREADS
            pthread_join(ot_drain.thread, NULL); /* at most one pass away */
        Py_END_ALLOW_THREADS
    }
}

PyObject *
ot_drain_stop(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(timeout))
{
    ot_drain_stop_thread();
    Py_RETURN_TRUE;
}

PyObject *
ot_drain_now(PyObject *Py_UNUSED(module), PyObject *args)
{
    int decide = 0;
    if (!PyArg_ParseTuple(args, "|p:drain", &decide))
        return NULL;
    uint64_t handled;
    Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&ot_drain.lock);
        ot_drain.fresh = false;
        handled = pass(decide != 0);
        pthread_mutex_unlock(&ot_drain.lock);
    Py_END_ALLOW_THREADS
    return PyLong_FromUnsignedLongLong(handled);
}

/* ---- life ---- */

/* A fork waits for the pass that is going on, so that the child's copy of the aggregates is whole. */
static void
before_fork(void)
{
    pthread_mutex_lock(&ot_drain.lock);
}

static void
after_fork_in_parent(void)
{
    pthread_mutex_unlock(&ot_drain.lock);
}

/* From here on nothing in the child touches the parent's segment, also before Python has run its own hooks. */
static void
after_fork_in_child(void)
{
    OT_STORE(&ot_rec.epoch, OT_CLOSED);
    OT_STORE(&ot_rec.mapped, OT_CLOSED);
    pthread_mutex_init(&ot_drain.lock, NULL);
    pthread_rwlock_init(&ot_mapping, NULL);
    pthread_rwlock_init(&ot_sharing, NULL);
    ot_condition_make(&ot_drain.wake);
    ot_kept_start();
    ot_drain.running = false;
    ot_drain.open = ot_drain.mine = false;
}

int
ot_drain_start_module(void)
{
    ot_histogram_start();
    ot_condition_make(&ot_drain.wake);
    ot_kept_start();
    if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

void
ot_drain_heap_forget(void)
{
    ot_kept_clear();
    memset(&ot_drain.settled, 0, sizeof ot_drain.settled);
    ot_drain.kept_limit = ot_drain.kept_configured = 0;
    ot_drain.kept_bytes_limit = 0;
    ot_drain.rings = 0;
    ot_drain.fresh = false;
    ot_select_forget();
    ot_rules_forget();
}

static void
forget(void)
{
    for (int i = 0; i < OT_MAX_PROBES; i++) {
        ot_aggregate_free(ot_drain.probes[i]);
        ot_drain.probes[i] = NULL;
    }
    for (int i = 0; i < OT_MAX_INSTRUMENTS; i++) {
        ot_aggregate_free(ot_drain.instruments[i]);
        ot_drain.instruments[i] = NULL;
    }
    free(ot_drain.last_instruments);
    ot_drain.last_instruments = NULL;
    ot_drain.last_instrument_count = 0;
    ot_drain_heap_forget();
    ot_drain.values_drained = ot_drain.values_overwritten = ot_drain.text_overwritten = 0;
    ot_drain.passes = ot_drain.cpu_ns = 0;
    memset(ot_drain.classes, 0, sizeof ot_drain.classes);
    ot_drain.operations = ot_drain.heap_bytes = ot_drain.aggregate_bytes = 0;
    ot_shared_forget();
}

void
ot_drain_open(void)
{
    ot_drain_lock();
    forget();
    ot_shared_own();
    ot_drain.open = true;
    ot_drain.start_unix_ns = ot_rec.opened_unix_ns;
    ot_drain_calibration(&ot_drain.calibration);
    calibrate();
    ot_drain.second = ot_drain.now_ns / 1000000000ULL;
    ot_pulses_forget();
    ot_drain_begin(ot_rec.adopted ? OT_HOST_AGENT : OT_HOST_EMBEDDED);
    ot_drain.fresh = ot_rec.adopted;
    ot_drain_unlock();
}

/* What was kept and never taken is lost to the exporters, and so accounted for. */
static void
refuse_the_rest(void)
{
    struct ot_kept lost;
    while (ot_kept_take(&lost, 1) > 0) {
        ot_drain.settled.refused[lost.slot.tier % OT_TIERS]++;
        ot_progress_settle(lost.ring, lost.n, lost.slot.tier % OT_TIERS, lost.told, OT_MARK_REFUSED);
        free(lost.blocks.data);
    }
    for (uint32_t i = 0; i < ot_drain.rings; i++)
        ot_progress_end(i);
    ot_drain_publish();
}

static void
keep_numbers(void)
{
    uint32_t count = ot_rec.header->instrument_count;
    count = count < OT_MAX_INSTRUMENTS ? count : OT_MAX_INSTRUMENTS;
    ot_drain.last_instruments = malloc(sizeof *ot_drain.last_instruments * (count + 1));
    if (ot_drain.last_instruments != NULL) {
        memcpy(ot_drain.last_instruments, ot_rec.instruments, sizeof *ot_drain.last_instruments * count);
        ot_drain.last_instrument_count = count;
    }
}

void
ot_drain_close(void)
{
    ot_drain_stop_thread();
    ot_drain_lock();
    ot_drain.fresh = false;
    if (!ot_drain.mine) {
        struct ot_settled told;
        ot_drain_told(&told);
        ot_drain.settled = told;
    }
    else if (ot_rec.adopted && !ot_rec.inherited) {
        ot_drain_end();
    }
    else {
        ot_drain_decide_all();
        ot_drain_look();
        refuse_the_rest();
        OT_STORE(&ot_rec.control->drained_by, 0);
    }
    ot_pulses_forget();
    keep_numbers();
    ot_drain.open = ot_drain.mine = false;
    ot_rules_forget();
    ot_select_forget();
    ot_shared_forget();
    ot_drain_unlock();
}

void
ot_drain_forked(void)
{
    forget();
}
