#include "look.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "process.h"

#define FARTHEST ((uint64_t)1 << 20) /* where a page may be: they follow the header */
#define NS_PER_MS 1000000

struct entry { /* struct linux_dirent64 */
    uint64_t inode;
    int64_t next;
    uint16_t bytes;
    uint8_t type;
    char name[];
};

int64_t
wd_now_ns(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int
wd_open_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    if (fd < 0) {
        return -1;
    }
    if (fstat(fd, &status) < 0 || status.st_uid != geteuid() || (status.st_mode & (S_IRWXG | S_IRWXO))) {
        close(fd);
        errno = ENOTDIR;
        return -1;
    }
    return fd;
}

/* O_NONBLOCK: a pipe that somebody has planted must not be waited for. */
static int
open_own(int directory, const char *name, int flags, uint64_t *bytes)
{
    int fd = openat(directory, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat status;
    if (fd < 0) {
        return -1;
    }
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_uid != geteuid()) {
        close(fd);
        return -1;
    }
    *bytes = (uint64_t)status.st_size;
    return fd;
}

static int
read_at(int fd, void *to, size_t bytes, uint64_t offset)
{
    return pread(fd, to, bytes, (off_t)offset) == (ssize_t)bytes;
}

/* ---- the agent ---- */

int
wd_open_page(int directory)
{
    uint64_t bytes;
    return open_own(directory, "agent.page", O_RDWR, &bytes);
}

int
wd_read_page(int page, struct ot_agent *agent)
{
    return read_at(page, agent, sizeof(*agent), 0) && agent->magic == OT_AGENT_MAGIC &&
           agent->version == OT_AGENT_VERSION && agent->pid > 1 && agent->pid <= INT32_MAX;
}

void
wd_write_page(int page, uint64_t pid, uint64_t beat_ns, uint64_t restarts, uint64_t gave_up)
{
    const uint64_t ours[4] = {pid, beat_ns, restarts, gave_up};
    _Static_assert(offsetof(struct ot_agent, gave_up) == offsetof(struct ot_agent, watchdog_pid) + 24, "in a row");
    struct ot_agent agent;
    if (wd_read_page(page, &agent)) { /* never into what is something else */
        (void)!pwrite(page, ours, sizeof(ours), offsetof(struct ot_agent, watchdog_pid));
    }
}

/* ---- a segment ---- */

static uint64_t
hash_of(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (; *name; name++) {
        hash = (hash ^ (uint8_t)*name) * 0x100000001b3ULL;
    }
    return hash;
}

static void
plain(char *to, const uint8_t *from, size_t bytes)
{
    size_t n = bytes < WD_NAME_BYTES - 1 ? bytes : WD_NAME_BYTES - 1;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = from[i];
        to[i] = c < 0x20 || c > 0x7e || c == '"' || c == '\\' ? '_' : (char)c;
    }
    to[n] = 0;
}

/* A segment's file is called SERVICE-PID-TIME.seg. */
static void
service_of(char *to, const char *name)
{
    size_t end = strlen(name);
    for (int dashes = 0; end > 0 && dashes < 2; end--) {
        dashes += name[end - 1] == '-';
    }
    plain(to, (const uint8_t *)name, end ? end : strlen(name));
}

static void
name_of(char *to, int fd, const struct ot_header *h, uint32_t id, uint64_t file_bytes)
{
    struct ot_name name;
    uint8_t text[WD_NAME_BYTES];
    plain(to, (const uint8_t *)"?", 1);
    if (id >= h->max_names || h->names_offset > file_bytes || h->text_offset > file_bytes ||
        !read_at(fd, &name, sizeof(name), h->names_offset + (uint64_t)id * sizeof(name)) || name.bytes == 0) {
        return;
    }
    size_t bytes = name.bytes < sizeof(text) ? name.bytes : sizeof(text);
    if (name.offset <= h->text_bytes && bytes <= h->text_bytes - name.offset &&
        read_at(fd, text, bytes, h->text_offset + name.offset)) {
        plain(to, text, bytes);
    }
}

static int
same_boot(const struct ot_header *h)
{
    static uint64_t boot[2];
    static int known;
    if (!known) {
        char text[40] = "", digits[33] = "";
        int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
        size_t count = 0;
        if (fd >= 0) {
            close(fd);
        }
        for (ssize_t i = 0; i < n && count < 32; i++) {
            if (text[i] != '-') {
                digits[count++] = text[i];
            }
        }
        unsigned long long high = 0, low = 0;
        if (count == 32 && sscanf(digits, "%16llx%16llx", &high, &low) == 2) {
            boot[0] = high;
            boot[1] = low;
        }
        known = 1;
    }
    int theirs = h->boot_id[0] || h->boot_id[1], ours = boot[0] || boot[1];
    return !theirs || !ours || (h->boot_id[0] == boot[0] && h->boot_id[1] == boot[1]);
}

static int
page_fits(uint64_t offset, uint64_t bytes, uint64_t file_bytes)
{
    return offset % OT_PAGE == 0 && offset >= OT_PAGE && offset <= FARTHEST && offset + bytes <= file_bytes;
}

