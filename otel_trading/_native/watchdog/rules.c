#include "rules.h"

#include <string.h>

static const struct wd_label agent_label = {0, "", ""};

static void
act(struct wd_rules *r, enum wd_what what, enum wd_kind kind, uint64_t key, int stopped, int64_t age,
    const struct wd_label *label)
{
    if (r->actions >= WD_MAX_ACTIONS) {
        return;
    }
    struct wd_action *a = &r->action[r->actions++];
    *a = (struct wd_action){what, kind, stopped, key, age, *label};
}

static void
act_agent(struct wd_rules *r, enum wd_what what, int stopped, int64_t age)
{
    act(r, what, WD_AGENT, 0, stopped, age, &agent_label);
}

static int64_t
larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- starts ---- */

/* Starts within the window, after the older ones are forgotten. */
static int
recent_starts(struct wd_rules *r)
{
    int old = 0;
    while (old < r->starts && r->started[old] <= r->now - WD_WINDOW_TICKS * r->tick) {
        old++;
    }
    r->starts -= old;
    memmove(r->started, r->started + old, (size_t)r->starts * sizeof(r->started[0]));
    return r->starts;
}

static int
exhausted(struct wd_rules *r)
{
    return recent_starts(r) >= r->restarts || r->starts >= WD_MAX_RESTARTS;
}

/* Between the start before and the next one: nothing before the first, then 1, 2, 4 … 60 ticks. */
static int64_t
backoff(const struct wd_rules *r)
{
    if (r->starts == 0) {
        return 0;
    }
    int64_t ticks = r->starts > 6 ? WD_BACKOFF_TICKS : (int64_t)1 << (r->starts - 1);
    return r->tick * (ticks < WD_BACKOFF_TICKS ? ticks : WD_BACKOFF_TICKS);
}

static void
give_up(struct wd_rules *r)
{
    r->phase = WD_GIVEN_UP;
    r->gave_up = 1;
    act_agent(r, WD_DO_GIVE_UP, 0, 0);
}

static void
terminate(struct wd_rules *r)
{
    r->phase = WD_KILLING;
    r->term_at = r->now;
    r->killed = 0;
    act_agent(r, WD_DO_TERM, 0, 0);
}

/* ---- the agent ---- */

static void
all_is_well(struct wd_rules *r)
{
    if (r->alerted) {
        act_agent(r, WD_DO_RESOLVE, 0, 0);
    }
    if (r->died) {
        act_agent(r, WD_DO_BACK, 0, 0);
    }
    if (r->gave_up) {
        act_agent(r, WD_DO_RECOVERED, 0, 0);
    }
    r->looks = r->alerted = r->died = r->gave_up = 0;
    r->phase = WD_WATCHED;
}

static void
end(struct wd_rules *r)
{
    all_is_well(r);
    if (r->emergency) {
        act_agent(r, WD_DO_NORMAL, 0, 0);
    }
    act_agent(r, WD_DO_END, 0, 0);
    r->emergency = 0;
    r->ended = 1;
}

static void
is_gone(struct wd_rules *r)
{
    if (r->phase == WD_WATCHED) {
        r->died = 1;
        act_agent(r, WD_DO_DIED, 0, 0);
    }
    if (r->supervised) { /* who starts the next one has its watchdog start as well */
        act_agent(r, WD_DO_END, 0, 0);
        r->ended = 1;
        return;
    }
    r->phase = WD_WAITING;
    r->down_at = r->now;
}

static void
start_when_due(struct wd_rules *r)
{
    if (!r->startable || exhausted(r)) {
        give_up(r);
        return;
    }
    if (r->starts && r->now < r->started[r->starts - 1] + backoff(r)) {
        return;
    }
    r->started[r->starts++] = r->now;
    r->total++;
    r->phase = WD_WATCHED;
    r->state = WD_STARTING;
    r->since = r->now;
    r->looks = 0;
    act_agent(r, WD_DO_START, 0, 0);
}

