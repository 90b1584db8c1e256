/* Writes text that compresses about as well as prose does, for the programs that read data. AMOUNT:
   KiB. */
#include "work.h"

int main(int argc, char **argv) {
    static char words[1024][12];
    uint64_t seed = 7, left = work(argc, argv) * 1024;
    for (int i = 0; i < 1024; i++) {
        int length = 2 + (int)((random_next(&seed) >> 32) % 8);
        for (int k = 0; k < length; k++) words[i][k] = (char)('a' + (random_next(&seed) >> 32) % 26);
    }
    while (left > 0) {
        uint64_t r = random_next(&seed) >> 20;
        /* The product of two uniform numbers: few words are frequent, most are rare. */
        for (const char *c = words[(r & 1023) * (r >> 10 & 1023) >> 10]; *c && left > 1; c++, left--) putchar(*c);
        putchar((r >> 20 & 15) == 0 ? '\n' : ' ');
        left--;
    }
    return 0;
}
