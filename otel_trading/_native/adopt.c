#include "adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot.h"
#include "doubles.h"
#include "drain.h"
#include "governor.h"
#include "names.h"

#define GROWTH (1ULL << 30)      /* bytes of addresses for what the writer adds later */
#define BASELINE_NS 100000000ULL /* a calibration's least age, so that its rate is better than a new one's */
#define RATES_DIFFER 1e-3        /* then it is not of this clock */
#define MOST_SLOTS (1ULL << 24)
#define MOST_OPEN (1U << 20)
#define MOST_ARENA (1ULL << 30)

static struct {
    struct ot_header header; /* as it was checked */
    uint64_t needed;         /* bytes of the file that are used */
    uint64_t size;           /* bytes of it, as of the last look */
    uint64_t extents;        /* that were looked at */
    uint32_t damaged;        /* rings that were left out */
    struct ot_moment stored; /* the segment's calibration when it was adopted; mono_ns 0: none */
    int own_clock;
} adopted;

/* ---- the header ---- */

static bool
refused(const char *text)
{
    PyErr_SetString(PyExc_ValueError, text);
    return false;
}

static bool
inside(uint64_t offset, uint64_t bytes)
{
    uint64_t size = adopted.size < ot_rec.reserved || ot_rec.reserved == 0 ? adopted.size : ot_rec.reserved;
    return offset % 8 == 0 && offset >= OT_PAGE && bytes <= size && offset <= size - bytes;
}

static bool
region(const char *name, uint64_t offset, uint64_t bytes)
{
    if (!inside(offset, bytes)) {
        PyErr_Format(PyExc_ValueError, "truncated: the %s lie outside the file (%llu bytes)", name,
                     (unsigned long long)adopted.size);
        return false;
    }
    adopted.needed = offset + bytes > adopted.needed ? offset + bytes : adopted.needed;
    return true;
}

static bool
check_tables(const struct ot_header *h)
{
    if (h->header_bytes != sizeof *h)
        return refused("damaged: the header has another size than its version says");
    if (h->max_rings > OT_MAX_RINGS || h->max_probes != OT_MAX_PROBES || h->max_instruments != OT_MAX_INSTRUMENTS ||
        h->max_names < OT_NAME_FIRST || h->max_names > 65535 || h->resource_bytes > OT_RESOURCE_BYTES ||
        h->max_orders == 0 || h->max_orders > 1U << 20 || (h->max_orders & (h->max_orders - 1)) != 0 ||
        h->text_bytes > UINT32_MAX)
        return refused("damaged: a table has a size that no recorder gives it");
    return region("control page", h->control_offset, sizeof(struct ot_control)) &&
           region("accounts", h->accounts_offset, sizeof(struct ot_accounts)) &&
           region("policy", h->policy_offset, sizeof(struct ot_policy)) &&
           region("readings", h->readings_offset, sizeof(struct ot_readings)) &&
           region("decisions", h->decisions_offset, sizeof(struct ot_decision) * OT_DECISIONS) &&
           region("market data", h->markets_offset, sizeof(struct ot_market) * OT_MARKETS) &&
           region("life page", h->life_offset, sizeof(struct ot_life)) &&
           region("critical events", h->vitals_offset, sizeof(struct ot_vital) * OT_VITALS) &&
           region("pulses", h->pulses_offset, sizeof(struct ot_pulse) * OT_PULSES) &&
           region("progress", h->progress_offset, sizeof(struct ot_progress) * h->max_rings) &&
           region("ring headers", h->rings_offset, sizeof(struct ot_ring) * h->max_rings) &&
           region("probes", h->probes_offset, sizeof(struct ot_probe) * h->max_probes) &&
           region("instruments", h->instruments_offset, sizeof(struct ot_instrument) * h->max_instruments) &&
           region("names", h->names_offset, sizeof(struct ot_name) * h->max_names) &&
           region("texts", h->text_offset, h->text_bytes) &&
           region("orders", h->orders_offset, sizeof(struct ot_order) * h->max_orders);
}

