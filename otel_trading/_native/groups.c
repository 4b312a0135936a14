#include "groups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Is `word` one of the words of a list that commas separate? */
static bool
listed(const char *list, const char *word)
{
    size_t bytes = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ','), at = at != NULL ? at + 1 : NULL) {
        if (strncmp(at, word, bytes) == 0 && (at[bytes] == 0 || at[bytes] == ','))
            return true;
    }
    return false;
}

/* Octal escapes of mountinfo, in place. */
static void
unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from != 0;) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' && from[3] >= '0' &&
            from[3] <= '7') {
            *to++ = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        }
        else {
            *to++ = *from++;
        }
    }
    *to = 0;
}

static FILE *
open_below(const char *root, const char *name)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s%s", root, name) >= (int)sizeof path)
        return NULL;
    return fopen(path, "re");
}

/* The process's path of a controller ("" = version 2) into `path`; false: none. */
static bool
own_path(const char *root, unsigned pid, const char *controller, char path[PATH_MAX])
{
    char of[64] = "/proc/self/cgroup";
    if (pid != 0)
        snprintf(of, sizeof of, "/proc/%u/cgroup", pid);
    FILE *f = open_below(root, of);
    char line[PATH_MAX + 256];
    bool found = false;
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = 0;
        char *list = strchr(line, ':'), *name = list != NULL ? strchr(list + 1, ':') : NULL;
        if (name == NULL)
            continue;
        *name++ = 0;
        list++;
        found = (*controller == 0 ? *list == 0 : listed(list, controller)) && strlen(name) < PATH_MAX;
        if (found)
            memcpy(path, name, strlen(name) + 1);
    }
    if (f != NULL)
        fclose(f);
    return found;
}

/* Where a hierarchy is mounted, and which of its groups that shows. */
static bool
mounted(const char *root, const char *controller, char at[PATH_MAX], char shows[PATH_MAX])
{
    FILE *f = open_below(root, "/proc/self/mountinfo");
    static char line[3 * PATH_MAX];
    bool found = false;
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = 0;
        char *rest = strstr(line, " - ");
        if (rest == NULL)
            continue;
        *rest = 0;
        char *save = NULL, *field[5] = {NULL}, *type, *options;
        int n = 0;
        for (char *word = strtok_r(line, " ", &save); word != NULL && n < 5; word = strtok_r(NULL, " ", &save))
            field[n++] = word;
        save = NULL;
        type = strtok_r(rest + 3, " ", &save);
        (void)strtok_r(NULL, " ", &save);
        options = strtok_r(NULL, " ", &save);
        if (n < 5 || type == NULL)
            continue;
        found = *controller == 0 ? strcmp(type, "cgroup2") == 0
                                 : strcmp(type, "cgroup") == 0 && options != NULL && listed(options, controller);
        found = found && strlen(field[3]) < PATH_MAX && strlen(field[4]) < PATH_MAX;
        if (found) {
            unescape(field[3]);
            unescape(field[4]);
            memcpy(shows, field[3], strlen(field[3]) + 1);
            memcpy(at, field[4], strlen(field[4]) + 1);
        }
    }
    if (f != NULL)
        fclose(f);
    return found;
}

/* The directories from the process's own up to the mount's. */
static void
climb(struct ot_groups *g, const char *root, unsigned pid, const char *controller)
{
    char own[PATH_MAX], at[PATH_MAX], shows[PATH_MAX], path[PATH_MAX];
    g->count = 0;
    if (!own_path(root, pid, controller, own) || !mounted(root, controller, at, shows))
        return;
    size_t shown = strcmp(shows, "/") == 0 ? 0 : strlen(shows);
    const char *below = strncmp(own, shows, shown) == 0 && (own[shown] == '/' || own[shown] == 0) ? own + shown : "";
    if (strstr(below, "..") != NULL || strcmp(below, "/") == 0)
        below = "";
    if (snprintf(path, sizeof path, "%s%s%s", root, at, below) >= (int)sizeof path)
        return;
    size_t top = strlen(root) + strlen(at);
    while (g->count < OT_GROUP_LEVELS && strlen(path) >= top) {
        if (access(path, X_OK) == 0)
            memcpy(g->path[g->count++], path, strlen(path) + 1);
        char *slash = strlen(path) > top ? strrchr(path, '/') : NULL;
        if (slash == NULL)
            break;
        *slash = 0;
    }
}

void
ot_groups_find(struct ot_groups *g, const char *root, unsigned pid, const char *controller, const char *probe)
{
    climb(g, root, pid, "");
    g->version = 0;
    for (int i = 0; i < g->count && g->version == 0; i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/%s", g->path[i], probe) < (int)sizeof path && access(path, R_OK) == 0)
            g->version = 2;
    }
    if (g->version == 2)
        return;
    climb(g, root, pid, controller);
    g->version = g->count > 0 ? 1 : 0;
}
