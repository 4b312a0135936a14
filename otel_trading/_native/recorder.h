/* The process's recorder: one segment, its writers, and what every other file needs of them.
 *
 * All of it is used under the GIL, which is what serialises the writers of shared tables; the drain's
 * thread, which never takes the GIL, touches only the mapped file, atomically.
 */
#ifndef OTEL_TRADING_RECORDER_H
#define OTEL_TRADING_RECORDER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"
#include "clock.h"
#include "segment.h"

#define OT_CLOSED UINT64_MAX
#define OT_RANDOM_MASK ((1ULL << OT_SAMPLE_BITS) - 1)

/* What open() was asked for. */
struct ot_settings {
    uint32_t main_slots;
    uint32_t thread_slots;
    uint32_t open_spans;
    uint32_t arena_bytes;
    uint32_t max_names;
    uint32_t max_orders;
    uint32_t attribute_limit;
    uint32_t event_limit;
    uint32_t link_limit;
    uint32_t event_attribute_limit;
    uint32_t link_attribute_limit;
    uint32_t value_length;       /* characters of a span's texts; OT_NO_LIMIT = all */
    uint32_t event_value_length; /* of its events' and links' */
};

/* The writing side of a ring.  Lives in a static table, so a stale pointer never dangles; whether it is
 * still good is told by the epoch next to it. */
struct ot_writer {
    struct ot_ring *ring;  /* in the mapped file */
    struct ot_slot *slots; /* in the mapped file */
    struct ot_slot *open;  /* in the mapped file */
    uint8_t *arena;        /* in the mapped file */
    uint8_t *marks;        /* in the mapped file; NULL: none */
    uint64_t mask;         /* capacity - 1 */
    uint32_t configured;   /* slots that the file has room for: a power of two */
    void (*turn)(void); /* GIL: what a writer looks after now and then, where nobody in this process drains; or NULL */
    uint64_t head;      /* own copy of ring->head */
    uint64_t recorded[OT_TIERS];
    uint64_t values;
    uint64_t arena_head;
    uint64_t arena_mask;
    uint64_t random[4]; /* xoshiro256++ */
    uint32_t *free;     /* owned: stack of free entries of the open-span table */
    uint32_t free_count;
    uint32_t open_capacity;                 /* entries in the file */
    uint32_t entries;                       /* those plus the extents' */
    uint32_t extents;                       /* how many */
    struct ot_slot *extent[OT_MAX_EXTENTS]; /* in the mapped file */
    uint64_t overwritten[OT_TIERS];         /* the drain's, with its lock held */
    uint64_t values_overwritten;            /* likewise */
    uint64_t arena_seen;                    /* likewise: arena_head at its last pass */
    uint64_t owner; /* 0, or the token of the thread that has it; the thread's end stores 0 (release), a claim
                              * acquires */
};

struct ot_recorder {
    uint64_t epoch;  /* OT_CLOSED, or the number of the present segment */
    uint64_t epochs; /* numbers used so far */
    uint64_t
        mapped; /* OT_CLOSED, or the number of the segment that is mapped: also one that is adopted, in which nothing is
                      * recorded */
    bool adopted;    /* it is another process's … */
    bool inherited;  /* … which has ended, and this one writes in its place: `epoch` is its number too */
    bool foreign;    /* its ticks are of another boot, or of a clock that this process does not have */
    uint8_t *base;   /* owned: the mapping */
    size_t reserved; /* its length; the file is shorter until all rings exist */
    int fd;          /* owned */
    struct ot_header *header;
    struct ot_control *control;
    struct ot_accounts *accounts;
    struct ot_policy *policy;
    struct ot_readings *readings;
    struct ot_decision *decisions;
    struct ot_market *markets;
    struct ot_life *life;
    struct ot_vital *vitals;
    struct ot_pulse *pulses;
    struct ot_progress *progress;
    struct ot_ring *rings;
    struct ot_probe *probes;
    struct ot_instrument *instruments;
    struct ot_name *names;
    struct ot_order *orders;
    uint8_t *text;
    uint64_t text_bytes;                 /* of it */
    const uint64_t *tier_word[OT_TIERS]; /* tier 0's is a constant: nothing turns P0 off */
    struct ot_settings settings;
    uint64_t opened_unix_ns;
    PyObject *reopen; /* owned, or NULL: what a forked child calls before its first record */
    bool reopening;
};