/* 0; -1 with an exception set. */
static int
check_file(int fd)
{
    struct ot_header *h = &adopted.header;
    struct stat st;
    memset(&adopted, 0, sizeof adopted);
    if (fstat(fd, &st) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    adopted.size = S_ISREG(st.st_mode) && st.st_size > 0 ? (uint64_t)st.st_size : 0;
    ssize_t n = adopted.size >= sizeof h->magic ? pread(fd, h, sizeof *h, 0) : 0;
    if (n < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    bool good = n >= (ssize_t)sizeof h->magic && h->magic == OT_MAGIC;
    if (!good)
        return refused("foreign: not a segment of otel-trading") ? 0 : -1;
    if (n != (ssize_t)sizeof *h)
        return refused("truncated: the file ends within the header") ? 0 : -1;
    if (h->version == 0)
        return refused("damaged: the segment was never published; its process ended while it made it") ? 0 : -1;
    if (h->version != OT_VERSION) {
        PyErr_Format(PyExc_ValueError, "version: the segment has format %u, this release drains format %d",
                     (unsigned)h->version, OT_VERSION);
        return -1;
    }
    if (fstat(fd, &st) == 0) /* after the header: the file may grow, and says so before it does */
        adopted.size = (uint64_t)st.st_size;
    if (h->file_bytes > adopted.size) {
        PyErr_Format(PyExc_ValueError, "truncated: the file has %llu of its %llu bytes",
                     (unsigned long long)adopted.size, (unsigned long long)h->file_bytes);
        return -1;
    }
    adopted.needed = OT_PAGE;
    return check_tables(h) ? 0 : -1;
}

/* ---- rings ---- */

static bool
power_of_two(uint64_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* Slots that the file has room for: what lies between them and the marks, where a recorder has laid it out. */
static uint64_t
configured_of(uint64_t slots_offset, uint64_t marks_offset, uint64_t capacity)
{
    uint64_t slots = marks_offset > slots_offset ? (marks_offset - slots_offset) / sizeof(struct ot_slot) : 0;
    return power_of_two(slots) && slots >= capacity && slots <= MOST_SLOTS &&
                   inside(slots_offset, slots * sizeof(struct ot_slot))
               ? slots
               : capacity;
}

static void
need(uint64_t offset, uint64_t bytes)
{
    adopted.needed = offset + bytes > adopted.needed ? offset + bytes : adopted.needed;
}

bool
ot_adopt_ring(uint32_t i)
{
    struct ot_writer *w = &ot_writers[i];
    memset(w, 0, sizeof *w);
    if (i >= adopted.header.max_rings)
        return false;
    struct ot_ring *ring = &ot_rec.rings[i];
    uint64_t slots_at = OT_LOAD(&ring->slots_offset), open_at = OT_LOAD(&ring->open_offset),
             arena_at = OT_LOAD(&ring->arena_offset), marks_at = OT_LOAD(&ring->marks_offset),
             arena = OT_LOAD(&ring->arena_bytes), capacity = OT_LOAD(&ring->capacity);
    uint32_t open = OT_LOAD(&ring->open_capacity);
    struct stat st;
    if (fstat(ot_rec.fd, &st) == 0)
        adopted.size = (uint64_t)st.st_size;
    if (!power_of_two(capacity) || capacity > MOST_SLOTS || open > MOST_OPEN || !power_of_two(arena) ||
        arena < OT_PAGE || arena > MOST_ARENA || !inside(slots_at, capacity * sizeof(struct ot_slot)) ||
        !inside(open_at, (uint64_t)open * sizeof(struct ot_slot)) || !inside(arena_at, arena)) {
        adopted.damaged++;
        return false;
    }
    uint64_t configured = configured_of(slots_at, marks_at, capacity);
    if (!inside(marks_at, configured)) {
        adopted.damaged++;
        return false;
    }
    need(slots_at, configured * sizeof(struct ot_slot));
    need(open_at, (uint64_t)open * sizeof(struct ot_slot));
    need(arena_at, arena);
    need(marks_at, configured);
    w->slots = (struct ot_slot *)(void *)(ot_rec.base + slots_at);
    w->open = (struct ot_slot *)(void *)(ot_rec.base + open_at);
    w->arena = ot_rec.base + arena_at;
    w->marks = ot_rec.base + marks_at;
    w->mask = capacity - 1;
    w->configured = (uint32_t)configured;
    w->arena_mask = arena - 1;
    w->open_capacity = w->entries = open;
    w->ring = ring;
    return true;
}

bool
ot_adopt_resized(uint32_t i)
{
    struct ot_writer *w = &ot_writers[i];
    uint64_t capacity = OT_LOAD_ACQUIRE(&w->ring->capacity);
    if (!ot_rec.adopted)
        return true;
    if (!power_of_two(capacity) || capacity > w->configured) {
        w->ring = NULL;
        adopted.damaged++;
        return false;
    }
    w->mask = capacity - 1;
    return true;
}

void
ot_adopt_extents(void)
{
    const struct ot_header *h = ot_rec.header;
    uint32_t count = OT_LOAD_ACQUIRE(&h->extent_count);
    for (; adopted.extents < count && adopted.extents < OT_MAX_EXTENTS; adopted.extents++) {
        uint64_t offset = OT_LOAD(&h->extent_offset[adopted.extents]);
        unsigned ring = OT_LOAD(&h->extent_ring[adopted.extents]);
        uint64_t bytes = OT_EXTENT_ENTRIES * sizeof(struct ot_slot);
        struct stat st;
        if (fstat(ot_rec.fd, &st) == 0)
            adopted.size = (uint64_t)st.st_size;
        if (ring >= ot_drain.rings || ot_writers[ring].ring == NULL || !inside(offset, bytes))
            continue;
        need(offset, bytes);
        struct ot_writer *w = &ot_writers[ring];
        w->extent[w->extents++] = (struct ot_slot *)(void *)(ot_rec.base + offset);
        w->entries = w->open_capacity + w->extents * OT_EXTENT_ENTRIES;
    }
}

uint32_t
ot_adopt_damaged(void)
{
    return adopted.damaged;
}

bool
ot_adopt_whole(void)
{
    struct stat st;
    return fstat(ot_rec.fd, &st) == 0 && st.st_size > 0 && (uint64_t)st.st_size >= adopted.needed;
}

/* ---- the clock ---- */

static void
set_clock(void)
{
    const struct ot_header *h = &adopted.header;
    uint64_t boot[2];
    ot_boot_id(boot);
    adopted.own_clock = ot_clock_kind;
    bool other_boot = (h->boot_id[0] | h->boot_id[1]) != 0 && (boot[0] | boot[1]) != 0 &&
                      (h->boot_id[0] != boot[0] || h->boot_id[1] != boot[1]);
    if (h->clock == OT_CLOCK_MONOTONIC_NS && !other_boot)
        ot_clock_kind = OT_CLOCK_MONOTONIC_NS; /* which every process has */
    ot_rec.foreign = other_boot || h->clock != (uint32_t)ot_clock_kind;
    struct ot_calibration c;
    ot_drain_calibration(&c);
    if (!(c.ns_per_tick > 1e-6 && c.ns_per_tick < 1e6))
        c.ns_per_tick = 1.0;
    if (c.anchor.unix_ns > INT64_MAX / 2)
        c.anchor.unix_ns = 0;
    adopted.stored = c.anchor;
    ot_drain.calibration = c;
}

void
ot_adopt_calibrate(struct ot_calibration *c)
{
    const struct ot_moment *before = &adopted.stored;
    if (ot_clock_kind == OT_CLOCK_MONOTONIC_NS || before->mono_ns == 0 ||
        c->anchor.mono_ns < before->mono_ns + BASELINE_NS || c->anchor.ticks <= before->ticks)
        return;
    double rate = (double)(c->anchor.mono_ns - before->mono_ns) / (double)(c->anchor.ticks - before->ticks);
    if (fabs(rate / c->ns_per_tick - 1) < RATES_DIFFER)
        c->ns_per_tick = rate;
}

uint64_t
ot_adopt_end(const struct ot_slot *e, uint64_t now)
{
    if (!ot_rec.foreign)
        return now;
    uint64_t last = OT_LOAD(&ot_rec.control->heartbeat);
    return e->flags & OT_FLAG_START_UNIX || last > e->start ? last : e->start;
}

/* ---- life ---- */

static int
map_file(int fd)
{
    ot_rec.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (ot_rec.fd < 0)
        return errno;
    void *base = MAP_FAILED;
    for (uint64_t growth = GROWTH; base == MAP_FAILED; growth = 0) {
        ot_rec.reserved = (adopted.size + OT_PAGE - 1) / OT_PAGE * OT_PAGE + growth;
        base = mmap(NULL, ot_rec.reserved, PROT_READ | PROT_WRITE, MAP_SHARED, ot_rec.fd, 0);
        if (base == MAP_FAILED && growth == 0) {
            int error = errno;
            ot_recorder_unmap();
            return error;
        }
    }
    ot_recorder_point(base, &adopted.header);
    return 0;
}

static void
take_settings(void)
{
    const struct ot_header *h = &adopted.header;
    ot_rec.settings = (struct ot_settings){.main_slots = 0,
                                           .max_names = h->max_names,
                                           .max_orders = h->max_orders,
                                           .attribute_limit = h->attribute_limit,
                                           .event_limit = h->event_limit,
                                           .link_limit = h->link_limit,
                                           .event_attribute_limit = h->attribute_limit,
                                           .link_attribute_limit = h->attribute_limit,
                                           .value_length = OT_NO_LIMIT,
                                           .event_value_length = OT_NO_LIMIT};
    ot_rec.opened_unix_ns = ot_nanoseconds(CLOCK_REALTIME);
}

PyObject *
ot_adopt(PyObject *Py_UNUSED(module), PyObject *number)
{
    int fd = PyObject_AsFileDescriptor(number);
    if (fd < 0)
        return NULL;
    ot_adopt_drop();
    if (ot_rec.base != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a segment is open already");
        return NULL;
    }
    ot_rec.reserved = 0;
    if (check_file(fd) < 0)
        return NULL;
    int error = map_file(fd);
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    ot_rec.adopted = true;
    ot_rec.inherited = false;
    take_settings();
    set_clock();
    ot_names_adopt();
    ot_drain_open();
    ot_governor_open();
    OT_STORE(&ot_rec.mapped, ++ot_rec.epochs);
    Py_RETURN_NONE;
}

void
ot_adopt_forget(void)
{
    if (!ot_rec.adopted)
        return;
    ot_names_own();
    ot_clock_kind = adopted.own_clock;
    ot_rec.epochs++; /* names of batches that are still there are not to be had any more */
    ot_rec.adopted = ot_rec.inherited = ot_rec.foreign = false;
    ot_drain_forked(); /* what was aggregated is of its probes */
}

void
ot_adopt_drop(void)
{
    if (!ot_rec.adopted || ot_rec.mapped != OT_CLOSED || ot_rec.base == NULL)
        return;
    ot_governor_forked();
    ot_recorder_unmap();
    ot_rings_forget();
    ot_adopt_forget();
}

PyObject *
ot_let_go(PyObject *module, PyObject *ignored)
{
    if (!ot_rec.adopted || ot_rec.inherited)
        Py_RETURN_NONE;
    ot_adopt_drop();
    return ot_close(module, ignored);
}

PyObject *
ot_inherit(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (!ot_rec.adopted || ot_rec.mapped == OT_CLOSED) {
        PyErr_SetString(PyExc_RuntimeError, "no segment is adopted");
        return NULL;
    }
    if (ot_rec.inherited)
        Py_RETURN_NONE;
    ot_drain_lock();
    uint32_t rings = ot_drain_rings();
    for (uint32_t i = 0; i < rings; i++) {
        if (ot_writers[i].ring != NULL)
            ot_ring_entries(&ot_writers[i]);
    }
    ot_drain_unlock();
    ot_rec.inherited = true;
    ot_names_inherit();
    OT_STORE(&ot_rec.epoch, ot_rec.mapped);
    Py_RETURN_NONE;
}

PyObject *
ot_adopted(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(ot_rec.adopted && ot_rec.mapped != OT_CLOSED);
}
