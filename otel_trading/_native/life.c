#include "life.h"

#include <sys/mman.h>

#include "instruments.h"
#include "names.h"
#include "pulses.h"

#if defined(__linux__) && !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23
#endif

static PyObject *beats[OT_BEATS]; /* owned: names of the loops of the present segment, by their numbers */
static PyObject *told_queue;      /* owned: the gauge that the program named, or NULL … */
static PyObject *usual_queue;     /* … owned: else the first one with a usual name, or NULL */

/* ---- the queue ---- */

static void
point_at_queue(void)
{
    const ot_instrument_object *g = (ot_instrument_object *)(told_queue != NULL ? told_queue : usual_queue);
    OT_STORE(&ot_rec.life->queue, g != NULL && g->id >= 0 ? (uint64_t)g->id + 1 : 0);
}

void
ot_life_gauge(PyObject *gauge)
{
    static const char *const usual[] = {"queue.size", "queue.depth", "trading.queue.size", "trading.queue.depth"};
    if (usual_queue != NULL || ((ot_instrument_object *)gauge)->id < 0)
        return;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        if (PyUnicode_CompareWithASCIIString(((ot_instrument_object *)gauge)->name, usual[i]) != 0)
            continue;
        usual_queue = Py_NewRef(gauge);
        if (ot_rec.epoch != OT_CLOSED)
            point_at_queue();
        return;
    }
}

PyObject *
ot_queue_gauge(PyObject *Py_UNUSED(module), PyObject *gauge)
{
    if (gauge != Py_None && !ot_is_gauge(gauge)) {
        PyErr_SetString(PyExc_TypeError, "queue_gauge() takes a Gauge or None");
        return NULL;
    }
    Py_XSETREF(told_queue, gauge != Py_None ? Py_NewRef(gauge) : NULL);
    if (ot_rec.epoch != OT_CLOSED)
        point_at_queue();
    Py_RETURN_NONE;
}

/* ---- beats ---- */

/* The number of a loop, of a new one where there is room; -1: there is none, or it need not be known. */
static int
number_of(PyObject *name, bool resting)
{
    int count = 0;
    for (; count < OT_BEATS && beats[count] != NULL; count++) {
        if (OT_LIKELY(beats[count] == name))
            return count;
    }
    for (int i = 0; i < count; i++) {
        if (PyUnicode_Compare(beats[i], name) == 0)
            return i;
    }
    PyErr_Clear();
    if (resting)
        return -1;
    if (count == OT_BEATS) {
        ot_fault();
        return -1;
    }
    beats[count] = Py_NewRef(name);
    OT_STORE(&ot_rec.life->beat_name[count], ot_name_id(name));
    return count;
}

PyObject *
ot_beat(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyUnicode_Check(args[0]) || !PyLong_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "beat() takes a str and an int");
        return NULL;
    }
    int overflow;
    long long late = PyLong_AsLongLongAndOverflow(args[1], &overflow);
    if (overflow < 0 || (overflow == 0 && late < 0)) {
        PyErr_SetString(PyExc_ValueError, "beat(): late_ns is 0 or more, not negative");
        return NULL;
    }
    if (overflow > 0)
        late = INT64_MAX;
    if (ot_writer_here() == NULL) /* opens the segment of a forked child, as a span would */
        Py_RETURN_NONE;
    int i = number_of(args[0], late == 0);
    if (i < 0)
        Py_RETURN_NONE;
    struct ot_life *life = ot_rec.life;
    if (late == 0) {
        OT_STORE(&life->beat_ns[i], 0);
        Py_RETURN_NONE;
    }
    OT_STORE(&life->beat_late_ns[i], (uint64_t)late);
    OT_STORE(&life->beat_ns[i], ot_nanoseconds(CLOCK_MONOTONIC));
    if (OT_UNLIKELY((uint64_t)i >= OT_LOAD(&life->beat_count)))
        OT_STORE_RELEASE(&life->beat_count, (uint64_t)i + 1);
    Py_RETURN_NONE;
}

/* ---- the end ---- */

PyObject *
ot_ending(PyObject *Py_UNUSED(module), PyObject *args)
{
    int kind;
    long long code;
    PyObject *name;
    if (!PyArg_ParseTuple(args, "iLU:ending", &kind, &code, &name))
        return NULL;
    if (kind < OT_ENDING_NONE || kind > OT_ENDING_SIGNAL) {
        PyErr_SetString(PyExc_ValueError, "how a process ends is 0 to 3");
        return NULL;
    }
    if (ot_rec.epoch == OT_CLOSED)
        Py_RETURN_NONE;
    struct ot_life *life = ot_rec.life;
    uint64_t before = OT_LOAD(&life->ending);
    if (kind != OT_ENDING_NONE && (before == OT_ENDING_EXCEPTION || before == OT_ENDING_SIGNAL))
        Py_RETURN_NONE;
    uint32_t id = kind != OT_ENDING_NONE ? ot_name_id(name) : OT_NAME_NONE;
    OT_STORE(&life->ending, OT_ENDING_NONE);
    OT_FENCE_RELEASE();
    OT_STORE(&life->ending_code, kind != OT_ENDING_NONE ? (uint64_t)code : 0);
    OT_STORE(&life->ending_ns, kind != OT_ENDING_NONE ? ot_nanoseconds(CLOCK_REALTIME) : 0);
    OT_STORE(&life->ending_name, id);
    OT_STORE_RELEASE(&life->ending, (uint64_t)kind);
    Py_RETURN_NONE;
}

/* ---- a segment begins and ends ---- */

void
ot_life_open(void)
{
    ot_pulses_forget(); /* a forked child has its parent's files open */
    for (int i = 0; i < OT_BEATS; i++)
        Py_CLEAR(beats[i]);
    point_at_queue();
    ot_signals_open();
#if defined(__linux__)
    /* map the pages now, so that the first events do not pay for faults; older kernels refuse, and then they do */
    (void)madvise(ot_rec.vitals, sizeof(struct ot_vital) * OT_VITALS, MADV_POPULATE_WRITE);
#endif
}

void
ot_life_close(void)
{
    ot_pulses_forget();
    ot_signals_close();
}