extern struct ot_recorder ot_rec;
/* Held for reading by who reads the mapping without the GIL and without the drain's lock; for writing to unmap it. */
extern pthread_rwlock_t ot_mapping;
extern struct ot_writer ot_writers[OT_MAX_RINGS];

struct ot_thread {
    struct ot_writer *writer;
    uint64_t epoch;
};

#if defined(__GLIBC__)
#define OT_TLS __thread __attribute__((tls_model("initial-exec")))
#else
#define OT_TLS __thread
#endif
extern OT_TLS struct ot_thread ot_here;

/* The slow half of ot_writer_here: claim or make a ring, or reopen in a forked child.  NULL where nothing records. */
struct ot_writer *ot_writer_claim(void);

static inline struct ot_writer *
ot_writer_here(void)
{
    if (OT_LIKELY(ot_here.epoch == ot_rec.epoch))
        return ot_here.writer;
    return ot_writer_claim();
}

static inline bool
ot_tier_on(unsigned tier)
{
    return (OT_LOAD(&ot_rec.control->switches) & OT_SWITCH_RECORD) && (OT_LOAD(ot_rec.tier_word[tier]) & OT_TIER_ON);
}

/* Is a trace with these random bits taken by the tier's threshold? */
static inline bool
ot_tier_takes(unsigned tier, uint64_t trace_lo)
{
    return (trace_lo & OT_RANDOM_MASK) >= OT_LOAD(ot_rec.tier_word[tier]) >> 8;
}

static inline uint64_t
ot_random(struct ot_writer *w)
{
    uint64_t *s = w->random;
    uint64_t sum = s[0] + s[3];
    uint64_t result = ((sum << 23) | (sum >> 41)) + s[0];
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

/* Ids are never zero. */
static inline uint64_t
ot_random_id(struct ot_writer *w)
{
    uint64_t id = ot_random(w);
    return OT_LIKELY(id != 0) ? id : 1;
}

/* recorder.c */
int ot_recorder_start(void); /* once, at import; -1 with an exception set */
PyObject *ot_open(PyObject *module, PyObject *args);
PyObject *ot_close(PyObject *module, PyObject *ignored);
PyObject *ot_is_open(PyObject *module, PyObject *ignored);
PyObject *ot_forked(PyObject *module, PyObject *reopen);
PyObject *ot_interrupt_open(PyObject *module, PyObject *args);
PyObject *ot_fault_py(PyObject *module, PyObject *ignored);
void ot_fault(void);
void ot_recorder_point(uint8_t *base, const struct ot_header *h); /* ot_rec's pointers; h's offsets are good */
void ot_recorder_unmap(void);

/* rings.c */
uint64_t ot_main_ring_bytes(const struct ot_settings *s);
uint64_t ot_thread_ring_bytes(const struct ot_settings *s);
int ot_reserve(int fd, uint64_t offset, uint64_t bytes); /* 0 or an errno */
void ot_ring_entries(struct ot_writer *w); /* the free ones of an adopted ring's table, and its counts; GIL */
int ot_ring_add(uint64_t offset, uint32_t configured, uint32_t slots, uint32_t open_spans,
                uint64_t arena_bytes); /* index or -1; space is there */
int ot_rings_start(void);
void ot_rings_forget(void);
bool ot_entries_grow(struct ot_writer *w); /* false: no room in the table or on the file system */
void ot_span_refused(unsigned tier);

#endif
