/* Rings and who has them: made for the main thread at once, for others at their first record, and
 * handed on when a thread ends. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/random.h>
#include <sys/syscall.h>
#endif

#include "buffers.h"
#include "drain.h"
#include "entry.h"
#include "progress.h"
#include "recorder.h"

#if defined(__linux__) && !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23
#endif

struct ot_writer ot_writers[OT_MAX_RINGS];
OT_TLS struct ot_thread ot_here = {NULL, 0};

static pthread_key_t at_thread_end;

static uint64_t
round_up(uint64_t n)
{
    return (n + OT_PAGE - 1) / OT_PAGE * OT_PAGE;
}

static uint64_t
ring_bytes(uint64_t slots, uint64_t open_spans, uint64_t arena_bytes)
{
    return round_up(open_spans * sizeof(struct ot_slot)) + round_up(arena_bytes) +
           round_up(slots * sizeof(struct ot_slot)) + round_up(slots);
}

static uint32_t
thread_open_spans(const struct ot_settings *s)
{
    return s->open_spans / 8 < 64 ? 64 : s->open_spans / 8;
}

static uint32_t
thread_arena_bytes(const struct ot_settings *s)
{
    return s->arena_bytes / 8 < OT_PAGE * 4 ? OT_PAGE * 4 : s->arena_bytes / 8;
}

uint64_t
ot_main_ring_bytes(const struct ot_settings *s)
{
    return ring_bytes(s->main_slots, s->open_spans, s->arena_bytes);
}

uint64_t
ot_thread_ring_bytes(const struct ot_settings *s)
{
    return ring_bytes(s->thread_slots, thread_open_spans(s), thread_arena_bytes(s));
}

/* Have the pages now: a full /dev/shm must be an error here and not a SIGBUS at a record. */
int
ot_reserve(int fd, uint64_t offset, uint64_t bytes)
{
#if defined(__linux__)
    int error;
    do
        error = posix_fallocate(fd, (off_t)offset, (off_t)bytes);
    while (error == EINTR);
    if (error != EOPNOTSUPP && error != EINVAL && error != ENODEV)
        return error;
#endif
    static const char zeros[65536];
    for (uint64_t done = 0; done < bytes;) {
        size_t want = bytes - done < sizeof zeros ? (size_t)(bytes - done) : sizeof zeros;
        ssize_t n = pwrite(fd, zeros, want, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : ENOSPC;
        done += (uint64_t)n;
    }
    return 0;
}

static void
seed(struct ot_writer *w)
{
#if defined(__linux__)
    if (getrandom(w->random, sizeof w->random, 0) == (ssize_t)sizeof w->random)
        return;
#else
    if (getentropy(w->random, sizeof w->random) == 0)
        return;
#endif
    uint64_t x = ot_ticks() ^ (uint64_t)getpid() << 32 ^ (uint64_t)(uintptr_t)w;
    for (int i = 0; i < 4; i++) { /* splitmix64 */
        uint64_t z = (x += 0x9e3779b97f4a7c15ULL);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        w->random[i] = z ^ (z >> 31);
    }
}

int
ot_ring_add(uint64_t offset, uint32_t configured, uint32_t slots, uint32_t open_spans, uint64_t arena_bytes)
{
    uint32_t index = ot_rec.header->ring_count;
    struct ot_writer *w = &ot_writers[index];
    uint32_t *stack = malloc(sizeof *stack * open_spans);
    if (stack == NULL)
        return -1;
#if defined(__linux__)
    /* map the pages now, so that the first records do not pay for faults; older kernels refuse, and then they do */
    (void)madvise(ot_rec.base + offset, ring_bytes(slots, open_spans, arena_bytes) - round_up(slots),
                  MADV_POPULATE_WRITE);
#endif
    struct ot_ring *ring = &ot_rec.rings[index];
    ring->open_offset = offset;
    ring->arena_offset = offset + round_up((uint64_t)open_spans * sizeof(struct ot_slot));
    ring->slots_offset = ring->arena_offset + round_up(arena_bytes);
    ring->marks_offset = ring->slots_offset + round_up((uint64_t)configured * sizeof(struct ot_slot));
    ring->arena_bytes = arena_bytes;
    ring->capacity = slots;
    ring->open_capacity = open_spans;

    memset(w, 0, sizeof *w);
    w->ring = ring;
    w->slots = (struct ot_slot *)(void *)(ot_rec.base + ring->slots_offset);
    w->open = (struct ot_slot *)(void *)(ot_rec.base + ring->open_offset);
    w->arena = ot_rec.base + ring->arena_offset;
    w->marks = ot_rec.base + ring->marks_offset;
    w->mask = slots - 1;
    w->configured = configured;
    w->turn = ot_rec.epoch != OT_CLOSED && !ot_drain.mine ? ot_buffers_turn : NULL;
    w->arena_mask = arena_bytes - 1;
    w->free = stack;
    w->free_count = w->open_capacity = w->entries = open_spans;
    for (uint32_t i = 0; i < open_spans; i++)
        stack[i] = open_spans - 1 - i;
    seed(w);
    OT_STORE_RELEASE(&ot_rec.header->ring_count, index + 1);
    return (int)index;
}

/* What the dead writer of an adopted ring has left: its counts, and the entries that are free. */
void
ot_ring_entries(struct ot_writer *w)
{
    uint64_t head, recorded[OT_TIERS], values;
    (void)ot_progress_look(w, &head, recorded, &values);
    w->head = head; /* also of a record that was whole but for this */
    memcpy(w->recorded, recorded, sizeof w->recorded);
    w->values = values;
    OT_STORE_RELEASE(&w->ring->head, head);
    w->arena_head = (OT_LOAD(&w->ring->arena_head) + 7) & ~(uint64_t)7;
    w->entries = w->open_capacity + w->extents * OT_EXTENT_ENTRIES;
    w->free = malloc(sizeof *w->free * ((size_t)w->entries + 1));
    w->free_count = 0;
    for (uint32_t i = w->entries; w->free != NULL && i-- > 0;) {
        if (OT_LOAD(&ot_entry(w, i)->state) == OT_SLOT_FREE)
            w->free[w->free_count++] = i;
    }
    seed(w);
}

/* More spans are open at once than the ring's table has entries: go on in a new piece of the file. */
bool
ot_entries_grow(struct ot_writer *w)
{
    struct ot_header *h = ot_rec.header;
    uint64_t offset = h->file_bytes, bytes = OT_EXTENT_ENTRIES * sizeof(struct ot_slot);
    if (h->extent_count >= OT_MAX_EXTENTS || ot_rec.adopted)
        return false;
    uint32_t *stack = realloc(w->free, sizeof *stack * (w->entries + OT_EXTENT_ENTRIES));
    if (stack == NULL)
        return false;
    w->free = stack;
    if (ot_reserve(ot_rec.fd, offset, bytes) != 0)
        return false;
    OT_STORE_RELEASE(&h->file_bytes, offset + bytes);
    h->extent_offset[h->extent_count] = offset;
    h->extent_ring[h->extent_count] = (uint8_t)(w - ot_writers);
    OT_STORE_RELEASE(&h->extent_count, h->extent_count + 1);
    w->extent[w->extents++] = (struct ot_slot *)(void *)(ot_rec.base + offset);
    for (uint32_t i = 0; i < OT_EXTENT_ENTRIES; i++)
        w->free[w->free_count++] = w->entries + OT_EXTENT_ENTRIES - 1 - i;
    w->entries += OT_EXTENT_ENTRIES;
    return true;
}

void
ot_span_refused(unsigned tier)
{
    OT_STORE(&ot_rec.header->spans_refused[tier], ot_rec.header->spans_refused[tier] + 1);
}

static uint64_t
kernel_thread_id(void)
{
#if defined(__linux__)
    return (uint64_t)syscall(SYS_gettid);
#elif defined(__APPLE__)
    uint64_t id = 0;
    pthread_threadid_np(NULL, &id);
    return id;
#else
    return (uint64_t)(uintptr_t)pthread_self();
#endif
}

static uint64_t
owner_token(uint64_t epoch, uint64_t thread_id)
{
    return epoch << 32 | (thread_id & 0xffffffffULL);
}

static void
thread_ended(void *argument)
{
    struct ot_thread *here = argument;
    struct ot_writer *w = here->writer;
    if (w == NULL || here->epoch != OT_LOAD(&ot_rec.epoch))
        return;
    uint64_t token = owner_token(here->epoch, kernel_thread_id());
    __atomic_compare_exchange_n(&w->owner, &token, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
    here->epoch = 0;
}

static void
take(struct ot_writer *w, uint64_t thread_id)
{
    OT_STORE(&w->owner, owner_token(ot_rec.epoch, thread_id));
    OT_STORE(&w->ring->thread_id, thread_id);
    OT_STORE(&w->ring->generation, w->ring->generation + 1);
}

static struct ot_writer *
find_ring(uint64_t thread_id)
{
    uint32_t count = ot_rec.header->ring_count;
    count = count < OT_MAX_RINGS ? count : OT_MAX_RINGS;
    for (uint32_t i = 0; i < count; i++) {
        if (ot_writers[i].ring != NULL && OT_LOAD_ACQUIRE(&ot_writers[i].owner) == 0) {
            take(&ot_writers[i], thread_id);
            return &ot_writers[i];
        }
    }
    if (count < OT_MAX_RINGS && !ot_rec.adopted) {
        const struct ot_settings *s = &ot_rec.settings;
        uint64_t offset = ot_rec.header->file_bytes, bytes = ot_thread_ring_bytes(s);
        /* a ring is made as small as the others are now; the rest of its part of the file is a hole */
        uint32_t slots = ot_buffers_slots(s->thread_slots, OT_LOAD(&ot_rec.control->buffers_now));
        uint64_t marks = round_up(s->thread_slots);
        uint64_t hole = ring_bytes(s->thread_slots, 0, 0) - ring_bytes(slots, 0, 0) - marks + round_up(slots);
        if (ot_reserve(ot_rec.fd, offset, bytes - marks - hole) == 0 &&
            ot_reserve(ot_rec.fd, offset + bytes - marks, marks) == 0) {
            OT_STORE_RELEASE(&ot_rec.header->file_bytes, offset + bytes);
            int index = ot_ring_add(offset, s->thread_slots, slots, thread_open_spans(s), thread_arena_bytes(s));
            if (index >= 0) {
                take(&ot_writers[index], thread_id);
                return &ot_writers[index];
            }
        }
    }
    /* No room for another: share the last one, which the GIL makes safe. */
    while (count > 0 && ot_writers[count - 1].ring == NULL) /* a damaged one */
        count--;
    return count > 0 ? &ot_writers[count - 1] : NULL;
}

struct ot_writer *
ot_writer_claim(void)
{
    if (ot_rec.epoch == OT_CLOSED) {
        if (ot_rec.reopen == NULL || ot_rec.reopening)
            return NULL;
        /* A forked child's first record; whatever the caller's exception state, it stays as it is. */
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyObject *reopen = ot_rec.reopen;
        ot_rec.reopen = NULL;
        ot_rec.reopening = true;
        PyObject *result = PyObject_CallNoArgs(reopen);
        ot_rec.reopening = false;
        if (result == NULL)
            PyErr_WriteUnraisable(reopen);
        Py_XDECREF(result);
        Py_DECREF(reopen);
        PyErr_Restore(type, value, trace);
        if (ot_rec.epoch == OT_CLOSED)
            return NULL;
        if (ot_here.epoch == ot_rec.epoch)
            return ot_here.writer;
    }
    ot_here.writer = find_ring(kernel_thread_id());
    ot_here.epoch = ot_rec.epoch;
    pthread_setspecific(at_thread_end, &ot_here);
    return ot_here.writer;
}

int
ot_rings_start(void)
{
    if (pthread_key_create(&at_thread_end, thread_ended) != 0) {
        PyErr_SetString(PyExc_RuntimeError, "otel-trading: no thread-specific storage left in this process");
        return -1;
    }
    return 0;
}

/* The file is gone: give back what is on the heap. */
void
ot_rings_forget(void)
{
    for (uint32_t i = 0; i < OT_MAX_RINGS; i++) {
        struct ot_writer *w = &ot_writers[i];
        free(w->free);
        memset(w, 0, sizeof *w);
    }
}
