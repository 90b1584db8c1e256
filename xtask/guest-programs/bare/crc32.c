/* Table look-ups and dependent loads. */
static unsigned int table[256];
static unsigned char data[65536];
volatile unsigned int result;
void run(void) {
    for (unsigned int i = 0; i < 256; i++) {
        unsigned int c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    for (int round = 0; round < 1500; round++) {
        unsigned int c = ~0u;
        for (int i = 0; i < 65536; i++) c = table[(c ^ data[i]) & 255] ^ (c >> 8);
        result = ~c;
    }
}
