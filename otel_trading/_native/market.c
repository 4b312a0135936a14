/* The hot path stores the newest update of a symbol.  The governor looks at prices and volumes once a second: a second's
 * return is that of the last prices of two seconds. */
#include "market.h"

#include <math.h>
#include <string.h>

#include "doubles.h"
#include "drain.h"
#include "names.h"

#define YEAR 31536000.0    /* s */
#define RETURNS 60.0       /* s: the time constant of the variance */
#define USUAL 600.0        /* s: of the usual volume */
#define RECENT 10          /* samples that are the present volume */
#define LEAST_RETURNS 10.0 /* s of returns before a volatility is told */
#define LEAST_VOLUMES 30   /* samples before a volume is told */

/* What the governor remembers of a symbol. */
struct course {
    double price;          /* at the sample before; NaN = none yet */
    double volume;         /* sum so far, at the sample before */
    double variance;       /* of a second's return, weighted */
    double weight;         /* of variance: nears 1 */
    double returns;        /* s of returns so far */
    double recent[RECENT]; /* volume a second */
    double usual;          /* weighted */
    double usual_weight;
    uint32_t samples; /* of the volume */
    bool begun;
};

/* A symbol that is known, in one of the places from its hash on.  One cache line of this table, one of the symbol and one of
 * the page are what an update touches. */
struct known {
    PyObject *symbol; /* owned: an exact str; NULL = free */
    Py_hash_t hash;
    struct ot_market *place;
};

#define KNOWN (4 * OT_MARKETS) /* places, a power of two */

static struct known known[KNOWN];
static struct course courses[OT_MARKETS];
static double sampled; /* when; NaN = not yet */

uint64_t ot_market_newest_ns;

static PyObject *in_python; /* owned: what market_data does with what is not plain; NULL = not yet asked for */

static uint64_t condition_bits[2]; /* doubles, of market_condition; NaN = not told; atomic */

int
ot_market_start(void)
{
    OT_STORE(&condition_bits[0], ot_bits_of(NAN));
    OT_STORE(&condition_bits[1], ot_bits_of(NAN));
    return 0;
}

void
ot_market_open(void)
{
    for (int i = 0; i < KNOWN; i++)
        Py_CLEAR(known[i].symbol);
    OT_STORE(&ot_market_newest_ns, 0);
    memset(courses, 0, sizeof courses);
    sampled = NAN;
}

/* ---- hot path ---- */

/* The place of a symbol that is new; NULL where there is none, a fault. */
static struct ot_market *
new_place(struct known *k, PyObject *symbol, Py_hash_t hash)
{
    struct ot_header *h = ot_rec.header;
    uint32_t n = h->market_count;
    PyObject *own = n < OT_MARKETS ? PyUnicode_FromObject(symbol) : NULL; /* an exact str, also of one of its kind */
    if (own == NULL) {
        PyErr_Clear();
        ot_fault();
        return NULL;
    }
    struct ot_market *m = &ot_rec.markets[n];
    m->symbol = ot_name_id(own);
    m->price = ot_bits_of(NAN);
    *k = (struct known){.symbol = own, .hash = hash, .place = m};
    OT_STORE_RELEASE(&h->market_count, n + 1);
    return m;
}

static bool
same_text(PyObject *a, PyObject *b)
{
    return PyUnicode_GET_LENGTH(a) == PyUnicode_GET_LENGTH(b) && PyUnicode_KIND(a) == PyUnicode_KIND(b) &&
           memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), (size_t)PyUnicode_GET_LENGTH(a) * PyUnicode_KIND(a)) == 0;
}

