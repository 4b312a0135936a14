/* 128-bit ids between C and Python's int. */
#include "span.h"

PyObject *
ot_long_128(uint64_t hi, uint64_t lo)
{
    PyObject *high = PyLong_FromUnsignedLongLong(hi), *low = PyLong_FromUnsignedLongLong(lo);
    PyObject *bits = PyLong_FromLong(64), *result = NULL;
    if (high && low && bits) {
        PyObject *shifted = PyNumber_Lshift(high, bits);
        if (shifted != NULL)
            result = PyNumber_Or(shifted, low);
        Py_XDECREF(shifted);
    }
    Py_XDECREF(high);
    Py_XDECREF(low);
    Py_XDECREF(bits);
    return result;
}

int
ot_long_words(PyObject *number, uint64_t words[2])
{
    PyObject *bits = PyLong_FromLong(64);
    PyObject *high = bits != NULL ? PyNumber_Rshift(number, bits) : NULL;
    Py_XDECREF(bits);
    if (high == NULL)
        return -1;
    words[0] = PyLong_AsUnsignedLongLong(high);
    Py_DECREF(high);
    if (PyErr_Occurred())
        return -1;
    words[1] = PyLong_AsUnsignedLongLongMask(number);
    return PyErr_Occurred() ? -1 : 0;
}
