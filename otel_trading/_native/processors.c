/* Two ways to the same sums.  /proc/stat tells everything, of each processor, and takes 10 to 30 µs, as the kernel counts all its
 * interrupts for it.  /proc/uptime tells what all processors were idle, waits for disks left out, at less than half of that.
 * Where the process may use all processors, the second is looked at often, and the first where it matters: twice a second, and
 * at each look of some load, as waits for disks are none.  By what the first says of the idle time the second is checked, as
 * some containers have an uptime of their own.
 *
 * Idle time is told in units of 10 ms, rounded down, of all processors together: a load is taken over so long that a unit is a
 * tenth of it at most; a shorter look has to be sure of what it says by a unit. */
#include "processors.h"

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include "system_files.h"

#define UNITS 100.0 /* a second */
#define LONG 0.095
#define SHORT 0.035
#define SURE 0.045      /* s that a load of several processors is taken over at least, without a doubt of a unit … */
#define LEAST_UNITS 9.0 /* … and so many units of them */
#define SAMPLES 16
#define BETWEEN_SAMPLES 0.009
#define WAITS 0.45     /* s between looks at waits for disks … */
#define LOADED 0.5     /* … but at each of this load: below it, waits are told as load */
#define CHECK 0.4      /* s over which uptime is compared with stat */
#define MOST_APART 0.1 /* of the time of all processors */
/* Where the load since the last look is above the first, and above what is usual by the second, the next few looks come
 * sooner; not oftener than that, as load comes in bursts. */
#define RISEN 0.5
#define RISE 0.2
#define SOONER 4
#define RESTS 1.0       /* s */
#define LEAST_LOOK 0.03 /* s that such a load is taken over */

struct sample {
    double now;
    double idle;   /* units, of the CPUs that count */
    double waited; /* as of the newest look at them */
    double total;
    double used[OT_GROUP_LEVELS]; /* s of CPU, a group; NaN = not known */
};

/* A group with a limit on CPU time. */
struct level {
    int used; /* file descriptors, owned; -1 = not there */
    int limit;
    int period;  /* version 1 */
    double most; /* CPUs; infinity = no limit */
};

static struct {
    unsigned pid;
    int stat, uptime; /* owned; -1 = not there, or not to be trusted */
    struct level levels[OT_GROUP_LEVELS];
    int count; /* of them */
    int version;
    bool all;    /* the process may use all CPUs: the first line of stat counts, and uptime does */
    double cpus; /* how many there are; of stat's lines */
    struct sample samples[SAMPLES];
    uint64_t taken;
    bool glancing;                             /* what the samples were made of */
    double waited;                             /* units of waits so far, when stat was last read */
    double stat_at;                            /* when that was; NaN = not yet */
    double check_at, check_stat, check_uptime; /* idle units when both were last compared; NaN = not yet */
    double usual;                              /* load, smoothed over a second */
    double rose;                               /* when it last rose by much; NaN = not yet */
    unsigned sooner;                           /* looks that come sooner */
} cpu = {.stat = -1, .uptime = -1};

/* ---- samples ---- */

/* The newest sample that is not younger than `age`; NULL where there is none. */
static const struct sample *
sample_before(double now, double age)
{
    uint64_t first = cpu.taken > SAMPLES ? cpu.taken - SAMPLES : 0;
    for (uint64_t n = cpu.taken; n-- > first;) {
        const struct sample *s = &cpu.samples[n % SAMPLES];
        if (now - s->now >= age)
            return s;
    }
    return NULL;
}

static double
load_since(const struct sample *before, const struct sample *now, double doubt)
{
    double total = now->total - before->total, waited = now->waited - before->waited;
    if (!(total > 0))
        return NAN;
    double idle = now->idle - before->idle + (waited > 0 ? waited : 0); /* the kernel's count of waits can go back */
    idle = idle > 0 ? idle : 0;
    double load = 1 - (idle + doubt) / total;
    return load < 0 ? 0 : load > 1 ? 1 : load;
}

