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

static PyObject *places; /* dict: symbol → number; owned */
static struct course courses[OT_MARKETS];
static double sampled; /* when; NaN = not yet */

static uint64_t condition_bits[2]; /* doubles, of market_condition; NaN = not told; atomic */

int
ot_market_start(void)
{
    places = PyDict_New();
    OT_STORE(&condition_bits[0], ot_bits_of(NAN));
    OT_STORE(&condition_bits[1], ot_bits_of(NAN));
    return places != NULL ? 0 : -1;
}

void
ot_market_open(void)
{
    PyDict_Clear(places);
    memset(courses, 0, sizeof courses);
    sampled = NAN;
}

/* ---- hot path ---- */

/* The place of a symbol that is new; NULL where there is none, a fault. */
static struct ot_market *
new_place(PyObject *symbol)
{
    struct ot_header *h = ot_rec.header;
    uint32_t n = h->market_count;
    PyObject *number = n < OT_MARKETS ? PyLong_FromUnsignedLong(n) : NULL;
    if (number == NULL || PyDict_SetItem(places, symbol, number) < 0) {
        Py_XDECREF(number);
        PyErr_Clear();
        ot_fault();
        return NULL;
    }
    Py_DECREF(number);
    struct ot_market *m = &ot_rec.markets[n];
    m->symbol = ot_name_id(symbol);
    m->price = ot_bits_of(NAN);
    OT_STORE_RELEASE(&h->market_count, n + 1);
    return m;
}

/* 0, or -1 with TypeError set. */
static int
number_of(PyObject *value, double *d)
{
    *d = PyFloat_CheckExact(value) ? PyFloat_AS_DOUBLE(value) : PyFloat_AsDouble(value);
    return *d == -1.0 && PyErr_Occurred() ? -1 : 0;
}

PyObject *
ot_market_data(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    double price, volume;
    if (OT_UNLIKELY(nargs != 4 || !PyUnicode_Check(args[0]) || !PyLong_Check(args[1]))) {
        PyErr_SetString(PyExc_TypeError, "market() takes a str, an int and two floats");
        return NULL;
    }
    if (number_of(args[2], &price) < 0 || number_of(args[3], &volume) < 0)
        return NULL;
    if (OT_UNLIKELY(ot_writer_here() == NULL || !(OT_LOAD(&ot_rec.control->switches) & OT_SWITCH_RECORD)))
        Py_RETURN_NONE;
    PyObject *known = PyDict_GetItemWithError(places, args[0]);
    if (OT_UNLIKELY(known == NULL && PyErr_Occurred()))
        return NULL;
    struct ot_market *m = OT_LIKELY(known != NULL) ? &ot_rec.markets[PyLong_AsUnsignedLong(known)] : new_place(args[0]);
    if (OT_UNLIKELY(m == NULL))
        Py_RETURN_NONE;
    long long exchange = PyLong_AsLongLong(args[1]);
    if (OT_UNLIKELY(exchange < 0)) {
        PyErr_Clear();
        ot_fault();
        exchange = 0;
    }
    struct ot_calibration calibration;
    ot_drain_calibration(&calibration);
    OT_STORE(&m->exchange_ns, (uint64_t)exchange);
    OT_STORE(&m->received_ns, ot_unix_ns(&calibration, ot_ticks()));
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
