#include "message.h"

#include "doubles.h"

static PyObject *sequence_abc; /* owned: collections.abc.Sequence */
static PyObject *mapping_abc;  /* owned: collections.abc.Mapping */

int
ot_messages_start(void)
{
    PyObject *module = PyImport_ImportModule("collections.abc");
    if (module == NULL)
        return -1;
    sequence_abc = PyObject_GetAttrString(module, "Sequence");
    mapping_abc = PyObject_GetAttrString(module, "Mapping");
    Py_DECREF(module);
    return sequence_abc != NULL && mapping_abc != NULL ? 0 : -1;
}

static bool
is_a(PyObject *value, PyObject *abc)
{
    int is = PyObject_IsInstance(value, abc);
    if (is < 0)
        PyErr_Clear();
    return is == 1;
}

bool
ot_is_sequence(PyObject *value)
{
    return PyTuple_Check(value) || PyList_Check(value) || is_a(value, sequence_abc);
}

bool
ot_is_mapping(PyObject *value)
{
    return PyDict_Check(value) || is_a(value, mapping_abc);
}

PyObject *
ot_text_of(PyObject *value)
{
    const PyTypeObject *type = Py_TYPE(value);
    if (type->tp_str == PyBaseObject_Type.tp_str && type->tp_repr == PyBaseObject_Type.tp_repr)
        return NULL;
    PyObject *text = PyObject_Str(value);
    if (text == NULL)
        PyErr_Clear();
    return text;
}

const char *
ot_text_utf8(PyObject *text, struct ot_rules *rules, PyObject **keep, uint32_t *bytes)
{
    *keep = NULL;
    if (rules->characters != OT_NO_LIMIT && PyUnicode_GET_LENGTH(text) > (Py_ssize_t)rules->characters) {
        text = *keep = PyUnicode_Substring(text, 0, (Py_ssize_t)rules->characters);
        if (text == NULL) {
            PyErr_Clear();
            return NULL;
        }
    }
    else if (PyUnicode_GET_LENGTH(text) > (Py_ssize_t)rules->bytes) {
        /* a character is a byte at least: no need to encode, and to cache with the str, all of it */
        text = *keep = PyUnicode_Substring(text, 0, (Py_ssize_t)rules->bytes);
        rules->cut = true;
        if (text == NULL) {
            PyErr_Clear();
            return NULL;
        }
    }
    Py_ssize_t length;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &length);
    if (utf8 == NULL) { /* lone surrogates */
        PyErr_Clear();
        return NULL;
    }
    if (length > (Py_ssize_t)rules->bytes) {
        length = (Py_ssize_t)rules->bytes;
        while (length > 0 && ((unsigned char)utf8[length] & 0xc0) == 0x80)
            length--;
        rules->cut = true;
    }
    *bytes = (uint32_t)length;
    return utf8;
}

static bool put_value(struct ot_wire *w, PyObject *value, struct ot_rules *rules, unsigned depth);

static bool
put_text(struct ot_wire *w, uint8_t tag, PyObject *text, struct ot_rules *rules)
{
    PyObject *keep;
    uint32_t bytes;
    const char *utf8 = ot_text_utf8(text, rules, &keep, &bytes);
    if (utf8 != NULL)
        ot_wire_bytes(w, tag, utf8, bytes);
    Py_XDECREF(keep);
    return utf8 != NULL;
}

static bool
put_int(struct ot_wire *w, PyObject *value, struct ot_rules *rules)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow == 0) {
        ot_wire_varint(w, OT_TAG_INT_VALUE, (uint64_t)number);
        return true;
    }
    PyObject *text = PyObject_Str(value); /* beyond 64 bits: as text */
    bool done = text != NULL && put_text(w, OT_TAG_STRING_VALUE, text, rules);
    Py_XDECREF(text);
    PyErr_Clear();
    return done;
}

/* KeyValue; false for a value that can't be one. */
static bool
put_pair(struct ot_wire *w, uint8_t tag, PyObject *key, PyObject *value, struct ot_rules *rules, unsigned depth)
{
    struct ot_rules of_keys = {OT_NO_LIMIT, rules->bytes, rules->api, false};
    size_t pair = ot_wire_open(w, tag);
    if (PyUnicode_GET_LENGTH(key) > 0 && !put_text(w, OT_TAG_KEY, key, &of_keys))
        return false;
    size_t inner = ot_wire_open(w, OT_TAG_VALUE);
    bool done = put_value(w, value, rules, depth);
    ot_wire_close(w, inner);
    ot_wire_close(w, pair);
    return done;
}

/* A mapping's items as a list of pairs, owned; NULL without an exception where it has none. */
static PyObject *
items_of(PyObject *mapping)
{
    PyObject *items = PyMapping_Items(mapping);
    if (items == NULL)
        PyErr_Clear();
    return items;
}

/* A pair's key as the SDK cleans it, owned; NULL where it leaves the pair out. */
static PyObject *
clean_key(PyObject *pair)
{
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2)
        return NULL;
    PyObject *key = PyTuple_GET_ITEM(pair, 0);
    if (PyUnicode_Check(key))
        return PyUnicode_GET_LENGTH(key) > 0 ? Py_NewRef(key) : NULL;
    int truth = PyObject_IsTrue(key);
    if (truth < 0)
        PyErr_Clear();
    return truth == 1 ? ot_text_of(key) : NULL;
}