static double
larger(double a, double b)
{
    return b > a ? b : a; /* a, where b is NaN */
}

/* s that a load is taken over with no doubt. */
static double
sure(void)
{
    double least = cpu.cpus > 0 ? LEAST_UNITS / UNITS / cpu.cpus : LONG;
    return least > SURE ? least : SURE;
}

static double
load_of(const struct sample *s)
{
    const struct sample *far = sample_before(s->now, LONG), *near = sample_before(s->now, SHORT);
    far = far != NULL ? far : near;
    if (far == NULL)
        return 0; /* until there are two samples */
    double load = load_since(far, s, 0);
    if (near != far)
        load = larger(load, load_since(near, s, 1));
    const struct sample *second = cpu.glancing ? sample_before(s->now, sure()) : NULL;
    if (second != NULL && second != far)
        load = larger(load, load_since(second, s, 0));
    for (int i = 0; i < cpu.count; i++) {
        const struct sample *from = second != NULL ? second : far; /* told in µs or ns, so a short time does */
        double part = (s->used[i] - from->used[i]) / (s->now - from->now) / cpu.levels[i].most;
        load = larger(load, part < 1 ? part : part >= 1 ? 1 : NAN);
    }
    return load;
}

static void
look_for_a_rise(const struct sample *s, double load)
{
    const struct sample *last = sample_before(s->now, 0);
    double dt = last != NULL ? s->now - last->now : 0;
    double recent = dt >= LEAST_LOOK ? load_since(last, s, 0) : NAN;
    if (recent > RISEN && recent > cpu.usual + RISE && !(s->now - cpu.rose < RESTS)) {
        cpu.sooner = SOONER;
        cpu.rose = s->now;
    }
    else if (cpu.sooner > 0) {
        cpu.sooner--;
    }
    if (load >= 0)
        cpu.usual += (load - cpu.usual) * (dt < 1 ? dt : 1);
}

static void
keep(const struct sample *s)
{
    if (cpu.taken == 0 || s->now - sample_before(s->now, 0)->now >= BETWEEN_SAMPLES)
        cpu.samples[cpu.taken++ % SAMPLES] = *s;
}

/* Samples of one kind can not be compared with those of another. */
static void
glance_from_now_on(bool glancing)
{
    if (cpu.glancing != glancing)
        cpu.taken = 0;
    cpu.glancing = glancing;
}

/* ---- /proc/stat ---- */

/* Sums of some processors, in units. */
struct sums {
    double idle; /* without waits */
    double waited;
    double total;
    double cpus; /* lines of single ones */
};

/* Add a line's figures; false where they are not there. */
static bool
add_line(const char *at, struct sums *s)
{
    double field[8];
    int n = 0;
    for (; n < 8; n++) { /* user nice system idle iowait irq softirq steal */
        field[n] = ot_system_number(&at);
        if (isnan(field[n]))
            break;
    }
    if (n < 4)
        return false;
    for (int i = 0; i < n; i++)
        s->total += field[i];
    s->idle += field[3];
    s->waited += n > 4 ? field[4] : 0;
    return true;
}

#if defined(__linux__)
static bool
allowed(const cpu_set_t *set, bool known, double number)
{
    return !known || (number < CPU_SETSIZE && CPU_ISSET((size_t)number, set));
}
#endif

