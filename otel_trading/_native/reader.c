/* Everything is fetched with pread into buffers of fixed size, so a file that shrinks gives a short read
 * and never a signal; every offset and count is checked against the file's size first. */
#include "reader.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocks.h"
#include "doubles.h"
#include "spanstate.h"

#define BATCH 128
#define NAMES_TOTAL (8U << 20) /* bytes that the names read so far may take; a real table's take less */
#define CALL_BYTES \
    (256U << 20) /* of arena blocks that one call reads, however often a damaged file counts the same ones */

/* ---- fetching ---- */

bool
ot_reader_fetch(const ot_reader *r, uint64_t offset, void *to, size_t bytes)
{
    if (r->fd < 0 || offset > r->bytes || bytes > r->bytes - offset)
        return false;
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(r->fd, (char *)to + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static void
refresh_size(ot_reader *r)
{
    struct stat st;
    r->bytes = r->fd >= 0 && fstat(r->fd, &st) == 0 && st.st_size > 0 ? (uint64_t)st.st_size : 0;
}

static bool
refused(const char *text)
{
    PyErr_SetString(PyExc_ValueError, text);
    return false;
}

static bool
region(const ot_reader *r, const char *name, uint64_t offset, uint64_t bytes)
{
    if (offset % 8 != 0 || offset < OT_PAGE || bytes > r->bytes || offset > r->bytes - bytes) {
        PyErr_Format(PyExc_ValueError, "truncated: the %s lie outside the file (%llu bytes)", name,
                     (unsigned long long)r->bytes);
        return false;
    }
    return true;
}

static bool
check_header(const ot_reader *r)
{
    const struct ot_header *h = &r->head;
    if (h->header_bytes != sizeof *h)
        return refused("damaged: the header has another size than its version says");
    if (h->max_rings > OT_MAX_RINGS || h->max_probes > OT_MAX_PROBES || h->max_instruments > OT_MAX_INSTRUMENTS ||
        h->max_names > 65535 || h->resource_bytes > OT_RESOURCE_BYTES || h->max_orders > 1U << 20 ||
        (h->max_orders & (h->max_orders - 1)) != 0)
        return refused("damaged: a table is larger than the format allows");
    return region(r, "control page", h->control_offset, sizeof(struct ot_control)) &&
           region(r, "accounts", h->accounts_offset, sizeof(struct ot_accounts)) &&
           region(r, "policy", h->policy_offset, sizeof(struct ot_policy)) &&
           region(r, "readings", h->readings_offset, sizeof(struct ot_readings)) &&
           region(r, "decisions", h->decisions_offset, sizeof(struct ot_decision) * OT_DECISIONS) &&
           region(r, "market data", h->markets_offset, sizeof(struct ot_market) * OT_MARKETS) &&
           region(r, "life page", h->life_offset, sizeof(struct ot_life)) &&
           region(r, "critical events", h->vitals_offset, sizeof(struct ot_vital) * OT_VITALS) &&
           region(r, "pulses", h->pulses_offset, sizeof(struct ot_pulse) * OT_PULSES) &&
           region(r, "progress", h->progress_offset, sizeof(struct ot_progress) * h->max_rings) &&
           region(r, "ring headers", h->rings_offset, sizeof(struct ot_ring) * h->max_rings) &&
           region(r, "probes", h->probes_offset, sizeof(struct ot_probe) * h->max_probes) &&
           region(r, "instruments", h->instruments_offset, sizeof(struct ot_instrument) * h->max_instruments) &&
           region(r, "names", h->names_offset, sizeof(struct ot_name) * h->max_names) &&
           region(r, "texts", h->text_offset, h->text_bytes) &&
           region(r, "orders", h->orders_offset, sizeof(struct ot_order) * h->max_orders);
}

static bool
attach(ot_reader *r)
{
    refresh_size(r);
    uint64_t magic = 0;
    if (r->bytes < sizeof magic || !ot_reader_fetch(r, 0, &magic, sizeof magic) || magic != OT_MAGIC)
        return refused("foreign: not a segment of otel-trading");
    if (!ot_reader_fetch(r, 0, &r->head, sizeof r->head))
        return refused("truncated: the file ends within the header");
    if (r->head.version == 0)
        return refused("damaged: the segment was never published; its process ended while it made it");
    if (r->head.version != OT_VERSION) {
        PyErr_Format(PyExc_ValueError, "version: the segment has format %u, this release reads format %d",
                     (unsigned)r->head.version, OT_VERSION);
        return false;
    }
    refresh_size(r); /* after the header: the file may grow, and says so before it does */
    if (r->head.file_bytes > r->bytes) {
        PyErr_Format(PyExc_ValueError, "truncated: the file has %llu of its %llu bytes", (unsigned long long)r->bytes,
                     (unsigned long long)r->head.file_bytes);
        return false;
    }
    return check_header(r);
}

/* The counts that grow; whatever they say, the geometry stays what was checked. */
void
ot_reader_refresh(ot_reader *r)
{
    struct ot_header now;
    refresh_size(r);
    if (!ot_reader_fetch(r, 0, &now, sizeof now))
        return;
    struct ot_header *h = &r->head;
    h->ring_count = now.ring_count < h->max_rings ? now.ring_count : h->max_rings;
    h->probe_count = now.probe_count < h->max_probes ? now.probe_count : h->max_probes;
    h->instrument_count = now.instrument_count < h->max_instruments ? now.instrument_count : h->max_instruments;
    h->name_count = now.name_count < h->max_names ? now.name_count : h->max_names;
    h->names_refused = now.names_refused;
    h->faults = now.faults;
    h->closed = now.closed;
    h->extent_count = now.extent_count < OT_MAX_EXTENTS ? now.extent_count : OT_MAX_EXTENTS;
    memcpy(h->extent_offset, now.extent_offset, sizeof h->extent_offset);
    memcpy(h->extent_ring, now.extent_ring, sizeof h->extent_ring);
    memcpy(h->spans_refused, now.spans_refused, sizeof h->spans_refused);

    struct ot_control c;
    for (int i = 0; i < 100 && ot_reader_fetch(r, h->control_offset, &c, sizeof c); i++) {
        uint64_t again = 0;
        if (c.calibration % 2 == 0 &&
            ot_reader_fetch(r, h->control_offset + offsetof(struct ot_control, calibration), &again, sizeof again) &&
            again == c.calibration) {
            r->calibration.anchor = (struct ot_moment){c.anchor_ticks, c.anchor_mono_ns, c.anchor_unix_ns};
            r->calibration.ns_per_tick = ot_double_of(c.ns_per_tick);
            break;
        }
    }
    if (!(r->calibration.ns_per_tick > 1e-6 && r->calibration.ns_per_tick < 1e6))
        r->calibration.ns_per_tick = 1.0;
    if (r->calibration.anchor.unix_ns > INT64_MAX / 2)
        r->calibration.anchor.unix_ns = 0;
}

/* A ring's header, checked. */
bool
ot_reader_ring(const ot_reader *r, uint32_t i, struct ot_ring *ring)
{
    if (!ot_reader_fetch(r, r->head.rings_offset + (uint64_t)i * sizeof *ring, ring, sizeof *ring))
        return false;
    uint64_t capacity = ring->capacity, arena = ring->arena_bytes;
    if (capacity == 0 || (capacity & (capacity - 1)) != 0 || capacity > 1U << 24 || ring->open_capacity > 1U << 20 ||
        arena == 0 || (arena & (arena - 1)) != 0 || arena > 1U << 30)
        return false;
    uint64_t slots = capacity * sizeof(struct ot_slot), open = (uint64_t)ring->open_capacity * sizeof(struct ot_slot);
    return ring->slots_offset % 8 == 0 && slots <= r->bytes && ring->slots_offset <= r->bytes - slots &&
           ring->open_offset % 8 == 0 && open <= r->bytes && ring->open_offset <= r->bytes - open &&
           ring->arena_offset % 8 == 0 && arena <= r->bytes && ring->arena_offset <= r->bytes - arena;
}

PyObject *
ot_reader_name(void *context, uint32_t id)
{
    ot_reader *r = context;
    PyObject *key = PyLong_FromUnsignedLong(id);
    if (key == NULL)
        return NULL;
    PyObject *known = PyDict_GetItemWithError(r->names, key);
    if (known != NULL || PyErr_Occurred()) {
        Py_DECREF(key);
        return Py_XNewRef(known);
    }
    if (id >= r->head.name_count)
        ot_reader_refresh(r); /* published since */
    struct ot_name entry;
    char text[OT_NAME_BYTES];
    PyObject *name = NULL;
    bool stored = false;
    if (id < r->head.name_count && r->name_bytes < NAMES_TOTAL &&
        ot_reader_fetch(r, r->head.names_offset + (uint64_t)id * sizeof entry, &entry, sizeof entry) &&
        entry.bytes <= sizeof text && entry.bytes <= r->head.text_bytes &&
        entry.offset <= r->head.text_bytes - entry.bytes &&
        ot_reader_fetch(r, r->head.text_offset + entry.offset, text, entry.bytes)) {
        name = PyUnicode_DecodeUTF8(text, (Py_ssize_t)entry.bytes, "replace");
        r->name_bytes += entry.bytes + 96;
        stored = name != NULL && PyDict_SetItem(r->names, key, name) == 0;
        if (!stored)
            Py_CLEAR(name);
    }
    else {
        name = PyUnicode_FromString("other");
    }
    Py_DECREF(key);
    return name;
}

/* ---- spans ---- */

static bool
have_room(ot_reader *r, size_t bytes)
{
    if (bytes <= r->room)
        return true;
    size_t room = bytes < OT_RECORD_BYTES / 2 ? bytes * 2 : OT_RECORD_BYTES;
    uint8_t *bigger = bytes <= OT_RECORD_BYTES ? PyMem_Realloc(r->blocks, room) : NULL;
    if (bigger == NULL)
        return false;
    r->blocks = bigger;
    r->room = room;
    return true;
}

/* A span's arena blocks into r->blocks, newest first, as ot_span_state wants them; how many bytes. */
static size_t
fetch_blocks(ot_reader *r, uint32_t index, const struct ot_ring *ring, uint64_t newest)
{
    size_t used = 0, ends[OT_MAX_BLOCKS];
    uint64_t positions[OT_MAX_BLOCKS], at = newest;
    unsigned n = 0;
    while (at != 0 && n < OT_MAX_BLOCKS) {
        struct ot_block b;
        uint64_t position = at - 1, offset = position & (ring->arena_bytes - 1);
        if (offset + sizeof b > ring->arena_bytes || !ot_reader_fetch(r, ring->arena_offset + offset, &b, sizeof b))
            break;
        size_t whole = ot_block_whole(b.bytes);
        /* blocks of one span lie one after the other: however they are chained, they are no more than the arena has */
        if (b.position != position || b.bytes > OT_BLOCK_BYTES || offset + sizeof b + b.bytes > ring->arena_bytes ||
            (n > 0 && (position + whole > positions[n - 1])) || !have_room(r, used + whole) ||
            !ot_reader_fetch(r, ring->arena_offset + offset + sizeof b, r->blocks + used + sizeof b, b.bytes))
            break;
        memcpy(r->blocks + used, &b, sizeof b);
        used += whole;
        positions[n] = position;
        ends[n++] = used;
        if (b.previous >= at)
            break;
        at = b.previous;
    }
    r->fetched += used;
    /* what the writer has reached since may have been copied half new */
    struct ot_ring now;
    if (n == 0 || !ot_reader_fetch(r, r->head.rings_offset + (uint64_t)index * sizeof now, &now, sizeof now))
        return 0;
    unsigned good = 0;
    while (good < n && now.arena_head - positions[good] <= ring->arena_bytes)
        good++;
    return good == 0 ? 0 : ends[good - 1];
}

/* Can a recorder have written this?  What it can not have is damaged. */
static bool
plausible(ot_reader *r, const struct ot_slot *s)
{
    if (s->probe >= r->head.probe_count)
        ot_reader_refresh(r); /* published since */
    return s->probe < r->head.probe_count && s->tier < OT_TIERS && s->status <= OT_STATUS_ERROR &&
           s->count <= OT_INLINE_ATTRIBUTES;
}

/* Unix times are below 2^63 whatever the file says. */
static uint64_t
bounded(uint64_t unix_ns)
{
    return unix_ns <= INT64_MAX ? unix_ns : 0;
}

static PyObject *
state_of(ot_reader *r, uint32_t index, const struct ot_ring *ring, const struct ot_slot *s, bool open)
{
    size_t bytes = s->extra && s->arena != 0 && r->fetched < CALL_BYTES ? fetch_blocks(r, index, ring, s->arena) : 0;
    struct ot_limits limits = {r->head.attribute_limit, r->head.event_limit, r->head.link_limit};
    uint64_t start = s->flags & OT_FLAG_START_UNIX ? bounded(s->start) : ot_unix_ns(&r->calibration, s->start);
    uint64_t end = s->flags & OT_FLAG_END_UNIX ? bounded(s->end) : ot_unix_ns(&r->calibration, s->end);
    return ot_span_state(s, start, open ? 0 : end, r->blocks, bytes, &limits, ot_reader_name, r);
}

/* The slot that the writer comes to next: it has not begun while the slot still has record n's number. */
static bool
still(const ot_reader *r, const struct ot_ring *ring, uint64_t n)
{
    uint64_t seq;
    uint64_t offset = ring->slots_offset + (n & (ring->capacity - 1)) * sizeof(struct ot_slot);
    return ot_reader_fetch(r, offset, &seq, sizeof seq) && seq == 2 * n + 2;
}

/* Up to `limit` spans of one ring to `list`; 0, or -1 with an exception set. */
static int
read_ring(ot_reader *r, uint32_t index, Py_ssize_t limit, PyObject *list)
{
    struct ot_ring ring;
    struct ot_slot batch[BATCH];
    if (!ot_reader_ring(r, index, &ring))
        return 0;
    uint64_t *next = &r->rings[index].next, capacity = ring.capacity;
    if (*next > ring.head)
        return 0;
    if (*next < ring.resized && ring.resized <= ring.head) { /* the ring has another size than it had then */
        r->missed += ring.resized - *next;
        *next = ring.resized;
    }
    if (ring.head - *next > capacity) {
        r->missed += ring.head - capacity - *next;
        *next = ring.head - capacity;
    }
    while (*next < ring.head && PyList_GET_SIZE(list) < limit && r->fetched < CALL_BYTES) {
        uint64_t place = *next & (capacity - 1), count = ring.head - *next;
        count = count < BATCH ? count : BATCH;
        count = count < capacity - place ? count : capacity - place;
        uint64_t left = (uint64_t)(limit - PyList_GET_SIZE(list));
        count = count < left ? count : left;
        struct ot_ring after;
        if (!ot_reader_fetch(r, ring.slots_offset + place * sizeof *batch, batch, count * sizeof *batch))
            return 0;
        OT_FENCE_ACQUIRE();
        if (!ot_reader_fetch(r, r->head.rings_offset + (uint64_t)index * sizeof after, &after, sizeof after))
            return 0;
        for (uint64_t i = 0; i < count && r->fetched < CALL_BYTES; i++) {
            uint64_t n = (*next)++;
            if (after.head > n + capacity || (after.head == n + capacity && !still(r, &ring, n))) {
                r->missed++; /* the writer has come round to this slot */
                continue;
            }
            if (batch[i].seq != 2 * n + 2) {
                r->torn++;
                continue;
            }
            if (batch[i].state == OT_SLOT_VALUE)
                continue;
            if (batch[i].state != OT_SLOT_SPAN || !plausible(r, &batch[i])) {
                r->torn++;
                continue;
            }
            PyObject *state = state_of(r, index, &ring, &batch[i], false);
            int failed = state == NULL || PyList_Append(list, state) < 0;
            Py_XDECREF(state);
            if (failed)
                return -1;
        }
    }
    return 0;
}

static bool
begin(ot_reader *r)
{
    if (r->busy) {
        PyErr_SetString(PyExc_RuntimeError, "this reader is reading already, in a finalizer's way");
        return false;
    }
    r->busy = true;
    r->fetched = 0;
    ot_reader_refresh(r);
    return true;
}

static PyObject *
reader_read(PyObject *self, PyObject *limit)
{
    ot_reader *r = (ot_reader *)self;
    Py_ssize_t want = PyLong_AsSsize_t(limit);
    if (want == -1 && PyErr_Occurred())
        return NULL;
    if (!begin(r))
        return NULL;
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < r->head.ring_count && PyList_GET_SIZE(list) < want; i++) {
        if (read_ring(r, i, want, list) < 0)
            Py_CLEAR(list);
    }
    r->busy = false;
    return list;
}

/* The open spans of a table, or of a piece of one, that belongs to a ring. */
static int
read_open(ot_reader *r, uint32_t index, uint64_t table, uint32_t capacity, PyObject *list)
{
    struct ot_ring ring;
    struct ot_slot batch[BATCH], again[BATCH];
    if (!ot_reader_ring(r, index, &ring))
        return 0;
    for (uint32_t at = 0; at < capacity; at += BATCH) {
        uint32_t count = capacity - at < BATCH ? capacity - at : BATCH;
        uint64_t offset = table + (uint64_t)at * sizeof *batch;
        if (!ot_reader_fetch(r, offset, batch, count * sizeof *batch) ||
            !ot_reader_fetch(r, offset, again, count * sizeof *batch))
            return 0;
        for (uint32_t i = 0; i < count; i++) {
            if (batch[i].state != OT_SLOT_OPEN || batch[i].seq % 2 != 0 || again[i].seq != batch[i].seq ||
                !plausible(r, &batch[i]))
                continue;
            PyObject *state = state_of(r, index, &ring, &batch[i], true);
            int failed = state == NULL || PyList_Append(list, state) < 0;
            Py_XDECREF(state);
            if (failed)
                return -1;
        }
    }
    return 0;
}

static PyObject *
reader_open_spans(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_reader *r = (ot_reader *)self;
    if (!begin(r))
        return NULL;
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < r->head.ring_count; i++) {
        struct ot_ring ring;
        if (ot_reader_ring(r, i, &ring) && read_open(r, i, ring.open_offset, ring.open_capacity, list) < 0)
            Py_CLEAR(list);
    }
    for (uint32_t i = 0; list != NULL && i < r->head.extent_count; i++) {
        uint64_t offset = r->head.extent_offset[i];
        if (r->head.extent_ring[i] < r->head.ring_count && offset % 8 == 0 &&
            read_open(r, r->head.extent_ring[i], offset, OT_EXTENT_ENTRIES, list) < 0)
            Py_CLEAR(list);
    }
    r->busy = false;
    return list;
}

