/* The word that says who is to drain: waited for, and changed from outside. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

#include "drain.h"
#include "keep.h"

#define SLICE_NS 5000000000ULL /* a waiter that was overlooked looks again */
#define LOOK_NS 50000000ULL    /* where there is no futex */

static uint64_t calls; /* of ot_host_wake; a waiter that began before one ends; atomic */

static void
wait_word(const uint64_t *word, uint64_t known, uint64_t ns)
{
#if defined(__linux__)
    struct timespec time = {(time_t)(ns / 1000000000ULL), (long)(ns % 1000000000ULL)};
    /* the mapping may have gone since it was looked at: then this fails, or waits for a slice at most */
    (void)syscall(SYS_futex, (const uint32_t *)(const void *)word, FUTEX_WAIT, (uint32_t)known, &time, NULL, 0);
#else
    (void)word;
    (void)known;
    ns = ns < LOOK_NS ? ns : LOOK_NS;
    struct timespec time = {0, (long)ns};
    (void)nanosleep(&time, NULL);
#endif
}

static void
wake_word(const uint64_t *word)
{
#if defined(__linux__)
    (void)syscall(SYS_futex, (const uint32_t *)(const void *)word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
#else
    (void)word;
#endif
}

void
ot_host_wake(void)
{
    (void)__atomic_fetch_add(&calls, 1, __ATOMIC_RELEASE);
    pthread_rwlock_rdlock(&ot_mapping);
    if (OT_LOAD(&ot_rec.base) != NULL)
        wake_word(&ot_rec.control->host);
    pthread_rwlock_unlock(&ot_mapping);
}

/* Without the GIL. */
static uint64_t
await(uint64_t known, uint64_t ns)
{
    uint64_t end = ot_nanoseconds(CLOCK_MONOTONIC) + ns, began = __atomic_load_n(&calls, __ATOMIC_ACQUIRE);
    for (uint64_t host = known;;) {
        const uint64_t *word = NULL;
        pthread_rwlock_rdlock(&ot_mapping);
        if (OT_LOAD(&ot_rec.mapped) != OT_CLOSED) {
            word = &ot_rec.control->host;
            host = OT_LOAD_ACQUIRE(word);
        }
        pthread_rwlock_unlock(&ot_mapping);
        uint64_t now = ot_nanoseconds(CLOCK_MONOTONIC);
        if (word == NULL || host != known || now >= end || __atomic_load_n(&calls, __ATOMIC_ACQUIRE) != began)
            return host;
        wait_word(word, known, end - now < SLICE_NS ? end - now : SLICE_NS);
    }
}

PyObject *
ot_await_host(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long known;
    double timeout;
    if (!PyArg_ParseTuple(args, "Kd:await_host", &known, &timeout))
        return NULL;
    timeout = timeout > 0 ? timeout < 86400 ? timeout : 86400 : 0; /* also for NaN */
    uint64_t host;
    Py_BEGIN_ALLOW_THREADS
        host = await(known, (uint64_t)(timeout * 1e9));
    Py_END_ALLOW_THREADS
    return PyLong_FromUnsignedLongLong(host);
}

/* Where the word is in the file; 0 or -1 with an exception set. */
static int
find_word(int fd, uint64_t *at)
{
    struct stat st;
    struct ot_header h;
    if (fstat(fd, &st) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    uint64_t size = st.st_size > 0 ? (uint64_t)st.st_size : 0;
    if (!S_ISREG(st.st_mode) || size < sizeof h || pread(fd, &h, sizeof h, 0) != (ssize_t)sizeof h ||
        h.magic != OT_MAGIC) {
        PyErr_SetString(PyExc_ValueError, "foreign: not a segment of otel-trading");
        return -1;
    }
    if (h.version != OT_VERSION) {
        PyErr_Format(PyExc_ValueError, "version: the segment has format %u, this release reads format %d",
                     (unsigned)h.version, OT_VERSION);
        return -1;
    }
    if (h.control_offset % OT_PAGE != 0 || h.control_offset < OT_PAGE || size < OT_PAGE ||
        h.control_offset > size - OT_PAGE) {
        PyErr_SetString(PyExc_ValueError, "truncated: the control page lies outside the file");
        return -1;
    }
    *at = h.control_offset + offsetof(struct ot_control, host);
    return 0;
}

PyObject *
ot_ask_host(PyObject *Py_UNUSED(module), PyObject *args)
{
    int fd;
    unsigned long long host;
    uint64_t at;
    if (!PyArg_ParseTuple(args, "iK:ask_host", &fd, &host))
        return NULL;
    if (host != OT_HOST_EMBEDDED && host != OT_HOST_AGENT) {
        PyErr_SetString(PyExc_ValueError, "the host is 0 (the process itself) or 1 (the agent)");
        return NULL;
    }
    if (find_word(fd, &at) < 0)
        return NULL;
    uint64_t word = host;
    if (pwrite(fd, &word, sizeof word, (off_t)at) != (ssize_t)sizeof word)
        return PyErr_SetFromErrno(PyExc_OSError);
    /* mapped for its address alone: a file that shrinks meanwhile gives no signal */
    uint8_t *page = mmap(NULL, OT_PAGE, PROT_READ, MAP_SHARED, fd, (off_t)(at / OT_PAGE * OT_PAGE));
    if (page == MAP_FAILED)
        return PyErr_SetFromErrno(PyExc_OSError);
    wake_word((const uint64_t *)(const void *)(page + at % OT_PAGE));
    (void)munmap(page, OT_PAGE);
    Py_RETURN_NONE;
}
