/* Files in which the kernel tells figures.  They stay open and are read again and again; what can not be understood is NaN. */
#ifndef OTEL_TRADING_SYSTEM_FILES_H
#define OTEL_TRADING_SYSTEM_FILES_H

#include <stdbool.h>
#include <stddef.h>

#define OT_SYSTEM_TEXT 65536

/* What was read last, a string.  The governor's lock. */
extern char ot_system_text[OT_SYSTEM_TEXT];

/* A descriptor, to be closed; -1 = not there. */
int ot_system_open(const char *directory, const char *name);
/* The same of a file below /proc of a process, 0 = this one. */
int ot_system_open_process(const char *root, unsigned pid, const char *name);
/* The beginning of a file into the text; false where there is nothing. */
bool ot_system_read(int fd, size_t most);
/* A number, and what is after it; NaN where there is none. */
double ot_system_number(const char **at);
/* The number after `key`, which stands at the beginning of a line of the text. */
double ot_system_field(const char *key);
/* The number that a file begins with. */
double ot_system_only_number(int fd);

#endif
