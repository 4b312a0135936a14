#include "hooks.h"

#include <stddef.h>

struct ot_hooks ot_hooks;

static const struct {
    const char *name;
    size_t offset;
} places[] = {
#define PLACE(name) {#name, offsetof(struct ot_hooks, name)}
    PLACE(context), PLACE(span_key), PLACE(kinds),    PLACE(span_context), PLACE(foreign), PLACE(exception),
    PLACE(status),  PLACE(clean),    PLACE(readable), PLACE(decorate),     PLACE(fault),
#undef PLACE
};

#define PLACES (sizeof places / sizeof *places)

PyObject *
ot_api_install(PyObject *Py_UNUSED(module), PyObject *hooks)
{
    PyObject *found[PLACES];
    if (!PyDict_Check(hooks)) {
        PyErr_SetString(PyExc_TypeError, "api_install() takes a dict");
        return NULL;
    }
    for (size_t i = 0; i < PLACES; i++) {
        found[i] = PyDict_GetItemString(hooks, places[i].name);
        if (found[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "api_install() misses the hook %s", places[i].name);
            return NULL;
        }
    }
    PyObject *key = PyDict_GetItemString(hooks, "span_key"), *kinds = PyDict_GetItemString(hooks, "kinds");
    if (!PyUnicode_CheckExact(key) || !PyTuple_Check(kinds) || PyTuple_GET_SIZE(kinds) != 5) {
        PyErr_SetString(PyExc_TypeError, "api_install(): span_key is a str, kinds a tuple of five");
        return NULL;
    }
    for (size_t i = 0; i < PLACES; i++) {
        PyObject **place = (PyObject **)(void *)((char *)&ot_hooks + places[i].offset), *before = *place;
        *place = Py_NewRef(found[i]);
        Py_XDECREF(before);
    }
    Py_RETURN_NONE;
}

void
ot_told(const char *key, const char *where)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    if (type == NULL)
        return;
    PyErr_NormalizeException(&type, &error, &trace);
    if (PyErr_GivenExceptionMatches(type, PyExc_KeyboardInterrupt)) {
        PyErr_SetInterrupt();
    }
    else if (ot_hooks.fault != NULL && error != NULL) {
        PyObject *message = PyUnicode_FromFormat("%s: %R", where, error);
        if (message == NULL) { /* its own repr fails */
            PyErr_Clear();
            message = PyUnicode_FromFormat("%s: %s", where, Py_TYPE(error)->tp_name);
        }
        PyObject *result = message != NULL ? PyObject_CallFunction(ot_hooks.fault, "sO", key, message) : NULL;
        Py_XDECREF(result);
        Py_XDECREF(message);
    }
    PyErr_Clear();
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
}
