#include "names.h"

#include <string.h>

#include "instruments.h"
#include "probe.h"

static PyObject *ids;    /* dict: str → int; owned */
static PyObject *texts;  /* list: id → str; owned.  The same objects as the keys of ids */
static PyObject *probes; /* list; owned */
static PyObject *instruments;
static PyObject *other; /* "other" */
static PyObject *empty; /* "" */

int
ot_names_start(void)
{
    ids = PyDict_New();
    texts = PyList_New(0);
    probes = PyList_New(0);
    instruments = PyList_New(0);
    other = PyUnicode_InternFromString("other");
    empty = PyUnicode_InternFromString("");
    return ids && texts && probes && instruments && other && empty ? 0 : -1;
}

/* Append to the table; the id, or OT_NAME_NONE where there is no room.  Never leaves an exception. */
static uint32_t
append(PyObject *text)
{
    struct ot_header *h = ot_rec.header;
    Py_ssize_t bytes;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &bytes);
    if (utf8 == NULL) { /* lone surrogates */
        PyErr_Clear();
        return OT_NAME_NONE;
    }
    uint32_t id = h->name_count;
    if (id >= h->max_names || bytes > OT_NAME_BYTES || (uint64_t)bytes > h->text_bytes - h->text_used)
        return OT_NAME_NONE;
    PyObject *number = PyLong_FromUnsignedLong(id);
    if (number == NULL || PyDict_SetItem(ids, text, number) < 0 || PyList_Append(texts, text) < 0) {
        Py_XDECREF(number);
        PyErr_Clear();
        return OT_NAME_NONE;
    }
    Py_DECREF(number);
    memcpy(ot_rec.text + h->text_used, utf8, (size_t)bytes);
    ot_rec.names[id].offset = (uint32_t)h->text_used;
    ot_rec.names[id].bytes = (uint32_t)bytes;
    OT_STORE(&h->text_used, h->text_used + (uint64_t)bytes);
    OT_STORE_RELEASE(&h->name_count, id + 1);
    return id;
}

static uint32_t
find(PyObject *text)
{
    PyObject *number = PyDict_GetItemWithError(ids, text);
    if (number != NULL)
        return (uint32_t)PyLong_AsUnsignedLong(number);
    PyErr_Clear();
    return append(text);
}

uint32_t
ot_name_id(PyObject *text)
{
    if (PyUnicode_GET_LENGTH(text) == 0)
        return OT_NAME_NONE;
    uint32_t id = find(text);
    if (OT_UNLIKELY(id == OT_NAME_NONE)) {
        OT_STORE(&ot_rec.header->names_refused, ot_rec.header->names_refused + 1);
        return OT_NAME_OTHER;
    }
    return id;
}

uint32_t
ot_value_id(PyObject *text)
{
    if (PyUnicode_GET_LENGTH(text) > OT_SHORT_TEXT)
        return OT_NAME_NONE;
    PyObject *number = PyDict_GetItemWithError(ids, text);
    if (OT_LIKELY(number != NULL))
        return (uint32_t)PyLong_AsUnsignedLong(number);
    PyErr_Clear();
    const struct ot_header *h = ot_rec.header;
    if (h->name_count >= h->max_names / 2 || h->text_used >= h->text_bytes / 2)
        return OT_NAME_NONE;
    return append(text);
}

PyObject *
ot_name_text(uint32_t id)
{
    if ((Py_ssize_t)id < PyList_GET_SIZE(texts))
        return PyList_GET_ITEM(texts, id);
    return other;
}

static void
write_probe(uint32_t id, ot_probe_object *p)
{
    struct ot_probe *entry = &ot_rec.probes[id];
    entry->name = ot_name_id(p->name);
    entry->tier = p->tier;
    entry->leaf = p->leaf;
    entry->kind = p->kind;
    entry->sla_ns = p->sla_ns;
    entry->scope = ot_name_id(ot_probe_scope((PyObject *)p));
    OT_STORE_RELEASE(&ot_rec.header->probe_count, id + 1);
}

static void
write_instrument(uint32_t id, const ot_instrument_object *i)
{
    struct ot_instrument *entry = &ot_rec.instruments[id];
    entry->name = ot_name_id(i->name);
    entry->unit = ot_name_id(i->unit);
    entry->description = ot_name_id(i->description);
    entry->attributes = ot_name_id(i->attributes);
    entry->kind = i->kind;
    entry->tier = i->tier;
    entry->off_cpu = i->off_cpu;
    OT_STORE_RELEASE(&ot_rec.header->instrument_count, id + 1);
}

int
ot_names_open(void)
{
    PyDict_Clear(ids);
    if (PyList_SetSlice(texts, 0, PyList_GET_SIZE(texts), NULL) < 0)
        return -1;
    uint32_t first = append(empty), second = append(other);
    if (first != OT_NAME_NONE || second != OT_NAME_OTHER) {
        PyErr_SetString(PyExc_RuntimeError, "otel-trading: the name table has no room for its reserved entries");
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(probes); i++)
        write_probe((uint32_t)i, (ot_probe_object *)PyList_GET_ITEM(probes, i));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(instruments); i++)
        write_instrument((uint32_t)i, (ot_instrument_object *)PyList_GET_ITEM(instruments, i));
    return 0;
}

int
ot_probe_register(PyObject *probe)
{
    static bool making_other;
    uint32_t id = (uint32_t)PyList_GET_SIZE(probes), last = OT_MAX_PROBES - 1;
    if (id >= last && !making_other) {
        /* the last place is "other", for all that come too late */
        if (id == last) {
            making_other = true;
            PyObject *catch_all = PyObject_CallFunction((PyObject *)&ot_probe_type, "O", other);
            making_other = false;
            if (catch_all == NULL)
                return -1;
            Py_DECREF(catch_all);
        }
        if (ot_rec.epoch != OT_CLOSED)
            OT_STORE(&ot_rec.header->names_refused, ot_rec.header->names_refused + 1);
        return (int)last;
    }
    if (PyList_Append(probes, probe) < 0)
        return -1;
    if (ot_rec.epoch != OT_CLOSED)
        write_probe(id, (ot_probe_object *)probe);
    return (int)id;
}

PyObject *
ot_probe_at(uint32_t id)
{
    return (Py_ssize_t)id < PyList_GET_SIZE(probes) ? PyList_GET_ITEM(probes, id) : NULL;
}

PyObject *
ot_probe_scope(PyObject *probe)
{
    PyObject *scope = ((ot_probe_object *)probe)->scope;
    return scope != NULL ? scope : empty;
}

uint32_t
ot_probe_total(void)
{
    return (uint32_t)PyList_GET_SIZE(probes);
}

int
ot_instrument_register(PyObject *instrument)
{
    uint32_t id = (uint32_t)PyList_GET_SIZE(instruments);
    if (id >= OT_MAX_INSTRUMENTS)
        return -1;
    if (PyList_Append(instruments, instrument) < 0) {
        PyErr_Clear();
        return -1;
    }
    if (ot_rec.epoch != OT_CLOSED)
        write_instrument(id, (ot_instrument_object *)instrument);
    return (int)id;
}

PyObject *
ot_instrument_at(uint32_t id)
{
    return (Py_ssize_t)id < PyList_GET_SIZE(instruments) ? PyList_GET_ITEM(instruments, id) : NULL;
}

uint32_t
ot_instrument_total(void)
{
    return (uint32_t)PyList_GET_SIZE(instruments);
}
