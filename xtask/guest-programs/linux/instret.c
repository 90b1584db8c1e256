/* Prints how many instructions all harts have retired, each of which counts its own. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    uint64_t sum = 0;
    for (long hart = 0; hart < sysconf(_SC_NPROCESSORS_ONLN); hart++) {
        cpu_set_t here;
        CPU_ZERO(&here);
        CPU_SET(hart, &here);
        if (sched_setaffinity(0, sizeof here, &here)) return 1;
        uint64_t retired;
        __asm__ volatile("rdinstret %0" : "=r"(retired));
        sum += retired;
    }
    printf("%" PRIu64 "\n", sum);
    return 0;
}
