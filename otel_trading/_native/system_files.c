#include "system_files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

char ot_system_text[OT_SYSTEM_TEXT];

int
ot_system_open(const char *directory, const char *name)
{
    char path[PATH_MAX + 64];
    if (snprintf(path, sizeof path, "%s%s", directory, name) >= (int)sizeof path)
        return -1;
    return open(path, O_RDONLY | O_CLOEXEC);
}

int
ot_system_open_process(const char *root, unsigned pid, const char *name)
{
    char path[64];
    if (pid == 0)
        snprintf(path, sizeof path, "/proc/self/%s", name);
    else
        snprintf(path, sizeof path, "/proc/%u/%s", pid, name);
    return ot_system_open(root, path);
}

bool
ot_system_read(int fd, size_t most)
{
    ot_system_text[0] = 0;
    if (fd < 0)
        return false;
    ssize_t n;
    do
        n = pread(fd, ot_system_text, most < OT_SYSTEM_TEXT ? most : OT_SYSTEM_TEXT - 1, 0);
    while (n < 0 && errno == EINTR);
    ot_system_text[n > 0 ? n : 0] = 0;
    return n > 0;
}

double
ot_system_number(const char **at)
{
    const char *p = *at;
    while (*p == ' ' || *p == '\t')
        p++;
    if (*p < '0' || *p > '9')
        return NAN;
    double value = 0;
    while (*p >= '0' && *p <= '9')
        value = value * 10 + (*p++ - '0');
    *at = p;
    return value;
}

double
ot_system_field(const char *key)
{
    size_t bytes = strlen(key);
    for (const char *line = ot_system_text; line != NULL;
         line = strchr(line, '\n'), line = line != NULL ? line + 1 : NULL) {
        if (strncmp(line, key, bytes) == 0) {
            const char *at = line + bytes;
            return ot_system_number(&at);
        }
    }
    return NAN;
}

double
ot_system_only_number(int fd)
{
    const char *at = ot_system_text;
    return ot_system_read(fd, 64) ? ot_system_number(&at) : NAN;
}
