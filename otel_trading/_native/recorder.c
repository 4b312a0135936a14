/* The segment's life in its own process: laid out, published, closed, forgotten in a forked child. */
#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "adopt.h"
#include "boot.h"
#include "drain.h"
#include "entry.h"
#include "governor.h"
#include "life.h"
#include "names.h"
#include "orders.h"

#define TEXT_BYTES (1U << 20)

pthread_rwlock_t ot_mapping = PTHREAD_RWLOCK_INITIALIZER;
struct ot_recorder ot_rec = {.epoch = OT_CLOSED, .mapped = OT_CLOSED, .fd = -1};

static const uint64_t always_on = OT_TIER_ON;

int
ot_recorder_start(void)
{
    ot_clock_start();
    return ot_rings_start() < 0 || ot_names_start() < 0 || ot_drain_start_module() < 0 || ot_governor_start_module() < 0
               ? -1
               : 0;
}

void
ot_fault(void)
{
    if (ot_rec.epoch != OT_CLOSED)
        OT_STORE(&ot_rec.header->faults, ot_rec.header->faults + 1);
}

PyObject *
ot_fault_py(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    ot_fault();
    Py_RETURN_NONE;
}

/* Field 22 of /proc/self/stat, in clock ticks since boot; the command name before it may hold anything. */
static uint64_t
read_process_start(void)
{
    char text[1024] = "";
    FILE *f = fopen("/proc/self/stat", "re");
    if (f == NULL)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *p = strrchr(text, ')');
    for (int field = 2; p != NULL && field < 22; field++)
        p = strchr(p + 1, ' ');
    unsigned long long value = 0;
    return p != NULL && sscanf(p, "%llu", &value) == 1 ? value : 0;
}

/* Where everything is, by the settings; returns the bytes before the main ring. */
static uint64_t
lay_out(struct ot_header *h, const struct ot_settings *s)
{
    uint64_t at = OT_PAGE;
#define PLACE(field, bytes)                                          \
    do {                                                             \
        (field) = at;                                                \
        at += ((uint64_t)(bytes) + OT_PAGE - 1) / OT_PAGE * OT_PAGE; \
    } while (0)
    h->max_rings = OT_MAX_RINGS;
    h->max_probes = OT_MAX_PROBES;
    h->max_instruments = OT_MAX_INSTRUMENTS;
    h->max_names = s->max_names;
    h->text_bytes = TEXT_BYTES;
    PLACE(h->control_offset, sizeof(struct ot_control));
    PLACE(h->accounts_offset, sizeof(struct ot_accounts));
    PLACE(h->policy_offset, sizeof(struct ot_policy));
    PLACE(h->readings_offset, sizeof(struct ot_readings));
    PLACE(h->decisions_offset, sizeof(struct ot_decision) * OT_DECISIONS);
    PLACE(h->markets_offset, sizeof(struct ot_market) * OT_MARKETS);
    PLACE(h->life_offset, sizeof(struct ot_life));
    PLACE(h->vitals_offset, sizeof(struct ot_vital) * OT_VITALS);
    PLACE(h->pulses_offset, sizeof(struct ot_pulse) * OT_PULSES);
    PLACE(h->progress_offset, sizeof(struct ot_progress) * OT_MAX_RINGS);
    PLACE(h->rings_offset, sizeof(struct ot_ring) * OT_MAX_RINGS);
    PLACE(h->probes_offset, sizeof(struct ot_probe) * OT_MAX_PROBES);
    PLACE(h->instruments_offset, sizeof(struct ot_instrument) * OT_MAX_INSTRUMENTS);
    PLACE(h->names_offset, sizeof(struct ot_name) * s->max_names);
    PLACE(h->text_offset, TEXT_BYTES);
    PLACE(h->orders_offset, sizeof(struct ot_order) * s->max_orders);
    h->max_orders = s->max_orders;
    h->attribute_limit = s->attribute_limit;
    h->event_limit = s->event_limit;
    h->link_limit = s->link_limit;
#undef PLACE
    return at;
}

