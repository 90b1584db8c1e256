/* Table look-ups on a chain of dependent loads. AMOUNT: MiB. */
#include "work.h"

static uint32_t table[256];
static uint8_t data[1 << 20];

int main(int argc, char **argv) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)random_next(&seed);
    uint32_t c = ~0u;
    for (uint64_t round = work(argc, argv); round > 0; round--)
        for (size_t i = 0; i < sizeof data; i++) c = table[(c ^ data[i]) & 255] ^ (c >> 8);
    return report(~c);
}
