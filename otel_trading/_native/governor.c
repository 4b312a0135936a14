#include "governor.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <string.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include "adopt.h"
#include "buffers.h"
#include "doubles.h"
#include "enforcer.h"
#include "engine.h"
#include "keep.h"
#include "market.h"
#include "meter.h"
#include "pressure.h"
#include "processors.h"
#include "threads.h"

/* Everything is used with `lock` held, which is never waited for while the GIL is held, and which is taken before the
 * drain's. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t stop; /* the thread's sleep ends */
    pthread_t thread;
    bool running;
    bool stopping;
    bool open;   /* a segment is there */
    bool begun;  /* its pressure and what else a tick needs is set up */
    bool active; /* as of the last tick */
    uint64_t
        ticks; /* as this governor has written them: another number is another governor's, which this one follows */
    uint64_t generation; /* of the control page, as of the last tick, */
    uint64_t forced;     /* likewise */
    double whole;        /* when that was, CLOCK_MONOTONIC in s */
    double in_vain;      /* when the processors' load last made one come sooner */
} governor = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Those that wait for decisions have a lock of their own, so that wake() never waits for a tick. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t rung;
    uint64_t answered_ns; /* when somebody was last told of rings that do not fit, CLOCK_MONOTONIC */
} bell = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define AGAIN_NS 100000000ULL /* between two tellings of the same rings */

/* What govern() was given in place of measurements, in this order. */
static const char *const names[] = {"now",    "cpu_load", "memory_load", "cpu_stall", "memory_stall", "volatility",
                                    "volume", "cpu",      "memory",      "latency",   "network",      "disk"};
#define NAMES (sizeof names / sizeof *names)

struct stand_ins {
    bool given[NAMES];
    double value[NAMES];
};

/* ---- one tick ---- */

static double
rule(const uint64_t *place, double least, double otherwise)
{
    double value = ot_double_of(OT_LOAD(place));
    return value >= least ? value : otherwise; /* NaN too: the page is anybody's */
}

static void
read_rules(struct ot_allowed *r)
{
    const struct ot_policy *p = ot_rec.policy;
    for (int b = 0; b < OT_BUDGETS; b++) {
        for (int m = 0; m < OT_MODES; m++)
            r->budget[b][m] = rule(&p->budget[b * OT_MODES + m], 0, INFINITY);
    }
    r->stressed_cpu = rule(&p->enter[0], 0, INFINITY);
    r->emergency_cpu = rule(&p->enter[1], 0, INFINITY);
    r->stressed_memory = rule(&p->enter[2], 0, INFINITY);
    r->emergency_memory = rule(&p->enter[3], 0, INFINITY);
    r->margin = rule(&p->margin, 0, 0);
    r->dwell = rule(&p->dwell, 0, 0);
    r->volatility = rule(&p->volatility, 0, INFINITY);
    r->volume = rule(&p->volume, 0, INFINITY);
    r->period = rule(&p->period, 0.001, 0.05);
    r->window = rule(&p->window, 0.001, 1);
    r->recover = rule(&p->recover, 0, 0);
    r->violations = rule(&p->violations, 0, INFINITY);
    for (int i = 0; i < OT_COSTS; i++)
        r->cost[i] = rule(&p->cost[i], 0, 0);
    r->base_memory = rule(&p->base_memory, 0, 0);
}

static void
stand_in(const struct stand_ins *given, struct ot_sight *s)
{
    double *place[NAMES] = {&s->now,    &s->cpu_load, &s->memory_load, &s->cpu_stall, &s->memory_stall, &s->volatility,
                            &s->volume, &s->usage[0], &s->usage[1],    &s->usage[2],  &s->usage[3],     &s->usage[4]};
    for (unsigned i = 0; given != NULL && i < NAMES; i++) {
        if (given->given[i])
            *place[i] = given->value[i];
    }
}

