#include "pulses.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doubles.h"
#include "drain.h"
#include "life.h"
#include "market.h"
#include "recorder.h"
#include "vitals.h"

#define PERIOD_NS 1000000000ULL
#define NOT_KNOWN UINT64_MAX

/* Fields of /proc/PID/stat, as proc(5) counts them. */
enum {
    STAT_MAJOR_FAULTS = 12,
    STAT_THREADS = 20,
    STAT_START = 22,
    STAT_RESIDENT = 24,
};

/* The process that is looked at.  Its files stay open: a pid that is used again gives errors, not another process's numbers. */
static struct {
    uint32_t pid; /* 0: none yet */
    int stat;     /* owned; -1: can't be read */
    int status;   /* owned; -1: likewise */
    clockid_t clock;
    uint64_t last_ns; /* CLOCK_MONOTONIC of the last look; 0: none yet */
    uint64_t cpu_ns;  /* of the process, then; NOT_KNOWN */
} at;

void
ot_pulses_forget(void)
{
    if (at.pid != 0) {
        if (at.stat >= 0)
            close(at.stat);
        if (at.status >= 0)
            close(at.status);
    }
    memset(&at, 0, sizeof at);
}

/* A file of the process as text; false where it can not be read. */
static bool
read_text(int fd, char *text, size_t room)
{
    ssize_t n = fd >= 0 ? pread(fd, text, room - 1, 0) : -1;
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* Fields 3 to `count` of /proc/PID/stat; the name before them may hold anything.  How many fields there were. */
static int
fields_of(const char *text, uint64_t *field, int count)
{
    const char *p = strrchr(text, ')');
    int i = 2;
    for (p = p != NULL ? strchr(p, ' ') : NULL; p != NULL && i < count; p = strchr(p + 1, ' '))
        field[++i] = strtoull(p + 1, NULL, 10);
    return i;
}

static int
open_file(uint32_t pid, const char *name)
{
    char path[48];
    (void)snprintf(path, sizeof path, "/proc/%u/%s", (unsigned)pid, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void
attach(uint32_t pid)
{
    char text[1024];
    uint64_t field[STAT_RESIDENT + 1] = {0};
    ot_pulses_forget();
    at.pid = pid;
    at.cpu_ns = NOT_KNOWN;
    at.stat = open_file(pid, "stat");
    at.status = -1;
    if (!read_text(at.stat, text, sizeof text) || fields_of(text, field, STAT_RESIDENT) < STAT_RESIDENT ||
        field[STAT_START] != ot_rec.header->process_start) { /* it is gone, and somebody else has its pid */
        if (at.stat >= 0)
            close(at.stat);
        at.stat = -1;
        return;
    }
    at.status = open_file(pid, "status");
    if (clock_getcpuclockid((pid_t)pid, &at.clock) != 0) {
        close(at.stat);
        at.stat = -1;
    }
}

/* Bytes that are swapped out, of /proc/PID/status. */
static uint64_t
swapped(void)
{
    char text[4096];
    const char *line = read_text(at.status, text, sizeof text) ? strstr(text, "\nVmSwap:") : NULL;
    return line != NULL ? strtoull(line + 8, NULL, 10) * 1024 : NOT_KNOWN;
}

/* What the kernel says of the process. */
static void
look(struct ot_pulse *p, uint64_t mono_ns)
{
    char text[1024];
    uint64_t field[STAT_RESIDENT + 1] = {0};
    struct timespec cpu;
    uint64_t before = at.cpu_ns;
    p->major_faults = NOT_KNOWN;
    p->process_cpu = OT_NAN_BITS;
    at.cpu_ns = NOT_KNOWN;
    p->swap = NOT_KNOWN;
    if (!read_text(at.stat, text, sizeof text) || fields_of(text, field, STAT_RESIDENT) < STAT_RESIDENT)
        return;
    p->resident = field[STAT_RESIDENT] * (uint64_t)sysconf(_SC_PAGESIZE);
    p->threads = (uint32_t)field[STAT_THREADS];
    p->major_faults = field[STAT_MAJOR_FAULTS];
    p->swap = swapped();
    if (clock_gettime(at.clock, &cpu) == 0)
        at.cpu_ns = (uint64_t)cpu.tv_sec * 1000000000ULL + (uint64_t)cpu.tv_nsec;
    if (before != NOT_KNOWN && at.cpu_ns != NOT_KNOWN && at.cpu_ns >= before && mono_ns > at.last_ns)
        p->process_cpu = ot_bits_of((double)(at.cpu_ns - before) / (double)(mono_ns - at.last_ns));
}

/* What the segment says of it. */
static void
sum_up(struct ot_pulse *p, uint64_t mono_ns)
{
    const struct ot_header *h = ot_rec.header;
    const struct ot_life *life = ot_rec.life;
    const struct ot_readings *readings = ot_rec.readings;
    uint32_t rings = ot_drain_rings();
    for (uint32_t i = 0; i < rings; i++) {
        const struct ot_ring *ring = ot_writers[i].ring; /* NULL: damaged, in an adopted segment */
        for (int t = 0; ring != NULL && t < OT_TIERS; t++)
            p->spans += OT_LOAD(&ring->recorded[t]);
    }
    for (int t = 0; t < OT_TIERS; t++)
        p->spans += OT_LOAD(&h->spans_refused[t]);
    uint64_t open = OT_LOAD(&life->open_orders), beats = OT_LOAD_ACQUIRE(&life->beat_count);
    p->active_orders = open < UINT32_MAX ? (uint32_t)open : UINT32_MAX;
    p->market_age_ms = ot_age_ms(p->unix_ns, ot_market_newest());
    p->updates = ot_market_updates();
    p->orders = OT_LOAD(&life->orders);
    p->rejects = OT_LOAD(&life->rejects);
    p->queue = ot_queue_bits();
    bool read = OT_LOAD(&readings->ticks) != 0;
    p->cpu_load = read ? OT_LOAD(&readings->cpu_load) : OT_NAN_BITS;
    p->memory_load = read ? OT_LOAD(&readings->memory_load) : OT_NAN_BITS;
    for (uint32_t i = 0; i < OT_BEATS && i < beats; i++) {
        uint64_t beat = OT_LOAD(&life->beat_ns[i]), late = OT_LOAD(&life->beat_late_ns[i]);
        if (beat != 0 && late != 0 && mono_ns > beat && mono_ns - beat > late)
            p->late_beats |= 1U << i;
    }
}

void
ot_pulse_due(uint64_t mono_ns)
{
    uint32_t pid = OT_LOAD(&ot_rec.header->pid);
    if (at.pid == pid && at.last_ns != 0 && mono_ns - at.last_ns < PERIOD_NS)
        return;
    if (at.pid != pid)
        attach(pid);
    struct ot_pulse p = {.unix_ns = ot_nanoseconds(CLOCK_REALTIME)};
    look(&p, mono_ns);
    sum_up(&p, mono_ns);
    at.last_ns = mono_ns;
    struct ot_life *life = ot_rec.life;
    uint64_t n = OT_LOAD(&life->pulse_count);
    ot_word *to = (ot_word *)(void *)&ot_rec.pulses[n % OT_PULSES];
    const ot_word *from = (const ot_word *)(const void *)&p;
    OT_STORE(&to[0], 2 * n + 1);
    OT_FENCE_RELEASE();
    for (size_t i = 1; i < sizeof p / sizeof *to; i++)
        OT_STORE(&to[i], from[i]);
    OT_STORE_RELEASE(&to[0], 2 * n + 2);
    OT_STORE_RELEASE(&life->pulse_count, n + 1);
}