void
ot_recorder_point(uint8_t *base, const struct ot_header *h)
{
    ot_rec.base = base;
    ot_rec.header = (struct ot_header *)(void *)base;
    ot_rec.control = (struct ot_control *)(void *)(base + h->control_offset);
    ot_rec.accounts = (struct ot_accounts *)(void *)(base + h->accounts_offset);
    ot_rec.policy = (struct ot_policy *)(void *)(base + h->policy_offset);
    ot_rec.readings = (struct ot_readings *)(void *)(base + h->readings_offset);
    ot_rec.decisions = (struct ot_decision *)(void *)(base + h->decisions_offset);
    ot_rec.markets = (struct ot_market *)(void *)(base + h->markets_offset);
    ot_rec.life = (struct ot_life *)(void *)(base + h->life_offset);
    ot_rec.vitals = (struct ot_vital *)(void *)(base + h->vitals_offset);
    ot_rec.pulses = (struct ot_pulse *)(void *)(base + h->pulses_offset);
    ot_rec.progress = (struct ot_progress *)(void *)(base + h->progress_offset);
    ot_rec.rings = (struct ot_ring *)(void *)(base + h->rings_offset);
    ot_rec.probes = (struct ot_probe *)(void *)(base + h->probes_offset);
    ot_rec.instruments = (struct ot_instrument *)(void *)(base + h->instruments_offset);
    ot_rec.names = (struct ot_name *)(void *)(base + h->names_offset);
    ot_rec.orders = (struct ot_order *)(void *)(base + h->orders_offset);
    ot_rec.text = base + h->text_offset;
    ot_rec.text_bytes = h->text_bytes;
    ot_rec.tier_word[0] = &always_on;
    for (int tier = 1; tier < OT_TIERS; tier++)
        ot_rec.tier_word[tier] = &ot_rec.control->tier_word[tier];
}

void
ot_recorder_unmap(void)
{
    ot_life_close();
    if (ot_rec.base != NULL)
        munmap(ot_rec.base, ot_rec.reserved);
    if (ot_rec.fd >= 0)
        close(ot_rec.fd);
    ot_rec.base = NULL;
    ot_rec.fd = -1;
}

