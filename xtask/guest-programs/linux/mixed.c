/* What small embedded code does, as CoreMark mixes it: linked lists, integer matrices, a state machine
   over text, and a CRC over the results. AMOUNT: rounds. */
#include "work.h"

#define NODES 96
#define SIDE 16

struct node {
    struct node *next;
    int16_t value, index;
};
static struct node nodes[NODES];
static int16_t left[SIDE][SIDE], right[SIDE][SIDE];
static int32_t product[SIDE][SIDE];
static const char text[] = "5012,1234,-874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e+3,-.123e-2,"
                           "-87e+832,+0.6e-12,T0.3e-1F,-T.T++Tq,1T3.4e4z,34.0e-T^";

static uint16_t crc16(uint16_t crc, uint32_t value) {
    for (int bit = 0; bit < 32; bit++, value >>= 1) {
        uint16_t carry = (crc ^ value) & 1;
        crc >>= 1;
        if (carry) crc ^= 0xa001;
    }
    return crc;
}

static struct node *merge_sort(struct node *list, int by_index) {
    if (!list || !list->next) return list;
    struct node *slow = list, *fast = list->next;
    while (fast && fast->next) slow = slow->next, fast = fast->next->next;
    struct node *second = slow->next, *sorted = NULL, **tail = &sorted;
    slow->next = NULL;
    list = merge_sort(list, by_index);
    second = merge_sort(second, by_index);
    while (list && second) {
        int first = by_index ? list->index <= second->index : list->value <= second->value;
        struct node **from = first ? &list : &second;
        *tail = *from;
        tail = &(*from)->next;
        *from = *tail;
    }
    *tail = list ? list : second;
    return sorted;
}

static uint16_t lists(uint16_t crc, uint32_t round) {
    for (int i = 0; i < NODES; i++) {
        nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : NULL;
        nodes[i].value = (int16_t)((i * 7919 + (int)round * 31) & 0x7ff);
        nodes[i].index = (int16_t)i;
    }
    struct node *list = merge_sort(nodes, 0), *reversed = NULL;
    while (list) {
        struct node *next = list->next;
        list->next = reversed;
        reversed = list;
        list = next;
    }
    uint32_t seen = 0;
    for (struct node *n = reversed; n; n = n->next) seen = seen * 3 + (uint16_t)n->value;
    reversed = merge_sort(reversed, 1);
    return crc16(crc, seen + (uint32_t)reversed->value);
}

static uint16_t matrices(uint16_t crc, uint32_t round) {
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) left[i][j] = (int16_t)(i * j + (int)round), right[i][j] = (int16_t)(i - j);
    int32_t sum = 0;
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            int32_t cell = 0;
            for (int k = 0; k < SIDE; k++) cell += left[i][k] * right[k][j];
            product[i][j] = cell;
            sum += (cell >> 2) & 0xf;
        }
    return crc16(crc, (uint32_t)(sum + product[3][5]));
}

enum state { START, SIGN, INTEGER, FRACTION, EXPONENT, INVALID, STATES };

static uint16_t states(uint16_t crc, uint32_t round) {
    uint32_t visits[STATES] = {0};
    enum state state = START;
    for (size_t i = 0; i < sizeof text; i++) {
        char c = (i * 5 + round) % 37 ? text[i] : ',';
        visits[state]++;
        if (c == ',' || c == 0) { state = START; continue; }
        int digit = c >= '0' && c <= '9';
        switch (state) {
        case START: state = digit ? INTEGER : c == '+' || c == '-' ? SIGN : c == '.' ? FRACTION : INVALID; break;
        case SIGN: state = digit ? INTEGER : c == '.' ? FRACTION : INVALID; break;
        case INTEGER: state = digit ? INTEGER : c == '.' ? FRACTION : c == 'e' ? EXPONENT : INVALID; break;
        case FRACTION: state = digit ? FRACTION : c == 'e' ? EXPONENT : INVALID; break;
        case EXPONENT: state = digit || c == '+' || c == '-' ? EXPONENT : INVALID; break;
        default: break;
        }
    }
    for (int i = 0; i < STATES; i++) crc = crc16(crc, visits[i]);
    return crc;
}

int main(int argc, char **argv) {
    uint16_t crc = 0xffff;
    uint64_t rounds = work(argc, argv);
    for (uint64_t round = 0; round < rounds; round++)
        crc = states(matrices(lists(crc, (uint32_t)round), (uint32_t)round), (uint32_t)round);
    return report(crc);
}
