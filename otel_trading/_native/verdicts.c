#include "verdicts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drain.h"

#define BYTES (OT_PAGE + (size_t)OT_VERDICTS * sizeof(struct ot_verdict))
#define LIFE_NS 30000000000ULL /* then an entry is as good as free */
#define TAKEN UINT64_MAX       /* trace_lo of an entry that somebody is filling in */
#define LOCK_TRIES 200         /* of 5 ms */

pthread_rwlock_t ot_sharing = PTHREAD_RWLOCK_INITIALIZER;

static struct ot_shared *page;   /* owned: the mapping, or NULL */
static struct ot_verdict *table; /* borrowed from it */
static bool others;              /* it is a file */

struct ot_shared *
ot_shared_page(void)
{
    return page;
}

bool
ot_shared_by_others(void)
{
    return others;
}

/* ---- the mapping ---- */

static void
exchange(void *mapping, bool file)
{
    pthread_rwlock_wrlock(&ot_sharing);
    void *before = page;
    page = mapping;
    table = mapping == NULL ? NULL : (struct ot_verdict *)(void *)((uint8_t *)mapping + OT_PAGE);
    others = file;
    pthread_rwlock_unlock(&ot_sharing);
    if (before != NULL)
        munmap(before, BYTES);
}

void
ot_shared_own(void)
{
    void *mapping = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    exchange(mapping == MAP_FAILED ? NULL : mapping, false);
}

void
ot_shared_forget(void)
{
    exchange(NULL, false);
}

/* ---- the file ---- */

static int
lock_file(int fd)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return errno;
        struct timespec pause = {0, 5000000};
        nanosleep(&pause, NULL);
    }
    return EWOULDBLOCK;
}

/* Lay out what is empty, and check what is not; with the file locked.  0, an errno, or -1 with what is wrong in `wrong`. */
static int
prepare(int fd, const char **wrong)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return errno;
    if (!S_ISREG(st.st_mode)) {
        *wrong = "foreign: not a regular file";
        return -1;
    }
    struct ot_shared head = {0};
    if (st.st_size != 0 && (pread(fd, &head, sizeof head, 0) < 0))
        return errno;
    if (head.magic != 0 && head.magic != OT_SHARED_MAGIC) {
        *wrong = "foreign: not what processes of otel-trading share";
        return -1;
    }
    if (st.st_size != 0 && head.version != 0 && head.version != OT_VERSION) {
        *wrong = "version: it is of another release of otel-trading";
        return -1;
    }
    if (st.st_size != 0 && (head.version != 0 || head.magic == 0)) {
        if (head.magic == 0) {
            *wrong = "foreign: not what processes of otel-trading share";
            return -1;
        }
        if ((uint64_t)st.st_size != BYTES || head.file_bytes != BYTES) {
            *wrong = "damaged: it has not the size that it should have";
            return -1;
        }
        return 0;
    }
    /* empty, or of somebody who ended in the middle of this */
    if (ftruncate(fd, 0) != 0)
        return errno;
    int error = ot_reserve(fd, 0, BYTES);
    head = (struct ot_shared){.magic = OT_SHARED_MAGIC, .version = OT_VERSION, .file_bytes = BYTES};
    if (error == 0 && pwrite(fd, &head, sizeof head, 0) != (ssize_t)sizeof head)
        error = ENOSPC;
    if (error != 0)
        (void)ftruncate(fd, 0);
    return error;
}

static int
map_file(int fd, void **mapping, const char **wrong)
{
    int error = lock_file(fd);
    if (error != 0)
        return error;
    error = prepare(fd, wrong);
    (void)flock(fd, LOCK_UN);
    if (error != 0)
        return error;
    *mapping = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return *mapping == MAP_FAILED ? errno : 0;
}

