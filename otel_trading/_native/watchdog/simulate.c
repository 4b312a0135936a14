/* Looks from standard input in place of the system's, one word list a line:
 *
 *   config TICK LATE RESTARTS STARTABLE SUPERVISED
 *   look NOW DUE STATE AGE STOPPED EMERGENCY_ALIVE     STATE: none starting running stopping gone ended other
 *   drain KEY PASSES KIND STOPPED                      KIND: agent embedded missing
 *   loop KEY AGE LATE STOPPED
 *   go
 *
 * After each "go": the actions, one a line (what, kind, key, stopped), and a line with a dot.
 */
#include <stdio.h>
#include <string.h>

#include "rules.h"

static const char *const STATES[] = {"none", "starting", "running", "stopping", "gone", "ended", "other"};
static const char *const KINDS[] = {"agent", "drain", "embedded", "missing", "loop"};
static const char *const WHATS[] = {"skip", "warn", "alert", "resolve", "emergency", "normal",    "term",
                                    "kill", "died", "back",  "start",   "give_up",   "recovered", "end"};

static int
number_of(const char *word, const char *const *words, int count)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(word, words[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static int
take(struct wd_rules *r, const char *line)
{
    long long a, b, c;
    int d, e;
    unsigned long long key;
    char word[16];
    static const struct wd_label nobody = {1, "test", ""};

    if (sscanf(line, "config %lld %lld %d %d %d", &a, &b, &r->restarts, &d, &e) == 5) {
        r->tick = a;
        r->late = b;
        r->startable = d;
        r->supervised = e;
        return 1;
    }
    if (sscanf(line, "look %lld %lld %15s %lld %d %d", &a, &b, word, &c, &d, &e) == 6) {
        int state = number_of(word, STATES, 7);
        if (state < 0) {
            return 0;
        }
        wd_begin(r, a, b, (enum wd_state)state, c, d, e);
        return 1;
    }
    if (sscanf(line, "drain %llu %lld %15s %d", &key, &a, word, &d) == 4) {
        int kind = strcmp(word, "agent") == 0 ? WD_DRAIN_AGENT : number_of(word, KINDS, 4);
        if (kind < WD_DRAIN_AGENT) {
            return 0;
        }
        wd_subject(r, (enum wd_kind)kind, key, a, 0, d, &nobody);
        return 1;
    }
    if (sscanf(line, "loop %llu %lld %lld %d", &key, &a, &b, &d) == 4) {
        wd_subject(r, WD_LOOP, key, a, b, d, &nobody);
        return 1;
    }
    return 0;
}

int
wd_simulate(struct wd_rules *r)
{
    char line[256];
    while (fgets(line, sizeof(line), stdin)) {
        if (strcmp(line, "go\n") == 0) {
            wd_finish(r);
            for (int i = 0; i < r->actions; i++) {
                const struct wd_action *a = &r->action[i];
                printf("%s %s %llu %d\n", WHATS[a->what], KINDS[a->kind], (unsigned long long)a->key, a->stopped);
            }
            puts(".");
        }
        else if (!take(r, line)) {
            fprintf(stderr, "otel-trading-watchdog: no look: %s", line);
            return 2;
        }
    }
    return 0;
}

void
wd_print_subjects(const struct wd_rules *r)
{
    for (int i = 0; i < r->subjects; i++) {
        const struct wd_subject *s = &r->subject[i];
        printf("%s\t%llu\t%lld\t%u\t%s\t%s\n", KINDS[s->kind], (unsigned long long)s->key,
               s->kind == WD_LOOP ? 0LL : (long long)s->value, s->label.pid, s->label.service, s->label.name);
    }
}
