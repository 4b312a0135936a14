/* Everything is counted in totals that only grow; use is what a total has grown by within the window. */
#include "meter.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include "doubles.h"
#include "drain.h"
#include "keep.h"
#include "market.h"
#include "system_files.h"

#define THREADS 16
#define LOOKS 64 /* totals that are remembered; a window is at most so many of `BETWEEN` */
#define OFTEN 12 /* looks a window, at most */
#define UNPUNCTUAL \
    0.02 /* of a window, that a look may be early: else one that comes by a millisecond too soon adds a tick */
#define OWN_OFTEN 1.0 /* s between looks at this process's memory */

struct place {
    bool used;
    uint8_t kind;
    uint32_t number; /* of the use of this place */
    clockid_t clock;
    uint64_t began_ns; /* the clock when it was registered */
    uint64_t last_ns;  /* and when it was last read */
    int io;            /* owned: /proc/self/task/TID/io; -1 = not there */
    uint64_t wrote_ns; /* the clock when its write calls were last read */
    double wrote;      /* write calls when it was registered */
    double written;    /* and when they were last read */
};

struct totals {
    double now;
    double cpu[OT_METER_KINDS]; /* s */
    double hot;                 /* s, of the recording threads */
    double spans;               /* s of it that spans took */
    double operations;
    double network; /* bytes */
    double disk;    /* operations */
};

static struct {
    struct totals looks[LOOKS];
    uint64_t taken;
    struct totals origin;  /* at open, or when it was resumed */
    struct totals carried; /* totals of those that governed before */
    bool resumes;          /* the next look is the origin */
    double wrote;          /* write calls of threads, and operations that were counted, when they were last compared */
    double counted;
    double disk;
    double usage[OT_BUDGETS];
    double hot, cpu[OT_METER_KINDS]; /* of usage */
    double segment, heap;
    bool whole_process; /* this process is there for the segment, another one's, alone: all of it is monitoring's */
    int smaps, statm;   /* owned; /proc/self/…; -1 = not there, or not asked for */
    double own, own_at; /* bytes of this process, and when that was looked at; NaN = not yet */
} meter = {.smaps = -1, .statm = -1};

/* Threads that are monitoring's; the lock is held for some system calls at most, and never while something else is waited
 * for. */
static pthread_mutex_t threads_lock = PTHREAD_MUTEX_INITIALIZER;
static struct place threads[THREADS];
static uint64_t gone_ns[OT_METER_KINDS]; /* of threads that have ended or left */
static double gone_writes;
static pthread_key_t at_thread_end;
static OT_TLS uint32_t own_number; /* 0: not registered */
static OT_TLS uint32_t own_place;
static uint32_t numbers;

static uint64_t network_bytes, disk_operations; /* count_io; atomic */

/* ---- threads ---- */

