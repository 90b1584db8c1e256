/* The way into the kernel and back. AMOUNT: calls of getppid, in thousands. */
#define _GNU_SOURCE
#include "work.h"
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    uint64_t calls = work(argc, argv) * 1000, equal = 0;
    long parent = getppid();
    for (uint64_t i = 0; i < calls; i++) equal += syscall(SYS_getppid) == parent;
    return report(equal);
}
