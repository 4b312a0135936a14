/* Python values as OTLP messages, by the SDK's rules of what an attribute's value is. */
#ifndef OTEL_TRADING_MESSAGE_H
#define OTEL_TRADING_MESSAGE_H

#include "recorder.h"
#include "wire.h"

#define OT_MESSAGE_DEPTH 32 /* containers within containers; what is deeper is given as the empty value */

/* What becomes of texts and of values of unknown types. */
struct ot_rules {
    uint32_t characters; /* longer texts are cut; OT_NO_LIMIT = none are */
    uint32_t bytes;      /* of a text in UTF-8; longer ones are cut at a character's border */
    bool api; /* unknown types become text as the SDK has it; else numbers of any library are taken as such */
    bool cut; /* out: a text was cut for its bytes */
};

int ot_messages_start(void); /* once, at import */

/* UTF-8 of a text by the rules, borrowed from it or from *keep, which is owned by the caller; NULL where there is none. */
const char *ot_text_utf8(PyObject *text, struct ot_rules *rules, PyObject **keep, uint32_t *bytes);

/* The fields of an AnyValue message; false for what can't be one.  May run the value's own code. */
bool ot_wire_value(struct ot_wire *w, PyObject *value, struct ot_rules *rules);

/* KeyValue messages, each with `tag`, of a mapping's newest `limit` items; how many of the others there are in *dropped.
 * False where `mapping` is none.  May run the mapping's own code. */
bool ot_wire_attributes(struct ot_wire *w, uint8_t tag, PyObject *mapping, uint32_t limit, struct ot_rules *rules,
                        uint32_t *dropped);

/* A text by str(), for types that have one of their own, as the SDK does; NULL without an exception. */
PyObject *ot_text_of(PyObject *value);

bool ot_is_sequence(PyObject *value); /* collections.abc.Sequence */
bool ot_is_mapping(PyObject *value);  /* collections.abc.Mapping */

#endif