static uint64_t
clock_of(struct place *p)
{
    struct timespec t;
    if (clock_gettime(p->clock, &t) == 0) { /* else the thread has ended */
        uint64_t ns = (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
        if (ns >= p->last_ns) /* else it is another thread's that has its number */
            p->last_ns = ns;
    }
    return p->last_ns - p->began_ns;
}

static double
writes_of(struct place *p)
{
    char text[512];
    if (p->last_ns == p->wrote_ns) /* it has not run, so it has not written */
        return p->written - p->wrote;
    p->wrote_ns = p->last_ns;
    ssize_t n = p->io >= 0 ? pread(p->io, text, sizeof text - 1, 0) : 0;
    text[n > 0 ? n : 0] = 0;
    const char *at = strstr(text, "syscw: ");
    double count = at != NULL ? strtod(at + 7, NULL) : NAN;
    if (count >= p->written)
        p->written = count;
    return p->written - p->wrote;
}

static void
leave(struct place *p)
{
    gone_ns[p->kind] += clock_of(p);
    gone_writes += writes_of(p);
    if (p->io >= 0)
        close(p->io);
    p->used = false;
}

void
ot_meter_thread_leaves(void)
{
    pthread_mutex_lock(&threads_lock);
    if (own_number != 0 && threads[own_place].used && threads[own_place].number == own_number)
        leave(&threads[own_place]);
    own_number = 0;
    pthread_mutex_unlock(&threads_lock);
}

static void
thread_ended(void *Py_UNUSED(argument))
{
    ot_meter_thread_leaves();
}

static int
open_io(void)
{
#if defined(__linux__)
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%ld/io", (long)syscall(SYS_gettid));
    return open(path, O_RDONLY | O_CLOEXEC);
#else
    return -1;
#endif
}

bool
ot_meter_thread(unsigned kind)
{
    struct place *p = NULL;
    clockid_t clock;
#if defined(__APPLE__)
    return false;
#else
    if (pthread_getcpuclockid(pthread_self(), &clock) != 0)
        return false;
#endif
    pthread_mutex_lock(&threads_lock);
    if (own_number != 0 && threads[own_place].used && threads[own_place].number == own_number) {
        pthread_mutex_unlock(&threads_lock);
        return true;
    }
    for (uint32_t i = 0; i < THREADS && p == NULL; i++) {
        if (!threads[i].used) {
            p = &threads[i];
            own_place = i;
        }
    }
    if (p != NULL) {
        own_number = ++numbers;
        *p = (struct place){.used = true, .kind = (uint8_t)kind, .number = own_number, .clock = clock, .io = open_io()};
        (void)clock_of(p);
        (void)writes_of(p);
        p->began_ns = p->last_ns;
        p->wrote = p->written;
    }
    pthread_mutex_unlock(&threads_lock);
    if (p != NULL)
        pthread_setspecific(at_thread_end, p);
    return p != NULL;
}

static void
look_at_threads(struct totals *t, double *writes, bool drain_counts_itself)
{
    uint64_t ns[OT_METER_KINDS];
    pthread_mutex_lock(&threads_lock);
    memcpy(ns, gone_ns, sizeof ns);
    *writes = gone_writes;
    for (int i = 0; i < THREADS; i++) {
        struct place *p = &threads[i];
        if (!p->used)
            continue;
        ns[p->kind] += clock_of(p);
        if (p->kind == OT_METER_EXPORT)
            *writes += writes_of(p);
    }
    pthread_mutex_unlock(&threads_lock);
    for (int i = 0; i < OT_METER_KINDS; i++)
        t->cpu[i] = (double)ns[i] * 1e-9;
    if (meter.whole_process) { /* what is not drain or governor is there for the exports */
        double rest = (double)ot_nanoseconds(CLOCK_PROCESS_CPUTIME_ID) * 1e-9 - t->cpu[OT_METER_DRAIN] -
                      t->cpu[OT_METER_GOVERNOR];
        t->cpu[OT_METER_EXPORT] = rest > 0 ? rest : 0;
        return;
    }
    if (drain_counts_itself && ns[OT_METER_DRAIN] == 0)
        t->cpu[OT_METER_DRAIN] = (double)OT_LOAD(&ot_rec.control->drain_cpu_ns) * 1e-9;
}

PyObject *
ot_count_thread(PyObject *Py_UNUSED(module), PyObject *on)
{
    int yes = PyObject_IsTrue(on);
    if (yes < 0)
        return NULL;
    if (!yes)
        ot_meter_thread_leaves();
    else if (!ot_meter_thread(OT_METER_EXPORT))
        ot_fault();
    Py_RETURN_NONE;
}

PyObject *
ot_count_io(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long network, disk, estimated = 0;
    if (!PyArg_ParseTuple(args, "KK|K:count_io", &network, &disk, &estimated))
        return NULL;
    (void)__atomic_fetch_add(&network_bytes, network, __ATOMIC_RELAXED);
    (void)__atomic_fetch_add(&disk_operations, disk, __ATOMIC_RELAXED);
    if (network > 0)
        ot_keep_learn(network, estimated);
    Py_RETURN_NONE;
}

/* ---- totals ---- */

/* s that recording has taken so far, by the calibrated costs. */
static void
look_at_records(const struct ot_allowed *r, struct totals *t)
{
    double count[OT_COSTS];
    for (int i = 0; i < OT_COSTS; i++)
        count[i] = (double)OT_LOAD(&ot_drain.classes[i]);
    t->operations = (double)OT_LOAD(&ot_drain.operations);
    uint64_t updates = 0;
    uint32_t instruments = OT_LOAD_ACQUIRE(&ot_rec.header->instrument_count);
    for (uint32_t i = 0; i < instruments && i < OT_MAX_INSTRUMENTS; i++) {
        if (ot_rec.instruments[i].kind != OT_INSTRUMENT_HISTOGRAM)
            updates += OT_LOAD(&ot_rec.instruments[i].updates);
    }
    count[OT_COST_UPDATE] = (double)updates;
    count[OT_COST_MARKET] = (double)ot_market_updates();
    for (int i = 0; i < OT_COSTS; i++) {
        double s = count[i] * r->cost[i];
        t->hot += s;
        t->spans += i <= OT_COST_BLOCK ? s : 0;
    }
}

/* What was counted, and what the kernel saw the threads do, may be the same writes: the larger of both. */
static void
look_at_io(struct totals *t, double writes)
{
    double counted = (double)OT_LOAD(&disk_operations), more = counted - meter.counted, wrote = writes - meter.wrote;
    meter.disk += more > wrote ? more : wrote;
    meter.counted = counted;
    meter.wrote = writes;
    t->disk = meter.disk;
    t->network = (double)OT_LOAD(&network_bytes);
}

static struct totals
look(const struct ot_allowed *r, double now)
{
    struct totals t = {.now = now};
    double writes;
    look_at_threads(&t, &writes, true);
    look_at_records(r, &t);
    look_at_io(&t, writes);
    return t;
}

static double
cpu_of(const struct totals *t)
{
    double sum = t->hot;
    for (int i = 0; i < OT_METER_KINDS; i++)
        sum += t->cpu[i];
    return sum;
}

/* The newest look that is a window old, or else the oldest there is. */
static const struct totals *
before(double now, double window)
{
    uint64_t first = meter.taken > LOOKS ? meter.taken - LOOKS : 0, n = meter.taken;
    while (n > first + 1 && now - meter.looks[(n - 1) % LOOKS].now < window * (1 - UNPUNCTUAL))
        n--;
    return &meter.looks[(n - 1) % LOOKS];
}

static void
use(const struct totals *from, const struct totals *to, double window)
{
    double dt = to->now - from->now;
    dt = dt > window ? dt : window;
    double operations = to->operations - from->operations;
    meter.usage[OT_BUDGET_CPU] = (cpu_of(to) - cpu_of(from)) / dt;
    meter.usage[OT_BUDGET_LATENCY] = operations > 0 ? (to->spans - from->spans) / operations : 0;
    meter.usage[OT_BUDGET_NETWORK] = (to->network - from->network) / dt;
    meter.usage[OT_BUDGET_DISK] = (to->disk - from->disk) / dt;
    meter.hot = (to->hot - from->hot) / dt;
    for (int i = 0; i < OT_METER_KINDS; i++)
        meter.cpu[i] = (to->cpu[i] - from->cpu[i]) / dt;
}

/* Bytes of this process's own, the segment and what others have in common with it left out; NaN = can not be told.  The kernel
 * takes some 25 µs and more for it. */
static double
own_bytes(void)
{
    if (ot_system_read(meter.smaps, OT_SYSTEM_TEXT)) {
        double heap = ot_system_field("Pss_Anon:"), files = ot_system_field("Pss_File:");
        if (!isnan(heap) && !isnan(files))
            return (heap + files) * 1024;
    }
    const char *at = ot_system_text;
    if (!ot_system_read(meter.statm, 256))
        return NAN;
    (void)ot_system_number(&at);
    double resident = ot_system_number(&at), shared = ot_system_number(&at);
    return (resident - shared) * (double)sysconf(_SC_PAGESIZE);
}

static double
process_bytes(double now)
{
    if (!(now - meter.own_at < OWN_OFTEN)) {
        double bytes = own_bytes() - ot_double_of(OT_LOAD(&ot_rec.policy->exporter_memory));
        meter.own = bytes > 0 ? bytes : 0; /* also where it can not be told */
        meter.own_at = now;
    }
    return meter.own;
}

static void
look_at_memory(const struct ot_allowed *r, double now)
{
    struct stat st;
    meter.segment =
        fstat(ot_rec.fd, &st) == 0 ? (double)st.st_blocks * 512 : (double)OT_LOAD(&ot_rec.header->file_bytes);
    meter.heap = (double)ot_drain_heap_bytes();
    double ours = meter.whole_process ? process_bytes(now) : meter.heap;
    meter.usage[OT_BUDGET_MEMORY] = meter.segment + ours + r->base_memory;
}

void
ot_meter_tick(const struct ot_allowed *r, struct ot_sight *sight)
{
    const double now = sight->now;
    const struct totals *newest = meter.taken > 0 ? &meter.looks[(meter.taken - 1) % LOOKS] : NULL;
    if (newest != NULL && now < newest->now) { /* another clock */
        meter.taken = 0;
        newest = NULL;
    }
    if (newest == NULL || now - newest->now >= r->window / OFTEN) {
        struct totals t = look(r, now);
        if (meter.resumes) {
            meter.resumes = false;
            meter.origin = t;
        }
        if (newest != NULL)
            use(before(now, r->window), &t, r->window);
        meter.looks[meter.taken++ % LOOKS] = t;
        look_at_memory(r, now);
    }
    newest = &meter.looks[(meter.taken - 1) % LOOKS];
    memcpy(sight->usage, meter.usage, sizeof sight->usage);
    sight->cpu_hot = meter.hot;
    sight->cpu_drain = meter.cpu[OT_METER_DRAIN];
    sight->cpu_export = meter.cpu[OT_METER_EXPORT];
    sight->cpu_governor = meter.cpu[OT_METER_GOVERNOR];
    sight->segment_bytes = meter.segment;
    sight->heap_bytes = meter.heap;
    sight->network_total = newest->network - meter.origin.network + meter.carried.network;
    sight->disk_total = newest->disk - meter.origin.disk + meter.carried.disk;
    sight->cpu_total_ns = (cpu_of(newest) - cpu_of(&meter.origin) + meter.carried.hot) * 1e9;
}

/* ---- life ---- */

void
ot_meter_close(void)
{
    if (meter.smaps >= 0)
        close(meter.smaps);
    if (meter.statm >= 0)
        close(meter.statm);
    meter.smaps = meter.statm = -1;
}

void
ot_meter_resume(void)
{
    const struct ot_readings *r = ot_rec.readings;
    meter.taken = 0;
    meter.resumes = true;
    meter.carried = (struct totals){.network = (double)OT_LOAD(&r->network_total),
                                    .disk = (double)OT_LOAD(&r->disk_total),
                                    .hot = (double)OT_LOAD(&r->cpu_total) * 1e-9};
}

void
ot_meter_open(bool whole_process)
{
    struct totals none = {0};
    double writes;
    ot_meter_close();
    memset(&meter, 0, sizeof meter);
    meter.own_at = NAN;
    meter.whole_process = whole_process;
    meter.smaps = whole_process ? ot_system_open("", "/proc/self/smaps_rollup") : -1;
    meter.statm = whole_process ? ot_system_open("", "/proc/self/statm") : -1;
    meter.resumes = whole_process;
    look_at_threads(&none, &writes, false);
    meter.counted = (double)OT_LOAD(&disk_operations);
    meter.wrote = writes;
    none.network = (double)OT_LOAD(&network_bytes);
    meter.origin = none;
}

/* None of the parent's threads is here, and the child's clocks begin anew. */
void
ot_meter_forked(void)
{
    pthread_mutex_init(&threads_lock, NULL);
    for (int i = 0; i < THREADS; i++) {
        if (threads[i].used && threads[i].io >= 0)
            close(threads[i].io);
    }
    memset(threads, 0, sizeof threads);
    own_number = 0;
}

int
ot_meter_start(void)
{
    if (pthread_key_create(&at_thread_end, thread_ended) != 0) {
        PyErr_SetString(PyExc_RuntimeError, "otel-trading: no thread-specific storage left in this process");
        return -1;
    }
    return 0;
}
