#include "boot.h"

#include <stdio.h>

void
ot_boot_id(uint64_t id[2])
{
    char text[40] = "";
    id[0] = id[1] = 0;
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f == NULL)
        return;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    int digits = 0;
    for (size_t i = 0; i < n && digits < 32; i++) {
        unsigned char c = (unsigned char)text[i];
        unsigned value = c >= '0' && c <= '9' ? c - 48U : c >= 'a' && c <= 'f' ? c - 87U : 16U;
        if (value < 16) {
            id[digits / 16] = id[digits / 16] << 4 | value;
            digits++;
        }
    }
}
