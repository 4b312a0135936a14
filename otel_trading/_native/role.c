/* Who drains this process's segment: it itself, or, while it has given that away, another process. */
#include <string.h>
#include <unistd.h>

#include "buffers.h"
#include "drain.h"
#include "progress.h"
#include "select.h"

static void
set_turns(void (*turn)(void))
{
    for (uint32_t i = 0; i < OT_MAX_RINGS; i++)
        ot_writers[i].turn = turn;
}

void
ot_drain_begin(unsigned host)
{
    ot_drain_heap_forget();
    ot_drain.mine = true;
    ot_drain.term++;
    OT_STORE(&ot_rec.control->host_now, host);
    OT_STORE(&ot_rec.control->drained_by, (uint64_t)getpid());
    (void)ot_drain_rings();
    ot_drain_publish();
}

void
ot_drain_end(void)
{
    for (uint32_t i = 0; i < ot_drain.rings; i++) {
        if (ot_writers[i].ring != NULL)
            ot_progress_end(i);
    }
    ot_drain_publish();
    ot_drain_look();
    OT_STORE(&ot_rec.control->drained_by, 0);
    ot_kept_clear(); /* nothing is told of those: who drains next decides again */
    ot_drain.mine = false;
    ot_drain.term++;
}

void
ot_drain_told(struct ot_settled *s)
{
    memset(s, 0, sizeof *s);
    uint32_t rings = OT_LOAD_ACQUIRE(&ot_rec.header->ring_count);
    for (uint32_t i = 0; i < rings && i < OT_MAX_RINGS; i++) {
        uint64_t head, recorded[OT_TIERS], values;
        struct ot_found f;
        if (ot_writers[i].ring == NULL)
            continue;
        (void)ot_progress_look(&ot_writers[i], &head, recorded, &values);
        ot_progress_read(i, head, &f);
        for (int t = 0; t < OT_TIERS; t++) {
            s->exported[t] += f.fates.exported[t];
            s->sampled_out[t] += f.fates.sampled_out[t];
            s->refused[t] += f.fates.refused[t];
            s->recorded[t] += recorded[t];
        }
    }
    for (int t = 0; t < OT_TIERS; t++) {
        uint64_t told = s->exported[t] + s->sampled_out[t] + s->refused[t];
        uint64_t left = s->recorded[t] > told ? s->recorded[t] - told : 0,
                 gone = OT_LOAD(&ot_rec.accounts->overwritten[t]);
        s->overwritten[t] = gone < left ? gone : left;
        s->recorded[t] = told + left;
        s->refused_at_the_door[t] = OT_LOAD(&ot_rec.header->spans_refused[t]);
        s->recorded[t] += s->refused_at_the_door[t];
    }
}

PyObject *
ot_drain_give(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (ot_rec.epoch == OT_CLOSED || ot_rec.adopted)
        Py_RETURN_NONE;
    ot_drain_stop_thread();
    ot_drain_lock();
    if (ot_drain.open && ot_drain.mine) {
        ot_drain_end();
        ot_select_forget();
    }
    ot_drain_unlock();
    set_turns(ot_buffers_turn);
    Py_RETURN_NONE;
}

PyObject *
ot_drain_take(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (ot_rec.epoch == OT_CLOSED || ot_rec.adopted)
        Py_RETURN_NONE;
    set_turns(NULL);
    ot_drain_lock();
    if (ot_drain.open && !ot_drain.mine) {
        ot_drain_begin(OT_HOST_EMBEDDED);
        ot_drain.fresh = true;
    }
    ot_drain_unlock();
    Py_RETURN_NONE;
}