static void
publish(const struct ot_sight *s)
{
    struct ot_readings *r = ot_rec.readings;
    uint64_t seq = OT_LOAD(&r->seq);
    OT_STORE(&r->seq, seq + 1);
    OT_FENCE_RELEASE();
    OT_STORE(&r->ticks, ++governor.ticks);
    OT_STORE(&r->unix_ns, ot_nanoseconds(CLOCK_REALTIME));
    const double values[] = {s->cpu_load, s->memory_load, s->cpu_stall, s->memory_stall, s->volatility, s->volume};
    uint64_t *to[] = {&r->cpu_load, &r->memory_load, &r->cpu_stall, &r->memory_stall, &r->volatility, &r->volume};
    for (unsigned i = 0; i < sizeof values / sizeof *values; i++)
        OT_STORE(to[i], ot_bits_of(values[i]));
    for (unsigned b = 0; b < OT_BUDGETS; b++) {
        OT_STORE(&r->usage[b], ot_bits_of(s->usage[b]));
        OT_STORE(&r->violations[b], ot_enforcer_violations(b));
    }
    OT_STORE(&r->cpu_hot, ot_bits_of(s->cpu_hot));
    OT_STORE(&r->cpu_drain, ot_bits_of(s->cpu_drain));
    OT_STORE(&r->cpu_export, ot_bits_of(s->cpu_export));
    OT_STORE(&r->cpu_governor, ot_bits_of(s->cpu_governor));
    OT_STORE(&r->memory_segment, ot_bits_of(s->segment_bytes));
    OT_STORE(&r->memory_heap, ot_bits_of(s->heap_bytes));
    OT_STORE(&r->network_total, (uint64_t)s->network_total);
    OT_STORE(&r->disk_total, (uint64_t)s->disk_total);
    OT_STORE(&r->cpu_total, (uint64_t)(s->cpu_total_ns > 0 ? s->cpu_total_ns : 0));
    OT_STORE(&r->steps, ot_enforcer_steps());
    OT_STORE(&r->in_a_row, ot_enforcer_in_a_row());
    OT_STORE(&r->failed, ot_engine_failed());
    ot_keep_readings(r);
    OT_STORE_RELEASE(&r->seq, seq + 2);
}

static bool
rings_fit(void)
{
    return OT_LOAD(&ot_rec.control->buffers) == OT_LOAD(&ot_rec.control->buffers_now);
}

static void
ring_the_bell(void)
{
    pthread_mutex_lock(&bell.lock);
    pthread_cond_broadcast(&bell.rung);
    pthread_mutex_unlock(&bell.lock);
}

/* What was shed comes back when the policy is withdrawn. */
static void
rest(void)
{
    governor.active = false;
    ot_enforcer_rest();
    ot_engine_rest();
    ot_enforcer_words((unsigned)OT_LOAD(&ot_rec.control->mode));
    ring_the_bell();
}

/* The memory load from which a heavier mode is entered than the one in force. */
static double
memory_of_interest(const struct ot_allowed *r)
{
    uint64_t mode = OT_LOAD(&ot_rec.control->mode);
    return mode == OT_MODE_EMERGENCY ? INFINITY : mode == OT_MODE_STRESSED ? r->emergency_memory : r->stressed_memory;
}

static void
begin(void)
{
    governor.begun = true;
    ot_pressure_open(ot_rec.adopted ? OT_LOAD(&ot_rec.header->pid) : 0);
}

/* Has the file still all of its pages?  Another process's may lose them. */
static bool
readable(void)
{
    return !ot_rec.adopted || ot_adopt_whole();
}

/* Another process has governed this segment before, or meanwhile: what it left in force goes on. */
static void
resume(void)
{
    governor.ticks = OT_LOAD(&ot_rec.readings->ticks);
    ot_engine_resume();
    ot_enforcer_resume();
    ot_meter_resume();
}

