/* Calls and returns. AMOUNT: how often fib(27) is computed. */
#include "work.h"

__attribute__((noinline)) static uint64_t fib(uint64_t n) {
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

int main(int argc, char **argv) {
    uint64_t sum = 0;
    for (uint64_t round = work(argc, argv); round > 0; round--) sum = sum * 31 + fib(27 - (round & 1));
    return report(sum);
}
