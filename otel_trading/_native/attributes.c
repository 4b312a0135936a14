/* Attributes: four inline, then the thread's arena; in the order in which they were set. */
#include <string.h>

#include "doubles.h"
#include "entry.h"
#include "message.h"
#include "names.h"

/* A value as the format has it. */
struct value {
    uint8_t type;
    uint64_t word;
    const void *payload; /* of OT_TYPE_TEXT and OT_TYPE_MESSAGE; borrowed from the value, `keep` or `wire` */
    uint32_t bytes;
    bool cut;
    PyObject *keep;       /* owned, or NULL */
    struct ot_wire *wire; /* room for a message */
};

static bool
from_text(PyObject *text, bool api, uint32_t room, struct value *v)
{
    uint32_t characters = api ? ot_rec.settings.value_length : OT_NO_LIMIT;
    uint32_t id = PyUnicode_GET_LENGTH(text) <= (Py_ssize_t)characters ? ot_value_id(text) : OT_NAME_NONE;
    if (OT_LIKELY(id != OT_NAME_NONE)) {
        v->type = OT_TYPE_NAME;
        v->word = id;
        return true;
    }
    struct ot_rules rules = {characters, room < OT_TEXT_BYTES ? room : OT_TEXT_BYTES, api, false};
    PyObject *keep;
    v->type = OT_TYPE_TEXT;
    v->payload = ot_text_utf8(text, &rules, &keep, &v->bytes);
    v->cut = rules.cut;
    if (keep != NULL)
        Py_XSETREF(v->keep, keep);
    return v->payload != NULL;
}

static bool
from_double(double d, struct value *v)
{
    v->type = OT_TYPE_DOUBLE;
    v->word = ot_bits_of(d);
    return true;
}

static bool
from_int(PyObject *value, bool api, uint32_t room, struct value *v)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (OT_LIKELY(overflow == 0)) {
        v->type = OT_TYPE_INT;
        v->word = (uint64_t)number;
        return true;
    }
    v->keep = PyObject_Str(value); /* beyond 64 bits: as text */
    bool done = v->keep != NULL && from_text(v->keep, api, room, v);
    PyErr_Clear();
    return done;
}

static bool
from_message(PyObject *value, bool api, uint32_t room, struct value *v)
{
    struct ot_rules rules = {api ? ot_rec.settings.value_length : OT_NO_LIMIT,
                             room < OT_TEXT_BYTES ? room : OT_TEXT_BYTES, api, false};
    ot_wire_start(v->wire, room);
    v->type = OT_TYPE_MESSAGE;
    bool done = ot_wire_value(v->wire, value, &rules);
    v->payload = v->wire->data;
    v->bytes = (uint32_t)v->wire->used;
    v->cut = rules.cut;
    return done || v->wire->failed;
}

/* Numbers of other libraries. */
static bool
from_number(PyObject *value, uint32_t room, struct value *v)
{
    const PyNumberMethods *methods = Py_TYPE(value)->tp_as_number;
    bool done = false;
    if (PyIndex_Check(value)) { /* numpy's integers */
        PyObject *number = PyNumber_Index(value);
        done = number != NULL && from_int(number, false, room, v);
        Py_XDECREF(number);
    }
    else if (methods != NULL && methods->nb_float != NULL) { /* Decimal, numpy's floats */
        double d = PyFloat_AsDouble(value);
        done = !(d == -1.0 && PyErr_Occurred()) && from_double(d, v);
    }
    PyErr_Clear();
    return done;
}

static bool
from_any(PyObject *value, bool api, uint32_t room, struct value *v)
{
    if (PyFloat_Check(value))
        return from_double(PyFloat_AS_DOUBLE(value), v);
    if (PyUnicode_Check(value))
        return from_text(value, api, room, v);
    if (PyLong_Check(value))
        return from_int(value, api, room, v);
    if (value == Py_None || PyBytes_Check(value))
        return from_message(value, api, room, v);
    if (!api && from_number(value, room, v))
        return true;
    if (ot_is_sequence(value) || ot_is_mapping(value))
        return from_message(value, api, room, v);
    if (!api)
        return false;
    v->keep = ot_text_of(value);
    return v->keep != NULL ? from_text(v->keep, false, room, v) : from_message(Py_None, api, room, v);
}

static inline bool
convert(PyObject *value, bool api, uint32_t room, struct value *v)
{
    const PyTypeObject *type = Py_TYPE(value);
    if (type == &PyUnicode_Type)
        return from_text(value, api, room, v);
    if (type == &PyFloat_Type)
        return from_double(PyFloat_AS_DOUBLE(value), v);
    if (type == &PyLong_Type)
        return from_int(value, api, room, v);
    if (type == &PyBool_Type) {
        v->type = OT_TYPE_BOOL;
        v->word = value == Py_True;
        return true;
    }
    return from_any(value, api, room, v);
}

static void
count_loss(struct ot_writer *w)
{
    OT_STORE(&w->ring->attributes_dropped, w->ring->attributes_dropped + 1);
}

void
ot_attribute_drop(struct ot_writer *w, struct ot_slot *e)
{
    ot_entry_extra(e);
    OT_STORE(&e->dropped, e->dropped + 1);
    count_loss(w);
}

