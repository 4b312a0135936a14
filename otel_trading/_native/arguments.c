#include "arguments.h"

#include "atomic.h"

int
ot_signature_start(struct ot_signature *s)
{
    for (int i = 0; i < s->count; i++) {
        s->words[i] = PyUnicode_InternFromString(s->names[i]);
        if (s->words[i] == NULL)
            return -1;
    }
    return 0;
}

static int
place(const struct ot_signature *s, PyObject *name)
{
    for (int i = 0; i < s->count; i++) {
        if (OT_LIKELY(s->words[i] == name))
            return i;
    }
    for (int i = 0; i < s->count; i++) { /* a name that was put together when it was called */
        if (PyUnicode_Compare(s->words[i], name) == 0)
            return i;
    }
    return -1;
}

bool
ot_arguments(const struct ot_signature *s, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
             PyObject *values[])
{
    if (OT_UNLIKELY(nargs > s->count)) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d arguments (%zd given)", s->function, s->count, nargs);
        return false;
    }
    for (int i = 0; i < s->count; i++)
        values[i] = i < nargs ? args[i] : NULL;
    Py_ssize_t named = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t k = 0; k < named; k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        int i = place(s, name);
        if (OT_UNLIKELY(i < 0 || values[i] != NULL)) {
            if (!PyErr_Occurred())
                PyErr_Format(PyExc_TypeError, "%s() got %s argument %R", s->function,
                             i < 0 ? "an unexpected keyword" : "multiple values for", name);
            return false;
        }
        values[i] = args[nargs + k];
    }
    for (int i = 0; i < s->required; i++) {
        if (OT_UNLIKELY(values[i] == NULL)) {
            PyErr_Format(PyExc_TypeError, "%s() misses the argument '%s'", s->function, s->names[i]);
            return false;
        }
    }
    return true;
}