/* With the lock held. */
static void
tick(const struct stand_ins *given)
{
    if (!governor.open || !readable())
        return;
    if (OT_LOAD(&ot_rec.policy->active) == 0) {
        if (governor.active)
            rest();
        return;
    }
    if (!governor.begun)
        begin();
    if (OT_LOAD(&ot_rec.readings->ticks) != governor.ticks)
        resume();
    governor.active = true;
    struct ot_allowed rules;
    struct ot_sight sight = {.now = (double)ot_nanoseconds(CLOCK_MONOTONIC) * 1e-9};
    uint64_t decisions = OT_LOAD(&ot_rec.readings->decisions);
    read_rules(&rules);
    if (given != NULL && given->given[0])
        sight.now = given->value[0];
    ot_pressure_tick(&sight, memory_of_interest(&rules));
    ot_market_tick(&rules, &sight);
    ot_meter_tick(&rules, &sight);
    stand_in(given, &sight);
    unsigned mode = ot_engine_tick(&rules, &sight);
    mode = ot_enforcer_tick(&rules, &sight, mode);
    ot_enforcer_instruments(sight.cpu_load);
    ot_enforcer_words(mode);
    ot_keep_plan(sight.now, rules.budget[OT_BUDGET_NETWORK][mode]);
    publish(&sight);
    governor.generation = OT_LOAD(&ot_rec.control->generation);
    governor.forced = OT_LOAD(&ot_rec.control->forced);
    if (OT_LOAD(&ot_rec.readings->decisions) != decisions || !rings_fit())
        ring_the_bell();
}

/* ---- the thread ---- */

#define SLACK_NS 1000000UL /* that a wake-up may be late, so that the kernel can have it with others */

/* It has to run under the very load that it looks for, so it is as nice as others; and it does not take the processor from
 * a thread that trades when it wakes. */
static void
introduce(void)
{
#if defined(__linux__)
    struct sched_param none = {0};
    (void)prctl(PR_SET_NAME, "otel-budget");
    (void)prctl(PR_SET_TIMERSLACK, SLACK_NS);
    (void)sched_setscheduler(0, SCHED_BATCH, &none);
#endif
    (void)ot_meter_thread(OT_METER_GOVERNOR);
}

/* Of the policy's period: between two looks, between two whole ticks, and between those in EMERGENCY.  Most of what a look costs
 * is that a thread wakes up for it. */
#define LOOK 0.8
#define WHOLE 1.6
#define CALM 4.0
#define SOON 0.25 /* where the load has just risen, so that a mode is entered within two looks */

/* s between two looks, and between two whole ticks.  In between, the processors alone are looked at, so that a heavier mode is
 * entered soon; in EMERGENCY there is none to be entered. */
struct pace {
    double look;
    double whole;
};

static struct pace
pace(void)
{
    double s = governor.open ? rule(&ot_rec.policy->period, 0.001, 0.05) : 0.05;
    s = s < 3600 ? s : 3600;
    if (!governor.open || !governor.active)
        return (struct pace){s, s};
    if (OT_LOAD(&ot_rec.control->mode) == OT_MODE_EMERGENCY)
        return (struct pace){s * CALM, s * CALM};
    bool soon = ot_processors_rise();
    if (ot_processors_glances())
        return (struct pace){s * (soon ? SOON : LOOK), s * WHOLE};
    return (struct pace){s * (soon ? SOON : 1), s * (soon ? SOON : 1)};
}

/* Would the load of the processors have a heavier mode entered? */
static bool
presses(uint64_t mode, double load)
{
    const uint64_t *place = mode < OT_MODE_STRESSED ? &ot_rec.policy->enter[0] : &ot_rec.policy->enter[1];
    return load > rule(place, 0, INFINITY);
}

/* Is there more to be done than to look? */
static bool
due(double now, const struct pace *p)
{
    if (!governor.open || !governor.begun || !governor.active || OT_LOAD(&ot_rec.policy->active) == 0 ||
        !(now - governor.whole < p->whole - p->look / 4))
        return true;
    if (OT_LOAD(&ot_rec.control->generation) != governor.generation ||
        OT_LOAD(&ot_rec.control->forced) != governor.forced)
        return true;
    uint64_t mode = OT_LOAD(&ot_rec.control->mode);
    if (mode == OT_MODE_EMERGENCY || governor.forced != 0 || !presses(mode, ot_processors_glance(now)) ||
        now - governor.in_vain < p->whole)
        return false;
    governor.in_vain = now; /* forgotten with the mode, if it is not */
    return true;
}

