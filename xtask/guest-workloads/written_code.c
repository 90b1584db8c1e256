// Code that the program writes itself: over and over in one place, in many places, and in memory
// that is mapped twice, once to write and once to execute, as JIT compilers do.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef long (*function)(long);

static void check(int good, const char *what) {
    if (!good) {
        fprintf(stderr, "written code: %s\n", what);
        exit(1);
    }
}

#ifdef __x86_64__
// lea rax, [rdi + N]; ret
static void write_add(uint32_t *code, int n) {
    code[0] = 0x00878d48u | (uint32_t)n << 24;
    code[1] = 0xc3000000u | (uint32_t)n >> 8;
}

// Writes what follows at 8; then gives its third argument back.
static const uint32_t block[] = {
    0x0f663789, // mov [rdi], esi; six bytes of nop
    0x0000441f,
    0x00401f0f, // the place: nop
    0xc3d08948, // mov rax, rdx; ret
};

// lea rdx, [rdx + N]
static uint32_t addition(int n) {
    return 0x00528d48u | (uint32_t)n << 24;
}
#else
// addi a0, a0, N; ret
static void write_add(uint32_t *code, int n) {
    code[0] = 0x00050513u | (uint32_t)(n & 0xfff) << 20;
    code[1] = 0x00008067u;
}

// Writes what follows at 8, after a fence; then gives its third argument back.
static const uint32_t block[] = {
    0x00b52023, // sw a1, 0(a0)
    0x0000100f, // fence.i
    0x00000013, // the place: nop
    0x00060513, // mv a0, a2
    0x00008067, // ret
};

// addi a2, a2, N
static uint32_t addition(int n) {
    return 0x00060613u | (uint32_t)n << 20;
}
#endif

static void finish(void *code, size_t bytes) {
    __builtin___clear_cache((char *)code, (char *)code + bytes);
}

static void one_place(uint32_t *code) {
    for (int n = 0; n < 2000; n++) {
        write_add(code, n);
        finish(code, 8);
        for (int call = 0; call < (n % 100 == 0 ? 200 : 3); call++)
            check(((function)code)(call) == call + n, "one place");
    }
}

// Changes what follows in the same block.
static void own_block(uint32_t *code) {
    memcpy(code, block, sizeof block);
    finish(code, sizeof block);
    long (*run)(uint32_t *, uint32_t, long) = (long (*)(uint32_t *, uint32_t, long))code;
    for (int n = 0; n < 500; n++)
        check(run(code + 2, addition(n & 0x7f), 5) == 5 + (n & 0x7f), "own block");
}

static void many_places(uint32_t *code, size_t bytes) {
    size_t functions = bytes / 8;
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < functions; i++)
            write_add(code + 2 * i, (int)((i + round) % 2048));
        finish(code, bytes);
        long sum = 0, expected = 0;
        for (size_t i = 0; i < functions; i++) {
            sum = ((function)(code + 2 * i))(sum);
            expected += (i + round) % 2048;
        }
        check(sum == expected, "many places");
    }
}

static void mapped_twice(long page_bytes) {
    int file = memfd_create("code", 0);
    check(file >= 0 && ftruncate(file, page_bytes) == 0, "memfd");
    uint32_t *data = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    uint32_t *code = mmap(NULL, page_bytes, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0);
    check(data != MAP_FAILED && code != MAP_FAILED, "mmap");
    for (int n = 0; n < 1000; n++) {
        write_add(data, n);
        finish(code, 8);
        for (int call = 0; call < 20; call++)
            check(((function)code)(call) == call + n, "mapped twice");
    }
}

static void protected_in_turn(uint32_t *code, long page_bytes) {
    for (int n = 0; n < 300; n++) {
        check(mprotect(code, page_bytes, PROT_READ | PROT_WRITE) == 0, "mprotect");
        write_add(code, n);
        check(mprotect(code, page_bytes, PROT_READ | PROT_EXEC) == 0, "mprotect");
        finish(code, 8);
        for (int call = 0; call < 30; call++)
            check(((function)code)(call) == call + n, "protected in turn");
    }
}

int main(void) {
    long page_bytes = sysconf(_SC_PAGESIZE);
    size_t bytes = 32 * page_bytes;
    uint32_t *code =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(code != MAP_FAILED, "mmap");
    one_place(code);
    // Across the boundary of two pages.
    one_place((uint32_t *)((char *)code + page_bytes - 4));
    own_block(code + 64);
    many_places(code, bytes);
    mapped_twice(page_bytes);
    protected_in_turn(code, page_bytes);
    printf("written code: all as expected\n");
    return 0;
}
