// Signals: handlers return through the trampoline in the kernel's vdso, faults are repaired and the
// instruction runs again, and every register has to survive.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t raised, ticks, repaired, illegal, nested;
static unsigned char *guarded;
static long page_bytes;
static sigjmp_buf way_out;

static void check(int good, const char *what) {
    if (!good) {
        fprintf(stderr, "signals: %s\n", what);
        exit(1);
    }
}

static void on_usr1(int signal) {
    (void)signal;
    volatile double scratch = raised;
    scratch *= 3.0;
    raised++;
}

static void on_usr2(int signal) {
    (void)signal;
    nested++;
    raise(SIGUSR1);
}

static void on_alarm(int signal) {
    (void)signal;
    ticks++;
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    unsigned char *address = info->si_addr;
    if (address < guarded || address >= guarded + 16 * page_bytes)
        siglongjmp(way_out, 1);
    uintptr_t page = (uintptr_t)address & ~(uintptr_t)(page_bytes - 1);
    mprotect((void *)page, page_bytes, PROT_READ | PROT_WRITE);
    repaired++;
}

static void on_illegal(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    ucontext_t *interrupted = context;
#ifdef __x86_64__
    interrupted->uc_mcontext.gregs[REG_RIP] += 2;
#else
    interrupted->uc_mcontext.__gregs[REG_PC] += 4;
#endif
    illegal++;
}

static void handle(int signal, void (*handler)(int), void (*detailed)(int, siginfo_t *, void *)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    if (detailed) {
        action.sa_sigaction = detailed;
        action.sa_flags |= SA_SIGINFO;
    } else {
        action.sa_handler = handler;
    }
    check(sigaction(signal, &action, NULL) == 0, "sigaction");
}

// Floating point and integers in registers, across signals that come at any instruction.
static uint64_t arithmetic(uint64_t rounds) {
    uint64_t mixed = 88172645463325252u;
    double sum = 0;
    for (uint64_t round = 0; round < rounds; round++) {
        mixed ^= mixed << 13, mixed ^= mixed >> 7, mixed ^= mixed << 17;
        sum += (double)(mixed >> 40) * 0.5;
    }
    return mixed ^ (uint64_t)sum;
}

int main(void) {
    page_bytes = sysconf(_SC_PAGESIZE);
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    check(sigaltstack(&stack, NULL) == 0, "sigaltstack");
    handle(SIGUSR1, on_usr1, NULL);
    handle(SIGUSR2, on_usr2, NULL);
    handle(SIGALRM, on_alarm, NULL);
    handle(SIGSEGV, NULL, on_fault);
    handle(SIGILL, NULL, on_illegal);

    for (int i = 0; i < 3000; i++)
        raise(i % 3 ? SIGUSR1 : SIGUSR2);
    check(raised == 3000 && nested == 1000, "a signal was lost");

    const uint64_t expected = arithmetic(2000000);
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    int rounds = 0;
    while (ticks < 10 || rounds < 3) {
        check(arithmetic(2000000) == expected, "a signal changed a register");
        rounds++;
    }
    setitimer(ITIMER_REAL, &never, NULL);

    guarded = mmap(NULL, 16 * page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int round = 1; round <= 50; round++) {
        for (int page = 0; page < 16; page++)
            guarded[page * page_bytes + round]++;
        check(repaired == round * 16, "a fault was not repaired once");
        mprotect(guarded, 16 * page_bytes, PROT_NONE);
    }
    volatile uintptr_t nowhere = 8;
    if (sigsetjmp(way_out, 1) == 0) {
        *(volatile int *)nowhere = 1;
        check(0, "a store to nowhere went through");
    }
    for (int i = 0; i < 500; i++)
#ifdef __x86_64__
        __asm__ volatile("ud2" ::: "memory");
#else
        __asm__ volatile(".word 0xc0001073" ::: "memory");
#endif
    check(illegal == 500, "an illegal instruction");

    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            raise(SIGUSR1);
            guarded[0] = 1;
            _exit(raised == 3001 ? 7 : 1);
        }
        int status;
        check(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7, "a child");
    }
    printf("signals: all as expected\n");
    return 0;
}