static void
look_or_tick(void)
{
    double now = (double)ot_nanoseconds(CLOCK_MONOTONIC) * 1e-9;
    if (!readable())
        return;
    struct pace p = pace();
    if (!due(now, &p))
        return;
    uint64_t before = governor.open ? OT_LOAD(&ot_rec.control->mode) : 0;
    tick(NULL);
    governor.whole = now;
    if (governor.open && OT_LOAD(&ot_rec.control->mode) != before)
        governor.in_vain = -INFINITY;
}

static void *
run(void *Py_UNUSED(argument))
{
    introduce();
    pthread_mutex_lock(&governor.lock);
    uint64_t next = ot_nanoseconds(CLOCK_MONOTONIC);
    governor.whole = governor.in_vain = -INFINITY;
    while (!governor.stopping) {
        look_or_tick();
        uint64_t now = ot_nanoseconds(CLOCK_MONOTONIC);
        next += (uint64_t)((readable() ? pace().look : 1) * 1e9);
        next = next > now ? next : now; /* what was missed is not made up for */
        struct timespec until = {(time_t)(next / 1000000000ULL), (long)(next % 1000000000ULL)};
        int woken = 0;
        while (!governor.stopping && woken != ETIMEDOUT)
            woken = pthread_cond_timedwait(&governor.stop, &governor.lock, &until);
    }
    pthread_mutex_unlock(&governor.lock);
    return NULL;
}

static void
lock_governor(void)
{
    if (pthread_mutex_trylock(&governor.lock) == 0)
        return;
    Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&governor.lock);
    Py_END_ALLOW_THREADS
}

PyObject *
ot_govern_start(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    int error = 0;
    lock_governor();
    governor.begun = false; /* the first tick looks for the files anew */
    if (!governor.running && governor.open) {
        governor.stopping = false;
        error = ot_thread_start(&governor.thread, run);
        governor.running = error == 0;
    }
    pthread_mutex_unlock(&governor.lock);
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static void
stop_thread(void)
{
    lock_governor();
    bool running = governor.running;
    governor.running = false;
    governor.stopping = true;
    pthread_cond_broadcast(&governor.stop);
    pthread_mutex_unlock(&governor.lock);
    if (running) {
        Py_BEGIN_ALLOW_THREADS
            pthread_join(governor.thread, NULL); /* at most one tick away */
        Py_END_ALLOW_THREADS
    }
}

PyObject *
ot_govern_stop(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    stop_thread();
    Py_RETURN_NONE;
}

/* ---- from Python ---- */

/* 0, or -1 with an exception set. */
static int
read_stand_ins(PyObject *readings, struct stand_ins *given)
{
    PyObject *items = PyMapping_Items(readings);
    if (items == NULL)
        return -1;
    int result = 0;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(items) && result == 0; n++) {
        PyObject *item = PyList_GET_ITEM(items, n);
        PyObject *name = PyTuple_GET_ITEM(item, 0);
        unsigned i = 0;
        while (i < NAMES && !(PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, names[i]) == 0))
            i++;
        if (i == NAMES) {
            PyErr_SetObject(PyExc_KeyError, name);
            result = -1;
            break;
        }
        given->value[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(item, 1));
        given->given[i] = true;
        result = PyErr_Occurred() ? -1 : 0;
    }
    Py_DECREF(items);
    return result;
}

PyObject *
ot_govern(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *readings = Py_None;
    struct stand_ins given = {0};
    if (!PyArg_ParseTuple(args, "|O:govern", &readings) ||
        (readings != Py_None && read_stand_ins(readings, &given) < 0))
        return NULL;
    uint64_t decisions = 0;
    Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&governor.lock);
        tick(&given);
        if (governor.open)
            decisions = OT_LOAD(&ot_rec.readings->decisions);
        pthread_mutex_unlock(&governor.lock);
    Py_END_ALLOW_THREADS
    return PyLong_FromUnsignedLongLong(decisions);
}

