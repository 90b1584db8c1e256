/* Strided stores and simple loops: the sieve of Eratosthenes up to 2^20. AMOUNT: rounds. */
#include "work.h"
#include <string.h>

#define LIMIT (1 << 20)
static uint8_t composite[LIMIT];

int main(int argc, char **argv) {
    uint64_t sum = 0;
    for (uint64_t round = work(argc, argv); round > 0; round--) {
        memset(composite, 0, sizeof composite);
        for (uint32_t i = 2; i * i < LIMIT; i++)
            if (!composite[i])
                for (uint32_t j = i * i; j < LIMIT; j += i) composite[j] = 1;
        uint64_t count = 0;
        for (uint32_t i = 2; i < LIMIT; i++) count += !composite[i];
        sum = sum * 31 + count;
    }
    return report(sum);
}
