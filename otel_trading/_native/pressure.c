/* CPU load, memory, and pressure stall information, from files that stay open.  What a file says is not trusted further
 * than numbers go: what can not be understood is NaN. */
#include "pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include "groups.h"

/* The kernel counts CPU time in units of 10 ms: a load is taken over some of them, and a shorter look has to be sure of what it
 * says by a unit. */
#define LONG 0.095
#define SHORT 0.035
#define SAMPLES 16
#define BETWEEN_SAMPLES 0.009
#define SLOWLY 0.09 /* s between looks at memory */
#define STALLS 0.45 /* s between looks at stalls, which nothing is decided by */
#define LIMITS 1.0  /* s between looks at limits and affinity */
#define HALF 0.5    /* of a memory limit, below which it does not matter what of it could be given back */
/* Where the load since the last tick is above the first, and above what is usual by the second, the next few ticks come
 * sooner; not oftener than that, as load comes in bursts. */
#define RISEN 0.5
#define RISE 0.2
#define SOONER 4
#define RESTS 0.5       /* s */
#define LEAST_LOOK 0.03 /* s that such a load is taken over */
#define TEXT 65536
#define MOST_LIMIT 1e18 /* bytes; version 1 writes no limit as about 2^63 */

struct sample {
    double now;
    double idle; /* units, of the CPUs that count */
    double total;
    double used[OT_GROUP_LEVELS]; /* s of CPU, a group; NaN = not known */
};

/* A group with a limit on CPU time, or one on memory. */
struct level {
    int used; /* file descriptors, owned; -1 = not there */
    int limit;
    int period; /* version 1 */
    int stat;
    double most; /* CPUs, or bytes; infinity = no limit */
};

static struct {
    bool open;
    int stat, meminfo, cpu_stall, memory_stall; /* owned; -1 = not there */
    struct level cpu[OT_GROUP_LEVELS];
    struct level memory[OT_GROUP_LEVELS];
    int cpus, memories; /* how many of them */
    int cpu_version, memory_version;
    bool all_cpus; /* the first line of stat counts, and no line is read for a single one */
    struct sample samples[SAMPLES];
    uint64_t taken;
    double looked; /* at memory */
    double stalls; /* when they were looked at */
    double limits; /* when they were looked at */
    double memory_load, cpu_share, memory_share;
    double cpu_total, memory_total; /* s of stall so far */
    double usual;                   /* load, smoothed over a second */
    double rose;                    /* when it last rose by much; NaN = not yet */
    unsigned sooner;                /* ticks that come sooner than the period says */
} pressure;

static char system_root[PATH_MAX]; /* GIL and the governor's lock */
static char text[TEXT];

/* ---- files ---- */