/* The place of a symbol, a str; NULL: there is none left, a fault. */
static inline struct ot_market *
place_of(PyObject *symbol)
{
    /* of the text itself, whatever a kind of str makes of its own hash */
    Py_hash_t hash = ((PyASCIIObject *)symbol)->hash;
    if (OT_UNLIKELY(hash == -1))
        hash = PyUnicode_Type.tp_hash(symbol);
    for (size_t i = (size_t)hash;; i++) { /* there are always free ones: a quarter of them is taken at most */
        struct known *k = &known[i % KNOWN];
        if (OT_LIKELY(k->symbol == symbol))
            return k->place;
        if (k->symbol == NULL)
            return new_place(k, symbol, hash);
        if (k->hash == hash && same_text(k->symbol, symbol))
            return k->place;
    }
}

/* One update, all of it plain numbers; NaN: it has none.  A stamp below 0, an infinite price, and a volume below 0 are faults. */
static inline void
note(PyObject *symbol, int64_t exchange, double price, double volume)
{
    if (OT_UNLIKELY(ot_rec.epoch == OT_CLOSED) &&
        ot_writer_here() == NULL) /* it needs no ring; a forked child reopens */
        return;
    if (OT_UNLIKELY(!(OT_LOAD(&ot_rec.control->switches) & OT_SWITCH_RECORD)))
        return;
    struct ot_market *m = place_of(symbol);
    if (OT_UNLIKELY(m == NULL))
        return;
    if (OT_UNLIKELY(exchange < 0)) {
        ot_fault();
        exchange = 0;
    }
    struct ot_calibration calibration;
    ot_drain_calibration(&calibration);
    uint64_t now = ot_unix_ns(&calibration, ot_ticks());
    OT_STORE(&m->exchange_ns, (uint64_t)exchange);
    OT_STORE(&m->received_ns, now);
    OT_STORE(&ot_market_newest_ns, now);
    if (OT_LIKELY(isfinite(price)))
        OT_STORE(&m->price, ot_bits_of(price));
    else if (!isnan(price))
        ot_fault();
    double sum = ot_double_of(m->volume) + volume;
    if (OT_LIKELY(isfinite(sum) && volume >= 0))
        OT_STORE(&m->volume, ot_bits_of(sum));
    else if (!isnan(volume))
        ot_fault();
    OT_STORE(&m->updates, m->updates + 1);
}

/* ---- from Python ---- */

/* 0, or -1 with an exception set; a number's own code may run, and do anything. */
static inline int
number_of(PyObject *value, double *d)
{
    *d = PyFloat_CheckExact(value) ? PyFloat_AS_DOUBLE(value) : PyFloat_AsDouble(value);
    return *d == -1.0 && PyErr_Occurred() ? -1 : 0;
}

PyObject *
ot_market(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    double price, volume;
    if (OT_UNLIKELY(nargs != 4 || !PyUnicode_Check(args[0]) || !PyLong_Check(args[1]))) {
        PyErr_SetString(PyExc_TypeError, "market() takes a str, an int and two floats");
        return NULL;
    }
    if (number_of(args[2], &price) < 0 || number_of(args[3], &volume) < 0)
        return NULL;
    long long exchange = PyLong_AsLongLong(args[1]);
    if (OT_UNLIKELY(exchange == -1))
        PyErr_Clear();
    note(args[0], exchange, price, volume);
    Py_RETURN_NONE;
}

#define NS_IN_MS 1000000LL

/* A stamp in ms, an int, a float or None, in ns; false: it is nothing of the kind, or no time. */
static inline bool
stamp_of(PyObject *stamp, int64_t *ns)
{
    if (OT_LIKELY(PyLong_CheckExact(stamp))) {
        int overflow;
        long long ms = PyLong_AsLongLongAndOverflow(stamp, &overflow);
        *ns = overflow == 0 && ms >= 0 && ms <= INT64_MAX / NS_IN_MS ? ms * NS_IN_MS : -1;
        return true;
    }
    *ns = 0;
    if (PyFloat_CheckExact(stamp)) {
        double ms = PyFloat_AS_DOUBLE(stamp);
        *ns = ms >= 0 && ms < 9.2e12 ? (int64_t)rint(ms * 1e3) * 1000 : 0; /* finer is no stamp's number as a float */
        return ms >= 0 && ms < 9.2e12;
    }
    return stamp == Py_None;
}