/* Whether a waiter has something to do; with the bell's lock held.  `until`: when it looks again at the latest. */
static bool
something(uint64_t number, uint64_t *count, uint64_t *until)
{
    bool told = false;
    pthread_rwlock_rdlock(&ot_mapping);
    if (OT_LOAD(&ot_rec.mapped) != OT_CLOSED) { /* own or adopted */
        *count = OT_LOAD_ACQUIRE(&ot_rec.readings->decisions);
        told = *count > number;
        if (!told && !rings_fit()) {
            uint64_t now = ot_nanoseconds(CLOCK_MONOTONIC);
            told = now - bell.answered_ns >= AGAIN_NS;
            if (told)
                bell.answered_ns = now;
            else if (bell.answered_ns + AGAIN_NS < *until)
                *until = bell.answered_ns + AGAIN_NS;
        }
    }
    pthread_rwlock_unlock(&ot_mapping);
    return told;
}

static uint64_t
await(uint64_t number, double timeout)
{
    uint64_t end = ot_nanoseconds(CLOCK_MONOTONIC) + (uint64_t)(timeout * 1e9), count = 0;
    uint64_t generation = __atomic_load_n(&ot_wake_generation, __ATOMIC_ACQUIRE);
    pthread_mutex_lock(&bell.lock);
    for (;;) {
        uint64_t until = end;
        if (something(number, &count, &until) || ot_nanoseconds(CLOCK_MONOTONIC) >= end ||
            __atomic_load_n(&ot_wake_generation, __ATOMIC_ACQUIRE) != generation)
            break;
        struct timespec at = {(time_t)(until / 1000000000ULL), (long)(until % 1000000000ULL)};
        (void)pthread_cond_timedwait(&bell.rung, &bell.lock, &at);
    }
    pthread_mutex_unlock(&bell.lock);
    return count;
}

PyObject *
ot_await_decision(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long number;
    double timeout;
    if (!PyArg_ParseTuple(args, "Kd:await_decision", &number, &timeout))
        return NULL;
    timeout = timeout > 0 ? timeout < 86400 ? timeout : 86400 : 0; /* also for NaN */
    uint64_t count;
    Py_BEGIN_ALLOW_THREADS
        count = await(number, timeout);
    Py_END_ALLOW_THREADS
    return PyLong_FromUnsignedLongLong(count);
}

void
ot_await_decision_wake(void)
{
    ring_the_bell();
}

PyObject *
ot_mode(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    uint64_t mode = ot_rec.mapped != OT_CLOSED ? OT_LOAD(&ot_rec.control->mode) : OT_MODE_NORMAL;
    return PyLong_FromUnsignedLong(mode < OT_MODES ? (unsigned long)mode : OT_MODE_NORMAL);
}

/* ---- life ---- */

static void
before_fork(void)
{
    pthread_mutex_lock(&governor.lock);
}

static void
after_fork_in_parent(void)
{
    pthread_mutex_unlock(&governor.lock);
}

static void
after_fork_in_child(void)
{
    pthread_mutex_init(&governor.lock, NULL);
    pthread_mutex_init(&bell.lock, NULL);
    ot_condition_make(&governor.stop);
    ot_condition_make(&bell.rung);
    governor.running = governor.open = governor.begun = false;
    ot_meter_forked();
}

int
ot_governor_start_module(void)
{
    ot_condition_make(&governor.stop);
    ot_condition_make(&bell.rung);
    /* registered after the drain's, so taken before it */
    if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    return ot_meter_start() < 0 || ot_market_start() < 0 ? -1 : 0;
}

void
ot_governor_open(void)
{
    lock_governor();
    governor.open = true;
    governor.begun = governor.active = false;
    governor.ticks = 0;
    ot_buffers_open();
    ot_engine_open();
    ot_enforcer_open();
    ot_market_open();
    ot_meter_open(ot_rec.adopted);
    pthread_mutex_unlock(&governor.lock);
}

void
ot_governor_close(void)
{
    stop_thread();
    lock_governor();
    governor.open = governor.begun = false;
    ot_pressure_close();
    ot_meter_close();
    pthread_mutex_unlock(&governor.lock);
    ring_the_bell();
}

void
ot_governor_forked(void)
{
    ot_pressure_close(); /* this process's descriptors */
    ot_meter_close();
}
