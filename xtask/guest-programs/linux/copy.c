/* libc's memcpy, from the size of a structure to that of a cache. AMOUNT: rounds of 8 MiB. */
#include "work.h"
#include <string.h>

static uint8_t from[1 << 20], to[1 << 20];

int main(int argc, char **argv) {
    static const size_t sizes[] = {24, 64, 200, 1024, 4096, 16384, 65536, 1 << 20};
    uint64_t seed = 1, sum = 0;
    for (size_t i = 0; i < sizeof from; i++) from[i] = (uint8_t)random_next(&seed);
    for (uint64_t round = work(argc, argv); round > 0; round--)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            for (size_t at = 0; at + sizes[s] <= sizeof from; at += sizes[s]) memcpy(to + at, from + at, sizes[s]);
            sum = sum * 31 + to[(round * 4099 + s) % sizeof to];
            from[sum % sizeof from]++;
        }
    return report(sum);
}