/* None: NaN.  False: not a plain number. */
static inline bool
plain(PyObject *value, double *d)
{
    if (PyFloat_CheckExact(value))
        *d = PyFloat_AS_DOUBLE(value);
    else if (value == Py_None)
        *d = NAN;
    else if (PyLong_CheckExact(value)) {
        *d = PyLong_AsDouble(value);
        if (*d == -1.0 && PyErr_Occurred()) { /* too large */
            PyErr_Clear();
            return false;
        }
    }
    else
        return false;
    return true;
}

/* Whatever is not plain, and each tick of a market that moves much, goes through Python, which is not in a hurry there. */
static PyObject *
the_long_way(PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    if (in_python == NULL) {
        PyObject *module = PyImport_ImportModule("otel_trading.market");
        in_python = module != NULL ? PyObject_GetAttrString(module, "market_data_in_python") : NULL;
        Py_XDECREF(module);
        if (in_python == NULL) { /* the interpreter is coming down */
            PyErr_Clear();
            Py_RETURN_NONE;
        }
    }
    return PyObject_Vectorcall(in_python, args, (size_t)nargs, names);
}

/* The two that have a default, where they are given by name; false: others are. */
static bool
named(PyObject *names, PyObject *const *values, PyObject *found[4])
{
    static const char *const of[] = {"symbol", "exchange_ts_ms", "price", "volume"};
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(names); n++) {
        PyObject *name = PyTuple_GET_ITEM(names, n);
        int i = 3;
        while (i >= 0 && PyUnicode_CompareWithASCIIString(name, of[i]) != 0)
            i--;
        if (i < 0 || found[i] != NULL)
            return false;
        found[i] = values[n];
    }
    return true;
}

PyObject *
ot_market_data(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *given[4] = {NULL, NULL, NULL, NULL};
    if (OT_UNLIKELY(nargs > 4))
        return the_long_way(args, nargs, names);
    for (Py_ssize_t i = 0; i < nargs; i++)
        given[i] = args[i];
    if (names != NULL && !named(names, args + nargs, given))
        return the_long_way(args, nargs, names);
    int64_t exchange;
    double price = NAN, volume = NAN;
    if (OT_UNLIKELY(given[0] == NULL || given[1] == NULL || !PyUnicode_Check(given[0]) ||
                    !stamp_of(given[1], &exchange) || (given[2] != NULL && !plain(given[2], &price)) ||
                    (given[3] != NULL && !plain(given[3], &volume)) ||
                    (ot_rec.epoch != OT_CLOSED && OT_LOAD(&ot_rec.control->mode) == OT_MODE_HIGH_VOLATILITY)))
        return the_long_way(args, nargs, names);
    note(given[0], exchange, price, volume);
    Py_RETURN_NONE;
}

PyObject *
ot_market_condition(PyObject *Py_UNUSED(module), PyObject *args)
{
    double volatility, volume;
    if (!PyArg_ParseTuple(args, "dd:market_condition", &volatility, &volume))
        return NULL;
    OT_STORE(&condition_bits[0], ot_bits_of(volatility));
    OT_STORE(&condition_bits[1], ot_bits_of(volume));
    Py_RETURN_NONE;
}

uint64_t
ot_market_updates(void)
{
    uint64_t sum = 0;
    uint32_t count = OT_LOAD_ACQUIRE(&ot_rec.header->market_count);
    for (uint32_t i = 0; i < count && i < OT_MARKETS; i++)
        sum += OT_LOAD(&ot_rec.markets[i].updates);
    return sum;
}

uint64_t
ot_market_newest(void)
{
    uint64_t newest = 0;
    uint32_t count = OT_LOAD_ACQUIRE(&ot_rec.header->market_count);
    for (uint32_t i = 0; i < count && i < OT_MARKETS; i++) {
        uint64_t received = OT_LOAD(&ot_rec.markets[i].received_ns);
        newest = received > newest ? received : newest;
    }
    return newest;
}

