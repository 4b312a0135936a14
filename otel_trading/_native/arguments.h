/* Arguments by position and by name, without an allocation. */
#ifndef OTEL_TRADING_ARGUMENTS_H
#define OTEL_TRADING_ARGUMENTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#define OT_MOST_ARGUMENTS 9

/* What a function takes. */
struct ot_signature {
    const char *function;
    int required;
    int count;
    const char *names[OT_MOST_ARGUMENTS];
    PyObject *words[OT_MOST_ARGUMENTS]; /* owned: the names, interned, from ot_signature_start on */
};

int ot_signature_start(struct ot_signature *s); /* once, at import */

/* Borrowed arguments into `values`, NULL for one that was not given; false with TypeError set where they do not fit. */
bool ot_arguments(const struct ot_signature *s, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  PyObject *values[]);

#endif