static void
look_at_agent(struct wd_rules *r, int64_t age, int stopped)
{
    int64_t limit = r->late;
    if (r->state == WD_STARTING) {
        age = r->now - r->since;
        limit = larger(r->late, WD_GRACE_TICKS * r->tick);
    }
    else if (r->state != WD_RUNNING) {
        return;
    }
    if (age <= limit) {
        if (r->state == WD_RUNNING) {
            all_is_well(r);
        }
        return;
    }
    if (r->skipping || r->phase != WD_WATCHED) {
        return;
    }
    r->looks++;
    if (r->looks == WD_WARN) {
        act_agent(r, WD_DO_WARN, stopped, age);
    }
    if (r->looks >= WD_ALERT && !r->alerted) {
        r->alerted = 1;
        act_agent(r, WD_DO_ALERT, stopped, age);
    }
    if (r->looks >= WD_RESTART && (r->startable || r->supervised)) {
        if (exhausted(r)) {
            give_up(r);
        }
        else {
            terminate(r);
        }
    }
}

void
wd_begin(struct wd_rules *r, int64_t now, int64_t due, enum wd_state state, int64_t age, int stopped,
         int emergency_alive)
{
    r->actions = 0;
    r->cursor = 0;
    r->wanted = 0;
    r->now = now;
    r->state = state;
    r->emergency_alive = emergency_alive;
    r->skipping = now - due > r->late;
    if (r->since < 0) {
        r->since = now;
    }
    if (r->skipping) {
        act_agent(r, WD_DO_SKIP, 0, now - due);
    }
    int gone = state == WD_GONE || state == WD_ENDED;
    if (state == WD_OTHER || (state == WD_ENDED && r->phase != WD_KILLING)) {
        end(r);
    }
    else if (gone && (r->phase == WD_WATCHED || r->phase == WD_KILLING)) {
        is_gone(r);
    }
    if (r->ended) {
        return;
    }
    if (r->phase == WD_WAITING) {
        start_when_due(r);
    }
    else if (r->phase == WD_KILLING) {
        if (!r->killed && now - r->term_at >= WD_SIGTERM_TICKS * r->tick) {
            r->killed = 1;
            act_agent(r, WD_DO_KILL, 0, 0);
        }
    }
    else {
        look_at_agent(r, age, stopped);
    }
}

/* ---- everything else that beats ---- */

static struct wd_subject *
find(struct wd_rules *r, uint64_t key)
{
    for (int i = 0; i < r->subjects; i++) {
        int at = r->cursor + i < r->subjects ? r->cursor + i : r->cursor + i - r->subjects;
        if (r->subject[at].key == key) {
            r->cursor = at + 1 < r->subjects ? at + 1 : 0;
            return &r->subject[at];
        }
    }
    return NULL;
}

int
wd_passed(struct wd_rules *r, uint64_t key, int64_t value)
{
    struct wd_subject *s = find(r, key);
    if (!s) {
        return -1;
    }
    r->cursor = (int)(s - r->subject);
    return s->value != value;
}

static int64_t
pass_limit(const struct wd_rules *r, const struct wd_subject *s)
{
    if (s->kind == WD_DRAIN_MISSING) {
        return larger(r->late, WD_GRACE_TICKS * r->tick);
    }
    if (s->gap < 0) { /* how often it passes is not known yet */
        return r->late + WD_PASS_TICKS * r->tick;
    }
    return larger(r->late, 3 * s->gap);
}

/* Whether the agent is there and well: only then is a segment that nobody drains more than what follows from that. */
static int
agent_is_well(const struct wd_rules *r)
{
    return r->state == WD_NONE || (r->state == WD_RUNNING && r->phase == WD_WATCHED && r->looks == 0);
}

/* Whether this look says nothing of such a heartbeat. */
static int
undecided(const struct wd_rules *r, enum wd_kind kind)
{
    return r->skipping || (kind == WD_DRAIN_MISSING && !agent_is_well(r));
}

