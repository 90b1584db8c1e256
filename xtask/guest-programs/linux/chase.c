/* Cache and TLB misses: a chain of dependent loads at random in 64 MiB. AMOUNT: steps, in thousands. */
#include "work.h"

#define SLOTS ((64u << 20) / sizeof(uint32_t))

int main(int argc, char **argv) {
    uint32_t *next = malloc(SLOTS * sizeof *next);
    if (!next) return 1;
    /* x -> a x + c modulo a power of two visits every slot; the multiplier spreads it over pages. */
    for (uint32_t i = 0; i < SLOTS; i++) next[i] = (i * 1664525u + 1013904223u) & (SLOTS - 1);
    uint32_t at = 0;
    for (uint64_t step = work(argc, argv) * 1000; step > 0; step--) at = next[at];
    return report(at);
}
