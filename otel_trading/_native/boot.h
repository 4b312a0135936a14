/* The kernel's number of this boot: segments of another one are told by it. */
#ifndef OTEL_TRADING_BOOT_H
#define OTEL_TRADING_BOOT_H

#include <stdint.h>

void ot_boot_id(uint64_t id[2]); /* zeros where the kernel does not tell; reads a file */

#endif