static int64_t
pass_age(struct wd_rules *r, struct wd_subject *s, enum wd_kind kind, int64_t passes)
{
    if (kind != s->kind) { /* another one drains */
        s->kind = kind;
        s->gap = -1;
        s->changed = r->now;
    }
    if (passes != s->value) {
        int64_t gap = r->now - s->changed;
        s->gap = gap < WD_PASS_TICKS * r->tick ? gap : WD_PASS_TICKS * r->tick;
        s->value = passes;
        s->changed = r->now;
    }
    if (undecided(r, kind)) {
        s->changed = r->now;
    }
    return r->now - s->changed;
}

void
wd_subject(struct wd_rules *r, enum wd_kind kind, uint64_t key, int64_t value, int64_t limit, int stopped,
           const struct wd_label *label)
{
    if (r->ended) {
        return;
    }
    struct wd_subject *s = find(r, key);
    if (!s) {
        if (r->subjects >= WD_MAX_SUBJECTS) {
            r->left_out++;
            return;
        }
        s = &r->subject[r->subjects++];
        *s = (struct wd_subject){
            .key = key, .value = value, .changed = r->now, .gap = -1, .kind = kind, .label = *label};
        r->cursor = 0;
    }
    s->seen = 1;
    int64_t age = value;
    if (kind != WD_LOOP) {
        age = pass_age(r, s, kind, value);
        limit = pass_limit(r, s);
    }
    if (undecided(r, kind)) {
        return;
    }
    if (age <= limit) {
        if (s->alerted) {
            act(r, WD_DO_RESOLVE, kind, key, 0, age, &s->label);
        }
        s->looks = s->alerted = s->restarted = 0;
        return;
    }
    s->looks++;
    if (s->looks == WD_WARN) {
        act(r, WD_DO_WARN, kind, key, stopped, age, &s->label);
    }
    if (stopped && kind == WD_DRAIN_EMBEDDED) { /* somebody has stopped the program, its drain with it: nothing hangs */
        s->looks = WD_WARN;
        return;
    }
    if (s->looks >= WD_ALERT && !s->alerted) {
        s->alerted = 1;
        act(r, WD_DO_ALERT, kind, key, stopped, age, &s->label);
    }
    if (s->looks >= WD_RESTART && kind == WD_DRAIN_AGENT && !s->restarted) {
        s->restarted = 1;
        r->wanted = 1;
    }
}

/* ---- the end of a look ---- */

/* Forget the subjects that are no more; gives whether the monitoring of one that is left hangs. */
static int
sweep(struct wd_rules *r)
{
    int kept = 0, hangs = 0;
    for (int i = 0; i < r->subjects; i++) {
        struct wd_subject *s = &r->subject[i];
        if (!s->seen) {
            if (s->alerted) {
                act(r, WD_DO_RESOLVE, s->kind, s->key, 0, -1, &s->label);
            }
            continue;
        }
        hangs |= s->alerted && s->kind != WD_LOOP;
        s->seen = 0;
        if (kept != i) {
            r->subject[kept] = *s;
        }
        kept++;
    }
    r->subjects = kept;
    return hangs;
}

void
wd_finish(struct wd_rules *r)
{
    if (r->ended) {
        return;
    }
    int hangs = sweep(r);
    if (r->wanted && r->state == WD_RUNNING && r->phase == WD_WATCHED && (r->startable || r->supervised) &&
        !exhausted(r)) {
        terminate(r);
    }
    /* Once it is there it stays until an agent beats. */
    int away = (r->phase == WD_WAITING && (r->emergency || r->now - r->down_at > r->late)) ||
               (r->state == WD_STARTING && r->emergency);
    int want = hangs || r->alerted || r->gave_up || away;
    if (want && (!r->emergency || (!r->emergency_alive && r->now >= r->emergency_at))) {
        r->emergency = 1;
        r->emergency_at = r->now + WD_EMERGENCY_TICKS * r->tick;
        act_agent(r, WD_DO_EMERGENCY, 0, 0);
    }
    else if (!want && r->emergency) {
        r->emergency = 0;
        act_agent(r, WD_DO_NORMAL, 0, 0);
    }
}