/* All lines of single CPUs that the process may use; false where there are none. */
static bool
add_cpus(struct sums *s, bool *all)
{
    bool any = false;
    *all = true;
#if defined(__linux__)
    cpu_set_t set;
    bool known = sched_getaffinity((pid_t)cpu.pid, sizeof set, &set) == 0;
    for (const char *line = ot_system_text; line != NULL;
         line = strchr(line, '\n'), line = line != NULL ? line + 1 : NULL) {
        if (strncmp(line, "cpu", 3) != 0)
            continue;
        const char *at = line + 3;
        double number = *at == ' ' ? NAN : ot_system_number(&at);
        if (isnan(number))
            continue;
        s->cpus++;
        if (allowed(&set, known, number))
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
read_stat(struct sums *s, bool limits)
{
    *s = (struct sums){0};
    if (cpu.all && !limits)
        return ot_system_read(cpu.stat, 256) && strncmp(ot_system_text, "cpu ", 4) == 0 &&
               add_line(ot_system_text + 4, s);
    if (!ot_system_read(cpu.stat, OT_SYSTEM_TEXT))
        return false;
    struct sums single = {0};
    double cpus = cpu.cpus;
    bool any = add_cpus(&single, &cpu.all);
    cpu.cpus = single.cpus;
    if (cpus != cpu.cpus && cpu.glancing)
        cpu.taken = 0; /* one has come or gone */
    if (!cpu.all || strncmp(ot_system_text, "cpu ", 4) != 0 || !add_line(ot_system_text + 4, s)) {
        *s = single;
        return any;
    }
    return true;
}

/* ---- /proc/uptime ---- */

/* Idle units so far, without waits; NaN where it is not told. */
static double
read_uptime(void)
{
    if (!ot_system_read(cpu.uptime, 64))
        return NAN;
    const char *at = strchr(ot_system_text, ' ');
    double whole = at != NULL ? ot_system_number(&at) : NAN;
    if (isnan(whole) || *at != '.' || at[1] < '0' || at[1] > '9' || at[2] < '0' || at[2] > '9')
        return NAN;
    return whole * UNITS + (at[1] - '0') * 10 + (at[2] - '0');
}

bool
ot_processors_glances(void)
{
    return cpu.uptime >= 0 && cpu.all && cpu.cpus > 0;
}

static void
do_without_uptime(void)
{
    if (cpu.uptime >= 0)
        close(cpu.uptime);
    cpu.uptime = -1;
}

/* Both tell the same idle time; else uptime is somebody's own. */
static void
check_uptime(const struct sums *s, double now)
{
    double idle = read_uptime();
    if (isnan(idle)) {
        do_without_uptime();
        return;
    }
    double dt = now - cpu.check_at;
    if (dt < CHECK)
        return;
    double apart = (s->idle - cpu.check_stat) - (idle - cpu.check_uptime); /* NaN at first */
    if (fabs(apart) > dt * UNITS * cpu.cpus * MOST_APART + 2)
        do_without_uptime();
    cpu.check_at = now;
    cpu.check_stat = s->idle;
    cpu.check_uptime = idle;
}

/* ---- groups ---- */

static void
look_at_groups(struct sample *s)
{
    for (int i = 0; i < cpu.count; i++) {
        const struct level *l = &cpu.levels[i];
        if (isinf(l->most))
            s->used[i] = NAN;
        else if (cpu.version == 2)
            s->used[i] = ot_system_read(l->used, 1024) ? ot_system_field("usage_usec") * 1e-6 : NAN;
        else
            s->used[i] = ot_system_only_number(l->used) * 1e-9;
    }
}

static void
look_at_limits(void)
{
    for (int i = 0; i < cpu.count; i++) {
        struct level *l = &cpu.levels[i];
        double quota, period;
        if (cpu.version == 2) { /* "max 100000", or two numbers */
            const char *at = ot_system_text;
            quota = ot_system_read(l->limit, 64) ? ot_system_number(&at) : NAN;
            period = ot_system_number(&at);
        }
        else { /* -1: none */
            quota = ot_system_only_number(l->limit);
            period = ot_system_only_number(l->period);
        }
        l->most = quota > 0 && period > 0 ? quota / period : INFINITY;
    }
}

/* ---- a look ---- */

static bool
glance(struct sample *s)
{
    double idle = read_uptime();
    if (isnan(idle))
        return false;
    s->idle = idle;
    s->waited = cpu.waited;
    s->total = s->now * UNITS * cpu.cpus;
    look_at_groups(s);
    return true;
}

double
ot_processors_glance(double now)
{
    struct sample s = {.now = now};
    if (!ot_processors_glances() || !cpu.glancing || !glance(&s))
        return NAN;
    double load = load_of(&s);
    look_for_a_rise(&s, load);
    keep(&s);
    return load;
}

/* With all of stat: the sample of its own figures, or, where uptime is trusted, of that with the waits of now. */
static double
load_by_stat(struct sample *s, bool limits)
{
    struct sums sums;
    if (!read_stat(&sums, limits))
        return NAN;
    if (cpu.uptime >= 0 && cpu.all)
        check_uptime(&sums, s->now);
    glance_from_now_on(ot_processors_glances());
    cpu.waited = sums.waited;
    cpu.stat_at = s->now;
    if (!cpu.glancing || !glance(s)) {
        glance_from_now_on(false);
        s->idle = sums.idle;
        s->waited = sums.waited;
        s->total = sums.total;
        look_at_groups(s);
    }
    return load_of(s);
}

double
ot_processors_load(double now, bool limits)
{
    if (limits)
        look_at_limits();
    struct sample s = {.now = now};
    double load = NAN;
    if (!limits && cpu.glancing && now - cpu.stat_at < WAITS && glance(&s))
        load = load_of(&s);
    if (!(load <= LOADED))
        load = load_by_stat(&s, limits);
    look_for_a_rise(&s, load);
    if (!isnan(load) || s.total > 0)
        keep(&s);
    return load;
}

bool
ot_processors_rise(void)
{
    return cpu.sooner > 0;
}

/* ---- life ---- */

static void
close_level(struct level *l)
{
    int files[] = {l->used, l->limit, l->period};
    for (int i = 0; i < 3; i++) {
        if (files[i] >= 0)
            close(files[i]);
    }
}

void
ot_processors_close(void)
{
    if (cpu.stat >= 0)
        close(cpu.stat);
    cpu.stat = -1;
    do_without_uptime();
    for (int i = 0; i < cpu.count; i++)
        close_level(&cpu.levels[i]);
    cpu.count = 0;
}

/* Of version 1, where CPU limits and use are in hierarchies of their own, the use is that of the group of the same name. */
static void
open_levels(const struct ot_groups *g, const struct ot_groups *use)
{
    cpu.version = g->version;
    for (int i = 0; i < g->count; i++) {
        struct level l = {.used = -1, .limit = -1, .period = -1, .most = INFINITY};
        if (g->version == 2) {
            l.limit = ot_system_open(g->path[i], "/cpu.max");
            l.used = l.limit >= 0 ? ot_system_open(g->path[i], "/cpu.stat") : -1;
        }
        else {
            int other = i + use->count - g->count; /* counted from the top */
            l.limit = ot_system_open(g->path[i], "/cpu.cfs_quota_us");
            l.period = l.limit >= 0 ? ot_system_open(g->path[i], "/cpu.cfs_period_us") : -1;
            l.used = l.limit >= 0 && other >= 0 ? ot_system_open(use->path[other], "/cpuacct.usage") : -1;
        }
        if (l.limit >= 0 && l.used >= 0)
            cpu.levels[cpu.count++] = l;
        else
            close_level(&l);
    }
}

void
ot_processors_another_clock(void)
{
    cpu.taken = 0;
    cpu.stat_at = cpu.check_at = cpu.rose = NAN;
}

double
ot_processors_newest(void)
{
    return cpu.taken > 0 ? cpu.samples[(cpu.taken - 1) % SAMPLES].now : -INFINITY;
}

void
ot_processors_open(const char *root, unsigned pid, const struct ot_groups *limits, const struct ot_groups *use)
{
    ot_processors_close();
    memset(&cpu, 0, sizeof cpu);
    cpu.pid = pid;
    ot_processors_another_clock();
    cpu.stat = ot_system_open(root, "/proc/stat");
    cpu.uptime = ot_system_open(root, "/proc/uptime");
    if (limits != NULL)
        open_levels(limits, use);
}
