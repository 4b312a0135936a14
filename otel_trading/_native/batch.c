#include "batch.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "bucket.h"
#include "clock.h"
#include "names.h"
#include "otlp.h"
#include "probe.h"
#include "progress.h"
#include "spanstate.h"
#include "tracestate.h"

#ifndef MSG_NOSIGNAL /* where there is none, Python ignores SIGPIPE */
#define MSG_NOSIGNAL 0
#endif

#define MOST (1U << 24) /* of one batch */
#define UNSEEN UINT16_MAX

/* The place of a scope in the list, where it is put if it is new; -1 for want of memory. */
static Py_ssize_t
scope_place(PyObject *scopes, PyObject *scope)
{
    Py_ssize_t n = PyList_GET_SIZE(scopes);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *known = PyList_GET_ITEM(scopes, i);
        if (known == scope || PyUnicode_Compare(known, scope) == 0)
            return i;
    }
    return PyList_Append(scopes, scope) < 0 ? -1 : n;
}

/* What is to be known of a probe; 0 or -1. */
static int
view(struct ot_batch_probe *to, PyObject *scopes, PyObject *probe, PyObject *nowhere)
{
    PyObject *scope = probe != NULL ? ot_probe_scope(probe) : nowhere;
    Py_ssize_t place = scope_place(scopes, scope), bytes = 0;
    const char *name = probe != NULL ? PyUnicode_AsUTF8AndSize(((ot_probe_object *)probe)->name, &bytes) : NULL;
    unsigned kind = probe != NULL ? ((ot_probe_object *)probe)->kind : 0;
    PyErr_Clear();
    if (place < 0)
        return -1;
    *to = (struct ot_batch_probe){.name = name != NULL ? name : "unknown",
                                  .name_bytes = name != NULL ? (uint32_t)bytes : 7,
                                  .scope = (uint32_t)place,
                                  .kind = kind <= 4 ? (uint8_t)kind : 0,
                                  .scope_is_api = PyUnicode_GET_LENGTH(scope) > 0};
    return 0;
}

/* Find the spans' probes and scopes; 0 or -1 with an exception set. */
static int
find_probes(ot_batch *b)
{
    uint16_t *seen = malloc(sizeof *seen * (OT_MAX_PROBES + 1));
    uint32_t most = b->count < OT_MAX_PROBES ? b->count : OT_MAX_PROBES, found = 0;
    b->probes = malloc(sizeof *b->probes * ((size_t)most + 1));
    b->probe_of = malloc(sizeof *b->probe_of * ((size_t)b->count + 1));
    b->scopes = PyList_New(0);
    PyObject *nowhere = PyUnicode_FromString("");
    int result = seen && b->probes && b->probe_of && b->scopes && nowhere ? 0 : -1;
    if (result < 0)
        PyErr_NoMemory();
    else
        memset(seen, 0xff, sizeof *seen * (OT_MAX_PROBES + 1));
    for (uint32_t i = 0; i < b->count && result == 0; i++) {
        uint32_t id = b->kept[i].slot.probe < OT_MAX_PROBES ? b->kept[i].slot.probe : OT_MAX_PROBES; /* of nobody's */
        if (seen[id] == UNSEEN) {
            result = view(&b->probes[found], b->scopes, ot_probe_at(id), nowhere);
            seen[id] = (uint16_t)found++;
        }
        b->probe_of[i] = seen[id];
    }
    Py_XDECREF(nowhere);
    free(seen);
    return result;
}

static PyTypeObject batch_type;

static PyObject *
take(PyObject *Py_UNUSED(module), PyObject *limit)
{
    size_t want = PyLong_AsSize_t(limit);
    if (want == (size_t)-1 && PyErr_Occurred())
        return NULL;
    ot_batch *b = (ot_batch *)batch_type.tp_alloc(&batch_type, 0);
    if (b == NULL)
        return NULL;
    uint32_t most = OT_LOAD(&ot_drain.kept_count); /* which only grows until the lock is ours, but for other takers */
    most = want < most ? (uint32_t)want : most;
    most = most < MOST ? most : MOST;
    b->kept = malloc(sizeof *b->kept * ((size_t)most + 1));
    if (b->kept == NULL) {
        Py_DECREF(b);
        return PyErr_NoMemory();
    }
    ot_drain_lock();
    b->count = ot_kept_take(b->kept, most);
    b->term = ot_drain.term;
    ot_drain_unlock();
    b->epoch = ot_rec.epochs;
    uint64_t raw = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        b->tiers[b->kept[i].slot.tier % OT_TIERS]++;
        raw += b->kept[i].raw;
        b->charged += b->kept[i].charged;
    }
    ot_bucket_taken(raw, b->charged);
    b->held = ot_probes_held();
    if (find_probes(b) < 0) {
        Py_DECREF(b);
        return NULL;
    }
    return (PyObject *)b;
}

static void
batch_dealloc(PyObject *self)
{
    ot_batch *b = (ot_batch *)self;
    for (uint32_t i = 0; i < b->count; i++)
        free(b->kept[i].blocks.data);
    free(b->kept);
    free(b->probes);
    free(b->probe_of);
    Py_XDECREF(b->scopes);
    Py_XDECREF(b->held);
    Py_TYPE(self)->tp_free(self);
}