static bool
put_mapping(struct ot_wire *w, PyObject *value, struct ot_rules *rules, unsigned depth)
{
    PyObject *items = items_of(value);
    bool done = items != NULL;
    for (Py_ssize_t i = 0; done && !w->failed && i < PyList_GET_SIZE(items); i++) {
        PyObject *pair = PyList_GET_ITEM(items, i), *key = clean_key(pair);
        if (key != NULL)
            done = put_pair(w, OT_TAG_VALUES, key, PyTuple_GET_ITEM(pair, 1), rules, depth);
        Py_XDECREF(key);
    }
    Py_XDECREF(items);
    return done;
}

static bool
put_item(struct ot_wire *w, PyObject *item, struct ot_rules *rules, unsigned depth)
{
    size_t inner = ot_wire_open(w, OT_TAG_VALUES);
    bool done = put_value(w, item, rules, depth);
    ot_wire_close(w, inner);
    return done;
}

static bool
put_sequence(struct ot_wire *w, PyObject *value, struct ot_rules *rules, unsigned depth)
{
    bool done = true;
    if (PyTuple_CheckExact(value) || PyList_CheckExact(value)) {
        for (Py_ssize_t i = 0; done && !w->failed && i < PySequence_Fast_GET_SIZE(value); i++) {
            PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(value, i)); /* its code may change the list */
            done = put_item(w, item, rules, depth);
            Py_DECREF(item);
        }
        return done;
    }
    PyObject *iterator = PyObject_GetIter(value), *item = NULL;
    while (done && !w->failed && iterator != NULL && (item = PyIter_Next(iterator)) != NULL) {
        done = put_item(w, item, rules, depth);
        Py_DECREF(item);
    }
    done = done && iterator != NULL && !PyErr_Occurred();
    PyErr_Clear();
    Py_XDECREF(iterator);
    return done;
}

/* Numbers of other libraries, where they are wanted. */
static bool
put_number(struct ot_wire *w, PyObject *value, struct ot_rules *rules)
{
    const PyNumberMethods *methods = Py_TYPE(value)->tp_as_number;
    bool done = false;
    if (PyIndex_Check(value)) {
        PyObject *number = PyNumber_Index(value);
        done = number != NULL && put_int(w, number, rules);
        Py_XDECREF(number);
    }
    else if (methods != NULL && methods->nb_float != NULL) {
        double d = PyFloat_AsDouble(value);
        done = !PyErr_Occurred();
        if (done)
            ot_wire_fixed64(w, OT_TAG_DOUBLE_VALUE, ot_bits_of(d));
    }
    PyErr_Clear();
    return done;
}

static bool
put_other(struct ot_wire *w, PyObject *value, struct ot_rules *rules)
{
    if (!rules->api && put_number(w, value, rules))
        return true;
    PyObject *text = ot_text_of(value);
    bool done = text == NULL || put_text(w, OT_TAG_STRING_VALUE, text, &(struct ot_rules){OT_NO_LIMIT, rules->bytes});
    Py_XDECREF(text);
    return done;
}

static bool
put_value(struct ot_wire *w, PyObject *value, struct ot_rules *rules, unsigned depth)
{
    if (value == Py_None)
        return true;
    if (PyBool_Check(value)) {
        ot_wire_varint(w, OT_TAG_BOOL_VALUE, value == Py_True);
        return true;
    }
    if (PyUnicode_Check(value))
        return put_text(w, OT_TAG_STRING_VALUE, value, rules);
    if (PyLong_Check(value))
        return put_int(w, value, rules);
    if (PyFloat_Check(value)) {
        ot_wire_fixed64(w, OT_TAG_DOUBLE_VALUE, ot_bits_of(PyFloat_AS_DOUBLE(value)));
        return true;
    }
    if (PyBytes_Check(value)) {
        ot_wire_bytes(w, OT_TAG_BYTES_VALUE, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value));
        return true;
    }
    bool sequence = ot_is_sequence(value);
    if (sequence || ot_is_mapping(value)) {
        if (depth >= OT_MESSAGE_DEPTH)
            return true;
        size_t inner = ot_wire_open(w, sequence ? OT_TAG_ARRAY_VALUE : OT_TAG_KVLIST_VALUE);
        bool done = sequence ? put_sequence(w, value, rules, depth + 1) : put_mapping(w, value, rules, depth + 1);
        ot_wire_close(w, inner);
        return done;
    }
    return put_other(w, value, rules);
}

bool
ot_wire_value(struct ot_wire *w, PyObject *value, struct ot_rules *rules)
{
    return put_value(w, value, rules, 0) && !w->failed;
}

bool
ot_wire_attributes(struct ot_wire *w, uint8_t tag, PyObject *mapping, uint32_t limit, struct ot_rules *rules,
                   uint32_t *dropped)
{
    *dropped = 0;
    if (!ot_is_mapping(mapping))
        return false;
    PyObject *items = items_of(mapping);
    if (items == NULL)
        return false;
    Py_ssize_t total = PyList_GET_SIZE(items), kept = 0, first = total;
    while (first > 0 && kept < (Py_ssize_t)limit) { /* the newest that are valid */
        PyObject *key = clean_key(PyList_GET_ITEM(items, --first));
        kept += key != NULL;
        Py_XDECREF(key);
    }
    for (Py_ssize_t i = first; i < total && !w->failed; i++) {
        PyObject *pair = PyList_GET_ITEM(items, i), *key = clean_key(pair);
        if (key == NULL)
            continue;
        size_t before = w->used;
        if (!put_pair(w, tag, key, PyTuple_GET_ITEM(pair, 1), rules, 0))
            w->used = before; /* what can't be encoded is left out, as the stock encoder does */
        Py_DECREF(key);
    }
    Py_DECREF(items);
    *dropped = (uint32_t)(total - kept);
    return true;
}
