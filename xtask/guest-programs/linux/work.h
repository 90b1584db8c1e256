/* What every program of the benchmark shares: the amount of work is its argument, and its last act is
   to print a checksum, equal on every machine that computes correctly. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static inline uint64_t work(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s AMOUNT\n", argv[0]);
        exit(2);
    }
    return strtoull(argv[1], NULL, 0);
}

static inline int report(uint64_t checksum) {
    printf("%016llx\n", (unsigned long long)checksum);
    return 0;
}

/* Rounded: whether a product and a sum are fused is the compiler's choice, and differs. */
static inline int report_rounded(double value) {
    printf("%.7e\n", value);
    return 0;
}

/* xorshift64: pseudo-random numbers. */
static inline uint64_t random_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}