static Py_ssize_t
batch_length(PyObject *self)
{
    return (Py_ssize_t)((ot_batch *)self)->count;
}

static PyObject *
batch_states(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const ot_batch *b = (const ot_batch *)self;
    struct ot_limits limits = ot_own_limits();
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < b->count; i++) {
        const struct ot_kept *k = &b->kept[i];
        if (b->epoch != ot_rec.epochs) { /* also when a finalizer that ran in between has opened another */
            PyErr_SetString(PyExc_RuntimeError, "the segment that these spans are of is gone");
            Py_CLEAR(list);
            break;
        }
        struct ot_odds odds = {k->threshold, k->slot.trace_lo};
        PyObject *state = ot_kept_state(&k->slot, k->start_ns, k->end_ns, k->blocks.data, k->blocks.bytes, &limits,
                                        k->threshold != 0 ? &odds : NULL);
        if (state == NULL || PyList_Append(list, state) < 0)
            Py_CLEAR(list);
        Py_XDECREF(state);
    }
    return list;
}

static PyObject *
batch_scopes(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *scopes = ((ot_batch *)self)->scopes;
    return PyList_GetSlice(scopes, 0, PyList_GET_SIZE(scopes));
}

static PyObject *
get_tiers(PyObject *self, void *Py_UNUSED(closure))
{
    const uint32_t *tiers = ((ot_batch *)self)->tiers;
    return Py_BuildValue("(IIII)", (unsigned)tiers[0], (unsigned)tiers[1], (unsigned)tiers[2], (unsigned)tiers[3]);
}

static PyObject *
get_estimated_bytes(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((ot_batch *)self)->charged);
}

/* ---- what has become of them ---- */

/* Whether the drain that they were taken from still drains their segment; with its lock held. */
static bool
of_this_drain(const ot_batch *b)
{
    return ot_drain.open && ot_drain.mine && b->term == ot_drain.term;
}

static void
publish(uint64_t rings)
{
    for (uint32_t i = 0; i < OT_MAX_RINGS; i++) {
        if (rings >> i & 1)
            ot_progress_end(i);
    }
}

/* Tell of all of them that they are sent, or that they are not; with the drain's lock held. */
static void
tell(ot_batch *b, unsigned mark)
{
    uint64_t rings = 0;
    for (uint32_t i = 0; i < b->count && !b->settled && of_this_drain(b); i++) {
        struct ot_kept *k = &b->kept[i];
        if (k->told == mark)
            continue;
        ot_progress_settle(k->ring, k->n, k->slot.tier % OT_TIERS, k->told, mark);
        k->told = (uint8_t)mark;
        rings |= 1ULL << k->ring;
    }
    publish(rings);
}

static PyObject *
batch_sent(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_drain_lock();
    tell((ot_batch *)self, OT_MARK_SENT);
    ot_drain_unlock();
    Py_RETURN_NONE;
}

/* With the drain's lock held. */
static void
offer(const ot_batch *b, bool offered)
{
    for (uint32_t i = 0; i < b->count; i++) {
        if (b->kept[i].told == OT_MARK_NONE)
            ot_progress_offer(b->kept[i].ring, b->kept[i].n, offered);
    }
}

/* Send what the socket has room for, and tell in the segment when that is all of it; what send() gives, or an error's number
 * below 0.  Between the kernel's taking it and the store that says so there is nothing but the way out of the call. */
