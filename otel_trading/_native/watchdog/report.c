#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "process.h"

int
wd_open_log(const struct wd_report *w)
{
    if (!w->log) {
        return -1;
    }
    const int flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd = open(w->log, flags, 0600);
    struct stat status;
    if (fd < 0) {
        return -1;
    }
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_uid != geteuid()) {
        close(fd);
        return -1;
    }
    if (status.st_size > WD_LOG_BYTES) {
        char old[4096];
        int n = snprintf(old, sizeof(old), "%s.1", w->log);
        close(fd);
        if (n < 0 || n >= (int)sizeof(old) || rename(w->log, old) < 0) {
            return -1;
        }
        return open(w->log, flags, 0600);
    }
    return fd;
}

void
wd_log(struct wd_report *w, const char *format, ...)
{
    char line[512];
    struct tm parts = {0};
    time_t now = time(NULL);
    gmtime_r(&now, &parts);
    int head = (int)strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%SZ watchdog: ", &parts);
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, format, arguments);
    va_end(arguments);
    if (n < 0) {
        return;
    }
    size_t bytes = strlen(line);
    line[bytes++] = '\n';
    int fd = wd_open_log(w);
    if (fd >= 0) {
        (void)!write(fd, line, bytes);
        close(fd);
    }
    if (w->terminal) {
        (void)!write(STDERR_FILENO, line, bytes);
    }
}

/* ---- alerts ---- */

static const char *
place_of(const struct wd_action *a)
{
    switch (a->kind) {
    case WD_AGENT:
        return "agent";
    case WD_LOOP:
        return "loop";
    default:
        return "drain";
    }
}

static void
describe(char *to, size_t bytes, const struct wd_action *a, uint64_t agent)
{
    const struct wd_label *l = &a->label;
    const char *stopped = a->stopped ? ", which is stopped by a signal," : "";
    switch (a->kind) {
    case WD_AGENT:
        snprintf(to, bytes, "the monitoring agent (pid %llu)%s", (unsigned long long)agent, stopped);
        break;
    case WD_LOOP:
        snprintf(to, bytes, "loop \"%s\" of %s (pid %u)%s", l->name, l->service, l->pid, stopped);
        break;
    case WD_DRAIN_MISSING:
        snprintf(to, bytes, "the missing drain of %s (pid %u)", l->service, l->pid);
        break;
    case WD_DRAIN_EMBEDDED:
        snprintf(to, bytes, "the drain in %s (pid %u)%s", l->service, l->pid, stopped);
        break;
    default:
        snprintf(to, bytes, "the agent's drain of %s (pid %u)%s", l->service, l->pid, stopped);
    }
}

static void
sentence(char *to, size_t bytes, const struct wd_action *a, uint64_t agent, uint64_t restarts)
{
    char who[256];
    describe(who, sizeof(who), a, agent);
    switch (a->what) {
    case WD_DO_SKIP:
        snprintf(to, bytes, "this look came %.1f s late itself, so it does not count", (double)a->age / 1e3);
        break;
    case WD_DO_WARN:
    case WD_DO_ALERT:
        snprintf(to, bytes, "%s has given no sign of life for %.1f s", who, (double)a->age / 1e3);
        break;
    case WD_DO_RESOLVE:
        if (a->age < 0) {
            snprintf(to, bytes, "%s is no more", who);
            break;
        }
        snprintf(to, bytes, "%s goes on", who);
        break;
    case WD_DO_EMERGENCY:
        snprintf(to, bytes, "the emergency monitor is started");
        break;
    case WD_DO_NORMAL:
        snprintf(to, bytes, "the emergency monitor is ended");
        break;
    case WD_DO_TERM:
        snprintf(to, bytes, "%s is asked to end", who);
        break;
    case WD_DO_KILL:
        snprintf(to, bytes, "%s is killed", who);
        break;
    case WD_DO_DIED:
        snprintf(to, bytes, "%s has died", who);
        break;
    case WD_DO_START:
        snprintf(to, bytes, "an agent is started, start %llu", (unsigned long long)restarts);
        break;
    case WD_DO_GIVE_UP:
        snprintf(to, bytes, "%s is not started again any more, after %llu starts; the emergency monitor stays", who,
                 (unsigned long long)restarts);
        break;
    case WD_DO_BACK:
    case WD_DO_RECOVERED:
        snprintf(to, bytes, "an agent is at work again");
        break;
    default:
        snprintf(to, bytes, "the watchdog ends");
    }
}

/* The name of the action's alert, NULL where it has none; and how severe it is. */
static const char *
alert_of(const struct wd_action *a, const char **severity)
{
    *severity = "critical";
    switch (a->what) {
    case WD_DO_ALERT:
    case WD_DO_RESOLVE:
        return a->kind == WD_LOOP ? "ApplicationHung" : a->kind == WD_AGENT ? "AgentLate" : "DrainLate";
    case WD_DO_DIED:
    case WD_DO_BACK:
        *severity = "warning";
        return "AgentDied";
    case WD_DO_GIVE_UP:
    case WD_DO_RECOVERED:
        return "WatchdogGaveUp";
    default:
        return NULL;
    }
}