static int64_t
beat_age_ms(const struct ot_life *life, int i, int64_t now)
{
    int64_t beat = (int64_t)life->beat_ns[i];
    return beat > 0 && beat < now ? (now - beat) / NS_PER_MS : 0;
}

static int64_t
beat_limit_ms(const struct ot_life *life, int i)
{
    uint64_t late = life->beat_late_ns[i];
    return late > (uint64_t)INT64_MAX ? INT64_MAX / NS_PER_MS : (int64_t)(late / NS_PER_MS);
}

/* The control page's words from host to passes. */
struct steering {
    uint64_t host, host_now, drained_by, can_take_back, reserved[4], heartbeat, passes;
};
_Static_assert(offsetof(struct ot_control, passes) - offsetof(struct ot_control, host) ==
                   offsetof(struct steering, passes),
               "the same words");

static void
tell_drain(struct wd_rules *r, const struct steering *c, uint64_t key, char state, struct wd_label *label)
{
    enum wd_kind kind = WD_DRAIN_MISSING;
    uint64_t start;
    if (c->drained_by) {
        kind = c->host_now == OT_HOST_AGENT ? WD_DRAIN_AGENT : WD_DRAIN_EMBEDDED;
        if (kind == WD_DRAIN_AGENT && state) { /* asked for only when it may be late */
            state = c->drained_by <= INT32_MAX ? wd_process_state((pid_t)c->drained_by, &start) : 0;
        }
    }
    else if (c->host != OT_HOST_AGENT) {
        return; /* it is just beginning, or ending */
    }
    wd_subject(r, kind, key, (int64_t)(c->passes & INT64_MAX), 0, state == 'T' || state == 't', label);
}

int
wd_look_at_segment(int fd, const char *name, struct wd_rules *r)
{
    static struct ot_header h; /* static: 4 kB that the stack need not grow by */
    struct steering c;
    struct ot_life life;
    struct stat status;

    if (fstat(fd, &status) < 0 || !read_at(fd, &h, sizeof(h), 0)) {
        return 0;
    }
    uint64_t bytes = (uint64_t)status.st_size;
    if (h.magic != OT_MAGIC || h.version != OT_VERSION || h.closed || h.pid <= 1 || h.pid > INT32_MAX ||
        !same_boot(&h) || !page_fits(h.control_offset, sizeof(struct ot_control), bytes) ||
        !page_fits(h.life_offset, sizeof(life), bytes) ||
        !read_at(fd, &c, sizeof(c), h.control_offset + offsetof(struct ot_control, host)) ||
        !read_at(fd, &life, sizeof(life), h.life_offset)) {
        return 0;
    }
    int64_t now = wd_now_ns();
    uint64_t key = hash_of(name);
    int loops = life.beat_count < OT_BEATS ? (int)life.beat_count : OT_BEATS;
    int doubt = wd_passed(r, key, (int64_t)(c.passes & INT64_MAX)) != 1;
    for (int i = 0; i < loops; i++) {
        doubt |= life.beat_ns[i] && beat_age_ms(&life, i, now) > beat_limit_ms(&life, i);
    }
    char state = 0;
    if (doubt) { /* else it is alive, as something goes on */
        uint64_t start;
        state = wd_process_state((pid_t)h.pid, &start);
        if (!state || state == 'Z' || state == 'X' || state == 'x' || (h.process_start && h.process_start != start)) {
            return 1;
        }
    }
    struct wd_label label = {.pid = h.pid};
    service_of(label.service, name);
    tell_drain(r, &c, key, state, &label);
    for (int i = 0; i < loops; i++) {
        uint64_t own = key ^ (0x9e3779b97f4a7c15ULL * (uint64_t)(i + 1));
        if (!life.beat_ns[i]) {
            continue; /* it rests, or has ended */
        }
        if (wd_passed(r, own, 0) < 0) {
            name_of(label.name, fd, &h, life.beat_name[i], bytes);
        }
        wd_subject(r, WD_LOOP, own, beat_age_ms(&life, i, now), beat_limit_ms(&life, i), state == 'T' || state == 't',
                   &label);
    }
    return 1;
}

static int
is_segment(const char *name)
{
    size_t bytes = strnlen(name, 256);
    return bytes > 4 && bytes < 256 && memcmp(name + bytes - 4, ".seg", 4) == 0;
}

int
wd_look_at_segments(int directory, struct wd_rules *r)
{
    static _Alignas(8) char entries[4096];
    int found = 0, seen = 0;
    if (lseek(directory, 0, SEEK_SET) < 0) {
        return 0;
    }
    for (;;) {
        long bytes = syscall(SYS_getdents64, directory, entries, sizeof(entries));
        if (bytes <= 0) {
            return found;
        }
        for (long at = 0; at < bytes;) {
            const struct entry *e = (const struct entry *)(entries + at);
            at += e->bytes;
            if (++seen > WD_MAX_ENTRIES || found >= WD_MAX_SEGMENTS) {
                return found;
            }
            uint64_t size;
            int fd = is_segment(e->name) ? open_own(directory, e->name, O_RDONLY, &size) : -1;
            if (fd >= 0) {
                found += wd_look_at_segment(fd, e->name, r);
                close(fd);
            }
        }
    }
}