/* Into the slot, at the end of what is there; a place that the key had before is closed up. */
static inline void
set_inline(struct ot_slot *e, unsigned old, uint32_t key, const struct value *v)
{
    uint64_t seq = e->seq;
    OT_STORE(&e->seq, seq + 1);
    OT_FENCE_RELEASE();
    unsigned last = old < e->count ? e->count - 1U : e->count;
    for (unsigned i = old; i < last; i++) {
        OT_STORE(&e->key[i], e->key[i + 1]);
        OT_STORE(&e->type[i], e->type[i + 1]);
        OT_STORE(&e->value[i], e->value[i + 1]);
    }
    OT_STORE(&e->key[last], (uint16_t)key);
    OT_STORE(&e->type[last], v->type);
    OT_STORE(&e->value[last], v->word);
    OT_STORE(&e->count, (uint8_t)(last + 1));
    OT_STORE_RELEASE(&e->seq, seq + 2);
}

/* The most of a key that stands in a block, and what is left for the value then. */
static uint32_t
key_room(const struct ot_writer *w)
{
    uint32_t half = ot_block_room(w) / 2;
    return half < OT_NAME_BYTES ? half : OT_NAME_BYTES;
}

static uint32_t
value_room(const struct ot_writer *w, PyObject *key, uint32_t key_id)
{
    uint32_t room = ot_block_room(w), most = key_room(w);
    if (OT_LIKELY(key_id != OT_NAME_OTHER))
        return room;
    uint64_t taken = 4 * (uint64_t)PyUnicode_GET_LENGTH(key);
    return room - (uint32_t)sizeof(uint32_t) - (taken < most ? (uint32_t)taken : most);
}

/* Into the arena, with the key's text where the key has no id of its own. */
static bool
set_in_arena(struct ot_writer *w, struct ot_slot *e, PyObject *key, uint32_t key_id, const struct value *v)
{
    const void *payload = &v->word;
    size_t bytes = sizeof v->word;
    if (v->type == OT_TYPE_TEXT || v->type == OT_TYPE_MESSAGE) {
        payload = v->payload;
        bytes = v->bytes;
    }
    OT_STORE(&e->extra, e->extra | OT_EXTRA_ARENA);
    if (OT_LIKELY(key_id != OT_NAME_OTHER))
        return ot_block_append(w, e, OT_BLOCK_ATTRIBUTE, key_id, v->type, NULL, 0, payload, bytes);
    struct ot_rules rules = {OT_NO_LIMIT, key_room(w), true, false};
    PyObject *keep;
    uint32_t key_bytes;
    const char *utf8 = ot_text_utf8(key, &rules, &keep, &key_bytes);
    if (utf8 == NULL)
        return false;
    uint8_t head[sizeof key_bytes + OT_NAME_BYTES];
    memcpy(head, &key_bytes, sizeof key_bytes);
    memcpy(head + sizeof key_bytes, utf8, key_bytes);
    Py_XDECREF(keep);
    return ot_block_append(w, e, OT_BLOCK_ATTRIBUTE, OT_NAME_OTHER, v->type, head, sizeof key_bytes + key_bytes,
                           payload, bytes);
}

static bool
is_other(PyObject *key)
{
    return PyUnicode_CompareWithASCIIString(key, "other") == 0;
}

void
ot_attribute_set(struct ot_writer *w, struct ot_slot *e, PyObject *key, uint32_t key_id, PyObject *value, bool api)
{
    if (key_id == OT_NAME_NONE) {
        if (OT_UNLIKELY(!PyUnicode_Check(key) || PyUnicode_GET_LENGTH(key) == 0)) {
            ot_attribute_drop(w, e);
            return;
        }
        key_id = ot_name_id(key);
    }
    uint32_t limit = ot_rec.settings.attribute_limit;
    if (OT_UNLIKELY(limit == 0)) {
        ot_attribute_drop(w, e);
        return;
    }
    struct ot_wire wire;
    ot_wire_start(&wire, OT_BLOCK_BYTES);
    struct value v = {.wire = &wire};
    uint64_t epoch = ot_rec.epoch, span_id = e->span_id;
    uint8_t state = e->state;
    bool known = convert(value, api, value_room(w, key, key_id), &v);
    /* its own code may have run: it may have closed the segment, or ended the span */
    if (OT_UNLIKELY(!known || epoch != ot_rec.epoch || span_id != e->span_id || state != e->state)) {
        ot_fault();
    }
    else {
        ot_entry_extra(e);
        unsigned count = e->count, most = limit < OT_INLINE_ATTRIBUTES ? limit : OT_INLINE_ATTRIBUTES, i = 0;
        while (i < count && e->key[i] != key_id)
            i++;
        bool words = v.type <= OT_TYPE_NAME, id = key_id != OT_NAME_OTHER || is_other(key);
        if (OT_LIKELY(words && id && !(e->extra & OT_EXTRA_ARENA) && (i < count || count < most)))
            set_inline(e, i, key_id, &v);
        else if (wire.failed || !set_in_arena(w, e, key, key_id, &v))
            ot_attribute_drop(w, e);
        else if (v.cut)
            count_loss(w);
    }
    Py_XDECREF(v.keep);
    if (OT_UNLIKELY(wire.data != wire.first))
        ot_wire_free(&wire);
}

uint32_t
ot_error_name(PyObject *type)
{
    PyObject *name = PyObject_GetAttrString(type, "__qualname__");
    PyObject *module = name ? PyObject_GetAttrString(type, "__module__") : NULL;
    PyObject *full = NULL;
    if (name && module && PyUnicode_Check(name) && PyUnicode_Check(module))
        full = PyUnicode_CompareWithASCIIString(module, "builtins") == 0 ? Py_NewRef(name)
                                                                         : PyUnicode_FromFormat("%U.%U", module, name);
    uint32_t id = full != NULL ? ot_name_id(full) : OT_NAME_OTHER;
    Py_XDECREF(name);
    Py_XDECREF(module);
    Py_XDECREF(full);
    PyErr_Clear();
    return id;
}
