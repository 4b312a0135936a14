/* The queue between the drain and the exporters, and the accounts of both. */
#include <stdlib.h>
#include <string.h>

#include "drain.h"
#include "entry.h"
#include "names.h"
#include "spanstate.h"

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

/* Copy a span's arena blocks, newest first; what is gone is counted. */
static void
copy_blocks(struct ot_kept *k, struct ot_writer *w)
{
    uint64_t size = w->arena_mask + 1, at = k->slot.arena;
    size_t used = 0, room = 0;
    for (unsigned n = 0; at != 0 && n < OT_MAX_ATTRIBUTES; n++) {
        uint64_t position = at - 1, offset = position & w->arena_mask;
        struct ot_block b;
        if (offset + sizeof b > size)
            break;
        memcpy(&b, w->arena + offset, sizeof b);
        size_t whole = (sizeof b + (size_t)b.bytes + 7) & ~(size_t)7;
        if (b.position != position || b.bytes > OT_TEXT_MAX || offset + whole > size) {
            ot_drain.text_overwritten++;
            break;
        }
        if (used + whole > room) {
            room = room == 0 ? 256 : room * 2;
            room = room < used + whole ? used + whole : room;
            uint8_t *bigger = realloc(k->blocks, room);
            if (bigger == NULL)
                break;
            k->blocks = bigger;
        }
        memcpy(k->blocks + used, w->arena + offset, whole);
        OT_FENCE_ACQUIRE();
        if (OT_LOAD(&w->ring->arena_head) - position > size) {
            ot_drain.text_overwritten++;
            break;
        }
        used += whole;
        if (b.previous >= at)
            break;
        at = b.previous;
    }
    k->block_bytes = (uint32_t)used;
}

bool
ot_kept_push(const struct ot_slot *slot, struct ot_writer *w)
{
    if (ot_drain.kept_count >= ot_drain.kept_limit)
        return false;
    if (ot_drain.kept_count == ot_drain.kept_room && !make_room())
        return false;
    struct ot_kept *k = &ot_drain.kept[(ot_drain.kept_first + ot_drain.kept_count) % ot_drain.kept_room];
    k->slot = *slot;
    k->start_ns = ot_unix_ns(&ot_drain.calibration, slot->start);
    k->end_ns = ot_unix_ns(&ot_drain.calibration, slot->end);
    k->blocks = NULL;
    k->block_bytes = 0;
    if (slot->extra && slot->arena != 0)
        copy_blocks(k, w);
    ot_drain.kept_count++;
    return true;
}

void
ot_kept_clear(void)
{
    for (uint32_t i = 0; i < ot_drain.kept_count; i++)
        free(ot_drain.kept[(ot_drain.kept_first + i) % ot_drain.kept_room].blocks);
    free(ot_drain.kept);
    ot_drain.kept = NULL;
    ot_drain.kept_room = ot_drain.kept_first = ot_drain.kept_count = 0;
}

PyObject *
ot_keep(PyObject *Py_UNUSED(module), PyObject *capacity)
{
    unsigned long limit = PyLong_AsUnsignedLong(capacity);
    if (PyErr_Occurred())
        return NULL;
    if (limit > 1UL << 24) {
        PyErr_SetString(PyExc_ValueError, "the queue holds at most 16777216 spans");
        return NULL;
    }
    ot_drain_lock();
    (void)ot_drain_pass(); /* what was recorded so far falls under what was said so far */
    ot_drain.kept_limit = (uint32_t)limit;
    ot_drain_unlock();
    Py_RETURN_NONE;
}

static PyObject *
own_name(void *Py_UNUSED(context), uint32_t id)
{
    return Py_NewRef(ot_name_text(id));
}

PyObject *
ot_take(PyObject *Py_UNUSED(module), PyObject *limit)
{
    unsigned long want = PyLong_AsUnsignedLong(limit);
    if (PyErr_Occurred())
        return NULL;
    ot_drain_lock();
    uint32_t count = ot_drain.kept_count < want ? ot_drain.kept_count : (uint32_t)want;
    struct ot_kept *batch = count > 0 ? malloc(sizeof *batch * count) : NULL;
    if (batch == NULL)
        count = 0;
    for (uint32_t i = 0; i < count; i++)
        batch[i] = ot_drain.kept[(ot_drain.kept_first + i) % ot_drain.kept_room];
    if (count > 0) {
        ot_drain.kept_first = (ot_drain.kept_first + count) % ot_drain.kept_room;
        ot_drain.kept_count -= count;
    }
    ot_drain_unlock();

    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; i < count; i++) {
        struct ot_kept *k = &batch[i];
        PyObject *state =
            list == NULL ? NULL
                         : ot_span_state(&k->slot, k->start_ns, k->end_ns, k->blocks, k->block_bytes, own_name, NULL);
        if (state == NULL || PyList_Append(list, state) < 0)
            Py_CLEAR(list);
        Py_XDECREF(state);
        free(k->blocks);
    }
    free(batch);
    return list;
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