static void
quote(char *text) /* of JSON: our own sentences have no other characters that would have to be escaped */
{
    for (; *text; text++) {
        if (*text == '"') {
            *text = '\'';
        }
    }
}

/* FNV-1a. */
static uint64_t
hash_of(const char *text, uint64_t hash)
{
    for (; *text; text++) {
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3ULL;
    }
    return hash;
}

void
wd_tell(struct wd_report *w, const struct wd_action *a, uint64_t agent, uint64_t restarts)
{
    char text[512], labels[256];
    const char *severity;
    const char *name = alert_of(a, &severity);
    sentence(text, sizeof(text), a, agent, restarts);
    wd_log(w, "%s", text);
    if (!name || !w->python) {
        return;
    }
    if (w->waiting >= WD_ALERTS_WAITING) {
        wd_log(w, "too many alerts at once; %s is not sent", name);
        return;
    }
    int over = a->what == WD_DO_RESOLVE || a->what == WD_DO_BACK || a->what == WD_DO_RECOVERED;
    int hung = a->kind == WD_LOOP && !over;
    if (a->kind == WD_AGENT) {
        snprintf(labels, sizeof(labels), "\"subject\": \"agent\"");
    }
    else {
        snprintf(labels, sizeof(labels), "\"subject\": \"%s\", \"service\": \"%s\", \"pid\": \"%u\"%s%s%s", place_of(a),
                 a->label.service, a->label.pid, a->label.name[0] ? ", \"loop\": \"" : "", a->label.name,
                 a->label.name[0] ? "\"" : "");
    }
    quote(text);
    w->alert[w->waiting].identity = hash_of(labels, hash_of(name, 0xcbf29ce484222325ULL));
    w->alert[w->waiting].hung = hung ? a->label.pid : 0;
    snprintf(w->alert[w->waiting++].text, WD_ALERT_BYTES,
             "{\"name\": \"%s\", \"severity\": \"%s\", \"summary\": \"%s\", \"labels\": {%s}, "
             "\"details\": {\"age_s\": %.3f, \"stopped\": %s, \"agent\": %llu, \"restarts\": %llu}, \"resolved\": %s}",
             name, severity, text, labels, (double)(a->age > 0 ? a->age : 0) / 1e3, a->stopped ? "true" : "false",
             (unsigned long long)agent, (unsigned long long)restarts, over ? "true" : "false");
}

static pid_t
send_one(struct wd_report *w, int n)
{
    char pid[16];
    char *const plain[] = {(char *)w->python, "-m", "otel_trading", "alert", "send", NULL};
    char *const hung[] = {(char *)w->python, "-m", "otel_trading", "watchdog", "--hung", pid, NULL};
    snprintf(pid, sizeof(pid), "%u", w->alert[n].hung);
    int errors = wd_open_log(w);
    pid_t child = wd_spawn(w->alert[n].hung ? hung : plain, w->alert[n].text, errors);
    if (child < 0) {
        wd_log(w, "an alert can not be sent: %s", strerror(errno));
    }
    if (errors >= 0) {
        close(errors);
    }
    w->waiting--;
    memmove(&w->alert[n], &w->alert[n + 1], (size_t)(w->waiting - n) * sizeof(w->alert[0]));
    return child;
}

/* The first that may be sent now; -1: none. */
static int
next_alert(const struct wd_report *w)
{
    for (int n = 0; n < w->waiting; n++) {
        int held = 0;
        for (int i = 0; i < WD_ALERTS_AT_ONCE; i++) {
            held |= w->sending[i] > 0 && w->busy[i] == w->alert[n].identity;
        }
        for (int i = 0; i < n; i++) {
            held |= w->alert[i].identity == w->alert[n].identity;
        }
        if (!held) {
            return n;
        }
    }
    return -1;
}

void
wd_send(struct wd_report *w, int64_t now_ms)
{
    for (int i = 0; i < WD_ALERTS_AT_ONCE; i++) {
        if (w->sending[i] > 0) {
            int status;
            pid_t ended = waitpid(w->sending[i], &status, WNOHANG);
            if (ended == 0) {
                if (now_ms - w->since[i] > WD_ALERT_TICKS * (w->tick > 1000 ? w->tick : 1000)) {
                    kill(w->sending[i], SIGKILL); /* our child, not yet waited for: the pid is still its own */
                    w->since[i] = now_ms;
                }
                continue;
            }
            if (ended > 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
                wd_log(w, "an alert was not sent by each of its ways (status %d)", status);
            }
            w->sending[i] = 0;
        }
        int n = next_alert(w);
        if (n >= 0) {
            w->busy[i] = w->alert[n].identity;
            pid_t child = send_one(w, n);
            w->sending[i] = child > 0 ? child : 0;
            w->since[i] = now_ms;
        }
    }
}