/* ---- the governor ---- */

static void
note_price(struct course *c, double price, double dt)
{
    if (!(price > 0)) /* also NaN */
        return;
    if (c->price > 0) {
        double r = log(price) - log(c->price), alpha = 1 - exp(-dt / RETURNS);
        c->variance += (r * r / dt - c->variance) * alpha;
        c->weight += (1 - c->weight) * alpha;
        c->returns += dt;
    }
    c->price = price;
}

static void
note_volume(struct course *c, double volume, double dt)
{
    double *oldest = &c->recent[c->samples % RECENT];
    if (c->samples >= RECENT) { /* what is usual is what was before the present */
        double alpha = 1 - exp(-dt / USUAL);
        c->usual += (*oldest - c->usual) * alpha;
        c->usual_weight += (1 - c->usual_weight) * alpha;
    }
    *oldest = volume > c->volume ? (volume - c->volume) / dt : 0;
    c->volume = volume;
    c->samples++;
}

static void
sample(double dt)
{
    uint32_t count = OT_LOAD_ACQUIRE(&ot_rec.header->market_count);
    for (uint32_t i = 0; i < count && i < OT_MARKETS; i++) {
        struct course *c = &courses[i];
        double price = ot_double_of(OT_LOAD(&ot_rec.markets[i].price));
        double volume = ot_double_of(OT_LOAD(&ot_rec.markets[i].volume));
        if (!c->begun) { /* the first is what the others are compared with */
            c->begun = true;
            c->price = price;
            c->volume = volume;
            continue;
        }
        note_price(c, price, dt);
        note_volume(c, volume, dt);
    }
}

static double
volatility_of(const struct course *c)
{
    return c->returns >= LEAST_RETURNS && c->weight > 0 ? sqrt(c->variance / c->weight * YEAR) : 0;
}

static double
volume_of(const struct course *c)
{
    if (c->samples < LEAST_VOLUMES || !(c->usual > 0) || !(c->usual_weight > 0))
        return 1;
    double recent = 0;
    for (int i = 0; i < RECENT; i++)
        recent += c->recent[i];
    double ratio = recent / RECENT / (c->usual / c->usual_weight);
    return isfinite(ratio) ? ratio : 1;
}

/* The pair of the symbol that asks most: both above their limits, then by volatility. */
static void
choose(const struct ot_allowed *r, double *volatility, double *volume)
{
    bool best = false, any = false;
    *volatility = 0;
    *volume = 1;
    uint32_t count = OT_LOAD_ACQUIRE(&ot_rec.header->market_count);
    for (uint32_t i = 0; i < count && i < OT_MARKETS; i++) {
        double v = volatility_of(&courses[i]), q = volume_of(&courses[i]);
        bool both = v > r->volatility && q > r->volume;
        if (!any || (both && !best) || (both == best && v > *volatility)) {
            any = true;
            best = both;
            *volatility = v;
            *volume = q;
        }
    }
}

void
ot_market_tick(const struct ot_allowed *rules, struct ot_sight *sight)
{
    if (isnan(sampled) || sight->now < sampled) {
        sampled = sight->now;
        memset(courses, 0, sizeof courses);
        sample(1);
    }
    else if (sight->now - sampled >= 1) {
        sample(sight->now - sampled);
        sampled = sight->now;
    }
    double told_volatility = ot_double_of(OT_LOAD(&condition_bits[0]));
    double told_volume = ot_double_of(OT_LOAD(&condition_bits[1]));
    if (isnan(told_volatility) && isnan(told_volume)) {
        choose(rules, &sight->volatility, &sight->volume);
    }
    else { /* one alone is no condition: it can not be told */
        sight->volatility = told_volatility;
        sight->volume = told_volume;
    }
}
