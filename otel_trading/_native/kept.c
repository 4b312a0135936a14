/* The queue between the drain and the exporters, and the accounts of both. */
#include <stdlib.h>
#include <string.h>

#include "drain.h"

#define FIRST_ROOM 256

static bool
make_room(void)
{
    uint32_t room = ot_drain.kept_room == 0 ? FIRST_ROOM : ot_drain.kept_room * 2;
    if (room > ot_drain.kept_limit)
        room = ot_drain.kept_limit;
    if (room <= ot_drain.kept_count)
        return false;
    struct ot_kept *bigger = malloc(sizeof *bigger * room);
    if (bigger == NULL)
        return false;
    for (uint32_t i = 0; i < ot_drain.kept_count; i++)
        bigger[i] = ot_drain.kept[(ot_drain.kept_first + i) % ot_drain.kept_room];
    free(ot_drain.kept);
    ot_drain.kept = bigger;
    ot_drain.kept_room = room;
    ot_drain.kept_first = 0;
    return true;
}

static struct ot_kept *
place_of(uint32_t number)
{
    return &ot_drain.kept[(ot_drain.kept_first + number) % ot_drain.kept_room];
}

bool
ot_kept_push(const struct ot_slot *slot, struct ot_writer *w, uint64_t start_ns, uint64_t end_ns)
{
    if (ot_drain.kept_count >= ot_drain.kept_limit)
        return false;
    if (ot_drain.kept_count == ot_drain.kept_room && !make_room())
        return false;
    struct ot_kept *k = place_of(ot_drain.kept_count);
    k->blocks = (struct ot_blocks){NULL, 0, 0};
    if (slot->extra && slot->arena != 0) {
        ot_blocks_copy(w, slot->arena, &k->blocks);
        ot_drain.text_overwritten += k->blocks.gone;
        if (ot_drain.kept_bytes + k->blocks.bytes > ot_drain.kept_bytes_limit) {
            free(k->blocks.data);
            return false;
        }
        ot_drain.kept_bytes += k->blocks.bytes;
    }
    k->slot = *slot;
    k->start_ns = start_ns;
    k->end_ns = end_ns;
    OT_STORE(&ot_drain.kept_count, ot_drain.kept_count + 1);
    return true;
}

uint32_t
ot_kept_take(struct ot_kept *to, uint32_t count)
{
    count = count < ot_drain.kept_count ? count : ot_drain.kept_count;
    for (uint32_t i = 0; i < count; i++) {
        to[i] = *place_of(i);
        ot_drain.kept_bytes -= to[i].blocks.bytes;
    }
    if (count > 0)
        ot_drain.kept_first = (ot_drain.kept_first + count) % ot_drain.kept_room;
    OT_STORE(&ot_drain.kept_count, ot_drain.kept_count - count);
    return count;
}

void
ot_kept_clear(void)
{
    for (uint32_t i = 0; i < ot_drain.kept_count; i++)
        free(place_of(i)->blocks.data);
    free(ot_drain.kept);
    ot_drain.kept = NULL;
    ot_drain.kept_room = ot_drain.kept_first = 0;
    ot_drain.kept_bytes = 0;
    OT_STORE(&ot_drain.kept_count, 0);
}

PyObject *
ot_keep(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long limit, bytes = 8 << 20;
    if (!PyArg_ParseTuple(args, "K|K:keep", &limit, &bytes))
        return NULL;
    if (limit > 1UL << 24) {
        PyErr_SetString(PyExc_ValueError, "the queue holds at most 16777216 spans");
        return NULL;
    }
    ot_drain_lock();
    (void)ot_drain_pass(); /* what was recorded so far falls under what was said so far */
    ot_drain.kept_limit = (uint32_t)limit;
    ot_drain.kept_bytes_limit = bytes;
    ot_drain_unlock();
    Py_RETURN_NONE;
}

PyObject *
ot_kept_count(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLong(OT_LOAD(&ot_drain.kept_count));
}

static bool
four(PyObject *tuple, uint64_t numbers[OT_TIERS])
{
    if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != OT_TIERS) {
        PyErr_SetString(PyExc_TypeError, "settle() takes two tuples of four counts");
        return false;
    }
    for (int t = 0; t < OT_TIERS; t++) {
        numbers[t] = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(tuple, t));
        if (PyErr_Occurred())
            return false;
    }
    return true;
}

PyObject *
ot_settle(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *exported, *refused;
    uint64_t yes[OT_TIERS], no[OT_TIERS];
    if (!PyArg_ParseTuple(args, "OO:settle", &exported, &refused) || !four(exported, yes) || !four(refused, no))
        return NULL;
    ot_drain_lock();
    for (int t = 0; t < OT_TIERS; t++) {
        ot_drain.settled.exported[t] += yes[t];
        ot_drain.settled.refused[t] += no[t];
    }
    ot_drain_unlock();
    Py_RETURN_NONE;
}

PyObject *
ot_accounts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    struct ot_settled s;
    ot_drain_lock();
    (void)ot_drain_pass();
    ot_drain_look();
    s = ot_drain.settled;
    ot_drain_unlock();
    PyObject *list = PyList_New(0);
    for (int t = 0; t < OT_TIERS && list != NULL; t++) {
        s.refused[t] += s.refused_at_the_door[t];
        uint64_t settled = s.exported[t] + s.sampled_out[t] + s.overwritten[t] + s.refused[t];
        PyObject *row =
            Py_BuildValue("{sKsKsKsKsKsK}", "recorded", (unsigned long long)s.recorded[t], "exported",
                          (unsigned long long)s.exported[t], "sampled_out", (unsigned long long)s.sampled_out[t],
                          "overwritten", (unsigned long long)s.overwritten[t], "refused",
                          (unsigned long long)s.refused[t], "pending", (unsigned long long)(s.recorded[t] - settled));
        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}