PyObject *
ot_share(PyObject *Py_UNUSED(module), PyObject *number)
{
    int fd = (int)PyLong_AsLong(number);
    if (PyErr_Occurred())
        return NULL;
    void *mapping = NULL;
    const char *wrong = NULL;
    int error = 0;
    Py_BEGIN_ALLOW_THREADS
        if (fd != -1)
            error = map_file(fd, &mapping, &wrong);
        if (error == 0) {
            pthread_mutex_lock(&ot_drain.lock);
            if (mapping == NULL)
                ot_shared_own();
            else
                exchange(mapping, true);
            pthread_mutex_unlock(&ot_drain.lock);
        }
    Py_END_ALLOW_THREADS
    if (error < 0) {
        PyErr_SetString(PyExc_ValueError, wrong);
        return NULL;
    }
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

/* ---- verdicts ---- */

static uint32_t
place_of(uint64_t lo, unsigned i)
{
    return (uint32_t)(((lo * 0x9e3779b97f4a7c15ULL) >> 51) + i) % OT_VERDICTS;
}

static bool
shareable(const struct ot_trace *t)
{
    return others && t->lo != 0 && t->lo != TAKEN;
}

static bool
stale(const struct ot_verdict *v, uint64_t now_ns)
{
    uint64_t changed = OT_LOAD(&v->changed_ns);
    return changed > now_ns || now_ns - changed > LIFE_NS;
}

static struct ot_verdict *
find(const struct ot_trace *t)
{
    for (unsigned i = 0; i < OT_VERDICT_PROBES; i++) {
        struct ot_verdict *v = &table[place_of(t->lo, i)];
        if (OT_LOAD_ACQUIRE(&v->trace_lo) == t->lo && OT_LOAD(&v->trace_hi) == t->hi)
            return v;
    }
    return NULL;
}

static uint64_t
word_of(unsigned verdict, unsigned threshold, unsigned triggers)
{
    return (uint64_t)verdict | (uint64_t)threshold << 8 | (uint64_t)triggers << 24;
}

static struct ot_said
said_by(uint64_t word)
{
    return (struct ot_said){.there = true,
                            .verdict = (uint8_t)(word & 3),
                            .threshold = (uint16_t)(word >> 8),
                            .triggers = (uint8_t)(word >> 24)};
}

/* Take the place of an entry; false where somebody else does it at the same time. */
static bool
take(struct ot_verdict *v, const struct ot_trace *t, uint64_t word, uint64_t now_ns)
{
    uint64_t before = OT_LOAD(&v->trace_lo);
    if (before == TAKEN && !stale(v, now_ns))
        return false;
    if (!__atomic_compare_exchange_n(&v->trace_lo, &before, TAKEN, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return false;
    OT_STORE(&v->changed_ns, now_ns);
    OT_STORE(&v->trace_hi, t->hi);
    OT_STORE(&v->word, word);
    OT_STORE_RELEASE(&v->trace_lo, t->lo);
    return true;
}

/* A new entry: in a free place, else in that of the oldest. */
static void
put(const struct ot_trace *t, uint64_t word, uint64_t now_ns)
{
    for (int tries = 0; tries < 4; tries++) {
        struct ot_verdict *oldest = NULL;
        uint64_t most = 0;
        for (unsigned i = 0; i < OT_VERDICT_PROBES; i++) {
            struct ot_verdict *v = &table[place_of(t->lo, i)];
            uint64_t changed = OT_LOAD(&v->changed_ns);
            uint64_t age = OT_LOAD(&v->trace_lo) == 0 || changed > now_ns ? UINT64_MAX : now_ns - changed;
            if (oldest == NULL || age > most) {
                oldest = v;
                most = age;
            }
        }
        if (take(oldest, t, word, now_ns))
            return;
    }
}

struct ot_said
ot_verdict_look(const struct ot_trace *t)
{
    struct ot_said nothing = {0};
    if (!shareable(t))
        return nothing;
    const struct ot_verdict *v = find(t);
    if (v == NULL)
        return nothing;
    uint64_t word = OT_LOAD_ACQUIRE(&v->word);
    OT_FENCE_ACQUIRE();
    return OT_LOAD(&v->trace_lo) == t->lo ? said_by(word) : nothing;
}

void
ot_verdict_ask(const struct ot_trace *t, uint64_t now_ns)
{
    if (shareable(t) && find(t) == NULL)
        put(t, word_of(OT_VERDICT_ASKED, 0, t->triggers), now_ns);
}

void
ot_verdict_note(const struct ot_trace *t, uint64_t now_ns)
{
    if (!shareable(t))
        return;
    struct ot_verdict *v = find(t);
    if (v == NULL) {
        put(t, word_of(OT_VERDICT_ASKED, 0, t->triggers), now_ns);
        return;
    }
    uint64_t word = OT_LOAD_ACQUIRE(&v->word), next;
    do {
        struct ot_said said = said_by(word);
        unsigned all = said.triggers | t->triggers;
        if (all == said.triggers)
            return;
        next = word_of(said.verdict == OT_VERDICT_DROPPED ? OT_VERDICT_ASKED : said.verdict, said.threshold, all);
    } while (!__atomic_compare_exchange_n(&v->word, &word, next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    OT_STORE(&v->changed_ns, now_ns);
}

struct ot_said
ot_verdict_post(const struct ot_trace *t, bool always, uint64_t now_ns)
{
    struct ot_said nothing = {0};
    if (!shareable(t))
        return nothing;
    unsigned verdict = t->state == OT_TRACE_KEPT ? OT_VERDICT_KEPT : OT_VERDICT_DROPPED;
    struct ot_verdict *v = find(t);
    if (v == NULL) {
        if (always)
            put(t, word_of(verdict, t->threshold, t->triggers), now_ns);
        return nothing;
    }
    uint64_t word = OT_LOAD_ACQUIRE(&v->word), next;
    do {
        struct ot_said said = said_by(word);
        if (said.verdict == OT_VERDICT_KEPT || said.verdict == verdict)
            return said;
        next = word_of(verdict, t->threshold, said.triggers | t->triggers);
    } while (!__atomic_compare_exchange_n(&v->word, &word, next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    OT_STORE(&v->changed_ns, now_ns);
    return nothing;
}

void
ot_verdicts_all(uint64_t now_ns, void (*each)(void *context, uint64_t hi, uint64_t lo, const struct ot_said *said),
                void *context)
{
    for (unsigned i = 0; others && i < OT_VERDICTS; i++) {
        const struct ot_verdict *v = &table[i];
        uint64_t lo = OT_LOAD_ACQUIRE(&v->trace_lo);
        if (lo == 0 || lo == TAKEN || stale(v, now_ns))
            continue;
        uint64_t hi = OT_LOAD(&v->trace_hi), word = OT_LOAD_ACQUIRE(&v->word);
        OT_FENCE_ACQUIRE();
        struct ot_said said = said_by(word);
        if (OT_LOAD(&v->trace_lo) == lo)
            each(context, hi, lo, &said);
    }
}