static PyObject *
reader_missed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const ot_reader *r = (const ot_reader *)self;
    return Py_BuildValue("(KK)", (unsigned long long)r->missed, (unsigned long long)r->torn);
}

/* ---- the type ---- */

static PyObject *
reader_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    int fd;
    if (!PyArg_ParseTuple(args, "i:Reader", &fd))
        return NULL;
    ot_reader *r = (ot_reader *)type->tp_alloc(type, 0);
    if (r == NULL)
        return NULL;
    r->fd = dup(fd);
    r->names = PyDict_New();
    if (r->fd < 0 || r->names == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(r);
        return NULL;
    }
    if (!attach(r)) {
        Py_DECREF(r);
        return NULL;
    }
    ot_reader_refresh(r);
    return (PyObject *)r;
}

static PyObject *
reader_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_reader *r = (ot_reader *)self;
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
    Py_RETURN_NONE;
}

static void
reader_dealloc(PyObject *self)
{
    ot_reader *r = (ot_reader *)self;
    if (r->fd >= 0)
        close(r->fd);
    Py_CLEAR(r->names);
    PyMem_Free(r->blocks);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef reader_methods[] = {
    {"close", reader_close, METH_NOARGS, NULL},
    {"info", ot_reader_info, METH_NOARGS, NULL},
    {"probes", ot_reader_probes, METH_NOARGS, NULL},
    {"order", ot_reader_order, METH_O, NULL},
    {"orders", ot_reader_orders, METH_NOARGS, NULL},
    {"accounts", ot_reader_accounts, METH_NOARGS, NULL},
    {"read", reader_read, METH_O, NULL},
    {"missed", reader_missed, METH_NOARGS, NULL},
    {"open_spans", reader_open_spans, METH_NOARGS, NULL},
    {"life", ot_reader_life, METH_NOARGS, NULL},
    {"vitals", ot_reader_vitals, METH_VARARGS, NULL},
    {"pulses", ot_reader_pulses, METH_VARARGS, NULL},
    {"instruments", ot_reader_instruments, METH_NOARGS, NULL},
    {"markets", ot_reader_markets, METH_NOARGS, NULL},
    {"settled", ot_reader_settled, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject reader_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native.Reader",
    .tp_basicsize = sizeof(ot_reader),
    .tp_dealloc = reader_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Read a segment; never writes to it.",
    .tp_methods = reader_methods,
    .tp_new = reader_new,
};

int
ot_reader_start(PyObject *module)
{
    if (PyType_Ready(&reader_type) < 0)
        return -1;
    return PyModule_AddObjectRef(module, "Reader", (PyObject *)&reader_type);
}
