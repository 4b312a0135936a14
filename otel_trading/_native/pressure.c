/* Memory, pressure stall information, and how often what is looked at; the processors have a file of their own.  What a file says
 * is not trusted further than numbers go: what can not be understood is NaN. */
#include "pressure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "groups.h"
#include "processors.h"
#include "system_files.h"

#define SLOWLY 0.07     /* s between looks at memory at least … */
#define CALMLY 0.45     /* … and at most; between looks at stalls, which nothing is decided by */
#define FASTEST 4e9     /* bytes a second: nothing takes memory faster */
#define LIMITS 1.0      /* s between looks at limits and affinity */
#define HALF 0.5        /* of a memory limit, below which it does not matter what of it could be given back */
#define MOST_LIMIT 1e18 /* bytes; version 1 writes no limit as about 2^63 */

/* A group with a limit on memory. */
struct level {
    int used; /* file descriptors, owned; -1 = not there */
    int limit;
    int stat;
    double most; /* bytes; infinity = no limit */
};

static struct {
    bool open;
    int meminfo, cpu_stall, memory_stall; /* owned; -1 = not there */
    struct level memory[OT_GROUP_LEVELS];
    int memories; /* how many of them */
    int memory_version;
    double looked; /* at memory */
    double room;   /* bytes that are left until the nearest load that matters */
    double stalls; /* when they were looked at */
    double limits; /* when they were looked at */
    double memory_load, cpu_share, memory_share;
    double cpu_total, memory_total; /* s of stall so far */
} pressure;

static char system_root[PATH_MAX]; /* GIL and the governor's lock */

/* ---- memory ---- */

static void
look_at_memory_limits(double memory)
{
    for (int i = 0; i < pressure.memories; i++) {
        double most = ot_system_only_number(pressure.memory[i].limit); /* "max": NaN */
        pressure.memory[i].most = most > 0 && most < MOST_LIMIT && !(most >= memory) ? most : INFINITY;
    }
}

static double
group_load(const struct level *l)
{
    double used = ot_system_only_number(l->used);
    if (used / l->most < HALF || isnan(used))
        return used / l->most;
    /* what can be given back at once is not used */
    double idle = ot_system_read(l->stat, OT_SYSTEM_TEXT)
                      ? ot_system_field(pressure.memory_version == 2 ? "inactive_file " : "total_inactive_file ")
                      : NAN;
    return (used - (idle > 0 && idle < used ? idle : 0)) / l->most;
}

static void
note_room(double load, double matters, double most)
{
    double room = (matters - load) * most;
    if (!(room > pressure.room)) /* NaN too: it is looked at again soon */
        pressure.room = room > 0 ? room : 0;
}

static double
memory_load(bool limits, double matters)
{
    pressure.room = INFINITY;
    double total = NAN, available = NAN;
    if (ot_system_read(pressure.meminfo, 4096)) {
        total = ot_system_field("MemTotal:") * 1024;
        available = ot_system_field("MemAvailable:") * 1024;
    }
    double load = total > 0 && available <= total ? 1 - available / total : NAN;
    note_room(load, matters, total);
    if (limits)
        look_at_memory_limits(total);
    for (int i = 0; i < pressure.memories; i++) {
        if (isinf(pressure.memory[i].most))
            continue;
        double part = group_load(&pressure.memory[i]);
        note_room(part, matters, pressure.memory[i].most);
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
    if (!ot_system_read(fd, 512) || strncmp(ot_system_text, "some ", 5) != 0)
        return NAN;
    const char *total = strstr(ot_system_text, "total=");
    if (total == NULL)
        return NAN;
    total += 6;
    return ot_system_number(&total) * 1e-6;
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
    int files[] = {l->used, l->limit, l->stat};
    for (int i = 0; i < 3; i++) {
        if (files[i] >= 0)
            close(files[i]);
    }
}

void
ot_pressure_close(void)
{
    if (!pressure.open)
        return;
    int files[] = {pressure.meminfo, pressure.cpu_stall, pressure.memory_stall};
    for (int i = 0; i < 3; i++) {
        if (files[i] >= 0)
            close(files[i]);
    }
    for (int i = 0; i < pressure.memories; i++)
        close_level(&pressure.memory[i]);
    ot_processors_close();
    pressure.open = false;
}

static int
open_stall(const char *name, const struct ot_groups *unified, const char *system)
{
    int fd = unified->version == 2 && unified->count > 0 ? ot_system_open(unified->path[0], name) : -1;
    return fd >= 0 ? fd : ot_system_open(system_root, system);
}

static void
open_memory(const struct ot_groups *g)
{
    pressure.memory_version = g->version;
    bool second = g->version == 2;
    for (int i = 0; i < g->count; i++) {
        struct level l = {.most = INFINITY};
        l.limit = ot_system_open(g->path[i], second ? "/memory.max" : "/memory.limit_in_bytes");
        l.used = ot_system_open(g->path[i], second ? "/memory.current" : "/memory.usage_in_bytes");
        l.stat = ot_system_open(g->path[i], "/memory.stat");
        if (l.limit >= 0 && l.used >= 0)
            pressure.memory[pressure.memories++] = l;
        else
            close_level(&l);
    }
}

void
ot_pressure_open(unsigned pid)
{
    ot_pressure_close();
    memset(&pressure, 0, sizeof pressure);
    pressure.open = true;
    pressure.limits = pressure.looked = pressure.stalls = NAN;
    pressure.cpu_share = pressure.memory_share = NAN;
    pressure.meminfo = ot_system_open(system_root, "/proc/meminfo");
    struct ot_groups *g = malloc(sizeof *g * 2); /* some 64 KiB */
    if (g == NULL) {
        ot_processors_open(system_root, pid, NULL, NULL);
        pressure.cpu_stall = pressure.memory_stall = -1;
        return;
    }
    ot_groups_find(&g[0], system_root, pid, "cpu", "cpu.stat");
    pressure.cpu_stall = open_stall("/cpu.pressure", &g[0], "/proc/pressure/cpu");
    pressure.memory_stall = open_stall("/memory.pressure", &g[0], "/proc/pressure/memory");
    ot_groups_find(&g[0], system_root, pid, "cpu", "cpu.max");
    if (g[0].version == 1)
        ot_groups_find(&g[1], system_root, pid, "cpuacct", "cpu.max");
    ot_processors_open(system_root, pid, &g[0], &g[1]);
    ot_groups_find(&g[0], system_root, pid, "memory", "memory.max");
    open_memory(&g[0]);
    free(g);
}

void
ot_pressure_tick(struct ot_sight *sight, double memory)
{
    const double now = sight->now;
    if (now < pressure.looked || now < ot_processors_newest()) { /* another clock */
        ot_processors_another_clock();
        pressure.looked = pressure.limits = pressure.stalls = NAN;
    }
    bool limits = !(now - pressure.limits < LIMITS);
    if (limits)
        pressure.limits = now;
    sight->cpu_load = ot_processors_load(now, limits);
    double rest = pressure.room / FASTEST;
    rest = rest < SLOWLY ? SLOWLY : rest < CALMLY ? rest : CALMLY;
    if (limits || !(now - pressure.looked < rest)) {
        pressure.memory_load = memory_load(limits, memory);
        pressure.looked = now;
    }
    if (!(now - pressure.stalls < CALMLY)) {
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