static int
open_at(const char *directory, const char *name)
{
    char path[PATH_MAX + 64];
    if (snprintf(path, sizeof path, "%s%s", directory, name) >= (int)sizeof path)
        return -1;
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* The beginning of a file into `text`, as a string; false where there is nothing. */
static bool
read_text(int fd, size_t most)
{
    text[0] = 0;
    if (fd < 0)
        return false;
    ssize_t n;
    do
        n = pread(fd, text, most < sizeof text ? most : sizeof text - 1, 0);
    while (n < 0 && errno == EINTR);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* A number, and what is after it; NaN where there is none. */
static double
number(const char **at)
{
    const char *p = *at;
    while (*p == ' ' || *p == '\t')
        p++;
    if (*p < '0' || *p > '9')
        return NAN;
    double value = 0;
    while (*p >= '0' && *p <= '9')
        value = value * 10 + (*p++ - '0');
    *at = p;
    return value;
}

/* The number after `key`, which stands at the beginning of a line. */
static double
number_of(const char *key)
{
    size_t bytes = strlen(key);
    for (const char *line = text; line != NULL; line = strchr(line, '\n'), line = line != NULL ? line + 1 : NULL) {
        if (strncmp(line, key, bytes) == 0) {
            const char *at = line + bytes;
            return number(&at);
        }
    }
    return NAN;
}

static double
only_number(int fd)
{
    const char *at = text;
    return read_text(fd, 64) ? number(&at) : NAN;
}

/* ---- CPU ---- */

/* Add a line's figures; false where they are not there. */
static bool
add_line(const char *at, struct sample *s)
{
    double field[8];
    int n = 0;
    for (; n < 8; n++) { /* user nice system idle iowait irq softirq steal */
        field[n] = number(&at);
        if (isnan(field[n]))
            break;
    }
    if (n < 4)
        return false;
    for (int i = 0; i < n; i++)
        s->total += field[i];
    s->idle += field[3] + (n > 4 ? field[4] : 0);
    return true;
}

#if defined(__linux__)
static bool
allowed(const cpu_set_t *set, bool known, double cpu)
{
    return !known || (cpu < CPU_SETSIZE && CPU_ISSET((size_t)cpu, set));
}
#endif

/* All lines of single CPUs that this process may use; false where there are none. */
static bool
add_cpus(struct sample *s, bool *all)
{
    bool any = false;
    *all = true;
#if defined(__linux__)
    cpu_set_t set;
    bool known = sched_getaffinity(0, sizeof set, &set) == 0;
    for (const char *line = text; line != NULL; line = strchr(line, '\n'), line = line != NULL ? line + 1 : NULL) {
        if (strncmp(line, "cpu", 3) != 0)
            continue;
        const char *at = line + 3;
        double cpu = *at == ' ' ? NAN : number(&at);
        if (isnan(cpu))
            continue;
        if (allowed(&set, known, cpu))
            any = add_line(at, s) || any;
        else
            *all = false;
    }
#else
    (void)s;
#endif
    return any;
}

static bool
look_at_cpus(struct sample *s, bool limits)
{
    s->idle = s->total = 0;
    if (pressure.all_cpus && !limits)
        return read_text(pressure.stat, 256) && strncmp(text, "cpu ", 4) == 0 && add_line(text + 4, s);
    if (!read_text(pressure.stat, sizeof text))
        return false;
    struct sample single = {.idle = 0};
    bool any = add_cpus(&single, &pressure.all_cpus);
    if (!pressure.all_cpus || strncmp(text, "cpu ", 4) != 0 || !add_line(text + 4, s)) {
        s->idle = single.idle;
        s->total = single.total;
        return any;
    }
    return true;
}

static double
group_used(const struct level *l)
{
    if (pressure.cpu_version == 2)
        return read_text(l->used, 1024) ? number_of("usage_usec") * 1e-6 : NAN;
    return only_number(l->used) * 1e-9;
}

static void
look_at_cpu_limits(void)
{
    for (int i = 0; i < pressure.cpus; i++) {
        struct level *l = &pressure.cpu[i];
        double quota, period;
        if (pressure.cpu_version == 2) { /* "max 100000", or two numbers */
            const char *at = text;
            quota = read_text(l->limit, 64) ? number(&at) : NAN;
            period = number(&at);
        }
        else { /* -1: none */
            quota = only_number(l->limit);
            period = only_number(l->period);
        }
        l->most = quota > 0 && period > 0 ? quota / period : INFINITY;
    }
}

/* The newest sample that is not younger than `age`; NULL where there is none. */
static const struct sample *
sample_before(double now, double age)
{
    uint64_t first = pressure.taken > SAMPLES ? pressure.taken - SAMPLES : 0;
    for (uint64_t n = pressure.taken; n-- > first;) {
        const struct sample *s = &pressure.samples[n % SAMPLES];
        if (now - s->now >= age)
            return s;
    }
    return NULL;
}

static double
load_since(const struct sample *before, const struct sample *now, double doubt)
{
    double total = now->total - before->total, idle = now->idle - before->idle;
    if (!(total > 0))
        return NAN;
    idle = idle > 0 ? idle : 0; /* the kernel's count of iowait can go back */
    double load = 1 - (idle + doubt) / total;
    return load < 0 ? 0 : load > 1 ? 1 : load;
}

static void
look_for_a_rise(const struct sample *s, double load)
{
    const struct sample *last = sample_before(s->now, 0);
    double dt = last != NULL ? s->now - last->now : 0;
    double recent = dt >= LEAST_LOOK ? load_since(last, s, 0) : NAN;
    if (recent > RISEN && recent > pressure.usual + RISE && !(s->now - pressure.rose < RESTS)) {
        pressure.sooner = SOONER;
        pressure.rose = s->now;
    }
    else if (pressure.sooner > 0) {
        pressure.sooner--;
    }
    if (load >= 0)
        pressure.usual += (load - pressure.usual) * (dt < 1 ? dt : 1);
}

bool
ot_pressure_rises(void)
{
    return pressure.sooner > 0;
}

static double
cpu_load(double now)
{
    struct sample s = {.now = now};
    bool limits = !(now - pressure.limits < LIMITS);
    if (limits)
        look_at_cpu_limits();
    bool known = look_at_cpus(&s, limits);
    for (int i = 0; i < pressure.cpus; i++)
        s.used[i] = isinf(pressure.cpu[i].most) ? NAN : group_used(&pressure.cpu[i]);
    double load = known ? 0 : NAN; /* until there are two samples */
    const struct sample *far = sample_before(now, LONG), *near = sample_before(now, SHORT);
    far = far != NULL ? far : near;
    if (known && far != NULL) {
        load = load_since(far, &s, 0);
        double shorter = near != far ? load_since(near, &s, 1) : NAN;
        load = shorter > load ? shorter : load;
    }
    for (int i = 0; i < pressure.cpus && far != NULL; i++) {
        double part = (s.used[i] - far->used[i]) / (now - far->now) / pressure.cpu[i].most;
        if (part > load)
            load = part < 1 ? part : 1;
    }
    look_for_a_rise(&s, load);
    if (known && (pressure.taken == 0 || now - sample_before(now, 0)->now >= BETWEEN_SAMPLES))
        pressure.samples[pressure.taken++ % SAMPLES] = s;
    return load;
}

/* ---- memory ---- */

static void
look_at_memory_limits(double memory)
{
    for (int i = 0; i < pressure.memories; i++) {
        double most = only_number(pressure.memory[i].limit); /* "max": NaN */
        pressure.memory[i].most = most > 0 && most < MOST_LIMIT && !(most >= memory) ? most : INFINITY;
    }
}

static double
group_load(const struct level *l)
{
    double used = only_number(l->used);
    if (used / l->most < HALF || isnan(used))
        return used / l->most;
    /* what can be given back at once is not used */
    double idle = read_text(l->stat, sizeof text)
                      ? number_of(pressure.memory_version == 2 ? "inactive_file " : "total_inactive_file ")
                      : NAN;
    return (used - (idle > 0 && idle < used ? idle : 0)) / l->most;
}

static double
memory_load(bool limits)
{
    double total = NAN, available = NAN;
    if (read_text(pressure.meminfo, 4096)) {
        total = number_of("MemTotal:") * 1024;
        available = number_of("MemAvailable:") * 1024;
    }
    double load = total > 0 && available <= total ? 1 - available / total : NAN;
    if (limits)
        look_at_memory_limits(total);
    for (int i = 0; i < pressure.memories; i++) {
        double part = isinf(pressure.memory[i].most) ? 0 : group_load(&pressure.memory[i]);
        if (part > load)
            load = part < 1 ? part : 1;
    }
    return load;
}

/* ---- stalls ---- */

/* s that somebody waited so far. */
static double
stalled(int fd)
{
    if (!read_text(fd, 512) || strncmp(text, "some ", 5) != 0)
        return NAN;
    const char *total = strstr(text, "total=");
    if (total == NULL)
        return NAN;
    total += 6;
    return number(&total) * 1e-6;
}

static double
share_since(double before, double now, double dt)
{
    double share = (now - before) / dt;
    return isnan(share) ? share : share < 0 ? 0 : share > 1 ? 1 : share;
}

/* ---- life ---- */

static void
close_level(struct level *l)
{
    int files[] = {l->used, l->limit, l->period, l->stat};
    for (int i = 0; i < 4; i++) {
        if (files[i] >= 0)
            close(files[i]);
    }
}

void
ot_pressure_close(void)
{
    if (!pressure.open)
        return;
    int files[] = {pressure.stat, pressure.meminfo, pressure.cpu_stall, pressure.memory_stall};
    for (int i = 0; i < 4; i++) {
        if (files[i] >= 0)
            close(files[i]);
    }
    for (int i = 0; i < pressure.cpus; i++)
        close_level(&pressure.cpu[i]);
    for (int i = 0; i < pressure.memories; i++)
        close_level(&pressure.memory[i]);
    pressure.open = false;
}

static int
open_stall(const char *name, const struct ot_groups *unified, const char *system)
{
    int fd = unified->version == 2 && unified->count > 0 ? open_at(unified->path[0], name) : -1;
    return fd >= 0 ? fd : open_at(system_root, system);
}

/* Of version 1, where CPU limits and use are in hierarchies of their own, the use is that of the group of the same name. */
static void
open_cpu(const struct ot_groups *g, const struct ot_groups *use)
{
    pressure.cpu_version = g->version;
    for (int i = 0; i < g->count; i++) {
        struct level l = {.used = -1, .limit = -1, .period = -1, .stat = -1, .most = INFINITY};
        if (g->version == 2) {
            l.limit = open_at(g->path[i], "/cpu.max");
            l.used = l.limit >= 0 ? open_at(g->path[i], "/cpu.stat") : -1;
        }
        else {
            int other = i + use->count - g->count; /* counted from the top */
            l.limit = open_at(g->path[i], "/cpu.cfs_quota_us");
            l.period = l.limit >= 0 ? open_at(g->path[i], "/cpu.cfs_period_us") : -1;
            l.used = l.limit >= 0 && other >= 0 ? open_at(use->path[other], "/cpuacct.usage") : -1;
        }
        if (l.limit >= 0 && l.used >= 0)
            pressure.cpu[pressure.cpus++] = l;
        else
            close_level(&l);
    }
}

static void
open_memory(const struct ot_groups *g)
{
    pressure.memory_version = g->version;
    bool second = g->version == 2;
    for (int i = 0; i < g->count; i++) {
        struct level l = {.period = -1, .most = INFINITY};
        l.limit = open_at(g->path[i], second ? "/memory.max" : "/memory.limit_in_bytes");
        l.used = open_at(g->path[i], second ? "/memory.current" : "/memory.usage_in_bytes");
        l.stat = open_at(g->path[i], "/memory.stat");
        if (l.limit >= 0 && l.used >= 0)
            pressure.memory[pressure.memories++] = l;
        else
            close_level(&l);
    }
}

void
ot_pressure_open(void)
{
    ot_pressure_close();
    memset(&pressure, 0, sizeof pressure);
    pressure.open = true;
    pressure.limits = pressure.looked = pressure.stalls = pressure.rose = NAN;
    pressure.cpu_share = pressure.memory_share = NAN;
    pressure.stat = open_at(system_root, "/proc/stat");
    pressure.meminfo = open_at(system_root, "/proc/meminfo");
    struct ot_groups *g = malloc(sizeof *g * 2); /* some 64 KiB */
    if (g == NULL) {
        pressure.cpu_stall = pressure.memory_stall = -1;
        return;
    }
    ot_groups_find(&g[0], system_root, "cpu", "cpu.stat");
    pressure.cpu_stall = open_stall("/cpu.pressure", &g[0], "/proc/pressure/cpu");
    pressure.memory_stall = open_stall("/memory.pressure", &g[0], "/proc/pressure/memory");
    ot_groups_find(&g[0], system_root, "cpu", "cpu.max");
    if (g[0].version == 1)
        ot_groups_find(&g[1], system_root, "cpuacct", "cpu.max");
    open_cpu(&g[0], &g[1]);
    ot_groups_find(&g[0], system_root, "memory", "memory.max");
    open_memory(&g[0]);
    free(g);
}

void
ot_pressure_tick(struct ot_sight *sight)
{
    const double now = sight->now;
    if (now < pressure.looked || (pressure.taken > 0 && now < sample_before(INFINITY, 0)->now)) { /* another clock */
        pressure.taken = 0;
        pressure.looked = pressure.limits = pressure.stalls = pressure.rose = NAN;
    }
    bool limits = !(now - pressure.limits < LIMITS);
    sight->cpu_load = cpu_load(now);
    if (!(now - pressure.looked < SLOWLY)) {
        pressure.memory_load = memory_load(limits);
        pressure.looked = now;
        if (limits)
            pressure.limits = now;
    }
    if (!(now - pressure.stalls < STALLS)) {
        double cpu = stalled(pressure.cpu_stall), memory = stalled(pressure.memory_stall), dt = now - pressure.stalls;
        pressure.cpu_share = share_since(pressure.cpu_total, cpu, dt);
        pressure.memory_share = share_since(pressure.memory_total, memory, dt);
        pressure.cpu_total = cpu;
        pressure.memory_total = memory;
        pressure.stalls = now;
    }
    sight->memory_load = pressure.memory_load;
    sight->cpu_stall = pressure.cpu_share;
    sight->memory_stall = pressure.memory_share;
}

PyObject *
ot_system_root(PyObject *Py_UNUSED(module), PyObject *path)
{
    Py_ssize_t bytes;
    const char *given = PyUnicode_Check(path) ? PyUnicode_AsUTF8AndSize(path, &bytes) : NULL;
    if (given == NULL || bytes >= PATH_MAX / 2) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "system_root() takes the path of a directory, a str");
        return NULL;
    }
    memcpy(system_root, given, (size_t)bytes + 1);
    Py_RETURN_NONE;
}