static ssize_t
send_and_tell(ot_batch *b, int fd, const char *rest, size_t bytes)
{
    ssize_t sent;
    ot_drain_lock();
    Py_BEGIN_ALLOW_THREADS
        bool ours = !b->settled && of_this_drain(b);
        if (ours) {
            OT_STORE_RELEASE(&ot_rec.control->handed, 0);
            offer(b, true);
            OT_FENCE_RELEASE();
        }
        sent = send(fd, rest, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (ours && sent == (ssize_t)bytes)
            OT_STORE_RELEASE(&ot_rec.control->handed, 1);
        sent = sent < 0 ? -errno : sent;
        if (ours && sent == (ssize_t)bytes)
            tell(b, OT_MARK_SENT);
        else if (ours)
            offer(b, false);
        ot_drain_unlock();
    Py_END_ALLOW_THREADS
    return sent;
}

/* The same, waiting for room; 0, or an error's number. */
static int
hand_over(ot_batch *b, int fd, const char *rest, size_t bytes, int64_t deadline_ns)
{
    for (;;) {
        ssize_t sent = send_and_tell(b, fd, rest, bytes);
        if (sent == (ssize_t)bytes)
            return 0;
        if (sent < 0 && sent != -EAGAIN && sent != -EWOULDBLOCK && sent != -EINTR)
            return (int)-sent;
        rest += sent > 0 ? sent : 0;
        bytes -= sent > 0 ? (size_t)sent : 0;
        int64_t left_ms = (deadline_ns - (int64_t)ot_nanoseconds(CLOCK_MONOTONIC)) / 1000000;
        if (left_ms <= 0)
            return ETIMEDOUT;
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        Py_BEGIN_ALLOW_THREADS
            poll(&room, 1, left_ms < 1000 ? (int)left_ms : 1000);
        Py_END_ALLOW_THREADS
    }
}

static PyObject *
batch_hand_over(PyObject *self, PyObject *args)
{
    int fd, error;
    double timeout;
    Py_buffer rest;
    if (!PyArg_ParseTuple(args, "iy*d:hand_over", &fd, &rest, &timeout))
        return NULL;
    timeout = timeout > 0.0 ? (timeout < 1e6 ? timeout : 1e6) : 0.0;
    int64_t deadline_ns = (int64_t)ot_nanoseconds(CLOCK_MONOTONIC) + (int64_t)(timeout * 1e9);
    error = hand_over((ot_batch *)self, fd, rest.buf, (size_t)rest.len, deadline_ns);
    PyBuffer_Release(&rest);
    if (error == 0)
        Py_RETURN_NONE;
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* The receiver would not have them now: they are whoever's turn it is again. */
static PyObject *
batch_unsent(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_drain_lock();
    tell((ot_batch *)self, OT_MARK_NONE);
    ot_drain_unlock();
    Py_RETURN_NONE;
}

/* How many of each tier are refused: those of the lowest tiers. */
static void
divide(const ot_batch *b, uint64_t refused, uint64_t no[OT_TIERS])
{
    for (int t = OT_TIERS - 1; t >= 0; t--) {
        no[t] = refused < b->tiers[t] ? refused : b->tiers[t];
        refused -= no[t];
    }
}

static PyObject *
batch_settle(PyObject *self, PyObject *args)
{
    ot_batch *b = (ot_batch *)self;
    unsigned long long refused = 0;
    if (!PyArg_ParseTuple(args, "|K:settle", &refused))
        return NULL;
    uint64_t no[OT_TIERS] = {0}, left[OT_TIERS], yes[OT_TIERS] = {0}, rings = 0;
    ot_drain_lock();
    if (!b->settled) {
        divide(b, refused, no);
        memcpy(left, no, sizeof left);
        bool ours = of_this_drain(b);
        for (uint32_t i = 0; i < b->count; i++) {
            const struct ot_kept *k = &b->kept[i];
            unsigned tier = k->slot.tier % OT_TIERS, mark = left[tier] > 0 ? OT_MARK_REFUSED : OT_MARK_EXPORTED;
            left[tier] -= left[tier] > 0;
            if (ours)
                ot_progress_settle(k->ring, k->n, tier, k->told, mark);
            rings |= ours ? 1ULL << k->ring : 0;
        }
        for (int t = 0; t < OT_TIERS; t++) {
            yes[t] = b->tiers[t] - no[t];
            ot_drain.settled.exported[t] += b->term == ot_drain.term ? yes[t] : 0;
            ot_drain.settled.refused[t] += b->term == ot_drain.term ? no[t] : 0;
        }
        publish(rings);
        b->settled = true;
    }
    ot_drain_unlock();
    return Py_BuildValue("((KKKK)(KKKK))", (unsigned long long)yes[0], (unsigned long long)yes[1],
                         (unsigned long long)yes[2], (unsigned long long)yes[3], (unsigned long long)no[0],
                         (unsigned long long)no[1], (unsigned long long)no[2], (unsigned long long)no[3]);
}

static PyMethodDef batch_methods[] = {
    {"hand_over", batch_hand_over, METH_VARARGS, NULL}, {"sent", batch_sent, METH_NOARGS, NULL},
    {"unsent", batch_unsent, METH_NOARGS, NULL},        {"settle", batch_settle, METH_VARARGS, NULL},
    {"states", batch_states, METH_NOARGS, NULL},        {"scopes", batch_scopes, METH_NOARGS, NULL},
    {"otlp", ot_batch_otlp, METH_VARARGS, NULL},        {NULL, NULL, 0, NULL},
};

static PyGetSetDef batch_getset[] = {
    {"tiers", get_tiers, NULL, NULL, NULL},
    {"estimated_bytes", get_estimated_bytes, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PySequenceMethods batch_as_sequence = {.sq_length = batch_length};

static PyTypeObject batch_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "otel_trading._native.Batch",
    .tp_basicsize = sizeof(ot_batch),
    .tp_dealloc = batch_dealloc,
    .tp_as_sequence = &batch_as_sequence,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "Spans that take() handed over.",
    .tp_methods = batch_methods,
    .tp_getset = batch_getset,
};

static PyMethodDef functions[] = {
    {"keep", ot_keep, METH_VARARGS, NULL},
    {"kept", ot_kept_count, METH_NOARGS, NULL},
    {"take", take, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

int
ot_batches_start(PyObject *module)
{
    if (PyType_Ready(&batch_type) < 0 || PyModule_AddFunctions(module, functions) < 0)
        return -1;
    return PyModule_AddObjectRef(module, "Batch", (PyObject *)&batch_type);
}
