/* Calls and returns. */
static unsigned long fib(unsigned long n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
volatile unsigned long result;
void run(void) { result = fib(38); }
