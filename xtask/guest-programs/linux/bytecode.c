/* Indirect calls: an interpreter of function pointers runs a loop with a nested condition. AMOUNT:
   iterations of that loop, in thousands. */
#include "work.h"

struct machine {
    uint64_t stack[16];
    int depth;
    size_t next;
    uint64_t counter, sum;
};
struct operation {
    void (*run)(struct machine *, int64_t);
    int64_t operand;
};

static void push(struct machine *m, int64_t v) { m->stack[m->depth++] = (uint64_t)v; }
static void counter(struct machine *m, int64_t v) { m->stack[m->depth++] = m->counter + (uint64_t)v; }
static void sum(struct machine *m, int64_t v) { m->stack[m->depth++] = m->sum + (uint64_t)v; }
static void add(struct machine *m, int64_t v) { m->depth--; m->stack[m->depth - 1] += m->stack[m->depth] + (uint64_t)v; }
static void multiply(struct machine *m, int64_t v) { m->stack[m->depth - 1] *= (uint64_t)v; }
static void and(struct machine *m, int64_t v) { m->stack[m->depth - 1] &= (uint64_t)v; }
static void jump_if_zero(struct machine *m, int64_t v) { if (m->stack[--m->depth] == 0) m->next = (size_t)v; }
static void store(struct machine *m, int64_t v) { m->sum = m->stack[--m->depth] ^ (uint64_t)v; }
static void loop(struct machine *m, int64_t v) { if (--m->counter != 0) m->next = (size_t)v; }

static const struct operation program[] = {
    {counter, 0}, {and, 3}, {jump_if_zero, 9},
    {sum, 1}, {multiply, 31}, {counter, 0}, {add, 0}, {store, 0x55}, {push, 0},
    /* 9 */ {sum, 0}, {push, 7}, {add, 1}, {store, 0}, {loop, 14},
};

int main(int argc, char **argv) {
    struct machine m = {.counter = work(argc, argv) * 1000};
    while (m.counter != 0) {
        m.depth = 0;
        m.next = 0;
        while (m.next < sizeof program / sizeof *program) {
            const struct operation *now = &program[m.next++];
            now->run(&m, now->operand);
        }
    }
    return report(m.sum);
}
