# Bare-metal start for the benchmark programs: floating point on, a stack, main, power off.
.globl _start
.section .text.start, "ax"
_start:
    li t0, 0x6000
    csrs mstatus, t0
    la sp, stack_top
    call run
    li t0, 0x100000
    li t1, 0x5555
    sw t1, 0(t0)
1:  j 1b
.bss
.align 4
.space 65536
stack_top:
