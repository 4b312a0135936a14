#include "names.h"

#include <string.h>

#include "instruments.h"
#include "probe.h"

#define READ_BYTES (8U << 20) /* of an adopted segment's names; a real table has less */

static PyObject *ids;    /* dict: str → int; owned */
static PyObject *texts;  /* list: id → str; owned.  The same objects as the keys of ids */
static PyObject *probes; /* list by id; owned */
static PyObject *instruments;
static PyObject *own_probes; /* list of this process's, where a segment is adopted, else NULL; owned */
static PyObject *own_instruments;
static uint64_t text_used; /* of the present segment; the header's are told by these, and never believed */
static uint32_t name_count;
static uint32_t probe_count; /* entries of the tables that are written */
static uint32_t instrument_count;
static uint64_t read_bytes; /* of an adopted segment's names */
static PyObject *other;     /* "other" */
static PyObject *empty;     /* "" */

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
    uint32_t id = name_count;
    if (id >= ot_rec.settings.max_names || bytes > OT_NAME_BYTES || (uint64_t)bytes > ot_rec.text_bytes - text_used)
        return OT_NAME_NONE;
    PyObject *number = PyLong_FromUnsignedLong(id);
    if (number == NULL || PyDict_SetItem(ids, text, number) < 0 || PyList_Append(texts, text) < 0) {
        Py_XDECREF(number);
        PyErr_Clear();
        return OT_NAME_NONE;
    }
    Py_DECREF(number);
    memcpy(ot_rec.text + text_used, utf8, (size_t)bytes);
    ot_rec.names[id].offset = (uint32_t)text_used;
    ot_rec.names[id].bytes = (uint32_t)bytes;
    text_used += (uint64_t)bytes;
    name_count = id + 1;
    OT_STORE(&h->text_used, text_used);
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
    if (name_count >= ot_rec.settings.max_names / 2 || text_used >= ot_rec.text_bytes / 2)
        return OT_NAME_NONE;
    return append(text);
}

/* ---- an adopted segment's ---- */

/* The str of an entry; owned; "other" for one that can not be. */
static PyObject *
read_name(uint32_t id)
{
    struct ot_name n = {OT_LOAD(&ot_rec.names[id].offset), OT_LOAD(&ot_rec.names[id].bytes)};
    PyObject *text = NULL;
    if (n.bytes <= OT_NAME_BYTES && n.bytes <= ot_rec.text_bytes && n.offset <= ot_rec.text_bytes - n.bytes &&
        read_bytes + n.bytes <= READ_BYTES) {
        char copy[OT_NAME_BYTES];
        memcpy(copy, ot_rec.text + n.offset, n.bytes);
        read_bytes += n.bytes;
        text = PyUnicode_DecodeUTF8(copy, (Py_ssize_t)n.bytes, "replace");
    }
    if (text == NULL) {
        PyErr_Clear();
        text = Py_NewRef(other);
    }
    return text;
}

/* Read on in the table, up to an entry; never leaves an exception. */
static void
read_names(uint32_t id)
{
    if (!ot_rec.adopted || ot_rec.inherited || ot_rec.mapped == OT_CLOSED)
        return;
    uint32_t count = OT_LOAD_ACQUIRE(&ot_rec.header->name_count);
    count = count < ot_rec.settings.max_names ? count : ot_rec.settings.max_names;
    for (uint32_t next = (uint32_t)PyList_GET_SIZE(texts); next <= id && next < count; next++) {
        PyObject *text = read_name(next);
        int appended = PyList_Append(texts, text);
        Py_DECREF(text);
        if (appended < 0) {
            PyErr_Clear();
            return;
        }
    }
}

static void
read_probes(void)
{
    if (!ot_rec.adopted || ot_rec.inherited || ot_rec.mapped == OT_CLOSED)
        return;
    uint32_t count = OT_LOAD_ACQUIRE(&ot_rec.header->probe_count);
    for (uint32_t id = (uint32_t)PyList_GET_SIZE(probes); id < count && id < OT_MAX_PROBES; id++) {
        const struct ot_probe *entry = &ot_rec.probes[id];
        ot_probe_object *p = (ot_probe_object *)ot_probe_type.tp_alloc(&ot_probe_type, 0);
        if (p == NULL || PyList_Append(probes, (PyObject *)p) < 0) {
            PyErr_Clear();
            Py_XDECREF(p);
            return;
        }
        uint32_t scope = OT_LOAD(&entry->scope);
        p->name = Py_NewRef(ot_name_text(OT_LOAD(&entry->name)));
        p->scope = Py_NewRef(scope == OT_NAME_NONE ? empty : ot_name_text(scope));
        p->id = id;
        p->tier = OT_LOAD(&entry->tier) % OT_TIERS;
        p->leaf = OT_LOAD(&entry->leaf) != 0;
        p->kind = OT_LOAD(&entry->kind) <= 4 ? OT_LOAD(&entry->kind) % 5 : 0;
        p->sla_ns = OT_LOAD(&entry->sla_ns);
        Py_DECREF(p);
    }
}

static void
read_instruments(void)
{
    if (!ot_rec.adopted || ot_rec.inherited || ot_rec.mapped == OT_CLOSED || PyList_GET_SIZE(own_instruments) == 0)
        return;
    PyTypeObject *type =
        Py_TYPE(PyList_GET_ITEM(own_instruments, 0)); /* which of them does not matter: only we see it */
    uint32_t count = OT_LOAD_ACQUIRE(&ot_rec.header->instrument_count);
    for (uint32_t id = (uint32_t)PyList_GET_SIZE(instruments); id < count && id < OT_MAX_INSTRUMENTS; id++) {
        const struct ot_instrument *entry = &ot_rec.instruments[id];
        ot_instrument_object *i = (ot_instrument_object *)type->tp_alloc(type, 0);
        if (i == NULL || PyList_Append(instruments, (PyObject *)i) < 0) {
            PyErr_Clear();
            Py_XDECREF(i);
            return;
        }
        i->name = Py_NewRef(ot_name_text(OT_LOAD(&entry->name)));
        i->unit = Py_NewRef(ot_name_text(OT_LOAD(&entry->unit)));
        i->description = Py_NewRef(ot_name_text(OT_LOAD(&entry->description)));
        i->attributes = Py_NewRef(ot_name_text(OT_LOAD(&entry->attributes)));
        i->id = (int32_t)id;
        i->kind = OT_LOAD(&entry->kind);
        if (i->kind < OT_INSTRUMENT_COUNTER || i->kind > OT_INSTRUMENT_HISTOGRAM)
            i->kind = OT_INSTRUMENT_GAUGE;
        i->tier = OT_LOAD(&entry->tier) % OT_TIERS;
        i->off_cpu = OT_LOAD(&entry->off_cpu);
        Py_DECREF(i);
    }
}

PyObject *
ot_name_text(uint32_t id)
{
    if (OT_UNLIKELY((Py_ssize_t)id >= PyList_GET_SIZE(texts)))
        read_names(id);
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
    probe_count = id + 1;
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
    instrument_count = id + 1;
    OT_STORE_RELEASE(&ot_rec.header->instrument_count, id + 1);
}

int
ot_names_open(void)
{
    PyDict_Clear(ids);
    text_used = name_count = probe_count = instrument_count = 0;
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
    if (ot_rec.adopted && (PyList_Append(own_probes, probe) < 0 || !ot_rec.inherited))
        return PyErr_Occurred() ? -1 : (int)PyList_GET_SIZE(own_probes) - 1;
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
    if ((Py_ssize_t)id >= PyList_GET_SIZE(probes))
        read_probes();
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
    read_probes();
    return (uint32_t)PyList_GET_SIZE(probes);
}

int
ot_instrument_register(PyObject *instrument)
{
    if (ot_rec.adopted) {
        if (PyList_Append(own_instruments, instrument) < 0)
            PyErr_Clear();
        if (!ot_rec.inherited)
            return (int)PyList_GET_SIZE(own_instruments) - 1;
    }
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
    if ((Py_ssize_t)id >= PyList_GET_SIZE(instruments))
        read_instruments();
    return (Py_ssize_t)id < PyList_GET_SIZE(instruments) ? PyList_GET_ITEM(instruments, id) : NULL;
}

uint32_t
ot_instrument_total(void)
{
    read_instruments();
    return (uint32_t)PyList_GET_SIZE(instruments);
}

PyObject *
ot_probes_held(void)
{
    return Py_NewRef(probes);
}

/* ---- whose tables they are ---- */

void
ot_names_adopt(void)
{
    PyObject *theirs = PyList_New(0), *their_instruments = PyList_New(0);
    if (theirs == NULL || their_instruments == NULL || PyList_SetSlice(texts, 0, PyList_GET_SIZE(texts), NULL) < 0) {
        PyErr_Clear(); /* for want of memory: nothing has a name */
    }
    PyDict_Clear(ids);
    own_probes = probes;
    own_instruments = instruments;
    probes = theirs != NULL ? theirs : Py_NewRef(own_probes);
    instruments = their_instruments != NULL ? their_instruments : Py_NewRef(own_instruments);
    read_bytes = 0;
}

/* What is registered in this process has the ids of its lists again. */
void
ot_names_own(void)
{
    if (own_probes == NULL)
        return;
    Py_SETREF(probes, own_probes);
    Py_SETREF(instruments, own_instruments);
    own_probes = own_instruments = NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(probes); i++)
        ((ot_probe_object *)PyList_GET_ITEM(probes, i))->id = (uint32_t)(i < OT_MAX_PROBES ? i : OT_MAX_PROBES - 1);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(instruments); i++)
        ((ot_instrument_object *)PyList_GET_ITEM(instruments, i))->id = i < OT_MAX_INSTRUMENTS ? (int32_t)i : -1;
}

void
ot_names_inherit(void)
{
    bool inherited = ot_rec.inherited;
    ot_rec.inherited = false; /* all of theirs first */
    read_names(UINT32_MAX);
    read_probes();
    read_instruments();
    ot_rec.inherited = inherited;
    uint64_t used = OT_LOAD(&ot_rec.header->text_used);
    text_used = used < ot_rec.text_bytes ? used : ot_rec.text_bytes;
    name_count = (uint32_t)PyList_GET_SIZE(texts);
    for (Py_ssize_t i = name_count; i-- > 0;) { /* of equal ones the first stays */
        PyObject *number = PyLong_FromSsize_t(i);
        if (number == NULL || PyDict_SetItem(ids, PyList_GET_ITEM(texts, i), number) < 0)
            PyErr_Clear();
        Py_XDECREF(number);
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(own_probes); i++) {
        ot_probe_object *p = (ot_probe_object *)PyList_GET_ITEM(own_probes, i);
        uint32_t id = (uint32_t)PyList_GET_SIZE(probes);
        p->id = id < OT_MAX_PROBES ? id : OT_MAX_PROBES - 1; /* no room: the last one's */
        if (id < OT_MAX_PROBES && PyList_Append(probes, (PyObject *)p) == 0)
            write_probe(id, p);
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(own_instruments); i++) {
        ot_instrument_object *o = (ot_instrument_object *)PyList_GET_ITEM(own_instruments, i);
        uint32_t id = (uint32_t)PyList_GET_SIZE(instruments);
        o->id = id < OT_MAX_INSTRUMENTS ? (int32_t)id : -1;
        if (id < OT_MAX_INSTRUMENTS && PyList_Append(instruments, (PyObject *)o) == 0)
            write_instrument(id, o);
    }
    PyErr_Clear();
}