static PyObject *
failed(int error)
{
    ot_recorder_unmap();
    ot_rings_forget();
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static bool
power_of_two(unsigned n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

PyObject *
ot_open(PyObject *Py_UNUSED(module), PyObject *args)
{
    int fd;
    Py_buffer resource;
    struct ot_settings s;
    if (!PyArg_ParseTuple(args, "iy*IIIIII(IIIIIII):open", &fd, &resource, &s.main_slots, &s.thread_slots,
                          &s.open_spans, &s.arena_bytes, &s.max_names, &s.max_orders, &s.attribute_limit,
                          &s.event_limit, &s.link_limit, &s.event_attribute_limit, &s.link_attribute_limit,
                          &s.value_length, &s.event_value_length))
        return NULL;
    struct ot_header plan = {0};
    ot_adopt_drop();
    if (ot_rec.base != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a segment is open already");
        goto refused;
    }
    if (!power_of_two(s.main_slots) || !power_of_two(s.thread_slots) || !power_of_two(s.arena_bytes) ||
        s.main_slots > 1U << 24 || s.thread_slots > 1U << 24 || s.arena_bytes > 1U << 30 || s.arena_bytes < OT_PAGE ||
        s.open_spans < 1 || s.open_spans > 1U << 20 || s.max_names < 16 || s.max_names > 65535 ||
        !power_of_two(s.max_orders) || s.max_orders > 1U << 20 || resource.len > OT_RESOURCE_BYTES) {
        errno = EINVAL;
        PyErr_SetFromErrno(PyExc_OSError);
        goto refused;
    }
    uint64_t fixed = lay_out(&plan, &s);
    uint64_t first = fixed + ot_main_ring_bytes(&s);
    ot_rec.settings = s;
    ot_rec.reserved = first + ot_thread_ring_bytes(&s) * (OT_MAX_RINGS - 1) +
                      (uint64_t)OT_MAX_EXTENTS * OT_EXTENT_ENTRIES * sizeof(struct ot_slot);
    ot_rec.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (ot_rec.fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto refused;
    }
    int error = ot_reserve(ot_rec.fd, 0, first);
    if (error == 0) {
        void *base = mmap(NULL, ot_rec.reserved, PROT_READ | PROT_WRITE, MAP_SHARED, ot_rec.fd, 0);
        error = base == MAP_FAILED ? errno : 0;
        if (error == 0)
            ot_recorder_point(base, &plan);
    }
    if (error != 0) {
        PyBuffer_Release(&resource);
        return failed(error);
    }

    struct ot_header *h = ot_rec.header;
    *h = plan;
    h->magic = OT_MAGIC;
    h->header_bytes = sizeof *h;
    h->file_bytes = first;
    h->process_start = read_process_start();
    ot_boot_id(h->boot_id);
    h->created_ns = ot_nanoseconds(CLOCK_REALTIME);
    h->pid = (uint32_t)getpid();
    h->uid = (uint32_t)getuid();
    h->clock = (uint32_t)ot_clock_kind;
    h->backend = 1;
    h->resource_bytes = (uint32_t)resource.len;
    memcpy(h->resource, resource.buf, (size_t)resource.len);
    PyBuffer_Release(&resource);
    for (int tier = 0; tier < OT_TIERS; tier++) {
        ot_rec.control->tier_word[tier] = OT_TIER_ON;
        ot_rec.control->asked[tier] = OT_TIER_ON;
        ot_rec.control->shed[tier] = OT_TIER_ON;
    }
    ot_rec.control->switches = OT_SWITCH_RECORD | OT_SWITCH_EXPORT;
    ot_rec.opened_unix_ns = h->created_ns;
    if (ot_ring_add(fixed, s.main_slots, s.main_slots, s.open_spans, s.arena_bytes) < 0)
        return failed(ENOMEM);
    if (ot_names_open() < 0) {
        ot_recorder_unmap();
        ot_rings_forget();
        return NULL;
    }
    ot_orders_open();
    ot_drain_open();
    ot_governor_open();
    Py_CLEAR(ot_rec.reopen);
    h->published_ns = ot_nanoseconds(CLOCK_REALTIME);
    OT_STORE_RELEASE(&h->version, OT_VERSION);
    OT_STORE(&ot_rec.mapped, ++ot_rec.epochs);
    OT_STORE(&ot_rec.epoch, ot_rec.epochs);
    ot_writer_claim(); /* the calling thread has the main ring */
    Py_RETURN_NONE;

refused:
    PyBuffer_Release(&resource);
    return NULL;
}

PyObject *
ot_close(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(ot_rec.reopen);
    if (ot_rec.mapped == OT_CLOSED)
        Py_RETURN_NONE;
    bool ours = ot_rec.epoch != OT_CLOSED, adopted = ot_rec.adopted;
    OT_STORE(&ot_rec.epoch, OT_CLOSED); /* nothing is recorded from here on, as the GIL is ours */
    OT_STORE(&ot_rec.mapped, OT_CLOSED);
    ot_host_wake();
    ot_governor_close();
    ot_drain_close();
    if (ours)
        OT_STORE_RELEASE(&ot_rec.header->closed, 1);
    Py_BEGIN_ALLOW_THREADS
        pthread_rwlock_wrlock(&ot_mapping); /* who encodes spans sees by the epoch that it must not begin again */
    Py_END_ALLOW_THREADS
    ot_recorder_unmap();
    pthread_rwlock_unlock(&ot_mapping);
    ot_rings_forget();
    if (adopted)
        ot_adopt_forget();
    Py_RETURN_NONE;
}

PyObject *
ot_is_open(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(ot_rec.epoch != OT_CLOSED);
}

PyObject *
ot_forked(PyObject *Py_UNUSED(module), PyObject *reopen)
{
    if (ot_rec.base == NULL && ot_rec.reopen == NULL)
        Py_RETURN_NONE;
    ot_governor_forked();
    ot_drain_forked();
    ot_recorder_unmap(); /* this process's view only: the parent's file and mapping are untouched */
    ot_rings_forget();
    ot_adopt_forget();
    Py_XSETREF(ot_rec.reopen, Py_NewRef(reopen));
    Py_RETURN_NONE;
}

/* End the open entries of one writer as interrupted. */
static long
interrupt(struct ot_writer *w, uint32_t reason, bool error, uint64_t now)
{
    long ended = 0;
    struct ot_slot last;
    bool some = w->head > 0 && ot_slot_copy(&w->slots[(w->head - 1) & w->mask], w->head - 1, &last);
    for (uint32_t i = 0; i < w->entries; i++) {
        struct ot_slot *e = ot_entry(w, i), copy;
        if (e->state != OT_SLOT_OPEN)
            continue;
        if (ot_rec.inherited) { /* the dead one's entries are believed in nothing */
            bool begun = OT_LOAD(&e->seq) % 2 == 0;
            memcpy(&copy, e, sizeof copy);
            OT_STORE(OT_META(e), 0);
            /* it was killed when it began the span, or when it had just written the end */
            if (!begun || (some && copy.span_id == last.span_id && copy.trace_lo == last.trace_lo) ||
                copy.tier >= OT_TIERS || copy.probe >= OT_MAX_PROBES)
                continue;
            e = &copy;
        }
        ot_entry_extra(e);
        if (error) {
            e->status = OT_STATUS_ERROR;
            e->error = reason;
        }
        e->flags |= OT_FLAG_INTERRUPTED;
        ot_commit(w, e, ot_adopt_end(e, now));
        if (e == &copy) {
            ended++;
            continue;
        }
        OT_STORE(OT_META(e),
                 0); /* free for readers; its span finds it gone, and the stack of free entries is left alone */
        ended++;
    }
    return ended;
}

PyObject *
ot_interrupt_open(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *reason;
    int error;
    if (!PyArg_ParseTuple(args, "Up:interrupt_open", &reason, &error))
        return NULL;
    long ended = 0;
    if (ot_rec.epoch != OT_CLOSED) {
        uint32_t name = ot_name_id(reason);
        uint64_t now = ot_ticks();
        for (uint32_t i = 0; i < OT_MAX_RINGS; i++)
            ended += ot_writers[i].ring == NULL ? 0 : interrupt(&ot_writers[i], name, error, now);
    }
    return PyLong_FromLong(ended);
}
